"""Tests of floor 3."""

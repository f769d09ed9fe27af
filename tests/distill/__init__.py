"""Tests of floor 4."""

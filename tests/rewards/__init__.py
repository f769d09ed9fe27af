"""Tests of floor 2, `rewards/`."""

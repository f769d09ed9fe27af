"""Tests of Isaac Lab's tasks as ours."""

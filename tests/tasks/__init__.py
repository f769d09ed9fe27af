"""Tests of floor 1: simulation and tasks."""

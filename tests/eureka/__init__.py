"""Tests of the search and everything around it."""

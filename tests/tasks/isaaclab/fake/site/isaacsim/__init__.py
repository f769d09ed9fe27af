"""Stand-in: Isaac Sim is found where this is importable."""

"""Stand-in for Isaac Lab's tasks."""

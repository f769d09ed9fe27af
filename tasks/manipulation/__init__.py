"""Tasks of arms: one task, one file."""

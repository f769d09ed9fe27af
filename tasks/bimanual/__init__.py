"""Tasks of two hands: one task, one file, and the modules that hold what they share."""

"""Floor 5: the reward search, its designers, its records and the command line."""

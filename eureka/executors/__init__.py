"""Where candidates train: local processes with device slots."""

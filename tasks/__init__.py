"""Floor 1: simulation and tasks. Imports nothing else of this project."""

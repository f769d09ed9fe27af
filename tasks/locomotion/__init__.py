"""Tasks of robots that run: an ant, a humanoid."""

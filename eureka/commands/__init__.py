"""The commands of `eureka`: one frozen dataclass each, whose fields are its options and whose `run` does the work."""

"""Stand-in for isaaclab.assets.articulation."""

"""Direct tasks."""

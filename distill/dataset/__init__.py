"""Datasets of demonstrations in the layout of LeRobotDataset v3.0: written, read, mixed, exported."""

"""Files that tests work on: a tiny task, a scripted designer."""

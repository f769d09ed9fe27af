"""Floor 4: experts of many bodies into one cross-embodiment action head, told by language what to do."""

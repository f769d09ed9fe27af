"""Floor 4: experts into one cross-embodiment action head. Empty until the first part of it is real."""

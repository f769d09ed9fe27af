"""Stand-in for the part of gymnasium that registers environments."""

REGISTERED = {}


def register(id, entry_point, disable_env_checker, kwargs):
    """Remember a registration."""
    REGISTERED[id] = (entry_point, kwargs)

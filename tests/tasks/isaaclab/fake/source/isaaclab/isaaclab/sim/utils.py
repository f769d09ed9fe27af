"""Stand-in for isaaclab.sim.utils."""

STAGES = []


def create_new_stage():
    """Remember that a stage was made."""
    STAGES.append(object())
    return STAGES[-1]

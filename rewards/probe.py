"""What confinement comes to on this system: a child confines itself and says which layers hold."""

import json
import subprocess
import sys

from rewards.confine import REQUIRE_VARIABLE, Confinement, Profile
from rewards.sandbox import SEARCH_PATH, START_TIMEOUT_S, TrialError, child_environment

_PROBE = f"""{SEARCH_PATH}
import json
from rewards.confine import REWARD_CHILD, WORKER, confine
found = confine(next(profile for profile in (REWARD_CHILD, WORKER) if profile.name == sys.argv[1]))
print(json.dumps([found.profile, dict(found.layers), sorted(found.doubled)]))
"""


def confinement_here(profile: Profile) -> Confinement:
    """What confinement comes to on this system, found out by a child that confines itself and does nothing else.

    Raises TrialError where the child does not start.
    """
    environment = {name: value for name, value in child_environment().items() if name != REQUIRE_VARIABLE}
    try:
        child = subprocess.run(
            [sys.executable, "-B", "-c", _PROBE, profile.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            start_new_session=True,
            timeout=START_TIMEOUT_S,
            check=True,
        )
        name, layers, doubled = json.loads(child.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise TrialError(f"the process that tries the confinement failed: {' '.join(str(error).split())}") from None
    return Confinement(name, layers, frozenset(doubled))

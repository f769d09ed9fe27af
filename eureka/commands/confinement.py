"""What the commands say and demand of the confinement of reward children and training workers."""

from __future__ import annotations

import os
from collections.abc import Callable

from rewards.confine import REQUIRE_VARIABLE, REWARD_CHILD, WORKER, Confinement, hide, missing_line
from rewards.probe import confinement_here
from tasks.errors import UserError


def confinements() -> list[Confinement]:
    """What each kind of process gets on this system. Raises UserError where that cannot be tried."""
    return [confinement_here(profile) for profile in (REWARD_CHILD, WORKER)]


def announce(say: Callable[[str], None], *, require: bool) -> None:
    """Say once what is missing here; with `require` refuse instead, and have every process refuse for itself.

    Where the files layer is missing this process, which holds the keys, hides from those that it starts.

    Raises:
        UserError: a layer is missing, or what there is cannot be tried.
    """
    here = confinements()
    lines = [line for found in here if (line := missing_line(found))]
    if require:
        if lines:
            raise UserError(f"--require-sandbox: {' '.join(lines)} See docs/security.md, or leave the option away.")
        os.environ[REQUIRE_VARIABLE] = "1"
    elif lines:
        if any("landlock files" in found.missing for found in here):
            hide()
        say(f"sandbox: {' '.join(lines)} What remains holds; docs/security.md says what each is for.")

"""Finds reward programs that people wrote: `<task>/human.py` and `<task>/sparse.py` here, or beside a user's
task.

The files are text to this module; nothing imports them.
"""

from pathlib import Path
from typing import Literal, get_args

from rewards.source import RewardSource
from tasks.errors import UserError, did_you_mean

Kind = Literal["human", "sparse", "zero"]

ZERO = '''"""No reward at all: what a policy does that learns nothing. Runs on any task."""

import torch
from torch import Tensor


def compute_reward(actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    zero = torch.zeros_like(actions[:, 0])
    return zero, {"zero": zero}
'''
SHARED = {
    "allegro-reorient": "cube_reorient",
    "shadow-reorient": "cube_reorient",
    "shadow-over": "cube_throw",
    "shadow-catch-underarm": "cube_throw",
    "ant-tour": "ant_command",
    "humanoid-tour": "humanoid_command",
    "quadcopter-tour": "quadcopter_command",
}
"""Tasks whose programs are one and the same -> the folder of those."""
_HERE = Path(__file__).resolve().parent


def load(task_name: str, kind: str, beside: Path | None = None) -> RewardSource:
    """The reward program of a kind for a task.

    Args:
        task_name: registered name, as in "ant-run".
        kind: "human", "sparse" or "zero".
        beside: the file of a user's own task; then `my_task_human.py` and `my_task_sparse.py` beside it are
            read.

    Raises:
        UserError: unknown kind, or no such file.
    """
    kinds = get_args(Kind)
    if kind not in kinds:
        raise UserError(
            f"there is no reward of kind '{kind}'; expected one of {', '.join(kinds)}.{did_you_mean(kind, kinds)}"
        )
    if kind == "zero":
        return RewardSource(ZERO, "library:zero")
    if beside is not None:
        path = beside.with_name(f"{beside.stem}_{kind}.py")
        if not path.is_file():
            raise UserError(
                f"task '{task_name}' has no {kind} reward: expected a reward program in {path}; write one there."
            )
        return RewardSource(_read(path), str(path))
    path = _HERE / SHARED.get(task_name, task_name.replace("-", "_")) / f"{kind}.py"
    if not path.is_file():
        own = {item.parent.name.replace("_", "-") for item in _HERE.glob(f"*/{kind}.py")}
        shared = {folder.replace("_", "-") for folder in SHARED.values()}
        known = sorted((own - shared) | set(SHARED))
        raise UserError(
            f"the library has no {kind} reward for task '{task_name}'; it has them for {', '.join(known)}."
            f"{did_you_mean(task_name, known)}"
        )
    return RewardSource(_read(path), f"library:{task_name}/{kind}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the reward program {path} cannot be read: {error}; save it as UTF-8 text."
        ) from error

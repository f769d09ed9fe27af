"""What the arguments of several commands mean: a run or checkpoint, settings as key=value."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eureka.named_reward import near_name
from eureka.search_config import CONFIG_FILE
from rl.checkpoint import latest
from tasks.errors import UserError


def existing_file(path: Path, what: str) -> Path:
    """`path`, if it is a file. Raises UserError with a near name in the same folder."""
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected a {what}.")
    raise UserError(f"there is no {what} {path}.{near_name(path)}")


def find_checkpoint(place: Path) -> Path:
    """The checkpoint meant by a .pt file, a run's folder (its newest) or a search's folder (its best).

    Raises:
        UserError: there is none; the line says what the place holds instead.
    """
    if place.is_file():
        if place.suffix != ".pt":
            raise UserError(
                f"{place} is no checkpoint; expected a model_*.pt file, or the folder of a run or a search."
            )
        return place
    if not place.is_dir():
        raise UserError(f"there is no run or checkpoint {place}.{near_name(place)}")
    best = [path for path in (place / "model.pt", place / "best" / "model.pt") if path.is_file()]
    damaged: list[str] = []
    found = latest(place, damaged.append) or (best[0] if best else None)
    if found is not None:
        for line in damaged:  # an older one is not taken in silence
            print(f"eureka: {line}", file=sys.stderr)
        return found
    if damaged:
        raise UserError(f"{damaged[0]} There is no other one.")
    if (place / CONFIG_FILE).is_file():
        raise UserError(
            f"the search in {place} has not kept a policy yet; finish it with eureka search --resume {place}."
        )
    if (place / "request.json").is_file():
        raise UserError(
            f"the run in {place} has saved no checkpoint yet; finish it with eureka train --resume {place}."
        )
    raise UserError(f"{place} holds no checkpoint; expected the folder of a run or a search.")


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """`["num_envs=256", "ppo.gamma=0.98"]` as `{"num_envs": 256, "ppo": {"gamma": 0.98}}`.

    Values are read as JSON (numbers, true, false, [64, 64]), else taken as text; "64,64" is a list. Names and values
    are checked where they are used. Raises UserError where a pair is none or a name is given twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {pair}: expected NAME=VALUE, as in --set ppo.gamma=0.98.")
        place = found
        *groups, last = name.strip().split(".")
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise UserError(f"--set {pair}: '{group}' has a value already.")
        if last in place:
            raise UserError(f"--set {pair}: '{name}' is given twice.")
        place[last] = _value(text.strip())
    return found


def with_settings(base: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Settings of `--set` with options that have a flag of their own (None: not given). UserError if both are given."""
    for name, value in options.items():
        if value is not None:
            if name in base:
                raise UserError(f"{name} is given twice, by --{name.replace('_', '-')} and by --set.")
            base = {**base, name: value}
    return base


def _value(text: str) -> Any:
    for attempt in (text, f"[{text}]" if "," in text else text):
        try:
            return json.loads(attempt)
        except json.JSONDecodeError:
            continue
    return text

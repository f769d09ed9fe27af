"""Finds the signals on a running environment: at the places that the source tells, and wherever else there is one.

A signal is a tensor whose first axis is the number of worlds, among the attributes of the environment that its source
as told has (`tasks.isaaclab.source`: not those of the reward), the data of the things in its scene, and its commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tasks.errors import UserError, did_you_mean
from tasks.isaaclab.found import FoundSignal
from tasks.isaaclab.quantities import DATA_CLASSES, MAX_DIMS, make_signal, signal_name, told
from tasks.signals import Signal

Reader = Callable[[], Tensor]
_KEPT_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bool, torch.int32, torch.int64, torch.uint8)


def readers(raw: Any, found: list[FoundSignal], own: dict[str, Reader]) -> list[tuple[Signal, Reader]]:
    """Signals and how to read them: (N, dims) float32 each.

    Args:
        raw: The environment; its buffers are filled, so it has been reset.
        found: What the source tells, in the order of the table; what is not there or not per world is passed over.
        own: Readers of the signals that are kept outside the environment.
    """
    num_envs = int(raw.num_envs)
    signals: dict[str, tuple[Signal, Reader]] = {}
    for one in [*found, *_further(raw, found)]:
        get = own.get(one.name) if one.place == "own" else _getter(raw, one)
        tensor = _attempt(get)
        if one.name in signals or get is None or tensor is None or not _per_world(tensor, num_envs):
            continue
        dims = tensor.numel() // num_envs
        signals[one.name] = (make_signal(one.name, dims, _doc(one, tensor), one.documented), _flat(get, num_envs, dims))
    return list(signals.values())


def read_entry(raw: Any, entry: str) -> Tensor:
    """A named figure of the environment, (N,): an attribute with a value a world or one for all, or a log entry.

    Raises:
        UserError: there is neither.
    """
    log = raw.extras.get("log", {}) if isinstance(raw.extras, dict) else {}
    held = getattr(raw, entry, None)
    value = held if isinstance(held, Tensor) else log.get(entry)  # the log has the mean of what the attribute has each
    if isinstance(value, int | float):
        value = torch.tensor(float(value), device=raw.device)
    if not isinstance(value, Tensor) or value.numel() not in (1, raw.num_envs):
        names = [*log, *(name for name, item in vars(raw).items() if isinstance(item, Tensor))]
        raise UserError(
            f"the fitness '{entry}' is neither an entry of the environment's log nor an attribute with one number a "
            f"world.{did_you_mean(entry, names)}"
        )
    return value.detach().to(torch.float32).reshape(-1).expand(raw.num_envs)


def _further(raw: Any, found: list[FoundSignal]) -> list[FoundSignal]:
    """Things of the scene and commands that the source does not tell of."""
    known = {id(thing) for one in found if one.place == "thing" and (thing := _thing(raw, one.path[0])) is not None}
    more: list[FoundSignal] = []
    scene = raw.scene
    for group in (scene.articulations, scene.rigid_objects, getattr(scene, "sensors", {})):
        for key, thing in group.items():
            kind = next((c.__name__ for c in type(thing).__mro__ if c.__name__ in DATA_CLASSES), None)
            if kind is None or id(thing) in known:
                continue
            for name in (name for name in dir(type(thing.data)) + list(vars(thing.data)) if told(kind, name)):
                more.append(
                    FoundSignal(signal_name(key, name), "thing", (key, name), "(N, ?)", f"{key}.data.{name}", name)
                )
    manager = getattr(raw, "command_manager", None)
    for name in manager.active_terms if manager is not None else ():
        doc = f"present command '{name}'"
        more.append(FoundSignal(signal_name("command", name), "command", (name,), "(N, ?)", doc))
    return more


def _getter(raw: Any, one: FoundSignal) -> Reader | None:
    if one.place == "command":
        manager = getattr(raw, "command_manager", None)
        return (lambda: manager.get_command(one.path[0])) if manager and one.path[0] in manager.active_terms else None
    if one.place == "attribute":
        return lambda: getattr(raw, one.path[0])
    thing = _thing(raw, one.path[0])
    return None if thing is None else lambda: getattr(thing.data, one.path[1])


def _thing(raw: Any, name: str) -> Any:
    """A thing of the scene by the attribute of the environment that holds it, or by its key in the scene."""
    held = getattr(raw, name, None)
    if hasattr(held, "data"):
        return held
    scene = raw.scene
    for group in (scene.articulations, scene.rigid_objects, getattr(scene, "sensors", {})):
        if name in group:
            return group[name]
    return None


def _attempt(get: Reader | None) -> Tensor | None:
    """What a reader gives; None where this environment does not have it (a switched off sensor, an optional buffer)."""
    if get is None:
        return None
    try:
        value = get()
    except (AttributeError, KeyError, NotImplementedError):
        return None
    return value if isinstance(value, Tensor) else None


def _per_world(tensor: Tensor, num_envs: int) -> bool:
    wide = tensor.numel() // num_envs
    return tensor.ndim >= 1 and tensor.shape[0] == num_envs and 1 <= wide <= MAX_DIMS and tensor.dtype in _KEPT_DTYPES


def _flat(get: Reader, num_envs: int, dims: int) -> Reader:
    return lambda: get().detach().reshape(num_envs, dims).to(torch.float32)


def _doc(one: FoundSignal, tensor: Tensor) -> str:
    shape = tuple(tensor.shape[1:])
    return f"{one.doc} {'x'.join(map(str, shape))}, row by row" if len(shape) > 1 else one.doc

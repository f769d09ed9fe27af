"""A head on the disk: head.pt (weights of the head and of its embedded encoder), head.json (all that rebuilds them).

Both are written whole, the meta last, with size and hash of the weights; weights are loaded with `weights_only`. A
head is rebuilt from the two files alone: sizes, embodiments by name with their scales, the seed that a later
embodiment's first weights come from, and the encoder. Of a vision-language model its source and layer are kept, not its
weights.

Knows nothing of optimisers: a training keeps its own state.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.action_head import ActionHead
from distill.config import config_to_json, encoder_from_json, head_from_json
from distill.embodiments import table_from_json, table_to_json
from distill.encoder import ScratchEncoder
from rl.record import read_json, write_atomic, write_json_atomic
from tasks.errors import UserError

SCHEMA = 1
WEIGHTS, META = "head.pt", "head.json"
_META_FIELDS = {"schema": int, "seed": int, "head": dict, "encoder": dict, "embodiments": list, "about": dict,
                "sha256": str, "size": int}  # fmt: skip


@dataclass(frozen=True)
class Backbone:
    """A vision-language model that encodes the context: where it is, and which layer is read."""

    source: str
    """Local folder, or name on the Hugging Face hub."""
    layer: int
    """Layer whose output are the tokens."""


@dataclass(frozen=True)
class StoredHead:
    """A head with what encodes its context."""

    head: ActionHead
    """The head."""
    encoder: ScratchEncoder | Backbone
    """The embedded encoder, or the name of a model."""
    about: Mapping[str, Any]
    """What else is to be known of it: plain data."""


def save_head(stored: StoredHead, folder: Path) -> Path:
    """Write a head into a folder, which is made, and return the path of its weights. Raises UserError if it cannot."""
    head, encoder = stored.head, stored.encoder
    state = {"head": head.state_dict()}
    if isinstance(encoder, ScratchEncoder):
        described = {"kind": "scratch", **config_to_json(encoder.config)}
        state["encoder"] = encoder.state_dict()
    else:
        described = {"kind": "transformers", "source": encoder.source, "layer": encoder.layer}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    meta = {
        "schema": SCHEMA,
        "seed": head.seed,
        "head": config_to_json(head.config),
        "encoder": described,
        "embodiments": table_to_json(head.table),
        "about": dict(stored.about),
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / WEIGHTS, data)
        write_json_atomic(folder / META, meta)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another folder.") from None
    return folder / WEIGHTS


def load_head(folder: Path) -> StoredHead:
    """The head in a folder, on the CPU, in evaluation mode.

    Raises UserError if a file is missing, damaged or from another version, or if the two disagree.
    """
    folder = Path(folder)
    meta = _read_meta(folder / META)
    state = _read_weights(folder / WEIGHTS, meta)
    head = ActionHead(head_from_json(meta["head"]), table_from_json(meta["embodiments"]), seed=meta["seed"])
    described = dict(meta["encoder"])
    kind = described.pop("kind", None)
    if kind == "transformers":
        if not isinstance(described.get("source"), str) or not isinstance(described.get("layer"), int):
            raise UserError(f"{folder / META}: encoder is {meta['encoder']!r}, expected a source and a layer.")
        encoder: ScratchEncoder | Backbone = Backbone(described["source"], described["layer"])
    elif kind == "scratch":
        encoder = ScratchEncoder(encoder_from_json(described))
    else:
        raise UserError(f"{folder / META}: encoder of kind {kind!r}, expected scratch or transformers.")
    try:
        head.load_state_dict(state["head"])
        if isinstance(encoder, ScratchEncoder):
            encoder.load_state_dict(state["encoder"])
            encoder.eval()
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{folder}: {WEIGHTS} and {META} disagree ({reason}).") from None
    return StoredHead(head.eval(), encoder, meta["about"])


def _read_meta(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path}: no such file; expected the folder of a distilled head.")
    meta = read_json(path)
    if not isinstance(meta, dict):
        raise UserError(f"{path}: expected an object with fields, got {type(meta).__name__}.")
    if meta.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema {meta.get('schema')!r} is not the supported {SCHEMA}: from another version.")
    for name, kind in _META_FIELDS.items():
        if not isinstance(meta.get(name), kind):
            raise UserError(f"{path}: field '{name}' is {str(meta.get(name))[:60]!r}, expected {kind.__name__}.")
    return meta


def _read_weights(path: Path, meta: Mapping[str, Any]) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if hashlib.sha256(data).hexdigest() != meta["sha256"]:
        raise UserError(
            f"{path}: damaged, its sha256 is not the one in {META} ({len(data)} bytes, {meta['size']} were written)."
        )
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: damaged, or no head of ours ({reason}).") from None
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds {type(state).__name__}, expected the weights of a head.")
    return state

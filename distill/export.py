"""One embodiment's part of a head as an ONNX file: the whole sampler, checked against torch.

    state (B, T, S), context (B, L, C), context_mask (B, L), state_mask (B, T), noise (B, H, A)  ->  actions (B, H, A)

B is free, all else fixed; states and actions are in the embodiment's units. There is no state_mask for an embodiment
without history (T = 1), and no noise for a regression head. The context is what the encoder makes of an instruction,
filled up to `context_tokens`: on a robot it is constant while the instruction is.

Knows nothing of encoders and tasks.

Axes as in `distill.action_head`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.action_head import ActionHead
from distill.batch import Observation
from rl.export import onnx_graph
from rl.record import write_atomic
from tasks.errors import UserError

TOLERANCE = 1e-5
"""Largest difference between ONNX Runtime and torch that is let pass, in normalised actions, which are of order 1."""
OUTPUT = "actions"
CHECKED = 16
"""Random samples of the comparison; the first is checked alone as well."""


class Sampler(nn.Module):
    """A head's sampler for one embodiment with tensors for arguments."""

    def __init__(self, head: ActionHead, name: str, steps: int) -> None:
        super().__init__()
        self.head, self.name, self.steps = head, name, steps
        with_history, with_noise = head.table[name].history > 1, head.config.objective == "flow"
        self.optional = ("state_mask",) * with_history + ("noise",) * with_noise
        """Names of the inputs behind the first three."""

    def forward(self, state: Tensor, context: Tensor, context_mask: Tensor, *optional: Tensor) -> Tensor:
        """Actions (B, H, A)."""
        more = dict(zip(self.optional, optional, strict=True))
        observation = Observation(state, context, context_mask, more.get("state_mask"))
        return self.head.sample(self.name, observation, noise=more.get("noise"), steps=self.steps)


def export_head(head: ActionHead, name: str, path: Path, steps: int | None = None) -> dict[str, Any]:
    """Export an embodiment's sampler and compare it with torch on random inputs, masks included.

    The file appears only if the comparison passes.

    Args:
        head: The head.
        name: The embodiment.
        path: The .onnx file; its folder is made.
        steps: Euler steps; None: the config's.

    Returns:
        path, embodiment, inputs (name -> shape of one sample), steps, bytes, samples_checked, and max_abs_diff of
        normalised actions.

    Raises:
        UserError: an unknown embodiment, ONNX Runtime and torch differ by more than 1e-5, or path cannot be written.
    """
    import onnx

    steps = head.config.sampling_steps if steps is None else steps
    training = head.training
    sampler = Sampler(head, name, steps).eval()
    try:
        examples = random_inputs(head, name, CHECKED)
        free = {key: {0: "B"} for key in examples}
        proto = onnx_graph(sampler, examples, OUTPUT, free)
        for key, text in _metadata(head, name, steps).items():
            proto.metadata_props.append(onnx.StringStringEntryProto(key=key, value=text))
        onnx.checker.check_model(proto)
        data = proto.SerializeToString()
        worst = max(difference(data, sampler, {key: value[:rows] for key, value in examples.items()})
                    for rows in (CHECKED, 1))  # fmt: skip
    finally:
        head.train(training)
    if not worst <= TOLERANCE:  # also when it is NaN
        raise UserError(
            f"ONNX Runtime and torch differ by {worst:.2g} on '{name}'; expected at most {TOLERANCE:g}. Nothing was "
            "written; try another version of onnxruntime."
        )
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another path.") from None
    return {
        "path": str(path),
        "embodiment": name,
        "inputs": {key: list(value.shape[1:]) for key, value in examples.items()},
        "steps": steps,
        "bytes": len(data),
        "samples_checked": CHECKED,
        "max_abs_diff": worst,
    }


def _metadata(head: ActionHead, name: str, steps: int) -> dict[str, str]:
    embodiment, objective = head.table[name], head.config.objective
    return {
        "embodiment": name,
        "control_rate_hz": f"{1.0 / embodiment.control_dt_s:g}",
        "objective": objective,
        "sampling_steps": str(1 if objective == "regression" else steps),
        "execute": str(embodiment.execute),
        "axes": json.dumps({"T": "history, the present last", "L": "context tokens"}),
    }


def random_inputs(head: ActionHead, name: str, size: int) -> dict[str, Tensor]:
    """Inputs of the exported graph: states as its data has them, contexts and histories of all lengths."""
    embodiment, config = head.table[name], head.config
    draw = torch.Generator().manual_seed(0)
    history, tokens = embodiment.history, config.context_tokens
    scale = head.state_scales[name]
    states = torch.randn(size, history, embodiment.state_size, generator=draw)
    past = torch.randint(1, history + 1, (size, 1), generator=draw)
    lengths = torch.randint(0, tokens + 1, (size, 1), generator=draw)
    inputs = {
        "state": scale.invert(states.to(scale.offset.device)).cpu(),
        "context": torch.randn(size, tokens, config.context_width, generator=draw),
        "context_mask": torch.arange(tokens) < lengths,
    }
    if history > 1:
        inputs["state_mask"] = torch.arange(history) >= history - past
    if config.objective == "flow":
        inputs["noise"] = torch.randn(size, embodiment.horizon, embodiment.action_size, generator=draw)
    return inputs


def difference(data: bytes, sampler: Sampler, inputs: dict[str, Tensor]) -> float:
    """Largest absolute difference of normalised actions between an ONNX model and torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    got = np.asarray(session.run([OUTPUT], {key: value.numpy() for key, value in inputs.items()})[0])
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        expected = sampler(*inputs.values())
    finally:
        torch.set_float32_matmul_precision(precision)
    if got.shape != tuple(expected.shape):
        raise UserError(f"the ONNX graph gives actions {got.shape}, torch {tuple(expected.shape)}.")
    scale = sampler.head.action_scales[sampler.name].scale.numpy()
    return float((np.abs(got - expected.numpy()) / scale).max())

"""Experts of the masses on rails as ONNX files, each a matrix, and a distillation of them that takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from distill.experts import load_onnx_expert
from distill.train_config import DistillConfig, distill_config
from distill.train_request import DistillRequest, expert_files, write_request
from tests.distill.students import COMMANDS
from tests.eureka.command_line import ROOT, SLIDER

PAIR = str(ROOT / "tests" / "data" / "pair.py")
GAINS = {
    SLIDER: [[-2.0], [-1.5]],
    COMMANDS: [[0.0], [-2.0], [2.0]],
    PAIR: [[-2.0, 0.0], [0.0, -2.0], [-1.5, 0.0], [0.0, -1.5]],
}
"""Task -> (O, A): actions = observation @ gains, as tests.distill.students has them in words."""
TINY = {
    "batch_size": 64,
    "steps": 400,
    "clone_share": 0.2,
    "rounds": 4,
    "episodes": 12,
    "round_episodes": 6,
    "learning_rate": 2e-3,
    "action_normalization": "min_max",
    "ema_decay": 0.98,
    "threads": 1,
    "save_steps": 100,
    "body": {"horizon": 4, "execute": 2},
}


def linear_onnx(path: Path, gains: list[list[float]], inputs: int = 1) -> Path:
    """A file with a network that multiplies its (first) input by gains (O, A)."""
    weights = np.asarray(gains, dtype=np.float32)
    names = ["observation", *(f"other{number}" for number in range(1, inputs))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["observation", "gains"], ["actions"])],
        "linear",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", weights.shape[0]]) for name in names],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["N", weights.shape[1]])],
        [numpy_helper.from_array(weights, "gains")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


def teacher(folder: Path, task: str) -> Path:
    """The ONNX file of a task's expert."""
    folder.mkdir(parents=True, exist_ok=True)
    return linear_onnx(folder / f"{Path(task).stem}.onnx", GAINS[task])


def tiny_config(**changes) -> DistillConfig:
    """Seconds of training; a toy head without the slack of the presets."""
    head = {"horizon": 4, "objective": "regression"}
    return distill_config("toy", {**TINY, "head": head, **changes})


def ask(folder: Path, tasks: tuple[str, ...], config: DistillConfig | None = None, **options) -> Path:
    """Write the request of a distillation of some tasks into a folder."""
    experts = [load_onnx_expert(task, teacher(folder.parent / "experts", task)) for task in tasks]
    write_request(DistillRequest(expert_files(experts), config or tiny_config(), **options), folder)
    return folder

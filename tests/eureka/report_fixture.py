"""A small search as the report meets it: three generations of four candidates, written through the real archive."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np

from eureka.archive import Archive, Run
from eureka.candidate import Candidate, Status
from eureka.designers.base import Ask, DesignContext, Message, Reply
from rl.record import write_json_atomic
from tasks.signals import Signal, SignalTable

HOSTILE = "</script><img src=x onerror=\"document.title='pwned'\">"
SIGNALS = SignalTable([Signal("actions", 8, "1", "joint", "action", "the last action")])
INSTRUCTION = "make the ant run forward as fast as possible"
SYSTEM = "You write reward functions for robots.\n" + "The signals are listed below. <b>Only these.</b>\n" * 20

PARENT = '''"""Runs forward and stays upright."""
import torch

FORWARD_SCALE = 0.5  # per m/s


def compute_reward(torso_velocity_w, up_axis_w, actions):
    forward = FORWARD_SCALE * torso_velocity_w[:, 0]
    upright = torch.exp(-4.0 * (1.0 - up_axis_w[:, 2]))
    effort = -0.05 * (actions**2).sum(dim=-1)
    total = forward + upright + effort
    return total, {"forward_velocity": forward, "upright_exp": upright, "action_l2": effort}
'''
CHILD = PARENT.replace("FORWARD_SCALE = 0.5", "FORWARD_SCALE = 1.5").replace(
    "    total = forward + upright + effort\n",
    "    sideways = -0.2 * torso_velocity_w[:, 1].abs()\n    total = forward + 0.5 * upright + effort + sideways\n",
).replace('"action_l2": effort}', '"action_l2": effort, "sideways_l1": sideways}')  # fmt: skip
GRANDCHILD = CHILD.replace("-0.05 * (actions", "-0.02 * (actions").replace("0.5 * upright", "0.3 * upright")
HOSTILE_PROGRAM = CHILD.replace('"""Runs forward and stays upright."""', f"# {HOSTILE}").replace(
    "sideways_l1", HOSTILE[:12]
)
BROKEN = PARENT.replace("torso_velocity_w", "torso_velocity")

GATE_ERROR = """Refused: the program breaks the rules of reward programs. 2 problems:

1. line 7, unknown_signal: 'torso_velocity' is no signal of this task
    6 |
    7 > def compute_reward(torso_velocity, up_axis_w, actions):
   do:   Did you mean 'torso_velocity_w'?

2. line 8, unknown_name: <b>torso_velocity</b>"""

# id -> (parent, status, source, fitness, spread over episodes)
PLAN: dict[str, tuple[str | None, Status, str | None, float | None, float | None]] = {
    "g01_c00": (None, Status.TRAINED, PARENT, 1.2134, 0.21),
    "g01_c01": (None, Status.REFUSED, BROKEN, None, None),
    "g01_c02": (None, Status.TRAINED, PARENT.replace("-4.0", "-2.0"), 0.4467, 0.31),
    "g01_c03": (None, Status.TRAINED, PARENT.replace("-0.05", "-0.5"), 0.0312, 0.04),
    "g02_c00": ("g01_c00", Status.TRAINED, CHILD, 1.8446, 0.27),
    "g02_c01": ("g01_c00", Status.FAILED, PARENT.replace("torch.exp(-4.0", "torch.log(-4.0"), None, None),
    "g02_c02": ("g01_c00", Status.TRAINED, PARENT.replace("0.5  #", "0.9  #"), math.nan, math.nan),
    "g02_c03": ("g01_c00", Status.TRAINED, GRANDCHILD, 2.3128, 0.19),
    "g03_c00": ("g02_c03", Status.TRAINED, GRANDCHILD.replace("0.3", "0.1"), 2.1873, 0.24),
    "g03_c01": ("g02_c03", Status.NO_REPLY, None, None, None),
    "g03_c02": ("g02_c03", Status.TRAINED, HOSTILE_PROGRAM, 1.6031, 0.42),
    "g03_c03": ("g02_c03", Status.FAILED, GRANDCHILD.replace("-0.02", "-0.01"), None, None),
}
FINALS = {
    "final": (2.2871, 2.4019, 2.2213),
    "human": (1.9104, 1.7788, 2.0342),
    "sparse": (0.7025, 0.9187, 0.4013),
}
ERRORS = {
    "g01_c01": ("check", GATE_ERROR),
    "g02_c01": ("nonfinite_reward", "nonfinite_reward: component 'upright_exp' became NaN at iteration 23"),
    "g03_c01": ("extract", "the endpoint answered 500 six times; last: upstream <em>timeout</em>"),
    "g03_c03": ("time_limit", "time_limit: the training was ended after 120 s, at iteration 31 of 60"),
}


ERROR_TYPES = {"nonfinite_reward": "NonfiniteReward", "time_limit": "TimeLimit"}
LINES = {"g02_c01": 9}


def write_search(
    folder: Path, *, generations: int = 3, finals: bool = True, video: bool = True, done: bool = True
) -> Path:
    """The whole search, or its first generations; returns the folder."""
    folder.mkdir(parents=True)
    write_json_atomic(folder / "search.json", search_config())
    archive = Archive(folder / "search.db")
    archive.set_meta("designer", "openai")
    archive.set_meta("instruction", INSTRUCTION)
    archive.set_meta("fitness_unit", "m/s")
    archive.set_meta("state", "finished" if done else "running")
    archive.add_event("started", "designer openai")
    for name in PLAN:
        if int(name[1:3]) <= generations:
            add_candidate(archive, folder, name)
    if finals:
        for role, values in FINALS.items():
            for number, value in enumerate(values):
                add_final(archive, folder, role, 1000 + number, value)
    if video:
        (folder / "best").mkdir()
        write_video(folder / "best" / "video.mp4")
        write_json_atomic(folder / "best" / "best.json", {"run_id": "final_s1001", "fitness": FINALS["final"][1]})
    archive.close()
    if done:
        write_json_atomic(folder / "done", {"best": "g02_c03"})
    return folder


def search_config() -> dict[str, Any]:
    """search.json as a search writes it."""
    train = {"num_envs": 512, "steps_per_env": 16, "iterations": 60}
    designer = {"designer": "openai", "model": "gpt-5", "temperature": None, "max_tokens_total": 400_000}
    return {
        "schema": 1, "task": "ant-run", "samples": 4, "generations": 3, "repairs": 2, "seed": 7,
        "seeds_per_candidate": 1, "final_seeds": 3, "train": train, "time_limit_s": 600.0, "threads": 1,
        "video": True, "designer": designer,
    }  # fmt: skip


def add_candidate(archive: Archive, folder: Path, name: str) -> None:
    """One candidate of the plan with its conversation, its training and its result."""
    parent, status, source, fitness, spread = PLAN[name]
    generation, index = int(name[1:3]), int(name[5:7])
    repairs = {"g01_c01": 2, "g02_c00": 1}.get(name, 0)
    for attempt in range(repairs + 1):
        add_conversation(archive, name, generation, attempt, source if status is not Status.NO_REPLY else None)
    result = None
    if status in (Status.TRAINED, Status.FAILED):
        result = write_training(folder / "candidates" / name / "s7", name, index, fitness, spread)
        archive.put_run(
            Run(
                f"{name}_s7",
                name,
                "candidate",
                7,
                f"candidates/{name}/s7",
                result["status"],
                fitness,
                spread,
                result,
            )
        )
    stage, error = ERRORS.get(name, ("ok", None))
    archive.put_candidate(
        Candidate(
            candidate_id=name,
            generation=generation,
            index=index,
            parent_id=parent,
            status=status,
            source=source,
            stage=stage,
            error=error,
            fitness=fitness,
            fitness_std=spread,
            result=result,
            reflection=f"forward_velocity rose to its end; keep it.\nfitness: {fitness}" if result else None,
            repairs=repairs,
        )
    )


def add_conversation(archive: Archive, name: str, generation: int, attempt: int, source: str | None) -> None:
    """An ask and its reply; a reply without a program is a server error."""
    messages = (
        Message("system", SYSTEM),
        Message("user", f"Write a reward for ant-run ({name}, attempt {attempt})."),
    )
    context = DesignContext("ant-run", INSTRUCTION, SIGNALS, generation=generation)
    archive.add_asks([Ask(f"{name}_r{attempt}", name, attempt, messages, context)])
    if source is None:
        reply = Reply(f"{name}_r{attempt}", None, "server", "gpt-5-2025-08-07", error="HTTP 500 after 6 tries")
    else:
        text = f"Here is the reward & why.\n```python\n{source}```\n"
        reply = Reply(f"{name}_r{attempt}", text, "ok", "gpt-5-2025-08-07", 3100 + 17 * attempt, 640, 0.0103, 21.4)
    archive.add_reply(reply)


def write_training(place: Path, name: str, index: int, fitness: float | None, spread: float | None) -> dict[str, Any]:
    """metrics.jsonl and result.json of one training; the failed one's components end in NaN."""
    place.mkdir(parents=True)
    failed = fitness is None
    status = ERRORS[name][0] if failed else "ok"
    top = 0.3 if fitness is None or math.isnan(fitness) else fitness
    names = ["forward_velocity", "upright_exp", "action_l2"]
    if name == "g03_c02":
        names.append(HOSTILE)
    noise = np.random.default_rng(int(name[1:3]) * 10 + index)
    with (place / "metrics.jsonl").open("w") as file:
        for iteration in range(1, (31 if failed else 60) + 1):
            rise = 1.0 - math.exp(-iteration / 18.0)
            bad = status == "nonfinite_reward" and iteration > 22
            components = {}
            for position, component in enumerate(names):
                mean = (top * rise, 0.9 * rise, -0.4 * rise, 0.2)[position] + 0.04 * noise.standard_normal()
                mean = "nan" if bad and position == 1 else mean
                low = mean if isinstance(mean, str) else mean - 0.3
                high = mean if isinstance(mean, str) else mean + 0.2
                components[component] = {
                    "mean": mean,
                    "min": low,
                    "max": high,
                    "nonfinite": 3 if mean == "nan" else 0,
                }
            line = {
                "iteration": iteration, "env_steps": iteration * 8192, "wall_s": iteration * 0.7,
                "fitness": None if iteration < 3 else top * rise + 0.05 * noise.standard_normal(),
                "episode_length_s": 3.0 + 5.0 * rise, "reward_mean": "nan" if bad else top * rise,
                "components": components, "terminations": {"fell": 4}, "truncations": 1, "diverged": 0,
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")
        file.write('{"iteration": 99, "torn')
    error = None
    if failed:
        message = ERRORS[name][1].split(": ", 1)[1]
        error = {"type": ERROR_TYPES[status], "message": message, "line": LINES.get(name)}
    result = {
        "schema": 1, "run_id": f"{name}_s7", "candidate_id": name, "status": status,
        "error": error,
        "fitness": fitness, "fitness_std": spread, "fitness_unit": "m/s",
        "eval": None if failed else {"episodes": 64, "episode_length_s": 8.25 - index, "seed": 700001},
        "wall_s": 42.5 + index, "iterations": 60, "checkpoint": None, "video": None,
    }  # fmt: skip
    write_json_atomic(place / "result.json", result)
    return json.loads((place / "result.json").read_text())


def add_final(archive: Archive, folder: Path, role: str, seed: int, fitness: float) -> None:
    """One run of the final comparison."""
    result = {"status": "ok", "fitness": fitness, "wall_s": 44.0, "eval": {"episode_length_s": 9.5}}
    run_id = f"{role}_s{seed}"
    candidate = "g02_c03" if role == "final" else None
    archive.put_run(Run(run_id, candidate, role, seed, f"final/{run_id}", "ok", fitness, 0.2, result))


def write_video(path: Path) -> None:
    """Two seconds of a ball that crosses the picture."""
    rows, columns = np.mgrid[0:240, 0:320]
    with imageio.get_writer(path, fps=25, macro_block_size=None) as writer:
        for frame in range(50):
            picture = np.full((240, 320, 3), (208, 222, 236), np.uint8)
            picture[rows > 180] = (120, 130, 120)
            picture[(rows - 160) ** 2 + (columns - 20 - 5 * frame) ** 2 < 400] = (190, 80, 30)
            writer.append_data(picture)  # type: ignore[attr-defined]

"""`eureka doctor`: what works on this machine: green, yellow (goes without), red (must be mended), with the way out."""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import tyro
from rich.console import Console

from tasks.errors import UserError

Level = Literal["good", "without", "broken"]
_MARKS = {"good": ("ok", "green"), "without": ("--", "yellow"), "broken": ("no", "red")}
_PACKAGES = ("torch", "mujoco", "rsl-rl-lib", "tensordict", "numpy", "openai", "jinja2", "tensorboard", "tyro", "rich",
             "imageio", "imageio-ffmpeg", "onnx", "onnxscript", "onnxruntime")  # fmt: skip
_LEAST_MUJOCO, _BAD_MUJOCO = (3, 17), "4.0.0"
NOT_SOUND = 3
_CONNECT_S = 3.0
_TRIED_TASK = "cartpole-balance"


@dataclass(frozen=True)
class Finding:
    """One line."""

    level: Level
    subject: str
    text: str


@dataclass(frozen=True)
class Doctor:
    """Try what this machine can do: packages, physics, the reward gate, the sandbox, threads, GPU, renderers, video,
    the LLM's endpoint, the folder for runs. Exit code 1 if something essential is broken. No key is printed.

    With --run, look through the folder of a search instead: what is damaged, and what to do. Nothing is changed. Exit
    code 3 if something is wrong."""

    run_dir: Annotated[Path | None, tyro.conf.arg(name="run", metavar="SEARCH_FOLDER")] = None
    """Folder of a search to look through."""
    json: bool = False
    """Print what was found as JSON; with --run."""

    def run(self) -> int:
        """Try everything, one line each."""
        if self.run_dir is not None:
            return _examine_run(self.run_dir, self.json)
        if self.json:
            raise UserError("--json goes with --run SEARCH_FOLDER.")
        console = Console(highlight=False, soft_wrap=True)
        broken = 0
        for check in _CHECKS:
            for finding in _tried(check):
                mark, colour = _MARKS[finding.level]
                console.print(f"[{colour}]{mark}[/]  {finding.subject:<10}", end=" ")
                console.print(finding.text, markup=False)
                broken += finding.level == "broken"
        console.print(f"\n{broken} essential things are broken" if broken else "\neverything essential works")
        return 1 if broken else 0


def _examine_run(folder: Path, as_json: bool) -> int:
    from eureka.integrity import examine
    from eureka.search_config import in_use

    faults, running = examine(folder), in_use(folder)
    if as_json:
        found = [{"place": fault.place, "what": fault.what, "way_out": fault.way_out} for fault in faults]
        print(json.dumps({"folder": str(folder), "sound": not faults, "running": running, "faults": found}, indent=1))
    else:
        if running:
            print(f"a search is running in {folder}; what it writes just now may look unfinished")
        for fault in faults:
            print(" ".join(str(fault).split()))
        print(f"{folder}: {len(faults)} faults" if faults else f"{folder} is sound")
    return NOT_SOUND if faults else 0


def _tried(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check's findings; one that fails in an unforeseen way is a finding too."""
    try:
        yield from check()
    except Exception as error:
        text = " ".join(str(error).split())
        yield Finding("broken", check.__name__.strip("_"), f"{type(error).__name__}: {text}")


def _python() -> Iterator[Finding]:
    text = f"{platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}"
    yield Finding("good", "python", text)


def _packages() -> Iterator[Finding]:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding("broken", "packages", f"missing: {', '.join(missing)}; pip install {' '.join(missing)}")
    yield Finding("good", "packages", ", ".join(found))
    mujoco = version("mujoco") if "mujoco" not in missing else ""
    if mujoco and (mujoco == _BAD_MUJOCO or tuple(map(int, mujoco.split(".")[:2])) < _LEAST_MUJOCO):
        wanted = f"mujoco>={_LEAST_MUJOCO[0]}.{_LEAST_MUJOCO[1]},!={_BAD_MUJOCO}"
        yield Finding("broken", "mujoco", f"{mujoco} does not serve; pip install '{wanted}'")


def _physics() -> Iterator[Finding]:
    import torch

    from tasks import registry
    from tasks.env import make_env

    env = make_env(registry.make(_TRIED_TASK), 256)
    actions = torch.zeros(256, env.num_actions)
    began, steps = time.monotonic(), 0
    while time.monotonic() - began < 0.3:
        env.step(actions)
        steps += 256
    env.close()
    yield Finding("good", "physics", f"{_TRIED_TASK}: {steps / (time.monotonic() - began):,.0f} steps/s in 256 worlds")


def _gate() -> Iterator[Finding]:
    from eureka.named_reward import judge
    from rewards.library.library import load
    from tasks import registry

    task = registry.make(_TRIED_TASK)
    verdict = judge(task, load(task.name, "human").text, origin="doctor")
    if verdict.accepted:
        yield Finding(
            "good",
            "gate",
            f"a reward program was tried in its child process ({verdict.time_per_call_s or 0:.1e} s a call)",
        )
    else:
        yield Finding("broken", "gate", " ".join(verdict.explain().split()))


def _sandbox() -> Iterator[Finding]:
    from eureka.commands.confinement import confinements
    from rewards.confine import ACTIVE, missing_line

    for found in confinements():
        active = [name for name, state in found.layers.items() if state == ACTIVE]
        line = missing_line(found)
        text = f"{found.profile}: {', '.join(active)}"
        yield Finding("without" if line else "good", "sandbox", f"{text}; {line}" if line else text)


def _threads() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{cores} cores for this process of {os.cpu_count()}; torch uses {torch.get_num_threads()} threads"
    yield Finding("good", "cpu", f"{text}; a search runs {cores} trainings of one thread at a time")


def _gpu() -> Iterator[Finding]:
    from eureka.commands.gpu_check import gpu_facts, gpu_findings

    yield from (Finding(*line) for line in gpu_findings(gpu_facts()))


def _renderers() -> Iterator[Finding]:
    from rl.render import candidates, no_renderer_line, try_renderer

    working = []
    for name in candidates():
        problem = try_renderer(name)
        if problem is None:
            working.append(name)
        yield Finding(
            "good" if problem is None else "without", name, "draws" if problem is None else f"does not draw ({problem})"
        )
    if working:
        yield Finding("good", "video", f"drawn with {working[0]}")
    else:
        yield Finding("without", "video", no_renderer_line())


def _ffmpeg() -> Iterator[Finding]:
    try:
        import imageio_ffmpeg

        yield Finding("good", "ffmpeg", f"{imageio_ffmpeg.get_ffmpeg_version()} at {imageio_ffmpeg.get_ffmpeg_exe()}")
    except (ImportError, RuntimeError) as error:
        text = " ".join(str(error).split())
        yield Finding("without", "ffmpeg", f"{text}; videos need it: pip install 'imageio[ffmpeg]'")


def _endpoint() -> Iterator[Finding]:
    from eureka.designers.base import DesignerConfig
    from eureka.designers.key import api_key
    from eureka.designers.openai import DEFAULT_BASE_URL, OpenAIDesigner

    key = bool(api_key())
    model = os.environ.get("OPENAI_MODEL", "").strip()
    url = os.environ.get("OPENAI_BASE_URL", "").strip() or DEFAULT_BASE_URL
    place = urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()
    if not key:
        text = "OPENAI_API_KEY is not set: rewards are written by evolution, without an LLM"
        yield Finding("without", "llm", f"{text}; set it, or use --designer manual with any chat window")
        return
    problem = _unreachable(url)
    if problem is not None:
        yield Finding("without", "llm", f"{place}: {problem}; set OPENAI_BASE_URL to an endpoint that answers")
    elif not model:
        yield Finding(
            "good", "llm", f"OPENAI_API_KEY is set, {place} is reachable; name a model with --model or OPENAI_MODEL"
        )
    else:
        try:
            OpenAIDesigner(DesignerConfig(designer="openai", retries=0)).check()
            yield Finding("good", "llm", f"{place} takes the key and knows {model}")
        except UserError as error:
            yield Finding("without", "llm", str(error))


def _unreachable(url: str) -> str | None:
    """Why no connection to a URL's host can be made; None where it can, or where a proxy stands between."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        return str(error)
    if not host or parts.scheme not in ("http", "https"):
        return "expected http://HOST/v1 or https://HOST/v1"
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return None
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except OSError as error:
        return f"cannot be reached ({error.strerror or error})"
    return None


def _ray() -> Iterator[Finding]:
    from eureka.executors.ray_cluster import ADDRESS_VARIABLE, INSTALL

    try:
        found = version("ray")
    except PackageNotFoundError:
        yield Finding("without", "ray", f"not installed; --executor ray needs it: {INSTALL}")
        return
    address = os.environ.get(ADDRESS_VARIABLE)
    where = f"the cluster at {address}" if address else f"a cluster here; set {ADDRESS_VARIABLE} for an existing one"
    yield Finding("good", "ray", f"{found}; --executor ray trains on {where}")


def _isaaclab() -> Iterator[Finding]:
    from tasks.isaaclab.launch import missing
    from tasks.isaaclab.names import registrations
    from tasks.isaaclab.package import INSTALL, find_source

    try:
        source = find_source()
    except UserError as error:
        yield Finding("without", "isaaclab", str(error))
        return
    gone, count = missing(), len(registrations(source))
    text = f"the source of {count} tasks is here: eureka show isaaclab:NAME works"
    if gone:
        yield Finding("without", "isaaclab", f"{text}; training them needs {' and '.join(gone)}: {INSTALL}")
    else:
        yield Finding("good", "isaaclab", f"{text}; Isaac Sim is installed, so eureka train isaaclab:NAME can try")


def _folder() -> Iterator[Finding]:
    folder = Path("runs")
    existing = folder if folder.is_dir() else Path(".")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        yield Finding("good", "runs", f"{folder.resolve()} can be written")
    except OSError as error:
        text = f"{existing.resolve()} cannot be written ({error.strerror})"
        yield Finding("broken", "runs", f"{text}; work in another folder, or name one with --out")


_CHECKS = (
    _python, _packages, _physics, _gate, _sandbox, _threads, _gpu, _renderers, _ffmpeg, _endpoint, _ray, _isaaclab,
    _folder,
)  # fmt: skip

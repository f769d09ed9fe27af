"""Pictures of MuJoCo states, drawn in child processes so that ours never holds a GL context.

MuJoCo draws through EGL, OSMesa or GLFW, chosen by MUJOCO_GL before it is imported. Which of them works is found by
drawing: a machine can have libEGL and no working EGL, and a broken driver can end its process. Each child is a fresh
interpreter with its own MUJOCO_GL. This file imports neither torch nor mujoco at the top, so that a child starts fast.

Without any renderer there is no picture, one line that says what to install, and no failure.
Axes: F frames.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import types
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

RENDERERS = ("egl", "osmesa", "glfw") if sys.platform == "linux" else ("glfw",)
"""In the order they are tried: fastest first."""
INSTALL = "apt-get install libosmesa6 (any machine), or apt-get install libegl1 (with a GPU driver)"
PROBE_TIMEOUT_S = 30.0
FRAME_TIMEOUT_S = 5.0  # of one frame, with much to spare: 0.1 s is usual in software
_OFF = ("off", "disable", "disabled", "false", "no", "0")
_ON = ("on", "enable", "enabled", "true", "yes", "1")  # MuJoCo's words for GLFW
_SHADOW_MAP = 1024  # in software half the time of 2048 texels, and no visible difference at 320 x 240

_PROBE_XML = """<mujoco><worldbody><light pos="0 0 3"/><geom type="plane" size="2 2 .1" rgba=".2 .4 .8 1"/>
<geom type="box" pos="0 0 .3" size=".3 .3 .3" rgba="1 .4 .1 1"/></worldbody></mujoco>"""


class RenderError(Exception):
    """A child could not draw. The message is one line."""


@dataclass(frozen=True)
class Reel:
    """States to draw, as plain data that travels to a child."""

    model: bytes
    """The compiled model (MuJoCo's binary format, same version on both sides)."""
    qpos: np.ndarray
    """(F, nq) float64."""
    camera: str | None
    """Camera of the model; None follows the first free body, or takes the free camera where there is none."""
    width: int
    """Pixels, even."""
    height: int
    """Pixels, even."""
    fps: float
    """Frames per second of the video."""
    hold: int = 0
    """How often the last frame is shown again."""


def probe_renderer() -> str | None:
    """The first of EGL, OSMesa, GLFW that really draws here, or None. Only MUJOCO_GL where the user set it.

    The answer is kept for this process; one that names a renderer also in a small file in the user's cache folder
    until the next boot. Nothing found is never kept in the file, so that an installation helps at once.
    """
    return _probe(_environment_key())


def forget_renderer() -> None:
    """Drop what `probe_renderer` remembers, in this process and in the file."""
    _probe.cache_clear()
    with contextlib.suppress(OSError):
        _cache_file().unlink()


def candidates() -> tuple[str, ...]:
    """The renderers that may be tried: all, or the one that MUJOCO_GL names; none where it says "off"."""
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted in _OFF:
        return ()
    if wanted in _ON:
        return ("glfw",)
    return (wanted,) if wanted else RENDERERS


def try_renderer(renderer: str) -> str | None:
    """Draw one picture with a renderer in a child process. Returns None if that works, else why not, in one line."""
    try:
        in_child(_draw_probe, (renderer,), PROBE_TIMEOUT_S)
    except RenderError as error:
        return str(error)
    return None


def no_renderer_line() -> str:
    """What to tell a person where nothing can draw."""
    wanted = os.environ.get("MUJOCO_GL", "").strip()
    if wanted.lower() in _OFF:
        return f"no video: MUJOCO_GL={wanted} turns drawing off; unset it."
    if wanted:
        return f"no video: MUJOCO_GL={wanted} does not draw here; unset it, or {INSTALL}."
    return f"no video: nothing can draw here; {INSTALL}."


def encode(reel: Reel, renderer: str, path: Path) -> None:
    """Draw a reel and write it to `path` as H.264 (mp4, yuv420p). Raises RenderError."""
    in_child(_encode, (reel, renderer, str(path)), PROBE_TIMEOUT_S + FRAME_TIMEOUT_S * len(reel.qpos))


def dump_frames(reel: Reel, renderer: str, folder: Path) -> None:
    """Draw a reel and write its frames to `folder`/frame_0000.png, ... Raises RenderError."""
    in_child(_dump_frames, (reel, renderer, str(folder)), PROBE_TIMEOUT_S + FRAME_TIMEOUT_S * len(reel.qpos))


def in_child(work: Callable[..., Any], arguments: tuple[Any, ...], timeout_s: float) -> Any:
    """Call `work` (a function of this file, or of one as light) in a fresh interpreter and return what it returns.

    Raises:
        RenderError: it raised, died or took longer than timeout_s.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(work, arguments, theirs), daemon=True)
    with without_main():
        process.start()
    theirs.close()
    try:
        if not ours.poll(timeout_s):
            raise RenderError(f"nothing came within {timeout_s:.0f} s")
        good, value = ours.recv()
    except (EOFError, ConnectionError):
        process.join(5.0)
        raise RenderError(f"the process that draws died (exit code {process.exitcode})") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if not good:
        raise RenderError(value)
    return value


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Hide the main module: a spawned child would import it again, which runs unguarded scripts and costs seconds."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@functools.cache
def _probe(key: str) -> str | None:
    kept = _read_cache(key)
    if kept is not None:
        return kept
    found = next((renderer for renderer in candidates() if try_renderer(renderer) is None), None)
    if found is not None:
        _write_cache(key, found)
    return found


def _environment_key() -> str:
    """All that decides which renderer works, as far as it can be asked for cheaply."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    facts = [
        boot.read_text().strip() if boot.is_file() else "",
        version("mujoco"),
        *(os.environ.get(name, "") for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_EGL_DEVICE_ID")),
    ]
    return "|".join(facts)


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "eureka-skills" / "renderer.json"


def _read_cache(key: str) -> str | None:
    try:
        kept = json.loads(_cache_file().read_text(encoding="utf-8"))
        return kept["renderer"] if kept["key"] == key and kept["renderer"] in candidates() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none yet, or damaged: it is only a shortcut


def _write_cache(key: str, renderer: str) -> None:
    path = _cache_file()
    with contextlib.suppress(OSError, RuntimeError):  # a home that cannot be written costs a probe each time
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(json.dumps({"key": key, "renderer": renderer}), encoding="utf-8")
        part.replace(path)


# -- in the child


def _child(work: Callable[..., Any], arguments: tuple[Any, ...], pipe: Connection) -> None:
    """Entry point of every child: the outcome goes through the pipe, chatter of drivers nowhere."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        pipe.send((True, work(*arguments)))
    except BaseException as error:
        text = " ".join(str(error).split()) or "no reason given"
        pipe.send((False, f"{type(error).__name__}: {text[:200]}"))
    pipe.close()
    os._exit(0)  # drivers are known to crash when a context is taken down at exit


def _mujoco_with(renderer: str) -> Any:
    """Import MuJoCo with a renderer chosen; only in a process that has not imported it yet, or for this renderer."""
    if "mujoco" in sys.modules:
        assert os.environ["MUJOCO_GL"] == renderer, "MUJOCO_GL is read when mujoco is imported"
    else:
        os.environ["MUJOCO_GL"] = renderer
        os.environ.pop("PYOPENGL_PLATFORM", None)  # MuJoCo sets it to match, and refuses another one
    import mujoco

    return mujoco


def _draw_probe(renderer: str) -> None:
    mujoco = _mujoco_with(renderer)
    model = mujoco.MjModel.from_xml_string(_PROBE_XML)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 48, 64) as drawing:
        drawing.update_scene(data)
        picture = drawing.render()
        if len(np.unique(picture.reshape(-1, 3), axis=0)) < 8:
            raise RuntimeError("the picture is empty")


def pictures(reel: Reel, renderer: str) -> Iterator[np.ndarray]:
    """The pictures (height, width, 3) uint8 of a reel, one by one. For a child; several may be drawn in turn."""
    mujoco, model, data = open_scene(reel.model, reel.width, reel.height, renderer)
    camera = _camera(mujoco, model, data, reel)
    with mujoco.Renderer(model, reel.height, reel.width) as drawing:
        for qpos in reel.qpos:
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
            drawing.update_scene(data, camera=camera)
            # Reflections draw the scene once more, for what can hardly be seen at this size.
            drawing.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
            yield drawing.render()


def open_scene(binary: bytes, width: int, height: int, renderer: str) -> tuple[Any, Any, Any]:
    """The module `mujoco`, a model from its binary format, ready for pictures of a size, and its data. For a child."""
    mujoco = _mujoco_with(renderer)
    with tempfile.NamedTemporaryFile(suffix=".mjb") as file:
        file.write(binary)
        file.flush()
        model = mujoco.MjModel.from_binary_path(file.name)
    model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
    model.vis.global_.offheight = max(model.vis.global_.offheight, height)
    model.vis.quality.shadowsize = min(model.vis.quality.shadowsize, _SHADOW_MAP)
    return mujoco, model, mujoco.MjData(model)


def _camera(mujoco: Any, model: Any, data: Any, reel: Reel) -> Any:
    """The camera that was named; else one that follows the first free body; else one that sees all that moves."""
    if reel.camera is not None and mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, reel.camera) >= 0:
        return reel.camera
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    free = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
    if free.size:
        camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        camera.trackbodyid = int(model.jnt_bodyid[free[0]])
        return camera
    places = []
    for qpos in reel.qpos[:: max(1, len(reel.qpos) // 50)]:
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        places.append(data.xipos[1:].copy())
    if model.nbody > 1:
        low, high = np.concatenate(places).min(axis=0), np.concatenate(places).max(axis=0)
        camera.lookat[:] = (low + high) / 2
        # 1.5 extents is MuJoCo's own distance; its extent is that of the model at rest.
        camera.distance = 1.5 * (float(model.stat.extent) + float(np.linalg.norm(high - low)))
        camera.azimuth = 90.0  # world x to the right
    return camera


def _encode(reel: Reel, renderer: str, path: str) -> None:
    # Drawn before the encoder starts: a renderer that fails leaves no encoder behind that still writes.
    frames = pictures(reel, renderer)
    first = frame = next(frames)
    with contextlib.closing(open_encoder(path, (reel.width, reel.height), reel.fps)) as encoder:
        for frame in itertools.chain([first], frames):
            encoder.send(np.ascontiguousarray(frame))
        for _ in range(reel.hold):
            encoder.send(np.ascontiguousarray(frame))


def open_encoder(path: str, size: tuple[int, int], fps: float) -> Generator[None, np.ndarray, None]:
    """A file that takes pictures (height, width, 3) by `send` and writes them as H.264. size: width, height. For a
    child."""
    import imageio_ffmpeg

    writer = imageio_ffmpeg.write_frames(
        path,
        size,
        fps=fps,  # type: ignore[arg-type] - it takes fractions too
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        quality=7,
        # The index first: browsers then play the video while it loads.
        output_params=["-movflags", "+faststart", "-preset", "veryfast"],
    )
    writer.send(None)
    return writer


def _dump_frames(reel: Reel, renderer: str, folder: str) -> None:
    import imageio.v3

    for number, frame in enumerate(pictures(reel, renderer)):
        imageio.v3.imwrite(Path(folder) / f"frame_{number:04d}.png", frame)

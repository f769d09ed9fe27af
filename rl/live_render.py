"""Pictures of a world while it moves: a child process that draws one state at a time, as JPEG, from several cameras.

Drawing in software takes 0.1 s a picture and holds Python's lock for part of it; whoever runs a control loop has it
done elsewhere. Like `rl.render` this file imports neither torch nor mujoco at the top: a child starts fast.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np

from rl.render import FRAME_TIMEOUT_S, PROBE_TIMEOUT_S, RenderError, open_scene, without_main

JPEG_QUALITY = 80
NICENESS = 5
"""Added to the child's: on a busy machine the control loop comes first."""


class LiveRenderer:
    """Draws states of one model. Not for several threads at once."""

    def __init__(self, model: bytes, cameras: Sequence[str], width: int, height: int, renderer: str) -> None:
        """
        Args:
            model: The compiled model in MuJoCo's binary format.
            cameras: Names of its cameras.
            width, height: Pixels.
            renderer: As `rl.render.probe_renderer` finds it.

        Raises:
            RenderError: the child does not come up, or cannot draw.
        """
        self.cameras = tuple(cameras)
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (model, self.cameras, width, height, renderer, theirs)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        with without_main():
            self._process.start()
        theirs.close()
        self._receive(PROBE_TIMEOUT_S)

    def draw(self, qpos: np.ndarray) -> list[bytes]:
        """The pictures of a state (nq,), one a camera, as JPEG. Raises RenderError; the child is gone then."""
        try:
            self._pipe.send(np.asarray(qpos, dtype=np.float64))
        except OSError as error:
            raise RenderError(f"the process that draws is gone ({type(error).__name__})") from None
        return self._receive(FRAME_TIMEOUT_S * len(self.cameras))

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _receive(self, timeout_s: float) -> list[bytes]:
        try:
            if not self._pipe.poll(timeout_s):
                self._process.kill()
                raise RenderError(f"no picture came within {timeout_s:.0f} s")
            good, value = self._pipe.recv()
        except (EOFError, OSError):
            raise RenderError("the process that draws died") from None
        if not good:
            raise RenderError(value)
        return value


# -- in the child


def _serve(model: bytes, cameras: tuple[str, ...], width: int, height: int, renderer: str, pipe: Connection) -> None:
    """Draw every state that comes, until the other side is gone."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        os.nice(NICENESS)
        _draw_all(model, cameras, width, height, renderer, pipe)
    except (EOFError, ConnectionError):
        pass  # nobody wants pictures any more
    except BaseException as error:
        text = " ".join(str(error).split()) or "no reason given"
        with contextlib.suppress(OSError):
            pipe.send((False, f"{type(error).__name__}: {text[:200]}"))
    os._exit(0)  # drivers are known to crash when a context is taken down at exit


def _draw_all(model: bytes, cameras: tuple[str, ...], width: int, height: int, renderer: str, pipe: Connection) -> None:
    from PIL import Image

    mujoco, scene, data = open_scene(model, width, height, renderer)
    known = [scene.camera(place).name for place in range(scene.ncam)]
    missing = [camera for camera in cameras if camera not in known]
    if missing:
        raise ValueError(f"the model has no camera {', '.join(missing)}; it has {', '.join(known) or 'none'}")
    with mujoco.Renderer(scene, height, width) as drawing:
        pipe.send((True, []))
        while True:
            data.qpos[:] = pipe.recv()
            mujoco.mj_forward(scene, data)
            shown = []
            for camera in cameras:
                drawing.update_scene(data, camera=camera)
                drawing.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
                file = io.BytesIO()
                Image.fromarray(drawing.render()).save(file, "JPEG", quality=JPEG_QUALITY)
                shown.append(file.getvalue())
            pipe.send((True, shown))

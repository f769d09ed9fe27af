"""What a planner sees: pictures of a body's world, drawn by a child process at the slow loop's pace.

Where nothing can draw, a planner that wants pictures gets an error that says what to install; a child that dies is
started once more for the next question.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from distill.planner import Picture, PlannerError
from distill.runtime_state import StateCopy
from rl.live_render import LiveRenderer
from rl.render import RenderError, no_renderer_line, probe_renderer
from rl.video import binary
from tasks.errors import UserError
from tasks.task import Task


class Eyes:
    """Cameras of one task's visual model. For one thread."""

    def __init__(self, task: Task, cameras: Sequence[str], width: int, height: int) -> None:
        """
        Args:
            task: Whose visual model is drawn.
            cameras: Names of its cameras.
            width, height: Pixels.

        Raises:
            UserError: a size that cannot be drawn, or nothing here draws.
        """
        if not (16 <= width <= 2048 and 16 <= height <= 2048):
            raise UserError(f"pictures of {width} x {height}; expected 16 to 2048 pixels each way.")
        renderer = probe_renderer()
        if renderer is None:
            raise UserError(f"the planner wants to see, and cannot: {no_renderer_line()}")
        self._task, self._cameras, self._size, self._renderer = task, tuple(cameras), (width, height), renderer
        self._model = binary(task.build_visual_model())
        self._child: LiveRenderer | None = None
        try:
            self._start()
        except RenderError as error:
            raise UserError(f"the planner's cameras do not work: {error}.") from None

    def look(self, state: StateCopy) -> list[Picture]:
        """The pictures of a state. Raises PlannerError where they cannot be drawn this time."""
        try:
            child = self._child or self._start()
            shown = child.draw(state.shown(self._task))
        except RenderError as error:
            self.close()
            raise PlannerError(f"no picture for the planner: {error}", kind="no_picture") from None
        pairs = zip(self._cameras, shown, strict=True)
        return [Picture(camera, jpeg, *self._size) for camera, jpeg in pairs]

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            with contextlib.suppress(OSError, ValueError):
                self._child.close()
            self._child = None

    def _start(self) -> LiveRenderer:
        self._child = LiveRenderer(self._model, self._cameras, *self._size, self._renderer)
        return self._child

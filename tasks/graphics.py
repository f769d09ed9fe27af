"""Whether MuJoCo can be imported with the renderer that MUJOCO_GL names.

MuJoCo loads the library of that renderer as soon as it is imported. Where the library is missing, PyOpenGL fails with
an AttributeError of None that names neither; a value that MuJoCo does not know is a RuntimeError. A missing GLFW it
passes over, and then only pictures are missing.
"""

from __future__ import annotations

import os
import sys

from tasks.errors import UserError, did_you_mean

LIBRARIES = {
    "osmesa": ("libOSMesa", "libosmesa6"),
    "egl": ("libEGL", "libegl1"),
    "glfw": ("libglfw", "libglfw3"),
    "glx": ("libglfw", "libglfw3"),
}
"""Value of MUJOCO_GL -> the library that it needs, and the package of Debian and Ubuntu with it."""
OTHER_VALUES = ("on", "off")  # MuJoCo has more words for these


def check_mujoco_gl() -> None:
    """Import MuJoCo if MUJOCO_GL is set; nothing else can go wrong by it.

    Raises:
        UserError: MuJoCo cannot be imported with this value: which library is missing, or which values there are.
    """
    setting = os.environ.get("MUJOCO_GL", "")
    if not setting.strip() or "mujoco" in sys.modules:
        return
    try:
        import mujoco  # noqa: F401 - asked whether it can be
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        raise UserError(_explain(setting, error)) from error


def _explain(setting: str, error: Exception) -> str:
    wanted = setting.strip().lower()
    if wanted not in LIBRARIES:
        if isinstance(error, RuntimeError):
            values = (*LIBRARIES, *OTHER_VALUES)
            known = ", ".join(values)
            return f"MUJOCO_GL is '{setting}'; MuJoCo knows {known}; unset it.{did_you_mean(wanted, values)}"
        return f"MuJoCo cannot be imported with MUJOCO_GL={setting} ({error}); unset it."
    library, package = LIBRARIES[wanted]
    way_out = f"apt-get install {package}, or unset MUJOCO_GL"
    return f"MUJOCO_GL={setting} needs {library}, which cannot be loaded here; {way_out}."

"""On PYTHONPATH of a process: libraries whose name holds HIDDEN_LIBRARY are neither found nor loaded."""

import ctypes
import ctypes.util
import os

_hidden = os.environ["HIDDEN_LIBRARY"]
_find, _load = ctypes.util.find_library, ctypes.CDLL.__init__


def _find_others(name):
    return None if _hidden in f"lib{name}" else _find(name)


def _load_others(self, name, *more, **options):
    if _hidden in str(name):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")
    _load(self, name, *more, **options)


ctypes.util.find_library = _find_others
ctypes.CDLL.__init__ = _load_others

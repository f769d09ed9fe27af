"""On PYTHONPATH of a search: the worker of one run kills itself once, in the middle of writing its checkpoint."""

import os
import signal
import sys
from pathlib import Path

_marker = Path(os.environ["KILLED_WORKER_MARKER"])
if any(word.endswith(os.environ["KILLED_WORKER_RUN"]) for word in sys.orig_argv) and not _marker.exists():
    _marker.touch()
    _replace = Path.replace

    def _die_instead(self: Path, target: Path) -> Path:
        if Path(target).match("model_*.pt"):
            self.write_bytes(self.read_bytes()[: self.stat().st_size // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return _replace(self, target)

    Path.replace = _die_instead

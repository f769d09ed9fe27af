"""Failures that are no verdict on a reward: the disk is full, the device failed, memory ran out.

The worker names them in its result or by its exit code; a search then waits, or trains once more.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from rl.record import TERMINATED

DISK_FULL = "DiskFull"
DEVICE_ERROR = "DeviceError"
OUT_OF_MEMORY = "OutOfMemory"
EVALUATOR_DIED = "EvaluatorDied"
POPULATION_FAILED = "PopulationFailed"
"""An error outside of the rewards ended trainings that share a process; trained apart, each has an end of its own."""
INFRASTRUCTURE = frozenset({DISK_FULL, DEVICE_ERROR, OUT_OF_MEMORY, EVALUATOR_DIED, TERMINATED, POPULATION_FAILED})
"""Error types in the result of a worker that say nothing about its reward. TERMINATED: a signal ended it."""
DISK_FULL_EXIT = 3
"""Exit code of a worker that could not write, perhaps not even its result."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DEVICE_TYPES = ("AcceleratorError", "OutOfMemoryError", "DeferredCudaCallError")  # torch's, by name: no import
_DEVICE = re.compile(
    r"\bCUDA error|\bCUDA unknown error|\bCUDA driver error|CUDA out of memory|\bCUDNN_STATUS_|\bCUBLAS_STATUS_|\bNVML"
    r"|No CUDA GPUs are available|Found no NVIDIA driver"  # it is gone
)
_ASSERT = "device-side assert"  # an index out of bounds: the program's fault, and the same every time
_NO_MEMORY = re.compile(r"can't allocate memory|Cannot allocate memory|std::bad_alloc")


def disk_full(error: BaseException) -> bool:
    """Whether a full disk or a used up quota is behind an error."""
    return any(isinstance(each, OSError) and each.errno in _FULL for each in _chain(error))


def device_failure(error: BaseException | None) -> bool:
    """Whether a GPU or its driver failed, or its memory ran out (others may use it too)."""
    for each in _chain(error):
        text = str(each)
        if _ASSERT not in text and (
            type(each).__name__ in _DEVICE_TYPES or (isinstance(each, RuntimeError) and _DEVICE.search(text))
        ):
            return True
    return False


def infrastructure(error: BaseException) -> str | None:
    """The error type, of `INFRASTRUCTURE`, for what a training raised outside of its reward; None for other errors."""
    if disk_full(error):
        return DISK_FULL
    if device_failure(error):
        return DEVICE_ERROR
    if type(error).__name__ == EVALUATOR_DIED:
        return EVALUATOR_DIED
    for each in _chain(error):
        if isinstance(each, MemoryError) or (isinstance(each, RuntimeError | OSError) and _NO_MEMORY.search(str(each))):
            return OUT_OF_MEMORY
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

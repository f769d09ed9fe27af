"""Which files a confined process needs: Python, torch, what they ask of the system; for a GPU and programs more.

Libraries are granted by folder, but never a checkout or a working directory as a whole, although they stand on
`sys.path`: keys (`.env`) and other runs lie there. Of those only packages that are imported already are granted.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from rewards.landlock import Access

_INSTALLED = ("site-packages", "dist-packages", "lib-dynload")
_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/nix/store",
    "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/zero",
    # What OpenMP, the C library and torch's cpuinfo ask for: cores, caches, memory, and the stack of the main thread.
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip
_DRIVERS = (
    "/sys", "/proc/driver", "/proc/devices", "/proc/modules", "/proc/filesystems", "/proc/sys/vm",
    "/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/osrelease", "/usr/share", "/etc/glvnd", "/etc/nvidia",
    "/etc/vulkan", "/etc/OpenCL", "/usr/local/cuda", "/run/nvidia-persistenced",
)  # fmt: skip
_DEVICES = ("nvidia*", "nvidia-caps/*", "dri", "kfd")
_COMPILER = ("/usr/include", "/usr/libexec")
_CACHES = (".nv/ComputeCache", ".cache/warp")
"""Below the home: code compiled for a GPU, which takes minutes to make again."""


def grants(readable: Iterable[Path], writable: Iterable[Path], *, programs: bool, gpu: bool) -> dict[Path, Access]:
    """Path -> what may be done with it.

    Args:
        readable, writable, programs, gpu: As in `rewards.confine.confine`. Programs may draw with a GPU.
    """
    found = dict.fromkeys([*libraries(), *map(Path, _SYSTEM), *readable], Access.READ)
    found[Path("/dev/null")] = Access.WRITE
    if programs or gpu:
        found |= dict.fromkeys(map(Path, _DRIVERS), Access.READ)
        found |= {path: Access.DEVICE for pattern in _DEVICES for path in Path("/dev").glob(pattern)}
    if gpu:
        caches = _made(Path(os.path.expanduser("~"), name) for name in _CACHES)
        found |= dict.fromkeys([Path("/dev/shm"), *caches], Access.OWN)
    if programs:
        homes = [Path(p, name) for p in (sys.prefix, sys.base_prefix) for name in ("bin", "include")]
        homes += [*map(Path, ("/bin", "/usr/bin", *_COMPILER))]
        found |= dict.fromkeys([*libraries(), *homes], Access.READ | Access.RUN)
        found |= dict.fromkeys(map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64")), Access.READ | Access.RUN)
        # A new interpreter finds packages by listing the folders of sys.path.
        found = dict.fromkeys((Path(entry).absolute() for entry in sys.path), Access.LIST) | found
    return found | dict.fromkeys(writable, Access.OWN)


@functools.cache
def libraries() -> tuple[Path, ...]:
    """The standard library, installed packages, shared libraries beside Python, packages imported from elsewhere.

    Found once for a process and its forks: to look at every module copies the memory of all of them in a fork.
    """
    return tuple(_libraries())


def _libraries() -> Iterator[Path]:
    paths = sysconfig.get_paths()
    folders = {Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {Path(entry) for entry in sys.path if Path(entry).name in _INSTALLED}
    for prefix in {sys.prefix, sys.base_prefix}:
        folders |= {Path(prefix, "lib"), Path(prefix, "lib64"), Path(prefix, "pyvenv.cfg")}
    folders |= {Path(entry) for entry in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if entry}
    yield from folders
    known = tuple(f"{folder}{os.sep}" for folder in folders)
    for name, module in list(sys.modules.items()):
        if "." in name:
            continue
        for place in [*getattr(module, "__path__", ()), getattr(module, "__file__", None)]:
            if isinstance(place, str) and os.path.isabs(place) and not place.startswith(known):
                if place.endswith(("__init__.py", "__init__.pyc")):
                    continue  # its folder is in __path__
                yield Path(place)


def _made(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue  # a home that cannot be written: the cache is missed, nothing else
        yield folder

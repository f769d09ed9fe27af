"""Landlock for this process and all that it starts: which files it may read, write and run, and no network.

Landlock adds up: what no rule grants is refused, and a rule for a folder holds for all below it. Each kernel knows a
number of rights (its ABI); rights that it does not know it does not restrict, and `Rights` says which those are. It
holds for the calling thread and what that starts later.

Not restricted by Landlock: files that are open already, asking whether a path exists and what kind of file it is,
and changes of owner, mode, times and attributes; `rewards.seccomp` refuses those.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Mapping
from enum import IntFlag
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on all architectures
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
_NO_TCP = 0b11  # LANDLOCK_ACCESS_NET_BIND_TCP, _CONNECT_TCP: handled and never granted
_NO_ABSTRACT_SOCKETS_NO_SIGNALS = 0b11  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, _SIGNAL
NETWORK_ABI, SIGNALS_ABI = 4, 6
"""The first ABIs (Linux 6.7 and 6.12) that know the network, and signals to processes outside."""


class Access(IntFlag):
    """What a rule grants for a path; sums of the kernel's LANDLOCK_ACCESS_FS rights."""

    LIST = 0b1000  # READ_DIR
    READ = 0b1100  # READ_FILE, READ_DIR
    RUN = 0b1  # EXECUTE
    WRITE = 0b110 | 1 << 14  # READ_FILE, WRITE_FILE, TRUNCATE: a file that exists
    DEVICE = 0b1110 | 1 << 15  # and IOCTL_DEV
    OWN = 0b1110 | 0b1_1011_0000 | 0b10 << 12 | 1 << 14
    """Of a folder: read, write, make and remove files and folders, rename between its folders; no links, no devices."""


_FOR_FILES = 0b111 | 1 << 14 | 1 << 15


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """The kernel's version of Landlock; 0 where it has none or it is switched off at boot."""
    if _LIBC is None:
        return 0
    return max(0, int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))))


def restrict(grants: Mapping[Path, Access] | None, *, network: bool, signals: bool) -> None:
    """Restrict this thread. PR_SET_NO_NEW_PRIVS must be set before, unless it has CAP_SYS_ADMIN.

    Args:
        grants: What may be done with which path, in all folders below it too; paths that do not exist are passed
            over. None leaves files alone.
        network: Refuse to bind and connect TCP; needs `NETWORK_ABI`.
        signals: Refuse signals to processes outside and abstract sockets made outside; needs `SIGNALS_ABI`.

    Raises:
        OSError: the kernel refused.
    """
    version = abi()
    handled = _handled(version) if grants is not None else 0
    attr = _RulesetAttr(
        handled,
        _NO_TCP if network and version >= NETWORK_ABI else 0,
        _NO_ABSTRACT_SOCKETS_NO_SIGNALS if signals and version >= SIGNALS_ABI else 0,
    )
    size = 24 if version >= SIGNALS_ABI else 16 if version >= NETWORK_ABI else 8
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attr), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path, access in (grants or {}).items():
            _grant(ruleset, path, access & handled)
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _handled(version: int) -> int:
    """All rights that the kernel can restrict."""
    count = 13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16
    return (1 << count) - 1


def _grant(ruleset: int, path: Path, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # what cannot be reached needs no rule
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= _FOR_FILES
        if access:
            attr = _PathBeneathAttr(access, fd)
            _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(attr), ctypes.c_uint32(0))
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    assert _LIBC is not None, "only on Linux"
    result = int(_LIBC.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "landlock")
    return result

"""A seccomp filter for this process and all that it starts: which system calls it may make, with which arguments.

The filter is a classic BPF program: a binary search over the call's number, then, for a few calls, a look at an
argument. Refused calls return EPERM; calls newer than `rewards.syscalls.LAST`, clone3 (whose flags lie in memory that
a filter cannot read; the C library then uses clone) and foreign numbering (x32) return ENOSYS; a call by another
architecture's convention ends the process. Nothing that is installed can be taken off again.

Not seen by a filter: what a pointer points to, such as a path. That is Landlock's part.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from itertools import groupby

from rewards.syscalls import ALLOWED, DENIED, LAST, PROGRAMS, UNIX_SOCKETS, numbers

Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, constant), as in struct sock_filter."""
Block = tuple[Instruction, ...]
"""Instructions of which every path ends in a return."""

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _ALL_THREADS = 1, 1  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
_LOAD, _JUMP, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

_ALLOW: Block = ((_RETURN, 0, 0, 0x7FFF0000),)
_REFUSE: Block = ((_RETURN, 0, 0, 0x00050000 | errno.EPERM),)
_UNKNOWN: Block = ((_RETURN, 0, 0, 0x00050000 | errno.ENOSYS),)
_KILL: Block = ((_RETURN, 0, 0, 0x80000000),)

_CLONE_THREAD = 0x00010000
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15  # make the kernel send any signal to any process
_FIOSETOWN, _SIOCSPGRP, _TIOCSTI, _TIOCLINUX = 0x8901, 0x8902, 0x5412, 0x541C  # the same; typing into a terminal
_HARMLESS_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIO(N)CLEX
_HARMLESS_PRCTLS = (3, 15, 16, 21, 23, 38, 39, 0x53564D41)  # GET_DUMPABLE, names, GET_SECCOMP, CAPBSET_READ, NNP, VMA
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET = 1, 1, 5


def strict_filter(machine: str, pid: int) -> list[Instruction] | None:
    """The filter of a process that may do what `syscalls.ALLOWED` lists; None on an unknown machine.

    Signals and limits reach `pid` only, which is the process itself.
    """
    known = numbers(machine)
    if known is None:
        return None
    rules = {known[name]: _ALLOW for name in ALLOWED if name in known}
    rules |= _at(known, _own_affairs(pid))
    rules |= _at(
        known,
        {
            "ioctl": _one_of(1, _HARMLESS_IOCTLS, _ALLOW, _REFUSE),
            "prctl": _one_of(0, _HARMLESS_PRCTLS, _ALLOW, _REFUSE),
            "sendto": _null(4),  # to the peer only: an address could name any other socket
        },
    )
    return _filter(machine, rules, _REFUSE)


def broad_filter(machine: str, pid: int, *, programs: bool, unix_sockets: bool) -> list[Instruction] | None:
    """The filter of a process that may do all but `syscalls.DENIED`; None on an unknown machine.

    Args:
        machine, pid: As in `strict_filter`.
        programs: Let it start programs. Signals between processes are then left to Landlock.
        unix_sockets: Let it make AF_UNIX sockets that others may connect to; it cannot connect.
    """
    known = numbers(machine)
    if known is None:
        return None
    opened = (PROGRAMS if programs else frozenset()) | (UNIX_SOCKETS if unix_sockets else frozenset())
    rules = {known[name]: _REFUSE for name in DENIED - opened if name in known}
    rules |= _at(known, _own_affairs(pid))
    rules |= _at(
        known,
        {
            "ioctl": _one_of(1, (_FIOSETOWN, _SIOCSPGRP, _TIOCSTI, _TIOCLINUX), _REFUSE, _ALLOW),
            "prctl": _one_of(0, (_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE), _REFUSE, _ALLOW),
        },
    )
    if programs:
        rules |= _at(known, dict.fromkeys(("kill", "tgkill", "clone", "prlimit64"), _ALLOW))
    if unix_sockets:
        rules |= _at(known, {"socket": _unix_stream()})
    return _filter(machine, rules, _ALLOW)


def install(instructions: list[Instruction]) -> None:
    """Put a filter on all threads of this process. Raises OSError; PR_SET_NO_NEW_PRIVS must be set before."""
    program = _SockFprog(len(instructions), b"".join(struct.pack("=HBBI", *each) for each in instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SECCOMP[platform.machine()]
    result = libc.syscall(number, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(program))
    if result != 0:
        code = ctypes.get_errno() if result < 0 else errno.ESRCH  # above 0: the thread that has another filter
        raise OSError(code, os.strerror(code), "seccomp")


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.c_char_p))


def _own_affairs(pid: int) -> dict[str, Block]:
    """Calls that may reach this process only, and threads instead of processes."""
    return {
        "clone": ((_LOAD, 0, 0, _argument(0)), (_IF_ANY_BIT, 0, 1, _CLONE_THREAD), *_ALLOW, *_REFUSE),
        "clone3": _UNKNOWN,
        "kill": _one_of(0, (pid,), _ALLOW, _REFUSE),
        "tgkill": _one_of(0, (pid,), _ALLOW, _REFUSE),
        "prlimit64": _one_of(0, (0, pid), _ALLOW, _REFUSE),
        "fcntl": _one_of(1, (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX), _REFUSE, _ALLOW),
    }


def _at(known: dict[str, int], rules: dict[str, Block]) -> dict[int, Block]:
    return {known[name]: block for name, block in rules.items() if name in known}


def _argument(index: int) -> int:
    """Offset of an argument's lower half: both machines are little-endian."""
    return _ARGUMENTS + 8 * index


def _one_of(index: int, values: tuple[int, ...], found: Block, otherwise: Block) -> Block:
    """Decide by an argument that the kernel reads as 32 bits."""
    tests = [step for value in values for step in ((_IF_EQUAL, 0, 1, value), *found)]
    return ((_LOAD, 0, 0, _argument(index)), *tests, *otherwise)


def _null(index: int) -> Block:
    """Allow where a pointer is null: both of its halves."""
    low, high = (_LOAD, 0, 0, _argument(index)), (_LOAD, 0, 0, _argument(index) + 4)
    return (low, (_IF_EQUAL, 1, 0, 0), *_REFUSE, high, (_IF_EQUAL, 1, 0, 0), *_REFUSE, *_ALLOW)


def _unix_stream() -> Block:
    """Sockets that need a connection: one that needs none could send to any address."""
    kinds = ((_LOAD, 0, 0, _argument(1)), (0x54, 0, 0, 0xF))  # the lower four bits; above lie SOCK_CLOEXEC, ...
    tests = [step for kind in (_SOCK_STREAM, _SOCK_SEQPACKET) for step in ((_IF_EQUAL, 0, 1, kind), *_ALLOW)]
    return ((_LOAD, 0, 0, _argument(0)), (_IF_EQUAL, 1, 0, _AF_UNIX), *_REFUSE, *kinds, *tests, *_REFUSE)


def _filter(machine: str, rules: dict[int, Block], default: Block) -> list[Instruction]:
    actions = [rules.get(number, default) for number in range(LAST + 1)] + [_UNKNOWN]
    runs: list[tuple[int, Block]] = []
    for action, group in groupby(enumerate(actions), key=lambda item: item[1]):
        runs.append((next(group)[0], action))
    arch = ((_LOAD, 0, 0, _ARCH), (_IF_EQUAL, 1, 0, _AUDIT_ARCH[machine]), *_KILL)
    return [*arch, (_LOAD, 0, 0, _NUMBER), *_search(runs)]


def _search(runs: list[tuple[int, Block]]) -> Block:
    """A binary search over (first number, action); the last run has no end."""
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    below, above = _search(runs[:middle]), _search(runs[middle:])
    if len(below) < 256:
        return ((_IF_AT_LEAST, len(below), 0, runs[middle][0]), *below, *above)
    return ((_IF_AT_LEAST, 0, 1, runs[middle][0]), (_JUMP, 0, 0, len(below)), *below, *above)

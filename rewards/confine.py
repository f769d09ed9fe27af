"""A process confines itself: `confine(REWARD_CHILD)` before it runs code from outside; nothing takes it back.

No privilege is needed and no program is started. Two profiles: the reward child, which runs programs that an LLM
wrote, may compute, read the libraries and answer through what is open already. A training worker, which runs none, may
also write its run folder, and, if it is told to, use a GPU and start programs.

Apply it after the imports (what is imported later is read under the rules) and before threads start: Landlock and
capabilities are a thread's own, and a layer that cannot reach all threads says so. What is missing on a system is
reported, never assumed; with EUREKA_REQUIRE_SANDBOX set it is an error. docs/security.md says what no layer covers.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import signal
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rewards import landlock, places, seccomp
from tasks.errors import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None

REQUIRE_VARIABLE = "EUREKA_REQUIRE_SANDBOX"
"""Set in the environment: `confine` raises where a layer is missing."""
ACTIVE = "active"

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 4, 38, 47  # linux/prctl.h
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: 64 bits in two halves
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2  # linux/capability.h
_SECRET = re.compile(r"^OPENAI_|KEY|TOKEN|SECRET|PASSW|CREDENTIAL|_AUTH|COOKIE|PROXY", re.IGNORECASE)
_LOGIN_IN_URL = re.compile(r"://[^/\s]*:[^/\s]*@")
_PLAIN = re.compile(
    r"(PATH|HOME|TMPDIR|TEMP|TMP|SYSTEMROOT|LD_LIBRARY_PATH|LANG|LC_.*"
    r"|(OMP|KMP|MKL|OPENBLAS|PYTHON|CUDA|TORCH|TORCHINDUCTOR|EUREKA)_?[A-Z_]*)"
)
_GB = 2**30


class ConfinementError(UserError):
    """A layer is missing on this system, and EUREKA_REQUIRE_SANDBOX says that none may be."""


@dataclass(frozen=True)
class Profile:
    """What a kind of process may need."""

    name: str
    strict: bool
    """Only listed system calls, variables and no core dumps, instead of all but the dangerous ones."""
    limits: Mapping[str, int]
    """Resource limit -> the most it may be."""


REWARD_CHILD = Profile(
    "reward child",
    strict=True,
    # Address space: with less than 8 GB torch can fail to load libraries and start threads. File size: error messages
    # fit, no data do.
    limits={"RLIMIT_AS": 8 * _GB, "RLIMIT_FSIZE": 2**20, "RLIMIT_NOFILE": 128, "RLIMIT_CORE": 0},
)
WORKER = Profile(
    "training worker",
    strict=False,
    limits={"RLIMIT_AS": 8 * _GB, "RLIMIT_FSIZE": 8 * _GB, "RLIMIT_NOFILE": 4096, "RLIMIT_CORE": 0},
)


@dataclass(frozen=True)
class Confinement:
    """What holds for a process from now on."""

    profile: str
    layers: Mapping[str, str]
    """Layer -> "active", or why it is not."""
    doubled: frozenset[str] = frozenset()
    """Layers that shut a door which an active one shuts as well."""

    @property
    def missing(self) -> dict[str, str]:
        """Layers that are not active, with the reason, without those that another one stands in for."""
        return {n: why for n, why in self.layers.items() if why != ACTIVE and n not in self.doubled}


@dataclass(frozen=True)
class _Plan:
    """What is asked for."""

    profile: Profile
    grants: Mapping[Path, landlock.Access]
    programs: bool
    gpu: bool


def confine(
    profile: Profile,
    *,
    readable: Iterable[Path] = (),
    writable: Iterable[Path] = (),
    programs: bool = False,
    gpu: bool = False,
) -> Confinement:
    """Confine this process for good, and say how far that went.

    Args:
        profile: `REWARD_CHILD` or `WORKER`.
        readable: Files and folders to read besides the libraries and the system's.
        writable: Folders in which files may be made, changed and removed; temporary files go to the first.
        programs: Let a worker start programs (a renderer, ffmpeg, a compiler); they are confined as it is.
        gpu: Let a worker use a GPU: its devices, shared memory and caches; no limit of the address space.

    Raises:
        ConfinementError: a layer is missing and EUREKA_REQUIRE_SANDBOX is set; what could be applied is.
        ValueError: programs or gpu for the reward child.
    """
    if profile.strict and (programs or gpu):
        raise ValueError(f"the {profile.name} starts no programs and uses no GPU")
    writable = list(writable)
    grants = places.grants(readable, writable, programs=programs, gpu=gpu)
    plan = _Plan(profile, grants, programs, gpu)
    # Libraries ask for this folder when they are imported, and Python would look for one that it can write.
    tempfile.tempdir = os.environ["TMPDIR"] = str(next(iter(writable), Path.cwd()))
    layers: dict[str, str] = {}
    for name, apply in _LAYERS:
        layers |= _applied(name, apply, plan)
    # A filter that refuses sockets and signals stands in for the parts of Landlock that older kernels lack.
    shut = layers.get("seccomp") == ACTIVE
    doubled = {"landlock network", *(() if programs else ("landlock signals",))} if shut else set()
    found = Confinement(profile.name, layers, frozenset(doubled))
    if os.environ.get(REQUIRE_VARIABLE) and found.missing:
        raise ConfinementError(f"--require-sandbox: {missing_line(found)}")
    return found


def prepare() -> None:
    """Look up what is the same for all forks of this process, so that `confine` takes 3 ms in each instead of 12."""
    places.libraries()


def hide() -> None:
    """Keep other processes of this user out of this one's variables and memory, where Landlock does not keep them in.

    It can then be neither debugged nor dumped by its user. Without Linux nothing is done.
    """
    if _LIBC is not None:
        _prctl(_PR_SET_DUMPABLE, 0)


def missing_line(found: Confinement) -> str:
    """The missing layers in one line, "" for none."""
    reasons: dict[str, list[str]] = {}
    for name, why in found.missing.items():
        reasons.setdefault(why, []).append(name)
    listed = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
    return f"a {found.profile} runs here without: {listed}." if listed else ""


def is_secret(name: str, value: str) -> bool:
    """Whether a variable may hold a key, a password or a way to them, and so stays out of other processes."""
    return bool(_SECRET.search(name) or _LOGIN_IN_URL.search(value))


def _applied(name: str, apply: Callable[[_Plan], str | Mapping[str, str]], plan: _Plan) -> Mapping[str, str]:
    try:
        outcome = apply(plan)
    except OSError as error:
        outcome = f"the system refused: {error.strerror or error}"
    return {name: outcome} if isinstance(outcome, str) else outcome


def _prctl(option: int, *arguments: int) -> None:
    assert _LIBC is not None
    words = [ctypes.c_ulong(value) for value in (*arguments, *(0,) * (4 - len(arguments)))]
    if _LIBC.prctl(ctypes.c_int(option), *words) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "prctl")


def _session(plan: _Plan) -> str:
    """No terminal to type into. A session that has none is kept: whoever ends its group ends this process too."""
    if not hasattr(os, "setsid"):
        return f"{sys.platform} has none"
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return ACTIVE
    if os.getpgrp() == os.getpid():
        return "the process leads a group that has a terminal"
    os.setsid()
    return ACTIVE


def _parent_death(plan: _Plan) -> str:
    if _LIBC is None:
        return "needs Linux"
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between: nobody waits for this process
        os.kill(os.getpid(), signal.SIGKILL)
    return ACTIVE


def _environment(plan: _Plan) -> str:
    """No secrets. Whoever starts the process leaves them out; taken out here, they would stay in its memory."""
    names = [n for n, value in os.environ.items() if is_secret(n, value)]
    if plan.profile.strict:
        names += [n for n in os.environ if n not in names and not _PLAIN.fullmatch(n)]
    for name in names:
        del os.environ[name]
    return f"it was started with {', '.join(sorted(names)[:3])} in its environment" if names else ACTIVE


def _limits(plan: _Plan) -> str:
    if resource is None:
        return f"{sys.platform} has none"
    for name, wanted in plan.profile.limits.items():
        if name == "RLIMIT_AS" and (sys.platform != "linux" or plan.gpu):
            continue  # macOS counts shared caches into the address space, CUDA maps that of the GPU
        if name == "RLIMIT_AS" and not plan.profile.strict:
            wanted = max(wanted, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))
    return ACTIVE if sys.platform == "linux" else "no limit of memory here"


def _no_new_privileges(plan: _Plan) -> str:
    if _LIBC is None:
        return "needs Linux"
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return ACTIVE


def _capabilities(plan: _Plan) -> str:
    """Those of root are given up: with CAP_PERFMON it reads the memory of any process, Landlock or not."""
    if _LIBC is None:
        return "needs Linux"
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    permitted = _capget()
    _capset(effective=0, permitted=permitted)
    kept, reason = 0, ""
    if permitted:
        hidden = next((path for path, access in plan.grants.items() if _hidden(path, access)), None)
        if hidden is not None:
            kept = permitted & (1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
            reason = f"root keeps CAP_DAC_OVERRIDE: it reaches {hidden} only so"
    _capset(effective=kept, permitted=kept)
    return reason or _all_threads()


def _hidden(path: Path, access: landlock.Access) -> bool:
    """Whether a path exists and its permissions alone shut this process out."""
    mode = os.R_OK | (os.W_OK if access & landlock.Access.WRITE == landlock.Access.WRITE else 0)
    if os.access(path, mode, effective_ids=True):
        return False
    try:
        os.stat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _capget() -> int:
    assert _LIBC is not None
    data = ctypes.create_string_buffer(24)
    _LIBC.capget(struct.pack("=Ii", _CAPABILITY_VERSION, 0), data)
    words = struct.unpack("=6I", data.raw)
    return words[1] | words[4] << 32  # effective, permitted, inheritable; twice


def _capset(*, effective: int, permitted: int) -> None:
    assert _LIBC is not None
    low, high = 0xFFFFFFFF, 32
    words = (effective & low, permitted & low, 0, effective >> high, permitted >> high, 0)
    if _LIBC.capset(struct.pack("=Ii", _CAPABILITY_VERSION, 0), struct.pack("=6I", *words)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "capset")


def _not_dumpable(plan: _Plan) -> Mapping[str, str] | str:
    """Other processes of the user, such as the next child, cannot look into this one. A worker may be profiled."""
    if not plan.profile.strict:
        return {}
    if _LIBC is None:
        return "needs Linux"
    _prctl(_PR_SET_DUMPABLE, 0)
    return ACTIVE


def _landlock(plan: _Plan) -> Mapping[str, str]:
    """Three layers, put on at once."""
    version = landlock.abi() if _LIBC is not None else 0
    least = {"files": 1, "network": landlock.NETWORK_ABI, "signals": landlock.SIGNALS_ABI}
    lacking = f"the kernel's Landlock is version {version}, needed is" if version else "no Landlock"
    if _LIBC is None:
        lacking = "needs Linux"
    reasons = {
        f"landlock {part}": ACTIVE if version >= needed else f"{lacking} {needed}" if version else lacking
        for part, needed in least.items()
    }
    if not version:
        return reasons
    try:
        landlock.restrict(
            plan.grants if "files" in _LANDLOCK_PARTS else None,
            network="network" in _LANDLOCK_PARTS,
            signals="signals" in _LANDLOCK_PARTS,
        )
    except OSError as error:
        return dict.fromkeys(reasons, f"the kernel refused: {error.strerror}")
    threads = _all_threads()
    return reasons if threads == ACTIVE else dict.fromkeys(reasons, threads)


def _seccomp(plan: _Plan) -> str:
    if _LIBC is None:
        return "needs Linux"
    machine, pid = platform.machine(), os.getpid()
    if plan.profile.strict:
        instructions = seccomp.strict_filter(machine, pid)
    else:
        instructions = seccomp.broad_filter(machine, pid, programs=plan.programs, unix_sockets=plan.gpu)
    if instructions is None:
        return f"no numbers of system calls for {machine}"
    seccomp.install(instructions)
    return ACTIVE


def _all_threads() -> str:
    """What a layer that binds only the calling thread can say."""
    others = len(os.listdir("/proc/self/task")) - 1
    return f"{others} other threads run already, and it binds those that start later" if others else ACTIVE


_LANDLOCK_PARTS = ("files", "network", "signals")
_LAYERS: tuple[tuple[str, Callable[[_Plan], str | Mapping[str, str]]], ...] = (
    ("no terminal", _session),
    ("death with the parent", _parent_death),
    ("clean environment", _environment),
    ("resource limits", _limits),
    ("no new privileges", _no_new_privileges),
    ("no capabilities", _capabilities),
    ("not dumpable", _not_dumpable),
    ("landlock", _landlock),
    ("seccomp", _seccomp),
)
"""In the order of application: each needs what stands before it, and seccomp refuses what the others call."""

"""Confinement as hostile code meets it, with no checker before it. Every layer is shown to be what shuts its door."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewards import confine, seccomp, syscalls
from rewards.probe import confinement_here
from tests.rewards.attacks import ATTACKS, PRELUDE

ROOT = Path(__file__).parents[2]
MISSING = confinement_here(confine.REWARD_CHILD).missing if sys.platform == "linux" else {"all": "needs Linux"}
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not on this system: {MISSING}")

CANARY = "canary-7c1f"
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# The parent of the confined process holds what must not get out, as a search does.
PARENT = """
import ctypes, json, os, socket, subprocess, sys
secret = ctypes.create_string_buffer(b"canary-7c1f in memory")
server = socket.create_server(("127.0.0.1", 0))
facts = json.loads(sys.argv[2]) | {"parent": os.getpid(), "address": ctypes.addressof(secret), "size": 21,
                                   "port": server.getsockname()[1]}
environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
child = subprocess.run([sys.executable, "-c", sys.argv[1], json.dumps(facts)], env=environment, capture_output=True,
                       stdin=subprocess.DEVNULL, text=True)
print(json.dumps({"out": child.stdout, "err": child.stderr, "code": child.returncode}))
"""
CHILD = """
FACTS = json.loads(sys.argv[1])
from rewards import confine
{before}
confine._LAYERS = tuple(layer for layer in confine._LAYERS if layer[0] in FACTS["layers"])
confine._LANDLOCK_PARTS = tuple(FACTS["parts"])
found = confine.confine(confine.{profile}, writable=[FACTS["scratch"]])
attack = {attack!r}
outcome = {{n: tried(a) for n, a in attack.items()}} if isinstance(attack, dict) else tried(attack)
print(json.dumps({{"layers": dict(found.layers), "missing": found.missing, "outcome": outcome}}))
"""
ALL = tuple(name for name, _ in confine._LAYERS)
PARTS = ("files", "network", "signals")


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """What lies around a confined process."""
    return _make_outside(tmp_path)


def _make_outside(tmp_path: Path) -> dict[str, str]:
    for name in ("scratch", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside" / "secret").write_text(f"{CANARY} in a file")
    (tmp_path / "outside" / "victim").write_text("whole")
    return {
        "secret_file": str(tmp_path / "outside" / "secret"),
        "victim": str(tmp_path / "outside" / "victim"),
        "scratch": str(tmp_path / "scratch"),
    }


def run(
    facts: dict[str, str], attack: str | dict[str, str], layers=ALL, parts=PARTS, profile="REWARD_CHILD", before=""
) -> dict:
    """What a confined process says after it has tried an attack (Python text that returns what it got)."""
    code = PRELUDE + CHILD.format(attack=attack, profile=profile, before=before)
    told = {**facts, "layers": list(layers), "parts": list(parts)}
    process = subprocess.run(
        [sys.executable, "-c", PARENT, code, json.dumps(told)],
        env=ENVIRONMENT | {"OPENAI_API_KEY": f"{CANARY} in a variable"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    child = json.loads(process.stdout)
    assert child["out"], child
    return json.loads(child["out"].splitlines()[-1])


@pytest.fixture(scope="module")
def attacked(tmp_path_factory) -> tuple[dict, dict[str, str]]:
    """All attacks, tried by one confined process, and what lay around it."""
    outside = _make_outside(tmp_path_factory.mktemp("attacked"))
    return run(outside, ATTACKS), outside


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_shut_out(attacked, name):
    assert attacked[0]["outcome"][name].startswith("shut: ")


def test_the_attacks_left_no_trace(attacked):
    said, outside = attacked
    assert said["missing"] == {}
    assert CANARY not in json.dumps(said)
    assert Path(outside["victim"]).read_text() == "whole"
    assert len(list(Path(outside["victim"]).parent.iterdir())) == 2


# What each layer alone keeps shut, and what is open without any: a case where nothing is open would show nothing.
ALONE = [
    ("landlock", ("files",), "read a file"),
    ("landlock", ("files",), "overwrite a file"),
    ("landlock", ("files",), "read the parent's memory"),
    ("landlock", ("network",), "connect"),
    ("landlock", ("network",), "bind"),
    ("landlock", ("signals",), "signal the parent"),
    ("seccomp", (), "connect"),
    ("seccomp", (), "bind"),
    ("seccomp", (), "send without a connection"),
    ("seccomp", (), "open a local socket"),
    ("seccomp", (), "signal the parent"),
    ("seccomp", (), "signal the parent's thread"),
    ("seccomp", (), "signal the parent by a file"),
    ("seccomp", (), "limit the parent"),
    ("seccomp", (), "read the parent's memory"),
    ("seccomp", (), "trace the parent"),
    ("seccomp", (), "truncate a file"),
    ("seccomp", (), "change a file's mode"),
    ("seccomp", (), "change a file's times"),
    ("seccomp", (), "fork"),
    ("seccomp", (), "run a program"),
    ("seccomp", (), "become a program"),
    ("seccomp", (), "make shared memory"),
    ("seccomp", (), "outlive the parent"),
    ("resource limits", (), "take much memory"),
    ("resource limits", (), "open many files"),
]


@pytest.mark.parametrize(("layer", "parts", "attack"), ALONE)
def test_each_layer_shuts_its_door_alone(outside, layer, parts, attack):
    """The door is open without any layer, and shut with this one."""
    assert run(outside, ATTACKS[attack], layers=())["outcome"].startswith("open: ")
    Path(outside["victim"]).write_text("whole")
    alone = run(outside, ATTACKS[attack], layers=("no new privileges", layer), parts=parts)
    assert alone["outcome"].startswith("shut: "), alone


def test_the_attacks_would_find_the_secrets(outside):
    for name in ("read a file", "read the parent's variables", "read the parent's memory file"):
        assert CANARY in run(outside, ATTACKS[name], layers=())["outcome"]


def test_capabilities_are_dropped(outside):
    """Those of root read the parent's variables; without them, or as another user, nothing else is needed."""
    if os.geteuid() != 0:
        pytest.skip("only root has capabilities to drop")
    attack = "return os.chroot('/')"
    assert run(outside, attack, layers=())["outcome"] == "open: None"
    assert run(outside, attack, layers=("no capabilities",))["outcome"].startswith("shut: PermissionError")
    status = "return [line for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapPrm', 'CapInh'))]"
    assert re.findall(r"\\t(\w+)", run(outside, status)["outcome"]) == ["0" * 16] * 3
    variables = run(outside, ATTACKS["read the parent's variables"], layers=("no capabilities",))
    assert variables["outcome"].startswith("shut: ")


@pytest.mark.parametrize(("layer", "option", "shut"), [("not dumpable", 3, "0"), ("no new privileges", 39, "1")])
def test_settings_of_the_process(outside, layer, option, shut):
    attack = f"return called(LIBC.prctl({option}, 0, 0, 0, 0))"
    assert run(outside, attack, layers=())["outcome"] == f"open: {1 - int(shut)}"
    assert run(outside, attack)["outcome"] == f"open: {shut}"


def test_the_scratch_folder_can_be_used_and_no_more(outside):
    attack = """
import tempfile
from pathlib import Path
folder = Path(FACTS["scratch"], "a")
folder.mkdir()
(folder / "file").write_text("text")
(folder / "file").replace(Path(FACTS["scratch"], "moved"))
with tempfile.NamedTemporaryFile() as file:
    assert file.name.startswith(FACTS["scratch"])
try:
    Path(FACTS["scratch"], "large").write_bytes(bytes(2**20 + 1))
except OSError as error:
    large = error.errno
try:
    os.link(FACTS["secret_file"], Path(FACTS["scratch"], "link"))
except OSError as error:
    return Path(FACTS["scratch"], "moved").read_text(), large, error.errno
"""
    assert run(outside, attack)["outcome"] == "open: ('text', 27, 1)"  # EFBIG, EPERM


def test_threads_start_and_are_confined(outside):
    attack = f"""
said = []
def work():
    said.append(tried({ATTACKS["read a file"]!r}))
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
return sorted(set(word.split(":")[0] for word in said)), len(said)
"""
    assert run(outside, attack)["outcome"] == "open: (['shut'], 4)"


def test_a_thread_that_ran_before_is_reported(outside):
    before = "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()"
    said = run(outside, "return 1", before=before)
    assert set(said["missing"]) == {"no capabilities", "landlock files"}
    assert "1 other threads run already" in said["missing"]["landlock files"]
    assert said["layers"]["seccomp"] == "active"


def test_secrets_in_the_environment_are_reported_and_taken_out(outside):
    before = "os.environ.update(OPENAI_API_KEY='k', http_proxy='http://p', NOTE='http://me:pass@host', EDITOR='vi')"
    said = run(outside, "return sorted(os.environ)", before=before)
    assert said["missing"]["clean environment"].startswith("it was started with EDITOR, NOTE, OPENAI_API_KEY")
    assert not {"OPENAI_API_KEY", "http_proxy", "NOTE", "EDITOR"} & set(re.findall(r"'(\w+)'", said["outcome"]))
    worker = run(outside, "return sorted(os.environ)", before=before, profile="WORKER")
    assert "'EDITOR'" in worker["outcome"]
    assert "'NOTE'" not in worker["outcome"]


def test_it_dies_with_its_parent(tmp_path):
    code = """
import os, sys, time
from rewards import confine
confine._LAYERS = tuple(layer for layer in confine._LAYERS if layer[0] in sys.argv[1:])
confine.confine(confine.REWARD_CHILD)
print(os.getpid(), flush=True)
time.sleep(60)
"""
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    for layers, outlives in (((), True), (ALL, False)):
        process = subprocess.Popen(
            [sys.executable, "-c", parent, code, *layers], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()
        assert _lives(pid, 0.5 if outlives else 10.0) == outlives
        if outlives:
            os.kill(pid, 9)
        process.stdout.close()


def test_the_warm_child_dies_with_its_parent():
    """Stopped, so that it cannot see that its input has ended."""
    code = "from rewards import trial_child\ntrial_child._warm_up = lambda: None\ntrial_child.main()"
    parent = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); child.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, code], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.wait()
    process.stdout.close()
    lives = _lives(pid, 10.0)
    if lives:
        os.kill(pid, signal.SIGKILL)
    assert not lives


def _lives(pid: int, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(("hide", "outcome"), [("", "canary"), ("confine.hide()", "shut: PermissionError")])
def test_a_process_that_hides_cannot_be_read_by_its_equals(hide, outcome):
    """Both without privileges and without Landlock, as for an ordinary user on an old kernel."""
    child = "import os; print(open(f'/proc/{os.getppid()}/environ').read())"
    code = f"""
import os, subprocess, sys
from rewards import confine
confine._prctl(38, 1)  # PR_SET_NO_NEW_PRIVS, or root has its capabilities again in the child
confine._capset(effective=0, permitted=0)
{hide}
child = subprocess.run([sys.executable, "-c", {child!r}], env={{}}, capture_output=True, text=True)
print("shut: PermissionError" if "PermissionError" in child.stderr else child.stdout)
"""
    environment = ENVIRONMENT | {"OPENAI_API_KEY": CANARY}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert outcome in done.stdout


def test_it_has_no_terminal():
    """In a session with a terminal it starts one of its own, where nothing can be typed into the user's shell."""
    code = """
import os, sys
from rewards import confine
confine._LAYERS = tuple(layer for layer in confine._LAYERS if layer[0] in sys.argv[1:])
found = confine.confine(confine.REWARD_CHILD)
def terminal():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        return "terminal"
    except OSError:
        return "none"
print("said", terminal(), found.layers, flush=True)
"""
    shell = "import pty, sys; pty.spawn([sys.executable, '-c', 'import subprocess, sys; "
    shell += "subprocess.run([sys.executable, *sys.argv[1:]])', '-c', *sys.argv[1:]])"
    for layers, wanted in (((), "said terminal"), (("no terminal",), "said none {'no terminal': 'active'}")):
        done = subprocess.run(
            [sys.executable, "-c", shell, code, *layers], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
        )
        assert wanted in done.stdout


def test_torch_works_inside(outside):
    before = "import torch, torch._dynamo, torch.export"
    attack = """
import torch
class Reward(torch.nn.Module):
    def forward(self, a, b):
        return torch.where(a[:, 0] > 0, (a @ b).sum(dim=1), a[:, 1])
worlds = torch.export.Dim("worlds")
example = (torch.ones(8, 3), torch.eye(3))
program = torch.export.export(Reward(), example, dynamic_shapes=({0: worlds}, None), strict=False)
graph = program.run_decompositions({}).module()
return graph(torch.ones(5, 3), torch.eye(3)).tolist(), torch.ones(400, 400).matmul(torch.ones(400, 400)).mean().item()
"""
    assert run(outside, attack, before=before)["outcome"] == "open: ([3.0, 3.0, 3.0, 3.0, 3.0], 400.0)"


def test_it_costs_little_of_a_fork():
    code = """
import os, statistics, time
import torch
from rewards import confine
confine.prepare()
times = []
for _ in range(7):
    reading, writing = os.pipe()
    if os.fork() == 0:
        began = time.process_time()
        confine.confine(confine.REWARD_CHILD)
        os.write(writing, str(time.process_time() - began).encode())
        os._exit(0)
    os.wait()
    times.append(float(os.read(reading, 100)))
print(statistics.median(times))
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.05  # s of processor time; 3 to 7 ms are usual


# -- what is missing is said


def test_an_old_kernel_is_reported_and_doubled_layers_are_no_lack(outside):
    said = run(outside, ATTACKS["connect"], before="from rewards import landlock; landlock.abi = lambda: 3")
    assert said["missing"] == {}
    assert "version 3, needed is 4" in said["layers"]["landlock network"]
    assert said["outcome"].startswith("shut: ")
    said = run(outside, "return 1", before="from rewards import landlock; landlock.abi = lambda: 0")
    assert said["missing"] == {"landlock files": "no Landlock"}
    said = run(outside, "return 1", before="import platform; platform.machine = lambda: 'riscv64'")
    assert said["missing"] == {"seccomp": "no numbers of system calls for riscv64"}


def test_a_missing_layer_is_an_error_where_none_may_be(outside):
    before = """
from rewards import landlock
landlock.abi = lambda: 0
os.environ[confine.REQUIRE_VARIABLE] = "1"
try:
    confine.confine(confine.REWARD_CHILD)
except confine.ConfinementError as error:
    print(json.dumps(str(error)), flush=True)
    os._exit(0)
"""
    assert run(outside, "return 1", before=before) == (
        "--require-sandbox: a reward child runs here without: landlock files (no Landlock)."
    )


def test_a_reward_child_starts_no_programs():
    with pytest.raises(ValueError, match="starts no programs"):
        confine.confine(confine.REWARD_CHILD, programs=True)


# -- the tables and the filter, for both machines


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_numbers_are_the_kernels(machine, header):
    if not Path(header).is_file():
        pytest.skip(f"no {header}")
    text = Path(header).read_text()
    kernel = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", text)}
    kernel |= {a: kernel[b] for a, b in re.findall(r"#define __NR_(\w+) __NR3264_(\w+)", text) if b in kernel}
    kernel.setdefault("newfstatat", kernel.get("fstatat", -1))
    ours = syscalls.numbers(machine)
    assert ours is not None
    assert {name: kernel.get(name) for name in ours} == ours
    assert set(kernel) & (syscalls.ALLOWED | syscalls.DENIED) <= set(ours)


def decide(instructions: list[seccomp.Instruction], arch: int, number: int, *arguments: int) -> int:
    """What a filter returns, by an interpreter of classic BPF that knows the manual and not the code."""
    words = {0: number, 4: arch}
    for index in range(6):
        value = arguments[index] if index < len(arguments) else 0
        words[16 + 8 * index], words[20 + 8 * index] = value & 0xFFFFFFFF, value >> 32
    accumulator, at = 0, 0
    while True:
        code, true, false, k = instructions[at]
        at += 1
        if code == 0x06:
            return k
        if code == 0x20:
            accumulator = words[k]
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            at += k
        else:
            test = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            at += true if test else false


ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("machine", ARCH)
def test_the_strict_filter(machine):
    rules, known, arch = seccomp.strict_filter(machine, 77), syscalls.numbers(machine), ARCH[machine]
    assert rules is not None
    assert known is not None
    looked_at = {"clone", "clone3", "kill", "tgkill", "prlimit64", "fcntl", "ioctl", "prctl", "sendto"}
    for name in set(known) - looked_at:
        assert decide(rules, arch, known[name]) == (ALLOW if name in syscalls.ALLOWED else EPERM), name
    for number in set(range(syscalls.LAST + 1)) - set(known.values()):
        assert decide(rules, arch, number) == EPERM
    assert decide(rules, arch, syscalls.LAST + 1) == decide(rules, arch, 0x40000000) == ENOSYS
    assert decide(rules, 0x40000003, known["read"]) == KILL
    assert decide(rules, arch, known["clone3"]) == ENOSYS
    assert decide(rules, arch, known["clone"], 0x3D0F00) == ALLOW  # as pthread_create calls it
    assert decide(rules, arch, known["clone"], 0x01200011) == EPERM  # as fork calls it
    assert decide(rules, arch, known["kill"], 77) == ALLOW
    assert [decide(rules, arch, known["kill"], pid) for pid in (1, 0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)] == [EPERM] * 4
    assert decide(rules, arch, known["sendto"], 3, 0, 1, 0, 0) == ALLOW
    assert decide(rules, arch, known["sendto"], 3, 0, 1, 0, 1 << 40) == EPERM
    assert decide(rules, arch, known["ioctl"], 0, 0x5401) == ALLOW
    assert decide(rules, arch, known["ioctl"], 0, 0x5412) == EPERM


@pytest.mark.parametrize("machine", ARCH)
@pytest.mark.parametrize("programs", [False, True])
@pytest.mark.parametrize("sockets", [False, True])
def test_the_broad_filter(machine, programs, sockets):
    rules = seccomp.broad_filter(machine, 77, programs=programs, unix_sockets=sockets)
    known, arch = syscalls.numbers(machine), ARCH[machine]
    assert rules is not None
    assert known is not None
    for name in ("connect", "sendmmsg", "ptrace", "process_vm_readv", "bpf", "unshare", "io_uring_setup", "chmod"):
        assert name not in known or decide(rules, arch, known[name]) == EPERM, name
    assert decide(rules, arch, known["execve"]) == (ALLOW if programs else EPERM)
    assert decide(rules, arch, known["clone"], 17) == (ALLOW if programs else EPERM)
    assert decide(rules, arch, known["kill"], 1) == (ALLOW if programs else EPERM)
    assert decide(rules, arch, known["socket"], 1, 0x80005) == (ALLOW if sockets else EPERM)
    assert decide(rules, arch, known["socket"], 1, 0x80002) == EPERM  # datagrams name their own address
    assert decide(rules, arch, known["socket"], 2, 1) == EPERM
    assert decide(rules, arch, known["clone3"]) == decide(rules, arch, 462) == ENOSYS
    memfd_create = {"x86_64": 319, "aarch64": 279}[machine]
    assert decide(rules, arch, memfd_create) == ALLOW


def test_this_machine_is_in_the_tables():
    assert syscalls.numbers(platform.machine()) is not None
    assert syscalls.numbers("s390x") is None
    assert not syscalls.ALLOWED & syscalls.DENIED
    assert syscalls.PROGRAMS | syscalls.UNIX_SOCKETS <= syscalls.DENIED

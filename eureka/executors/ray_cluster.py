"""The Ray cluster that trainings run on: an existing one (`RAY_ADDRESS`), or one on this machine that we start.

The one we start listens on the loopback interface alone, takes nobody without a token made for it, has no dashboard,
sends no usage statistics, and ends with this process. The only module that imports Ray, which reads its settings from
the environment at that moment.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eureka.executors.local import without_secrets
from eureka.executors.scratch import abandoned, scratch_folder
from tasks.errors import UserError

ADDRESS_VARIABLE = "RAY_ADDRESS"
INSTALL = "pip install 'eureka-skills[ray]'"
_OBJECT_STORE_BYTES = 256 * 2**20  # pieces of files in transit
_FOLDER = "eureka-ray-"
_CONNECT_S = 10.0
_TOKEN = secrets.token_hex(32)  # one a process: Ray keeps the first it sees
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_OURS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # as local processes; Ray's own choice is 15
    # Ray's own way to say that a cluster has one machine: its servers then bind 127.0.0.1. An address given to it is
    # replaced by the machine's outer one, and any other address has them listen on all interfaces.
    _LOOPBACK: "0",
}


def load_ray() -> Any:
    """The module. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise UserError(f"--executor ray needs Ray: {INSTALL}") from None


class Cluster:
    """A connection to a cluster.

    Args:
        address: Of an existing cluster; None starts one here.
        cpus: CPU shares of the one that is started.
        gpus: GPUs of the one that is started.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str | None, cpus: int, gpus: int) -> None:
        self._folder: Path | None = None
        with _environment(address):
            self.ray = load_ray()
            self._connected = not self.ray.is_initialized()
            if self._connected:
                self._connect(address, cpus, gpus)

    def _connect(self, address: str | None, cpus: int, gpus: int) -> None:
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            # Ray's sockets need a short path. It opens its folder to everyone, so that it gets one within a closed one.
            place = Path("/tmp") if os.path.isdir("/tmp") else None
            for folder in abandoned(_FOLDER, place):
                shutil.rmtree(folder, ignore_errors=True)
            self._folder = scratch_folder(_FOLDER, place)
            options |= {
                "address": "local",
                "num_cpus": cpus,
                "num_gpus": gpus,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_temp_dir": str(self._folder / "r"),
            }
        try:
            if address is not None:
                _reachable(address)
            with _signals_kept():
                self.ray.init(**options)
        except Exception as error:
            self.close()
            # Ray raises a bare Exception where its node has not come up within 30 s, as on a machine that is very busy.
            known = (OSError, RuntimeError, ValueError, self.ray.exceptions.RayError)
            if type(error) is not Exception and not isinstance(error, known):
                raise
            reason = " ".join(str(error).split())
            where = "no Ray cluster could be started here" if address is None else f"no Ray cluster at {address}"
            way = f"unset {ADDRESS_VARIABLE}, or name one that runs ({ADDRESS_VARIABLE}, RAY_AUTH_TOKEN_PATH)"
            raise UserError(f"{where}: {reason:.300}; {way}.") from error

    def capacity(self, threads: int, with_gpu: bool) -> int:
        """Jobs of so many CPU threads, and a GPU each, that the nodes which are up bear together."""
        total = 0
        for node in self.ray.nodes():
            if node["Alive"]:
                cpus, gpus = node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)
                total += min(int(cpus // threads), int(gpus)) if with_gpu else int(cpus // threads)
        return total

    def has_gpus(self) -> bool:
        """Whether a node that is up has a GPU."""
        return any(node["Alive"] and node["Resources"].get("GPU", 0.0) >= 1.0 for node in self.ray.nodes())

    def close(self) -> None:
        """Leave the cluster; one that we started ends."""
        if self._connected:
            with _signals_kept():
                self.ray.shutdown()
            self._connected = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _reachable(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT: Ray itself tries for minutes, and may end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()


@contextlib.contextmanager
def _environment(address: str | None) -> Iterator[None]:
    """While Ray starts, the variables that its processes inherit: no secrets but its own token. For a cluster of
    others they stay as they are, since they say how to reach it."""
    before = dict(os.environ)
    if address is None:
        kept = {name: value for name, value in without_secrets(before).items() if not name.startswith("RAY_")}
        root = str(Path(__file__).resolve().parents[2])  # the packages may be used from a checkout
        path = os.pathsep.join(part for part in (root, kept.get("PYTHONPATH")) if part)
        _set_environment({**kept, **_OURS, "RAY_AUTH_TOKEN": _TOKEN, "PYTHONPATH": path})
    elif address.startswith(("127.", "localhost:")):
        os.environ[_LOOPBACK] = "0"  # or Ray replaces the address by the machine's outer one
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(variables: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; ours is put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

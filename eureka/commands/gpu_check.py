"""What `eureka doctor` says of GPUs: whether torch and MuJoCo Warp can use one, and what to install where not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from tasks.env import INSTALL_WARP

Level = Literal["good", "without", "broken"]

_DRIVER = Path("/proc/driver/nvidia/version")
_PLAIN_TORCH = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"
_USE = "eureka train TASK --backend warp"


@dataclass(frozen=True)
class GpuFacts:
    """What was found on a machine."""

    driver: bool
    """Whether there is an NVIDIA driver."""
    torch_version: str
    """torch's own version."""
    torch_cuda: str | None
    """CUDA version that torch was built for; None without."""
    devices: tuple[str, ...]
    """Names of the CUDA devices that torch can use."""
    warp: str | None
    """Versions of mujoco-warp and warp-lang; None where one is missing."""
    warp_driver: str | None = None
    """CUDA version of the driver that Warp finds; None where it finds none."""
    conditional_graphs: bool = False
    """Whether the driver can end a graph's loops early (CUDA 12.4)."""


def gpu_facts() -> GpuFacts:
    """Look. Warp, which is slow to import, is asked only where torch has a device."""
    import torch

    devices: tuple[str, ...] = ()
    if torch.cuda.is_available():
        devices = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    try:
        warp: str | None = f"mujoco-warp {version('mujoco-warp')}, warp-lang {version('warp-lang')}"
    except PackageNotFoundError:
        warp = None
    found: tuple[str | None, bool] = (None, False)
    if devices and warp:
        from tasks.sim_warp_device import cuda_support

        found = cuda_support()
    driver = _DRIVER.exists() or shutil.which("nvidia-smi") is not None
    return GpuFacts(driver, torch.__version__, torch.version.cuda, devices, warp, *found)


def gpu_findings(facts: GpuFacts) -> Iterator[tuple[Level, str, str]]:
    """Level, subject and text of each line."""
    if facts.devices:
        yield "good", "gpu", f"{', '.join(facts.devices)} (torch for CUDA {facts.torch_cuda})"
    elif facts.driver and facts.torch_cuda is None:
        text = f"an NVIDIA driver is here, but torch {facts.torch_version} is built without CUDA"
        yield "without", "gpu", f"{text}; {_PLAIN_TORCH} (or another CUDA version that nvidia-smi names)"
    elif facts.driver:
        text = f"an NVIDIA driver is here, but torch, built for CUDA {facts.torch_cuda}, cannot use it"
        yield "without", "gpu", f"{text}; compare nvidia-smi's CUDA version, and look at CUDA_VISIBLE_DEVICES"
    else:
        yield "without", "gpu", "none that torch can use; everything runs on the CPU"

    if facts.warp is None:
        wanted = f"--backend warp, thousands of worlds on the GPU, needs it: {INSTALL_WARP}" if facts.devices else (
            f"of use with an NVIDIA GPU: {INSTALL_WARP}"
        )  # fmt: skip
        yield "without", "warp", f"not installed; {wanted}"
    elif not facts.devices:
        yield "without", "warp", f"{facts.warp}; without a CUDA device only for tests (--backend warp --device cpu)"
    elif facts.warp_driver is None:
        yield "without", "warp", f"{facts.warp}; Warp finds no CUDA driver though torch does: update the driver"
    elif not facts.conditional_graphs:
        text = f"{facts.warp}, driver for CUDA {facts.warp_driver}: {_USE} can run, but solver loops run to their ends"
        yield "without", "warp", f"{text}; a driver for CUDA 12.4 or newer is faster"
    else:
        yield "good", "warp", f"{facts.warp}, driver for CUDA {facts.warp_driver}: {_USE}"

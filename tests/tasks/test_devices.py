"""Every task's tensors live where the worlds are, and no step has the host wait for the device: without a GPU.

Torch's fake tensors carry a device and a shape and no values. On a fake GPU an operation on tensors of two devices is
refused as on a real one, and so is everything whose result the host would have to wait for (`nonzero`, `item`, `if` on
a tensor, a list as an index). What fake tensors do not see, a copy of Python numbers to the device in each step, is
counted beside. The device is torch's slot for foreign ones: its own names need a driver for Python's indexing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from tasks import math as task_math
from tasks import registry
from tasks.env import TaskEnv
from tasks.sim import Simulation
from tests.tasks.toy_tasks import Slider

N, DEVICE = 6, "fakegpu:0"


@functools.cache
def register_device() -> None:
    backends = pytest.importorskip("torch.utils.backend_registration")
    if not hasattr(backends, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot pretend to have a device")
    backends._setup_privateuseone_for_python_backend("fakegpu")


class FakeGenerator:
    """Torch has no generator for a GPU that is not there."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def manual_seed(self, seed: int) -> FakeGenerator:
        return self


def without_fakes(draw):
    """A drawing function that leaves a fake generator out."""

    def drawn(*args, generator=None, **kwargs):
        if not isinstance(generator, FakeGenerator):
            kwargs["generator"] = generator
        return draw(*args, **kwargs)

    return drawn


class Watch(TorchFunctionMode):
    """Counts what is copied from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor):
            made = func(*args, **kwargs | {"device": "cpu"})
            return self._copied(made, kwargs.get("device") or "cpu")
        if func is torch.Tensor.to and isinstance(args[1], str | torch.device) and args[0].device.type == "cpu":
            return self._copied(args[0], args[1])
        return func(*args, **kwargs)

    def _copied(self, tensor: torch.Tensor, device) -> torch.Tensor:
        """`tensor` on a device. Without its values, which torch would want to copy for real where it knows them."""
        if torch.device(device).type == "cpu":
            return tensor
        self.copies += 1
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


class FakeSimulation:
    """Worlds on a fake GPU; nothing moves."""

    asynchronous = True

    def __init__(self, model, substeps: int) -> None:
        self.num_envs, self.device, self.model, self.substeps = N, DEVICE, model, substeps
        self.physics_dt_s = float(model.opt.timestep)
        self.memory: dict[str, torch.Tensor] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.qpos, self.qvel = torch.zeros(N, model.nq, device=DEVICE), torch.zeros(N, model.nv, device=DEVICE)
        self.diverged = torch.zeros(N, dtype=torch.bool, device=DEVICE)
        self.controls = 0

    def sensor(self, name: str) -> torch.Tensor:
        return torch.zeros(N, int(self.model.sensor(name).dim[0]), device=DEVICE)

    def set_state(self, env_ids, qpos, qvel, where=None) -> None:
        n = len(env_ids)
        assert qpos.shape == (n, self.model.nq) and qvel.shape == (n, self.model.nv)
        self.qpos = self.qpos.index_copy(0, env_ids, qpos)
        self.qvel = self.qvel.index_copy(0, env_ids, qvel)
        assert where is None or where.shape == (n,)

    def set_ctrl(self, ctrl) -> None:
        assert ctrl.shape == (N, self.model.nu) and str(ctrl.device) == DEVICE
        self.controls += 1

    def step(self) -> None:
        assert self.controls


@pytest.fixture(autouse=True)
def fake_gpu(monkeypatch) -> Iterator[None]:
    register_device()
    caches = (task_math.constant, task_math._matrix_terms)
    for cache in caches:
        cache.cache_clear()
    _device_constructors()  # torch remembers which functions take a device: the real ones
    monkeypatch.setattr(torch, "Generator", FakeGenerator)
    for name in ("rand", "randn", "randint"):
        monkeypatch.setattr(torch, name, without_fakes(getattr(torch, name)))
    yield
    for cache in caches:
        cache.cache_clear()  # fake tensors are of no use to others


def play(task) -> int:
    """An episode's start and three steps on the fake GPU; tensors that the last one made of numbers."""
    model = task.build_model()
    with FakeTensorMode(allow_non_fake_inputs=True), Watch() as watch:
        sim: Simulation = FakeSimulation(model, task.substeps(model))  # type: ignore[assignment]
        env = TaskEnv(task, sim, seed=0)
        for _ in range(3):
            watch.copies = 0
            step = env.step(torch.zeros(N, env.num_actions, device=DEVICE))
            fitness = task.fitness(step.signals)
        assert step.observation.shape[0] == N
        found = step.signals | sim.memory | sim.constants | step.reasons
        for name, value in (found | {"observation": step.observation, "fitness": fitness}).items():
            assert str(value.device) == DEVICE, name
    return watch.copies


@pytest.mark.parametrize("name", registry.names())
def test_tasks_keep_to_their_device_and_never_wait_for_it(name):
    assert play(registry.make(name)) == 0, "tensors are made of Python numbers in each step"


class OnTheCpu(Slider):
    """Mixes in a tensor of the CPU."""

    def act(self, sim, actions) -> None:
        sim.set_ctrl(actions * torch.tensor([2.0], device="cpu"))


class Waits(Slider):
    """Asks which worlds are far."""

    def update(self, sim, signals, rng):
        signals["position"][:, 0].nonzero()


class Asks(Slider):
    """Decides by a value."""

    def update(self, sim, signals, rng):
        if signals["position"].sum() > 0:
            sim.memory["far"] = signals["position"]


class Copies(Slider):
    """Makes a tensor of numbers in each step."""

    def update(self, sim, signals, rng):
        sim.memory["goal"] = signals["position"] + torch.tensor([1.0])


@pytest.mark.parametrize(
    ("task", "error"),
    [(OnTheCpu(), RuntimeError), (Waits(), DynamicOutputShapeException), (Asks(), DataDependentOutputException)],
)
def test_the_fake_gpu_refuses_what_a_real_one_does(task, error):
    with pytest.raises(error):
        play(task)


def test_copies_are_counted():
    assert play(Slider()) == 0
    assert play(Copies()) == 1


def test_tensors_without_a_device_are_made_on_the_worlds_in_setup_reset_and_update():
    """The toy task names none; `play` has looked where its state and memory are."""

    class Forgets(Slider):
        def setup(self, sim) -> None:
            sim.memory["goal"] = torch.zeros(N, 1)
            sim.constants["limit"] = torch.ones(1)

        def update(self, sim, signals, rng):
            sim.memory["goal"] = torch.ones(N, 1)

    play(Forgets())

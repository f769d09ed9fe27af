"""Small datasets that the tests share: made of numbers, no simulation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from distill.dataset.episode import Episode, Origin
from distill.dataset.layout import ACTION, DONE, QPOS, STATE, DatasetSpec, Feature
from distill.dataset.reader import EpisodeDataset
from distill.dataset.writer import DatasetWriter

STATE_SIZE = 3
FPS = 20
SPEC = DatasetSpec(
    "slider",
    FPS,
    {
        STATE: Feature("float32", (STATE_SIZE,)),
        ACTION: Feature("float32", (2,), ("left", "right")),
        QPOS: Feature("float32", (1,)),
        DONE: Feature("bool", (1,)),
    },
)
ODD = np.array([0.0, -0.0, 1e-45, np.finfo(np.float32).max, np.pi, -1 / 3], dtype=np.float32)
"""Numbers that a detour through text or another type would change."""


def length(number: int) -> int:
    """Frames of episode `number`: 1 to 9."""
    return 1 + number * 5 % 9


def episode(number: int, spec: DatasetSpec = SPEC) -> Episode:
    """Episode `number`: the same numbers each time."""
    rng, frames = np.random.default_rng([7, number]), length(number)
    columns = {}
    for name, feature in spec.features.items():
        if feature.dtype == "bool":
            columns[name] = np.arange(frames) == frames - 1
        else:
            columns[name] = rng.standard_normal((frames, *feature.shape)).astype(feature.dtype)
    columns[STATE][:, 0] = ODD[(np.arange(frames) + number) % len(ODD)]
    tasks = "stay" if number % 2 else ["go"] * (frames // 2) + ["turn"] * (frames - frames // 2)
    return Episode(columns, tasks, Origin(f"expert {number % 2}", 100 + number // 4, number % 4, 0.25 * number))


def write(root: Path, numbers: Iterable[int], **sizes: float) -> Path:
    """A dataset of some episodes."""
    with DatasetWriter(root, SPEC, **sizes) as writer:
        for number in numbers:
            writer.add_episode(episode(number))
    return root


def assert_holds(root: Path, numbers: Iterable[int]) -> None:
    """The dataset holds exactly these episodes, bit for bit, in this order."""
    numbers = list(numbers)
    dataset = EpisodeDataset(root)
    assert dataset.num_episodes == len(numbers)
    frames = 0
    for place, number in enumerate(numbers):
        wanted, found = episode(number), dataset.episode(place)
        for name, column in wanted.columns.items():
            assert found[name].dtype == column.dtype, name
            assert found[name].tobytes() == np.ascontiguousarray(column).tobytes(), (place, name)
        words = [wanted.tasks] * length(number) if isinstance(wanted.tasks, str) else list(wanted.tasks)
        assert [dataset.tasks[task] for task in found["task_index"][:, 0]] == words
        assert found["index"][:, 0].tolist() == list(range(frames, frames + length(number)))
        assert found["frame_index"][:, 0].tolist() == list(range(length(number)))
        assert set(found["episode_index"][:, 0].tolist()) == {place}
        assert dataset.origins is not None and dataset.origins[place] == wanted.origin
        frames += length(number)
    assert dataset.num_frames == frames

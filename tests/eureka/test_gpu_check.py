"""`eureka doctor` on machines with and without a GPU: each gets its line, with the way out."""

from __future__ import annotations

import pytest

from eureka.commands.gpu_check import GpuFacts, gpu_facts, gpu_findings

WARP = "mujoco-warp 4.0.0, warp-lang 1.19.0"
DEVICES = ("NVIDIA H100",)


@pytest.mark.parametrize(
    ("facts", "levels", "words"),
    [
        (GpuFacts(False, "2.13.0+cpu", None, (), None), ["without", "without"], ["none that torch", "eureka-skills[gpu]"]),
        (GpuFacts(True, "2.13.0+cpu", None, (), WARP), ["without", "without"], ["without CUDA; pip install", "only for tests"]),
        (GpuFacts(True, "2.13.0", "12.8", (), WARP), ["without", "without"], ["cannot use it; compare", "only for tests"]),
        (GpuFacts(True, "2.13.0", "12.8", DEVICES, None), ["good", "without"], ["NVIDIA H100", "pip install 'eureka-skills[gpu]'"]),
        (GpuFacts(True, "2.13.0", "12.8", DEVICES, WARP), ["good", "without"], ["NVIDIA H100", "update the driver"]),
        (GpuFacts(True, "2.13.0", "12.8", DEVICES, WARP, "12.2"), ["good", "without"], ["NVIDIA H100", "12.4 or newer"]),
        (GpuFacts(True, "2.13.0", "12.8", DEVICES, WARP, "12.8", True), ["good", "good"], ["NVIDIA H100", "--backend warp"]),
    ],
)  # fmt: skip
def test_every_machine_is_told_what_it_lacks(facts, levels, words):
    lines = list(gpu_findings(facts))
    assert [level for level, _, _ in lines] == levels
    assert [subject for _, subject, _ in lines] == ["gpu", "warp"]
    for (_, _, text), word in zip(lines, words, strict=True):
        assert word in text


def test_the_facts_of_this_machine_can_be_told():
    assert len(list(gpu_findings(gpu_facts()))) == 2

"""What the tests of the command line share: programs that the gate takes or refuses, and what a refusal looks like."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SLIDER = str(ROOT / "tests" / "data" / "slider.py")
HUMAN = ROOT / "tests" / "data" / "slider_human.py"

GOOD = """import torch

def compute_reward(mass_position):
    total = -mass_position[:, 0]
    return total, {'a': total}
"""
BROKEN = {
    "syntax": (GOOD.replace("[:, 0]", "[:, 0"), 4, "not valid Python"),
    "unknown signal": (GOOD.replace("mass_position", "mass_postion"), 3, "Did you mean 'mass_position'?"),
    "two entry points": (GOOD + GOOD.replace("import torch\n", ""), 7, "2 times"),
    "no entry point": (GOOD.replace("compute_reward", "reward"), 0, "no function named compute_reward"),
}


def assert_one_line(code: int, err: str, *words: str) -> None:
    """A refusal: exit code 2 and one line with all of the words."""
    assert code == 2, err
    assert err.startswith("eureka: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, err

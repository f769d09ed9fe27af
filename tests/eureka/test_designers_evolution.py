"""Evolution: programs the gate accepts, the same for the same seed, better ones with a history of fitness."""

from __future__ import annotations

import ast
import math
import random
import statistics

import pytest
import torch

from eureka.candidate import Candidate, Status, candidate_id
from eureka.designers import evolution, genome
from eureka.designers.base import Ask, DesignContext, Reply
from eureka.designers.genome import Term
from rewards.check import check
from rewards.function import build_reward
from rewards.gate import admit_many
from rewards.source import extract
from tasks.signals import KINDS, Signal, SignalTable

CART = SignalTable(
    [
        Signal("cart_position", 1, "m", "world", "position", "cart on its rail"),
        Signal("cart_velocity", 1, "m/s", "world", "linear_velocity", "cart"),
        Signal("pole_direction_w", 2, "1", "world", "direction", "sine and cosine"),
        Signal("pole_rate", 1, "rad/s", "joint", "angular_velocity", "pole"),
        Signal("actions", 1, "1", "joint", "action", "force"),
    ]
)
ARM = SignalTable(
    [
        Signal("joint_pos", 7, "rad", "joint", "joint_pos", "angles"),
        Signal("joint_vel", 7, "rad/s", "joint", "joint_vel", "rates"),
        Signal("hand_position_w", 3, "m", "world", "position", "hand"),
        Signal("goal_position_w", 3, "m", "world", "position", "where to go"),
        Signal("gripper_orientation_w", 4, "1", "world", "orientation", "hand"),
        Signal("fingertip_force", 2, "N", "body", "force", "both fingers"),
        Signal("touch", 2, "1", "body", "contact", "both fingers"),
        Signal("actions", 7, "1", "joint", "action", "torques"),
        Signal("previous_actions", 7, "1", "joint", "action", "torques before"),
    ]
)
ACTIONS_ONLY = SignalTable([Signal("actions", 2, "1", "joint", "action", "thrust")])
EVERY_KIND = SignalTable([Signal(f"a_{kind}", 1 + i % 4, "1", "-", kind, kind) for i, kind in enumerate(KINDS)])
TABLES = {"cart": CART, "arm": ARM, "actions only": ACTIONS_ONLY, "every kind": EVERY_KIND}


def states(table: SignalTable, worlds: int = 64, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {signal.name: torch.randn(worlds, signal.dims, generator=rng) for signal in table}


def ask(table: SignalTable, generation: int = 1, index: int = 0, attempt: int = 0, **context) -> Ask:
    samples = context.pop("samples", 6)
    scales = {name: tensor.std(dim=0).tolist() for name, tensor in states(table).items()}
    settings = {"signal_scales": scales, "seed": 0} | context
    name = candidate_id(generation, index)
    made = DesignContext("task", "do", table, generation=generation, index=index, samples=samples, **settings)
    return Ask(f"{name}_r{attempt}", name, attempt, (), made)


def answer(asks: list[Ask]) -> list[Reply]:
    replies: list[Reply] = []
    evolution.EvolutionDesigner().answer(asks, replies.append)
    return replies


def program(one: Ask) -> str:
    return extract(evolution.compose(one)).text


def trained(source: str, fitness: float | None, generation: int = 1, index: int = 0) -> Candidate:
    status = Status.TRAINED if fitness is not None else Status.FAILED
    return Candidate(candidate_id(generation, index), generation, index, status=status, source=source, fitness=fitness)


@pytest.mark.parametrize("name", TABLES)
def test_every_program_passes_the_gate(name: str) -> None:
    """Fresh programs, children of generations, repairs: by the check, two tables in trials as well."""
    table = TABLES[name]
    asks = [ask(table, 1, i, seed=s) for s in range(3) for i in range(6)]
    asks += [ask(table, 1, i, attempt=1) for i in range(3)]
    history = tuple(trained(program(a), float(i), 1, i) for i, a in enumerate(asks[:6]))
    asks += [ask(table, g, i, history=history, best=history[-1]) for g in (2, 3, 4) for i in range(6)]
    replies = answer(asks)
    assert [(r.ask_id, r.outcome) for r in replies] == [(a.ask_id, "ok") for a in asks]
    problems = [check(extract(r.text or "").text, table) for r in replies]
    assert problems == [[]] * len(asks)
    if name not in ("arm", "every kind"):
        return  # a trial process takes seconds to start
    verdicts = admit_many([r.text or "" for r in replies], table, [states(table, 8), states(table, 32)])
    assert [v.explain() for v in verdicts if not v.accepted] == []
    assert all(genome.MIN_TERMS <= len(v.components) <= genome.MAX_TERMS for v in verdicts)


def test_a_program_computes_its_genome() -> None:
    """Values by hand: 2 tanh(3/2) - 0.5 ((4-1)/3)^2 + 1.5 exp(-(5/5)^2) with |(3,4,0)| = 5."""
    table = SignalTable(
        [
            Signal("speed", 1, "m/s", "world", "linear_velocity", ""),
            Signal("place", 3, "m", "world", "position", ""),
            Signal("goal", 3, "m", "world", "command", ""),
            Signal("angle", 2, "rad", "joint", "joint_pos", ""),
        ]
    )
    terms = (
        Term("speed", "dim", "tanh", 2.0, 2.0),
        Term("angle", "dim", "l2", 0.5, 3.0, dim=1, goal=1.0),
        Term("place", "norm", "exp", 1.5, 5.0, minus="goal"),
        Term("speed", "constant", "constant", 0.25),
        Term("angle", "dim", "l1", 1.0, 2.0, dim=0),
    )
    reward = build_reward(genome.render(terms, table), table)
    signals = {
        "speed": torch.tensor([[3.0], [0.0]]),
        "place": torch.tensor([[4.0, 4.0, 1.0], [0.0, 0.0, 0.0]]),
        "goal": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
        "angle": torch.tensor([[-3.0, 4.0], [0.0, 1.0]]),
    }
    total, parts = reward(signals)
    expected = {
        "speed_tanh": [2 * math.tanh(1.5), 0.0],
        "angle_1_l2": [-0.5, 0.0],
        "place_minus_goal_norm_exp": [1.5 * math.exp(-1), 1.5],
        "alive_constant": [0.25, 0.25],
        "angle_0_l1": [-1.5, 0.0],
    }
    assert list(parts) == list(expected)
    for name, values in expected.items():
        assert parts[name].tolist() == pytest.approx(values)
    assert total.tolist() == pytest.approx([sum(v[i] for v in expected.values()) for i in (0, 1)])
    assert genome.recover(genome.render(terms, table), table) == terms


def test_the_same_seed_and_id_give_the_same_program() -> None:
    history = tuple(trained(program(ask(ARM, 1, i)), float(i), 1, i) for i in range(4))
    for generation in (1, 2):
        asks = [ask(ARM, generation, i, history=history if generation == 2 else ()) for i in range(6)]
        first = {r.ask_id: r.text for r in answer(asks)}
        assert {r.ask_id: r.text for r in answer(asks[::-1])} == first
        assert len(set(first.values())) == 6
    assert program(ask(ARM, 1, 0, seed=1)) != program(ask(ARM, 1, 0, seed=2))


def test_a_repair_is_another_program() -> None:
    first = ask(CART, 1, 2)
    again = ask(CART, 1, 2, attempt=1)
    assert program(first) != program(again)


def test_a_first_generation_is_about_different_things() -> None:
    """With as many samples as kinds of signals that can lead, no two main terms look at the same kind."""
    for seed in range(5):
        genomes = [genome.recover(program(ask(CART, 1, i, samples=4, seed=seed)), CART) for i in range(4)]
        kinds = [CART[found[0].signal].kind for found in genomes if found is not None]
        assert len(set(kinds)) == 4


def test_a_signal_that_never_moves_is_left_out() -> None:
    scales = {name: [0.0] * CART[name].dims for name in CART.names} | {"pole_direction_w": [0.5, 0.0]}
    for index in range(6):
        found = genome.recover(program(ask(CART, 1, index, signal_scales=scales)), CART)
        assert found is not None
        for term in found:
            assert term.form == "constant" or (term.signal, term.dim) in {
                ("pole_direction_w", 0),
                ("actions", 0),
            }


def foreign(*rows: str) -> str:
    """A program of somebody else who writes these lines where ours has its genome."""
    lines = "".join(f"    {row}\n" for row in rows)
    return f'def compute_reward(actions):\n    """{genome.MARK}\n{lines}    """\n'


GOOD_ROW = '{"signal": "actions", "form": "dim", "kernel": "exp", "weight": 1}'
FOREIGN = {
    "an LLM's": "def compute_reward(actions):\n    return actions[:, 0], {'a': actions[:, 0]}\n",
    "not Python": foreign(GOOD_ROW, GOOD_ROW).replace("(actions)", "("),
    "no JSON": foreign("hello"),
    "one term": foreign(GOOD_ROW),
    "unknown field": foreign(GOOD_ROW, '{"evil": 1}'),
    "code as a signal": foreign(GOOD_ROW, GOOD_ROW.replace("actions", "x); import os; (")),
    "code as a weight": foreign(GOOD_ROW, GOOD_ROW.replace("1}", '"os"}')),
    "weight nan": foreign(GOOD_ROW, GOOD_ROW.replace("1}", "NaN}")),
    "no such dimension": foreign(GOOD_ROW, GOOD_ROW.replace("1}", '1, "dim": 4}')),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_programs_of_other_authors_are_passed_over(name: str) -> None:
    assert genome.recover(foreign(GOOD_ROW, GOOD_ROW), CART) is not None
    assert genome.recover(FOREIGN[name], CART) is None
    history = (
        trained(FOREIGN[name], 9.0),
        trained(FOREIGN[name], math.nan, 1, 1),
        trained(FOREIGN[name], None, 1, 2),
    )
    assert check(program(ask(CART, 2, 0, history=history, best=history[0])), CART) == []


def test_a_genome_survives_rewriting_of_its_program() -> None:
    """What is stored may have been printed from the syntax tree; the genome must still be there."""
    source = program(ask(ARM, 1, 3))
    assert genome.recover(ast.unparse(ast.parse(source)), ARM) == genome.recover(source, ARM) is not None


def test_statistics_advise_mutation() -> None:
    """A component without spread is dropped or rescaled; one that drowns the others is weakened."""
    parent = (
        Term("cart_position", "dim", "exp", 1.0, 0.01),
        Term("cart_velocity", "dim", "tanh", 1.0, 1.0),
        Term("pole_rate", "dim", "l2", 1.0, 1.0),
    )
    figures = {
        "cart_position_exp": {"mean": 0.0, "min": 0.0, "max": 0.0},
        "cart_velocity_tanh": {"mean": 0.01, "min": -0.5, "max": 0.5},
        "pole_rate_l2": {"mean": -30.0, "min": -60.0, "max": -1.0},
    }
    for seed in range(20):
        kept = {t.signal: t for t in evolution._advised(list(parent), CART, figures, random.Random(seed))}
        assert "cart_position" not in kept or kept["cart_position"].scale != 0.01
        assert kept["cart_velocity"] == parent[1]
        assert kept["pole_rate"].weight == 0.5
    broken = {"cart_position_exp": {"mean": "nan", "min": "nan", "max": "nan"}, "pole_rate_l2": None}
    assert evolution._advised(list(parent), CART, broken, random.Random(0)) == list(parent)


def _search(seed: int, generations: int, samples: int, keep_history: bool) -> list[list[float]]:
    """Fitness of every program of each generation of a pretended search on ARM.

    A program's fitness is the correlation of its total with a quantity that no designer sees: minus the
    hand's distance from the goal, minus fast joints, plus a little of one joint's angle.
    """
    signals = states(ARM, 256, seed=99)
    gap = torch.linalg.vector_norm(signals["hand_position_w"] - signals["goal_position_w"], dim=1)
    speed = torch.linalg.vector_norm(signals["joint_vel"], dim=1)
    hidden = -gap - 0.7 * speed + 0.7 * signals["joint_pos"][:, 2]
    history: list[Candidate] = []
    for generation in range(1, generations + 1):
        past = tuple(history) if keep_history else ()
        for index in range(samples):
            source = program(ask(ARM, generation, index, samples=samples, seed=seed, history=past))
            total, _ = build_reward(source, ARM)(signals)
            fitness = float(torch.corrcoef(torch.stack([total, hidden]))[0, 1]) if total.std() > 0 else -1.0
            history.append(trained(source, fitness, generation, index))
    return [[c.fitness or 0.0 for c in history if c.generation == g] for g in range(1, generations + 1)]


def test_fitness_makes_later_generations_better() -> None:
    """Over seeds: later programs beat, on average, fresh ones that learn nothing; and the best improves."""
    evolved = [_search(seed, 5, 6, True) for seed in range(4)]
    fresh = [_search(seed, 5, 6, False) for seed in range(4)]
    assert [run[0] for run in evolved] == [run[0] for run in fresh]
    later, untaught = ([f for run in runs for generation in run[1:] for f in generation] for runs in (evolved, fresh))
    assert statistics.mean(later) > statistics.mean(untaught) + 0.15
    first, last = ([max(map(max, run[:upto])) for run in evolved] for upto in (1, 5))
    assert statistics.mean(last) > statistics.mean(first) + 0.02

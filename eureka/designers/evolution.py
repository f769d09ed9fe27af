"""Rewards without an LLM: composed from the kinds of signals, then mutated and recombined by fitness.

The honest baseline that every LLM must beat, and the default where no key is set. It reads no instruction and
knows no task: only the signal table, how much each signal varies under random actions, and how earlier
programs fared. The first generation spreads over what a reward may be about; later ones keep what trained
well.

Every program follows from the search's seed and the ask's id, so a search repeats exactly.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from eureka.candidate import ranked
from eureka.designers import genome as genes
from eureka.designers.base import Ask, DesignContext, Reply
from eureka.designers.genome import Genome, Term
from tasks.signals import Signal, SignalTable

SMALLEST_SCALE = 1e-4  # a signal that varies less under random actions is as good as constant
FLAT = 1e-3  # a component whose spread over episodes is below this share of its mean says nothing
DOMINATING = 0.95  # share of the summed magnitudes above which one component is the whole reward
TRIES = 20  # to find a program that has not been tried
GOAL_WORDS = ("goal", "target", "error", "command", "desired", "reference")


class EvolutionDesigner:
    """Composes, mutates and recombines; keeps no state between asks."""

    name = "evolution"

    def check(self) -> None:
        """Needs nothing."""

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """One program for each ask, at once."""
        for ask in asks:
            on_reply(Reply(ask.ask_id, compose(ask), "ok", model=self.name, tokens_in=0, tokens_out=0, latency_s=0.0))


def compose(ask: Ask) -> str:
    """The reply to one ask: Markdown with one program."""
    context = ask.context
    table = context.signal_table
    rng = random.Random(f"{context.seed}:{ask.ask_id}")
    tried = {candidate.source for candidate in context.history}
    tried.add(ask.previous)
    plan, program = "", ""
    for attempt in range(TRIES):
        plan, genome = _plan(ask, rng, attempt)
        program = genes.render(genome, table)
        if not any(program.strip() in (source or "") for source in tried):
            break
    return f"{plan}\n\n```python\n{program}```\n"


def _plan(ask: Ask, rng: random.Random, attempt: int) -> tuple[str, Genome]:
    """One sentence on what is done, and the genome."""
    context = ask.context
    parents = [
        (candidate.candidate_id, genome)
        for candidate in ranked(context.history)
        if (genome := genes.recover(candidate.source, context.signal_table)) is not None
    ]
    last_of_many = context.samples >= 4 and context.index == context.samples - 1
    if not parents or ask.attempt > 0 or last_of_many:
        turn = (context.generation - 1 + ask.attempt + attempt) * context.samples + context.index
        return "A fresh composition.", fresh(context, rng, turn)
    # The first sample stays close to the best; the others draw their parents, the better the likelier.
    place = 0 if context.index == 0 else min(int(rng.expovariate(1.0)), len(parents) - 1)
    name, genome = parents[place]
    statistics = context.best_components if context.best and context.best.candidate_id == name else None
    if len(parents) > 1 and context.index > 0 and rng.random() < 0.4:
        other_name, other = rng.choice([parent for parent in parents[:6] if parent[0] != name])
        crossed = recombine(genome, other, rng, context.signal_table)
        if rng.random() < 0.5:
            crossed = mutate(crossed, context, rng, None)
        return f"Recombined from {name} and {other_name}.", crossed
    return f"Mutated from {name}.", mutate(genome, context, rng, statistics)


# -- fresh programs


def fresh(context: DesignContext, rng: random.Random, turn: int) -> Genome:
    """A new program; its main term is number `turn` of an order drawn by the seed, the plausible first."""
    table, scales = context.signal_table, context.signal_scales
    mains = _main_terms(context)
    terms: list[Term] = []
    if mains:
        terms.append(_vary(mains[turn % len(mains)], rng, 0.2))
    side: list[Term] = []
    # Most tasks want two things at once: to do something, and to keep something while doing it.
    others = [(p, t) for p, t in emphases(table, scales) if terms and _kind(t, table) != _kind(terms[0], table)]
    if others and rng.random() < 0.75:
        extra = rng.choices([term for _, term in others], [prior for prior, _ in others])[0]
        side.append(_vary(replace(extra, weight=rng.choice((0.5, 1.0)) * extra.weight), rng, 0.2))
    side += _regularisers(table, scales, rng)
    if rng.random() < 0.5:
        side.append(_alive(table, rng))
    genome = genes.tidy(terms + side, table)
    if len(genome) < genes.MIN_TERMS:
        padding = [_alive(table, rng), *_penalties(table, scales)]
        genome = genes.tidy([*genome, *padding], table)[: max(genes.MIN_TERMS, len(genome))]
    return genome


def _kind(term: Term, table: SignalTable) -> str:
    return table[term.signal].kind


def _main_terms(context: DesignContext) -> list[Term]:
    """Every emphasis in an order that the seed draws: likelier ones first, kinds of signals in turn.

    Taking turns makes a small generation look at different things, rather than at one signal's dimensions.
    """
    rng = random.Random(f"{context.seed}:emphasis")
    table = context.signal_table
    drawn = [(rng.random() ** (1.0 / prior), term) for prior, term in emphases(table, context.signal_scales)]
    seen: dict[str, int] = {}
    turns: list[tuple[int, Term]] = []
    for _, term in sorted(drawn, key=lambda pair: -pair[0]):
        kind = _kind(term, table)
        turns.append((seen.get(kind, 0), term))
        seen[kind] = seen.get(kind, 0) + 1
    return [term for _, term in sorted(turns, key=lambda pair: pair[0])]


def emphases(table: SignalTable, scales: dict[str, list[float]]) -> list[tuple[float, Term]]:
    """What a reward may be about: (prior weight, term) for every signal, by its kind alone."""
    found: list[tuple[float, Term]] = []
    for signal in table:
        spread = _spread(signal, scales)
        moving = [dim for dim in range(signal.dims) if spread[dim] > SMALLEST_SCALE]
        if moving:
            found += _emphases_of(signal, spread, moving)
        found += _differences(signal, table, spread)
    return found


def _emphases_of(signal: Signal, spread: list[float], moving: list[int]) -> list[tuple[float, Term]]:
    name, last = signal.name, signal.dims - 1
    norm_scale = math.sqrt(sum(s * s for s in spread))
    near_zero = Term(name, "dim" if signal.dims == 1 else "norm", "exp", 1.0, norm_scale)
    towards = any(word in name for word in GOAL_WORDS)
    if signal.kind in ("distance", "command") or (towards and signal.kind != "action"):
        return [(4.0, near_zero), (1.0, replace(near_zero, kernel="l1", weight=0.5))]
    if signal.kind == "direction":
        # An axis' last component is its rise above the horizon; a pair may be a cosine and a sine.
        priors = {dim: 3.0 if dim == last or signal.dims <= 2 else 0.7 for dim in moving}
        rows = [(prior, Term(name, "dim", "identity", 1.0, 1.0, dim)) for dim, prior in priors.items()]
        return rows + [(0.15 * prior, replace(term, weight=-1.0)) for prior, term in rows]
    if signal.kind == "linear_velocity":
        kernel = "identity" if signal.dims > 1 else "tanh"
        priors = {dim: 2.0 if dim == 0 and signal.dims > 1 else 0.4 for dim in moving}
        rows = [(prior, Term(name, "dim", kernel, 1.0, 1.0, dim)) for dim, prior in priors.items()]
        return [*rows, *((0.2 * prior, replace(term, weight=-1.0)) for prior, term in rows)]
    if signal.kind == "position":
        height = [(0.5, Term(name, "dim", "tanh", 1.0, spread[last], last))] if last in moving else []
        # The origin may lie many spreads away, where a narrow kernel would be flat: at least a metre.
        return [(1.0, replace(near_zero, scale=max(norm_scale, 1.0))), *height]
    if signal.kind == "joint_pos":
        return [(1.0 if signal.dims <= 2 else 0.3, near_zero)]
    if signal.kind in ("angular_velocity", "joint_vel", "orientation"):
        return [(0.2, near_zero)]
    return []


def _differences(signal: Signal, table: SignalTable, spread: list[float]) -> list[tuple[float, Term]]:
    """Terms for coming near a goal that is itself a signal, of the same width, unit and frame."""
    rows: list[tuple[float, Term]] = []
    for goal in table:
        same = (goal.dims, goal.unit, goal.frame) == (signal.dims, signal.unit, signal.frame)
        is_goal = goal.kind == "command" or any(word in goal.name for word in GOAL_WORDS)
        if same and is_goal and goal.name != signal.name and signal.kind not in ("action", "command"):
            scale = max(math.sqrt(sum(s * s for s in spread)), SMALLEST_SCALE)
            form = "dim" if signal.dims == 1 else "norm"
            rows.append((4.0, Term(signal.name, form, "exp", 1.0, scale, minus=goal.name)))
    return rows


def _penalties(table: SignalTable, scales: dict[str, list[float]]) -> list[Term]:
    """Small costs that keep a motion calm: actions, their change, and velocities."""
    rows: list[Term] = []
    for signal in table:
        if signal.name.startswith("prev"):
            continue  # a memory of another signal: of use only for its change
        form = "dim" if signal.dims == 1 else "norm"
        scale = math.sqrt(sum(s * s for s in _spread(signal, scales)))
        if signal.kind == "action":
            cost = Term(signal.name, form, "l2", 0.02, math.sqrt(signal.dims))
            rows.append(cost)
            before = [o for o in table if o.kind == "action" and o.dims == signal.dims and o.name.startswith("prev")]
            rows += [replace(cost, minus=other.name) for other in before]
        elif signal.kind in ("angular_velocity", "joint_vel") and scale > SMALLEST_SCALE:
            rows.append(Term(signal.name, form, "l2", 0.02, scale))
    return rows


def _regularisers(table: SignalTable, scales: dict[str, list[float]], rng: random.Random) -> list[Term]:
    """One or two of the small costs."""
    rows = _penalties(table, scales)
    picked = rng.sample(rows, k=min(len(rows), rng.choice((1, 1, 2))))
    return [_vary(term, rng, 0.7) for term in picked]


def _alive(table: SignalTable, rng: random.Random) -> Term:
    """A constant per step: staying alive pays where an episode can end early."""
    return Term(table[0].name, "constant", "constant", rng.choice((0.2, 0.5, 1.0)))


def _spread(signal: Signal, scales: dict[str, list[float]]) -> list[float]:
    """Standard deviation of each dimension; 1 where it is not known."""
    known = list(scales.get(signal.name, ()))
    known += [1.0] * (signal.dims - len(known))
    return [float(s) if math.isfinite(s) else 1.0 for s in known[: signal.dims]]


def _vary(term: Term, rng: random.Random, sigma: float) -> Term:
    """Weight and scale multiplied by a log-normal factor; a scale of 1 is a unit's own and stays."""
    scale = term.scale if term.scale == 1.0 else term.scale * math.exp(rng.gauss(0.0, max(sigma, 0.4)))
    return replace(term, weight=term.weight * math.exp(rng.gauss(0.0, sigma)), scale=scale)


# -- children


def mutate(parent: Genome, context: DesignContext, rng: random.Random, statistics: dict[str, Any] | None) -> Genome:
    """A child: all weights a little different, one or two changes, and what the statistics advise."""
    table, scales = context.signal_table, context.signal_scales
    terms = _advised(list(parent), table, statistics, rng)
    terms = [replace(term, weight=term.weight * math.exp(rng.gauss(0.0, 0.25))) for term in terms]
    for _ in range(rng.choice((1, 1, 2))):
        terms = _change(terms, table, scales, rng)
    genome = genes.tidy(terms, table)
    return genome if len(genome) >= genes.MIN_TERMS else genes.tidy([*terms, _alive(table, rng)], table)


def _advised(
    terms: list[Term], table: SignalTable, statistics: dict[str, Any] | None, rng: random.Random
) -> list[Term]:
    """Drops or rescales components without spread, and weakens one that drowns the others."""
    if not statistics:
        return terms
    rows = {term: statistics.get(genes.component(term, table)) for term in terms}
    sizes = {term: abs(_figure(row, "mean")) for term, row in rows.items() if isinstance(row, dict)}
    total = sum(size for size in sizes.values() if math.isfinite(size))
    advised: list[Term] = []
    for term, row in rows.items():
        if isinstance(row, dict) and term.form != "constant":
            spread = _figure(row, "max") - _figure(row, "min")
            if spread <= FLAT * max(sizes[term], 1e-6):
                if len(terms) > genes.MIN_TERMS and rng.random() < 0.5:
                    continue
                term = replace(term, scale=term.scale * rng.choice((0.3, 3.0)))
            elif total > 0 and sizes[term] > DOMINATING * total and len(terms) > 1:
                term = replace(term, weight=0.5 * term.weight)
        advised.append(term)
    return advised


def _figure(row: dict[str, Any], name: str) -> float:
    """A statistic as a float; "nan" as text is how records hold a NaN."""
    try:
        return float(row[name])
    except (KeyError, TypeError, ValueError):
        return math.nan


def _change(terms: list[Term], table: SignalTable, scales: dict[str, list[float]], rng: random.Random) -> list[Term]:
    """One change of structure."""
    place = rng.randrange(len(terms))
    term = terms[place]
    kind = rng.choices(("kernel", "scale", "dim", "sign", "add", "remove"), (3, 3, 1, 0.7, 3, 2))[0]
    if kind == "add" and len(terms) < genes.MAX_TERMS:
        pool = [row for _, row in emphases(table, scales)] + _penalties(table, scales)
        extra = _vary(rng.choice(pool), rng, 0.5) if pool else _alive(table, rng)
        return [*terms, replace(extra, weight=extra.weight * rng.choice((0.3, 1.0)))]
    if kind == "remove" and len(terms) > genes.MIN_TERMS:
        # The smallest terms go first; the reward's point is rarely among them.
        by_size = sorted(range(len(terms)), key=lambda i: abs(terms[i].weight))
        del terms[by_size[min(int(rng.expovariate(1.0)), len(terms) - 1)]]
        return terms
    if term.form == "constant":
        return terms
    if kind == "kernel":
        others = [name for name in ("identity", "tanh", "exp", "l2", "l1") if name != term.kernel]
        terms[place] = replace(term, kernel=rng.choice(others))
    elif kind == "dim" and term.form == "dim":
        terms[place] = replace(term, dim=rng.randrange(table[term.signal].dims))
    elif kind == "sign":
        terms[place] = replace(term, weight=-term.weight)
    else:
        terms[place] = replace(term, scale=term.scale * math.exp(rng.gauss(0.0, 0.7)))
    return terms


def _strength(term: Term) -> float:
    return 0.0 if term.form == "constant" else abs(term.weight)


def recombine(first: Genome, second: Genome, rng: random.Random, table: SignalTable) -> Genome:
    """A child of two: the strongest term of each, then a random half of the rest."""
    strongest = [max(parent, key=_strength) for parent in (first, second)]
    rest = [term for term in (*first, *second) if term not in strongest and rng.random() < 0.5]
    genome = genes.tidy([*strongest, *rest], table)
    return genome if len(genome) >= genes.MIN_TERMS else genes.tidy([*genome, *first, *second], table)

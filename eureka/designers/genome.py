"""A reward as a weighted sum of terms: its genome, the program text it becomes, and the way back from the
text.

A term is a quantity (one dimension of a signal, its norm, the difference of two signals, or a constant)
through a kernel, scaled and weighted. The genome is written into the program's docstring, one JSON object a
line, so that a stored program is all that a later generation needs. Programs by other authors have none and
are passed over."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from tasks.signals import Signal, SignalTable

MARK = "Genome, one term a line:"
KERNELS = ("identity", "tanh", "exp", "l2", "l1", "constant")
FORMS = ("dim", "norm", "constant")
MAX_TERMS = 5
MIN_TERMS = 2
AXES = {3: ("x", "y", "z"), 4: ("w", "x", "y", "z")}
AXIS_KINDS = (
    "position",
    "orientation",
    "direction",
    "linear_velocity",
    "angular_velocity",
    "force",
    "command",
)


@dataclass(frozen=True)
class Term:
    """One summand: weight * kernel(quantity / scale).

    Attributes:
        signal: the signal it looks at; any signal of the table for a constant, which takes only its shape.
        form: "dim" (one dimension, less `goal`), "norm" over dimensions, or "constant".
        dim: which dimension, for "dim".
        minus: another signal of the same width that is subtracted first, or None.
        goal: subtracted from a "dim", in the signal's unit.
        kernel: identity q/s, tanh(q/s), exp(-(q/s)^2), l2 = -(q/s)^2, l1 = -|q/s|.
        scale: s, in the signal's unit; positive.
        weight: signed.
    """

    signal: str
    form: str
    kernel: str
    weight: float
    scale: float = 1.0
    dim: int = 0
    minus: str | None = None
    goal: float = 0.0

    @property
    def slot(self) -> tuple[str, str, str, int, str | None]:
        """What makes two terms the same but for their numbers."""
        return (self.signal, self.form, self.kernel, self.dim, self.minus)


Genome = tuple[Term, ...]


def tidy(terms: list[Term], table: SignalTable) -> Genome:
    """`terms` rounded, the first of each component name kept, at most `MAX_TERMS`."""
    kept: dict[str, Term] = {}
    for term in terms:
        rounded = replace(term, weight=_round(term.weight), scale=_round(term.scale), goal=_round(term.goal))
        kept.setdefault(component(rounded, table), rounded)
    return tuple(kept.values())[:MAX_TERMS]


def _round(value: float) -> float:
    """Three significant digits: what a reader can take in."""
    return float(f"{value:.3g}")


def component(term: Term, table: SignalTable) -> str:
    """The term's component name, `<quantity>_<kernel>`."""
    return f"{quantity(term, table)}_{term.kernel}"


def quantity(term: Term, table: SignalTable) -> str:
    """A readable name of what the term measures."""
    if term.form == "constant":
        return "alive"
    base = term.signal if term.minus is None else f"{term.signal}_minus_{term.minus}"
    signal = table[term.signal]
    if term.form == "norm":
        return f"{base}_norm"
    return base if signal.dims == 1 else f"{base}_{axis(signal, term.dim)}"


def axis(signal: Signal, dim: int) -> str:
    """ "x", "y", "z" where the signal is a vector in space, else the number of the dimension."""
    names = AXES.get(signal.dims) if signal.kind in AXIS_KINDS else None
    return names[dim] if names else str(dim)


def render(genome: Genome, table: SignalTable) -> str:
    """The program of a genome: a pure function of the signals it names."""
    used = dict.fromkeys(name for term in genome for name in (term.signal, term.minus) if name is not None)
    arguments = ", ".join(f"{name}: Tensor" for name in table.names if name in used)
    lines = [
        f"def compute_reward({arguments}) -> tuple[Tensor, dict[str, Tensor]]:",
        f'    """Weighted sum of {len(genome)} terms.',
        "",
        f"    {MARK}",
        *(f"    {json.dumps(_compact(term))}" for term in genome),
        '    """',
    ]
    names = [component(term, table) for term in genome]
    lines += [f"    {name} = {_expression(term)}" for name, term in zip(names, genome, strict=True)]
    lines.append(f"    total = {' + '.join(names)}")
    lines.append("    return total, {")
    lines += [f'        "{name}": {name},' for name in names]
    lines.append("    }")
    return "\n".join(lines) + "\n"


def _compact(term: Term) -> dict[str, Any]:
    """The term's fields without those that stand at their default."""
    default = Term(signal="", form="", kernel="", weight=math.nan)
    return {name: value for name, value in asdict(term).items() if value != getattr(default, name)}


def _expression(term: Term) -> str:
    """Python for one term, (N,)."""
    if term.form == "constant":
        return f"{term.weight!r} * torch.ones_like({term.signal}[:, 0])"
    if term.form == "dim":
        value = f"{term.signal}[:, {term.dim}]"
        if term.minus is not None:
            value = f"({value} - {term.minus}[:, {term.dim}])"
        if term.goal:
            value = f"({value} - {term.goal!r})"
    else:
        inner = term.signal if term.minus is None else f"{term.signal} - {term.minus}"
        value = f"torch.sqrt(torch.sum(torch.square({inner}), dim=1))"
    scaled = value if term.scale == 1.0 else f"{value} / {term.scale!r}"
    return {
        "identity": f"{term.weight!r} * {scaled}",
        "tanh": f"{term.weight!r} * torch.tanh({scaled})",
        "exp": f"{term.weight!r} * torch.exp(-torch.square({scaled}))",
        "l2": f"{-term.weight!r} * torch.square({scaled})",
        "l1": f"{-term.weight!r} * torch.abs({scaled})",
    }[term.kernel]


def recover(source: str | None, table: SignalTable) -> Genome | None:
    """The genome in a program's docstring; None where there is none or it does not fit the table."""
    if not source or MARK not in source:
        return None
    try:
        functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        document = next(filter(None, map(ast.get_docstring, functions)), "")
        rows = document.split(MARK, 1)[1].split("\n") if MARK in document else []
        terms = tuple(Term(**json.loads(row)) for row in rows if row.strip())
    except (SyntaxError, ValueError, TypeError, RecursionError):
        return None  # not one of ours: another author may write whatever he likes into a docstring
    fits = MIN_TERMS <= len(terms) <= MAX_TERMS and all(_fits(term, table) for term in terms)
    return terms if fits else None


def _fits(term: Term, table: SignalTable) -> bool:
    """Whether a term that was read from text is one that `render` can write for this table."""
    numbers = (term.weight, term.scale, term.goal)
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        return False
    if not isinstance(term.signal, str) or term.signal not in table or term.form not in FORMS:
        return False
    if term.kernel not in KERNELS or (term.form == "constant") != (term.kernel == "constant"):
        return False
    dims = table[term.signal].dims
    if not isinstance(term.dim, int) or not 0 <= term.dim < dims or term.scale <= 0:
        return False
    return term.minus is None or (
        isinstance(term.minus, str) and term.minus in table and table[term.minus].dims == dims
    )

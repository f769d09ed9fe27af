"""What stands in for the values of a reward program while `rewards.dry_run` follows it.

Numbers, texts and containers stand for themselves, as long as they are known and small; a tensor is a token that
remembers which memory it may share with an argument or a constant. Here are the tokens, arithmetic on them and
what two branches have in common. Nothing of the program runs.
"""

import ast
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

MAX_BITS = 4096
"""Largest whole number, in bits: what shapes, weights and powers need lies far below, what costs time far above."""
MAX_LENGTH = 1024
"""Most elements of a list, or letters of a text."""
MAX_ELEMENTS = 4096
"""Most elements of a list with those of the lists inside it, each counted as often as it is reached."""
SIZE_BITS = 32
"""Bits of a size that is not known before the program runs, such as the number of worlds."""


@dataclass(frozen=True)
class Tensor:
    """A tensor: `shares` names the arguments and constants whose memory it may be, `width` is its last dimension
    where that is known."""

    shares: frozenset[str] = frozenset()
    width: int | None = None


@dataclass(frozen=True)
class Number:
    """A number that is not known; `bits` bounds a whole one, 0 stands for a float, which cannot grow."""

    bits: int = 0


@dataclass(frozen=True)
class Shape:
    """The shape of a tensor."""

    width: int | None


@dataclass(frozen=True)
class Other:
    """Anything else: a dtype, a device, a function of torch (`path`)."""

    path: str = ""


class View(list):  # type: ignore[type-arg]
    """Keys, values or items of the dict `holder`."""

    def __init__(self, items: Iterable[object], holder: object) -> None:
        super().__init__(items)
        self.holder = holder


OTHER = Other()
_OPERATORS: dict[str, Callable[[Any, Any], object]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mult": operator.mul,
    "Div": operator.truediv,
    "FloorDiv": operator.floordiv,
    "Mod": operator.mod,
    "Pow": operator.pow,
    "BitAnd": operator.and_,
    "BitOr": operator.or_,
    "BitXor": operator.xor,
}


class TooLargeError(Exception):
    """A Python value that would grow beyond `MAX_BITS` or `MAX_LENGTH`."""


def bits(value: object) -> int:
    """Bits of a number; 0 for a float and for what is no number."""
    if isinstance(value, Number):
        return value.bits
    return int(value).bit_length() if isinstance(value, bool | int) else 0


def is_sequence(value: object) -> bool:
    """Whether `+` joins it and `*` repeats it."""
    return isinstance(value, list | tuple | str)


def binary(name: str, left: object, right: object) -> object:
    """Result of a binary operator, by the name of its syntax node.

    Raises TooLargeError before a whole number, a text or a list grows beyond measure.
    """
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        width = left.width if isinstance(left, Tensor) and not isinstance(right, Tensor) else None
        return Tensor(width=width)
    if is_sequence(left) or is_sequence(right):
        return _joined(name, left, right)
    grown = _grown_bits(name, left, right)
    if grown > MAX_BITS:
        raise TooLargeError("a whole number")
    known = (bool, int, float)
    if isinstance(left, known) and isinstance(right, known):
        try:
            value = _OPERATORS[name](left, right)
        except (ArithmeticError, TypeError, KeyError):  # the program fails here when it runs; the trial says so
            return Number()
        return value if isinstance(value, known) else Number()
    floats = any(isinstance(item, float) or item == Number() for item in (left, right)) or name == "Div"
    return Number(0 if floats else max(grown, 1))


def _grown_bits(name: str, left: object, right: object) -> int:
    """Most bits that the result of whole numbers can have."""
    if any(isinstance(item, float) or item == Number() for item in (left, right)):
        return 0
    a, b = bits(left), bits(right)
    if name == "Pow":
        if not isinstance(left, bool | int | Number):
            return 0
        exponent = abs(right) if isinstance(right, bool | int) else 2 ** min(b, SIZE_BITS)
        return a * int(exponent) if a > 1 else a
    return a + b if name == "Mult" else max(a, b) + 1


def _joined(name: str, left: object, right: object) -> object:
    """`+` and `*` of lists, tuples and texts."""
    if name == "Add" and type(left) is type(right):
        if len(left) + len(right) > MAX_LENGTH:  # type: ignore[arg-type]
            raise TooLargeError(f"a {type(left).__name__}")
        return left + right  # type: ignore[operator]
    sequence, times = (left, right) if is_sequence(left) else (right, left)
    if name == "Mult" and isinstance(times, bool | int | Number):
        count = int(times) if isinstance(times, bool | int) else 2 ** min(bits(times), SIZE_BITS)
        if len(sequence) * count > MAX_LENGTH:  # type: ignore[arg-type]
            raise TooLargeError(f"a {type(sequence).__name__}")
        return sequence * count  # type: ignore[operator]
    return OTHER  # a TypeError when it runs


def elements(value: object) -> int:
    """Elements of a container and of those inside it, as often as a comparison or a copy would meet them; counting
    ends just beyond `MAX_ELEMENTS`."""
    count = 0
    todo = [value]
    while todo and count <= MAX_ELEMENTS:
        item = todo.pop()
        count += 1
        if isinstance(item, list | tuple | dict):
            todo.extend(item.values() if isinstance(item, dict) else item)
    return count


def shares(value: object) -> frozenset[str]:
    """All memory that a value, or anything inside it, may share."""
    found: set[str] = set()
    seen: set[int] = set()  # a list can hold one list many times
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, Tensor):
            found |= item.shares
        elif isinstance(item, list | tuple | dict) and id(item) not in seen:
            seen.add(id(item))
            todo.extend(item.values() if isinstance(item, dict) else item)
    return frozenset(found)


def either(left: object, right: object, depth: int = 4) -> object:
    """What stands for a value that is one of two, depending on a condition that is not known."""
    if left is right or (type(left) is type(right) and isinstance(left, bool | int | str) and left == right):
        return left
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        widths = [item.width if isinstance(item, Tensor) else None for item in (left, right)]
        return Tensor(shares(left) | shares(right), widths[0] if widths[0] == widths[1] else None)
    if isinstance(left, dict) and isinstance(right, dict):
        left.update(right)  # both names then see the entries of both
        return left
    if isinstance(left, list) and isinstance(right, list):
        if len(left) + len(right) <= MAX_LENGTH:
            left.extend(right)
        return left
    if isinstance(left, tuple) and isinstance(right, tuple) and len(left) == len(right) and depth:
        return tuple(either(a, b, depth - 1) for a, b in zip(left, right, strict=True))
    numbers = (bool, int, float, Number)
    if isinstance(left, numbers) and isinstance(right, numbers):
        whole = not isinstance(left, float) and not isinstance(right, float) and Number() not in (left, right)
        return Number(max(bits(left), bits(right), 1) if whole else 0)
    held = shares([left, right])
    return Tensor(held) if held else OTHER


def truth(value: object) -> bool | None:
    """Whether a branch on the value is taken; None if that is not known."""
    if value is None or isinstance(value, bool | int | float | str | list | tuple | dict):
        return bool(value)
    return None


class Frame:
    """Names of the module, of one call or of one comprehension, and the frame around it."""

    def __init__(self, parent: "Frame | None") -> None:
        self.names: dict[str, object] = {}
        self.parent = parent

    def find(self, name: str) -> "Frame | None":
        frame: Frame | None = self
        while frame is not None and name not in frame.names:
            frame = frame.parent
        return frame


class Function:
    """A helper or a lambda with the frame in which it was defined."""

    def __init__(self, node: ast.FunctionDef | ast.Lambda, frame: Frame) -> None:
        self.node = node
        self.frame = frame


def arange_count(sizes: list[object]) -> float:
    numbers = [float(item) for item in sizes if isinstance(item, int | float) and abs(item) < 1e30]
    if len(numbers) != len(sizes) or not numbers:
        return 10**40 if any(isinstance(item, int | float) for item in sizes if item not in numbers) else 1
    start, end = (0.0, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
    step = abs(numbers[2]) if len(numbers) > 2 else 1.0
    return abs(end - start) / step if step else 1


def ordered(kind: str, left: object, right: object) -> object:
    if not isinstance(left, bool | int | float) or not isinstance(right, bool | int | float):
        return Number(1)
    return {"Lt": left < right, "Gt": left > right, "LtE": left <= right, "GtE": left >= right}[kind]

"""What a reward returns and how it fails: the form of a result, and the error that names the program's line.

Axes: N worlds. The total and every component are (N,) float32.
"""

import torch

from rewards.check import COMPONENT_NAME, MAX_COMPONENTS, check
from tasks.errors import UserError
from tasks.signals import SignalTable


class RewardError(UserError):
    """A reward program failed while it ran, or returned what no reward may return.

    `error_type` is the exception's class name (or "ValueError" for a bad result), `line` the line in the
    program (0: none), `detail` the bare message.
    """

    def __init__(self, error_type: str, detail: str, line: int) -> None:
        place = f" in line {line}" if line else ""
        super().__init__(f"the reward program failed{place}: {error_type}: {detail}")
        self.error_type = error_type
        self.detail = detail
        self.line = line


def refuse_unchecked(text: str, table: SignalTable) -> None:
    """UserError with the first violation if the check refuses a program."""
    violations = check(text, table)
    if violations:
        more = f" (and {len(violations) - 1} more; `eureka check` lists them)" if len(violations) > 1 else ""
        first = violations[0]
        raise UserError(f"reward program, line {first.line}, {first.code}: {first.message} {first.hint}{more}")


def structure_problem(result: object) -> str:
    """What is wrong with the form of a program's result, in one line; "" if it is (tensor, dict of
    tensors)."""
    if not isinstance(result, tuple) or len(result) != 2:
        came = f"a tuple of {len(result)}" if isinstance(result, tuple) else _type_name(result)
        return f"the entry point returned {came}; expected the pair (total, components)."
    total, components = result
    if not isinstance(total, torch.Tensor):
        return f"the total is {_type_name(total)}; expected a tensor with one value per world."
    if not isinstance(components, dict):
        return f"the second value returned is {_type_name(components)}; expected a dict of components."
    if not 1 <= len(components) <= MAX_COMPONENTS:
        return f"there are {len(components)} components; expected 1 to {MAX_COMPONENTS}."
    for name, value in components.items():
        if not isinstance(name, str) or not COMPONENT_NAME.fullmatch(name):
            return f"{name!a:.80} is not a component name; use letters, digits and _."
        if name == "total":
            return "the component name 'total' is reserved for the sum that is returned first."
        if not isinstance(value, torch.Tensor):
            return f"component '{name}' is {_type_name(value)}; expected a tensor with one value per world."
    return ""


def tensors_problem(result: object, like: torch.Tensor) -> str:
    """The first wrong shape, dtype or device of a result of sound structure, in one line; "" if all are
    right."""
    total, components = result  # type: ignore[misc]
    for name, value in [("total", total), *components.items()]:
        came = (tuple(value.shape), value.dtype, value.device)
        wanted = ((like.shape[0],), torch.float32, like.device)
        if came != wanted:
            form = "{} {} on {}"
            return f"'{name}' is {form.format(*came)}; expected {form.format(*wanted)}."
    return ""


def _type_name(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def storage_of(tensor: torch.Tensor) -> int:
    """Address of the memory behind a tensor; equal for views of one tensor."""
    return tensor.untyped_storage().data_ptr()


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks, and without torch's appendix of C++ frames."""
    return " ".join(str(error).split("Exception raised from")[0].split())[:500]

"""A reward graph -> a function of tensors, for one number of worlds and one device.

`measure` runs the graph on tensors without memory: shapes are compared with what the graph claims, and peak memory
and work are known before anything is allocated. `rebuild` then writes the operators one after the other into a
straight-line function, by `torch.fx`, in which every name is ours and every tensor is freed after its last use.
`compiled` has inductor make one kernel of it, where it can in time.

Nothing here waits for a device or reads a tensor's values, so a rebuilt function can be captured in a CUDA graph
after one call. Axes: N worlds. Not covered: an index that leaves its range for some states only (an error on a CPU).
"""

import math
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from rewards.graph import GraphError, Node, Ref, RewardGraph, Size, references
from rewards.operators import FACTORIES, binding, is_view, overload
from rewards.shapes import Form, contiguous, of_meta, quick

PEAK_LIMIT_BYTES = 4 * 2**30
"""Most memory that a reward may need at once, besides its inputs."""
WORK_LIMIT_PER_WORLD = 1_000_000
"""Most elementary operations for one world's reward; the built-in rewards need some hundred."""

_TAKE_NUMBERS = frozenset(
    {"add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor"}
    | {f"{name}.Scalar" for name in ("lt", "le", "gt", "ge", "eq", "ne")}
)
_CONVERSIONS = {torch.float32: "float", torch.bool: "bool", torch.int64: "long", torch.int32: "int"}

Function = Callable[..., tuple[torch.Tensor, ...]]
_Values = Sequence[Any] | Mapping[int, Any]  # whatever stands for the values of a graph, by number


@dataclass(frozen=True)
class Need:
    """What a graph needs at one number of worlds."""

    peak_bytes: int
    """Most memory of intermediate results and results alive at once."""
    operations: int
    """Numbers read and written, and products of matrices: an estimate of the work."""


def measure(graph: RewardGraph, worlds: int) -> Need:
    """What the graph needs for `worlds` worlds; allocates nothing.

    Raises:
        GraphError: an operator does not work on its arguments, or makes other shapes than the graph claims.
    """
    values = [Form(torch.float32, (worlds, dims), (dims, 1)) for _, dims in graph.inputs]
    values += [Form(item.dtype, item.shape, contiguous(item.shape)) for item in graph.constants]
    owner, freed = _lifetimes(graph)
    sizes: dict[int, int] = {}
    live = peak = operations = 0
    for place, node in enumerate(graph.nodes):
        outputs = _forms(node, place, values, worlds)
        for number, output in enumerate(outputs, start=len(values)):
            if owner[number] == number:
                sizes[number] = _numbers(output) * output.dtype.itemsize
                live += sizes[number]
        operations += _operations(node, [values[value] for value in references([node.args, node.kwargs])], outputs)
        values += outputs
        peak = max(peak, live)
        live -= sum(sizes.pop(number, 0) for number in freed[place])
    for name, value in [("total", graph.total), *graph.components]:
        if values[value].sizes != (worlds,) or values[value].dtype != torch.float32:
            raise GraphError(f"reward graph: '{name}' is {values[value].sizes}, expected ({worlds},) float32.")
    return Need(peak, operations)


def refuse_excess(graph: RewardGraph, worlds: int) -> Need:
    """`measure`, with GraphError when the need is above the limits of this module."""
    need = measure(graph, worlds)
    if need.peak_bytes > PEAK_LIMIT_BYTES:
        raise GraphError(
            f"the reward needs {need.peak_bytes / 2**30:.1f} GiB for {worlds} worlds, at most "
            f"{PEAK_LIMIT_BYTES / 2**30:.0f} GiB; combine columns, x[:, 0], instead of (N,) with (N, 1)."
        )
    if need.operations > WORK_LIMIT_PER_WORLD * worlds:
        raise GraphError(
            f"the reward takes {need.operations / worlds:.0f} operations for each of {worlds} worlds, at most "
            f"{WORK_LIMIT_PER_WORLD}; compute with a few dozen tensor operations."
        )
    return need


def interpret(graph: RewardGraph, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Total and components of the inputs, operator by operator: for a call or two, where `rebuild` does not pay."""
    worlds, device = inputs[0].shape[0], inputs[0].device
    values = [*inputs, *(constant.tensor(device) for constant in graph.constants)]
    for node in graph.nodes:
        made = _operator(node)(*_positional(node, values, worlds), **_keywords(node, values, worlds, device))
        values += made if node.many else [made]
    return tuple(values[value] for value in graph.results)


def rebuild(graph: RewardGraph, worlds: int, device: torch.device) -> Function:
    """The graph as a function of its inputs in order, returning total and components in order.

    Call it with tensors (worlds, dims) on `device` and without recording gradients. What `vars` of its `__self__`
    holds are its constants. Raises GraphError as `refuse_excess` does.
    """
    refuse_excess(graph, worlds)
    module = _written(graph, worlds, device, scalars=device.type == "cpu")
    constants = types.SimpleNamespace(**dict(module.named_buffers()))  # a module takes 20 times as long to look one up
    return types.MethodType(type(module).forward, constants)


def _written(graph: RewardGraph, worlds: int, device: torch.device, *, scalars: bool) -> fx.GraphModule:
    """The operators one after the other. `scalars`: numbers beside a tensor are tensors of one number, made once; torch
    makes one at every call otherwise, which takes as long as the operator itself."""
    written = fx.Graph()
    holder = torch.nn.Module()
    values = [written.placeholder(f"x{place}") for place in range(len(graph.inputs))]
    dtypes = [torch.float32] * len(values)

    def held(name: str, tensor: torch.Tensor) -> fx.Node:
        if not hasattr(holder, name):
            holder.register_buffer(name, tensor, persistent=False)
        return written.get_attr(name)

    for place, constant in enumerate(graph.constants):
        values.append(held(f"c{place}", constant.tensor(device)))
        dtypes.append(constant.dtype)
    made_of: dict[float, fx.Node] = {}
    for node in graph.nodes:
        args, kwargs = list(_positional(node, values, worlds)), _keywords(node, values, worlds, device)
        number = _beside_a_tensor(node, dtypes) if scalars else None
        if number is not None:
            if number not in made_of:
                made_of[number] = held(f"s{len(made_of)}", torch.tensor(number, dtype=torch.float32, device=device))
            args[1] = made_of[number]
        made = _call(written, node, args, kwargs)
        outputs = [written.call_function(_item, (made, place)) for place in range(len(node.outputs))]
        if not node.many:
            written.erase_node(outputs[0])
            outputs = [made]
        values += outputs
        dtypes += [dtype for dtype, _ in node.outputs]
    written.output(tuple(values[value] for value in graph.results))
    written.eliminate_dead_code()
    return fx.GraphModule(holder, written, class_name="Reward")


def _beside_a_tensor(node: Node, dtypes: Sequence[torch.dtype]) -> float | None:
    """The number that an operator takes as its second argument, where a float32 tensor of it gives the same bits."""
    if node.operator not in _TAKE_NUMBERS or len(node.args) != 2 or node.kwargs or not isinstance(node.args[0], Ref):
        return None
    number = node.args[1]
    if isinstance(number, bool) or not isinstance(number, int | float) or dtypes[node.args[0].value] != torch.float32:
        return None
    exact = abs(number) <= 2**24 if isinstance(number, int) else abs(number) <= torch.finfo(torch.float32).max
    return float(number) if exact else None


def compiled(
    graph: RewardGraph, function: Function, inputs: Sequence[torch.Tensor], limit_s: float
) -> tuple[Function, str]:
    """A graph compiled by inductor for such inputs and "", or `function` and why.

    A compilation that is not ready after `limit_s` seconds goes on in its thread, for which the process waits at its
    end, and is never used. Compiled values differ from uncompiled ones by rounding.
    """
    ready: list[Function] = []
    failure: list[str] = []

    def compile_it() -> None:
        try:
            with torch.no_grad():
                module: Any = _written(graph, inputs[0].shape[0], inputs[0].device, scalars=False)
                # Headers compiled ahead lie in a folder of all processes, which a confined one may not write.
                with torch._inductor.config.patch({"cpp_cache_precompile_headers": False}):
                    fast: Any = torch._inductor.compile(module, list(inputs))
                fast(*inputs)
            ready.append(fast)
        except Exception as error:  # a missing compiler, an operator that inductor does not have, ...
            failure.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")

    import torch._inductor
    import torch._inductor.config

    thread = threading.Thread(target=compile_it)  # ended in the middle, it would abort the process
    thread.start()
    thread.join(limit_s)
    if ready:
        return ready[0], ""
    reason = failure[0] if failure else f"not ready after {limit_s:g} s"
    return function, f"the reward runs uncompiled: {reason}"


def _call(written: fx.Graph, node: Node, args: list[Any], kwargs: dict[str, Any]) -> fx.Node:
    """An operator, called by the quickest way to it."""
    if node.operator == "_to_copy.default" and set(kwargs) == {"dtype"}:
        return written.call_method(_CONVERSIONS[kwargs["dtype"]], (args[0],))
    if node.operator in ("sum.dim_IntList", "mean.dim") and isinstance(args[1], list) and len(args[1]) == 1:
        args[1] = args[1][0]
    return written.call_function(_called(node), tuple(args), kwargs)


def _called(node: Node) -> Callable[..., Any]:
    """What a rebuilt function calls for a node: the operator, by the quickest way to it."""
    first = node.args[0] if node.args else None
    joins = node.operator in ("stack.default", "cat.default")
    faster = binding(node.operator) if isinstance(first, Ref) or joins else None
    return faster if faster is not None else _operator(node)


def _item(values: Sequence[torch.Tensor], place: int) -> torch.Tensor:
    return values[place]


def _operator(node: Node) -> Any:
    found = overload(node.operator)
    assert found is not None, "a graph that was read holds known operators only"
    return found


def _bound(value: Any, values: _Values, worlds: int) -> Any:
    kind = type(value)
    if kind is Ref:
        return values[value.value]
    if kind is Size:
        return value.at(worlds)
    return [_bound(item, values, worlds) for item in value] if kind is tuple else value


def _positional(node: Node, values: _Values, worlds: int) -> tuple[Any, ...]:
    return tuple([_bound(value, values, worlds) for value in node.args])


def _keywords(node: Node, values: _Values, worlds: int, device: torch.device | str) -> dict[str, Any]:
    if not node.kwargs and node.operator not in FACTORIES:
        return {}
    kwargs = {key: _bound(value, values, worlds) for key, value in node.kwargs.items()}
    made = {"device": device, "dtype": node.outputs[0][0]} if node.operator in FACTORIES else {}
    return kwargs | made


def _forms(node: Node, place: int, values: Sequence[Form], worlds: int) -> list[Form]:
    """What an operator makes, compared with what the graph claims."""
    form = quick(node.operator, _positional(node, values, worlds), _keywords(node, values, worlds, "meta"))
    made = [form] if form is not None else _run_meta(node, place, values, worlds)
    came = [(form.dtype, form.sizes) for form in made]
    claimed = [(dtype, tuple(size.at(worlds) for size in shape)) for dtype, shape in node.outputs]
    if came != claimed:
        message = f"makes {came!s:.120} for {worlds} worlds, not {claimed!s:.120}."
        raise GraphError(f"reward graph: node {place}, '{node.operator}': {message}")
    return made


def _run_meta(node: Node, place: int, values: Sequence[Form], worlds: int) -> list[Form]:
    used = {number: _without_memory(values[number]) for number in references([node.args, node.kwargs])}
    try:
        made = _operator(node)(*_positional(node, used, worlds), **_keywords(node, used, worlds, "meta"))
    except Exception as error:
        words = " ".join(str(error).split())[:160]
        raise GraphError(f"reward graph: node {place}, '{node.operator}': {type(error).__name__}: {words}") from None
    return [of_meta(output) for output in (made if isinstance(made, tuple | list) else [made])]


def _without_memory(form: Form) -> torch.Tensor:
    assert form.strides is not None, "with plain sizes strides are plain numbers"
    return torch.empty_strided(form.sizes, form.strides, dtype=form.dtype, device="meta")


def _numbers(form: Form) -> int:
    return math.prod(form.sizes)


def _lifetimes(graph: RewardGraph) -> tuple[list[int], list[list[int]]]:
    """Whose memory each value is in (a view is in that of what it shows), and what each node is the last to read."""
    owner = list(range(len(graph.inputs) + len(graph.constants)))
    last = dict.fromkeys(owner, len(graph.nodes))
    for place, node in enumerate(graph.nodes):
        read = list(references([node.args, node.kwargs]))
        view = bool(read) and is_view(_operator(node))
        owner += [owner[read[0]] if view else number for number in range(len(owner), len(owner) + len(node.outputs))]
        last |= {owner[value]: place for value in [*read, *range(len(owner) - len(node.outputs), len(owner))]}
    freed: list[list[int]] = [[] for _ in graph.nodes]
    kept = {owner[value] for value in graph.results}
    for number, place in last.items():
        if number not in kept and place < len(graph.nodes):
            freed[place].append(number)
    return owner, freed


def _operations(node: Node, read: Sequence[Form], made: Sequence[Form]) -> int:
    numbers = sum(_numbers(form) for form in [*read, *made])
    if node.operator.split(".")[0] in ("mm", "bmm", "addmm", "baddbmm", "mv"):
        numbers += _numbers(made[0]) * read[-2].sizes[-1]
    if node.operator.split(".")[0] in ("sort", "topk", "median"):
        numbers *= max(1, math.ceil(math.log2(max(2, read[0].sizes[-1] if read[0].sizes else 1))))
    return numbers

"""From a recording to a graph: what no result needs is left out, the rest numbered; see `rewards.graph`.

In a recording a value is a list of its own kind: ["input", place], ["constant", place] or ["node", place, output].
"""

from typing import Any


def numbered(graph: dict[str, Any]) -> dict[str, Any]:
    """The graph with constants and nodes that a result needs, and values numbered from the first input on."""
    needed: set[tuple[str, int]] = set()
    pending = [graph["total"], *(reference for _, reference in graph["components"])]
    while pending:
        kind, place = pending.pop()[:2]
        if (kind, place) not in needed:
            needed.add((kind, place))
            if kind == "node":
                node = graph["nodes"][place]
                leaves = flat([node["args"], *node["kwargs"].values()], dicts=False)
                pending += [leaf["v"] for leaf in leaves if _is_value(leaf)]
    numbers = {("input", place, 0): place for place in range(len(graph["inputs"]))}
    for place in range(len(graph["constants"])):
        if ("constant", place) in needed:
            numbers["constant", place, 0] = len(numbers)
    for place, node in enumerate(graph["nodes"]):
        if ("node", place) in needed:
            numbers |= {("node", place, output): len(numbers) + output for output in range(len(node["out"]))}

    def number(reference: list[Any]) -> int:
        kind, place, output = [*reference, 0][:3]
        return numbers[kind, place, output]

    def renumbered(value: Any) -> Any:
        if isinstance(value, list):
            return [renumbered(item) for item in value]
        return {"v": number(value["v"])} if _is_value(value) else value

    nodes = [
        {**node, "args": renumbered(node["args"]), "kwargs": {k: renumbered(v) for k, v in node["kwargs"].items()}}
        for place, node in enumerate(graph["nodes"])
        if ("node", place) in needed
    ]
    constants = [item for place, item in enumerate(graph["constants"]) if ("constant", place) in needed]
    components = [[name, number(reference)] for name, reference in graph["components"]]
    return {
        **graph,
        "constants": constants,
        "nodes": nodes,
        "total": number(graph["total"]),
        "components": components,
    }


def flat(value: Any, dicts: bool = True) -> list[Any]:
    """The leaves of nested lists and, unless they are leaves themselves, of the values of dicts."""
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in flat(item, dicts)]
    if isinstance(value, dict) and dicts:
        return flat(list(value.values()))
    return [value]


def _is_value(item: Any) -> bool:
    return isinstance(item, dict) and "v" in item

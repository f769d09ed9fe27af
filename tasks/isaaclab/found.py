"""The signals of a task as far as its source tells them: names, places and documents; widths where they stand there.

The running environment has the last word (`tasks.isaaclab.environment`): it looks for the same places, and knows every
width.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Literal

from tasks.isaaclab.package import Source
from tasks.isaaclab.prune import targets, written_place
from tasks.isaaclab.quantities import DATA_CLASSES, signal_name, told
from tasks.isaaclab.settings import Values
from tasks.isaaclab.shapes import PER_WORLD, Shapes
from tasks.isaaclab.source import TaskSource

Place = Literal["own", "command", "attribute", "thing"]


@dataclass(frozen=True)
class FoundSignal:
    """A quantity and where it is on an environment."""

    name: str
    place: Place
    """"own": kept by us; "command": of the command manager; "attribute" of the environment; "thing": in its scene."""
    path: tuple[str, ...]
    """("joint_pos_w",) of an attribute or command, ("_robot", "joint_pos") of a thing's data."""
    shape: str
    """As in "(N, 3)" or "(N, num_joints)"; "(N, ?)" where the source does not tell."""
    doc: str
    documented: str = ""
    """The name under which Isaac Lab documents the quantity; "" for what only the task knows."""


def find_signals(source: Source, task: TaskSource, values: Values) -> list[FoundSignal]:
    """What a reward may take, most telling first; every name once."""
    width = values.get("action_space")
    shape = f"(N, {width})" if isinstance(width, int) else "(N, num_actions)"
    origin = "where this world's own origin lies in the frame that all worlds share"
    found = [
        FoundSignal("actions", "own", (), shape, "action of this step, as the policy gave it", "actions"),
        FoundSignal("previous_actions", "own", (), shape, "action before it; 0 at an episode's start", "actions"),
        FoundSignal("env_origins", "own", (), "(N, 3)", origin, "pos_w"),
    ]
    things = _things(task, values)
    found += _commands(task, values)
    documents = {name: data_fields(source, kind) for name, kind in things.items()}
    if not task.manager_based:
        found += _attributes(task, things, documents)
    for thing, fields in documents.items():
        for name, (field_shape, doc) in fields.items():
            found.append(FoundSignal(signal_name(thing, name), "thing", (thing, name), field_shape, doc, name))
    unique: dict[str, FoundSignal] = {}
    for signal in found:
        unique.setdefault(signal.name, signal)
    return list(unique.values())


def data_fields(source: Source, thing: str) -> dict[str, tuple[str, str]]:
    """The told fields of the data of a thing of this class: name -> (shape, document)."""
    module_name, class_name = DATA_CLASSES[thing]
    module = source.module(module_name)
    node = module.defined.get(class_name) if module else None
    documents: dict[str, str] = {}
    body = node.body if isinstance(node, ast.ClassDef) else []
    for member, following in zip(body, [*body[1:], None], strict=False):
        if isinstance(member, ast.FunctionDef):
            documents[member.name] = ast.get_docstring(member) or ""
        elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            text = following.value if isinstance(following, ast.Expr) else None
            documents[member.target.id] = str(text.value) if isinstance(text, ast.Constant) else ""
    return {name: _document(doc, documents) for name, doc in documents.items() if told(thing, name)}


def _document(text: str, documents: dict[str, str]) -> tuple[str, str]:
    same = re.search(r"(?:Same as|Shorthand for) :attr:`(\w+)`", text)
    if same and same.group(1) in documents:
        text = documents[same.group(1)]
    shape = re.search(r"Shape is \(([^)]*)\)", text)
    rest = [part.strip() for part in shape.group(1).split(",")[1:] if part.strip()] if shape else ["?"]
    sentence = re.split(r"\s*Shape is|\n\n", text)[0]
    sentence = re.sub(r":\w+:`[~.]?([^`]*)`", r"\1", sentence).replace("`", "")
    width = "*".join(part for part in rest if part != "1") or "1"
    return f"(N, {width})", " ".join(sentence.split())


def _things(task: TaskSource, values: Values) -> dict[str, str]:
    found: dict[str, str] = {}
    if not task.manager_based:
        for node in (n for c in task.env_classes for n in ast.walk(c) if isinstance(n, ast.Assign)):
            place = written_place(node.targets[0])
            name = ast.unparse(node.value.func).split(".")[-1] if isinstance(node.value, ast.Call) else ""
            if place and place.startswith("self.") and name in DATA_CLASSES:
                found.setdefault(place[5:], name)
        return found
    for definition in task.shown.values():
        node = definition.node
        if isinstance(node, ast.ClassDef) and "Scene" in node.name:
            for member in node.body:
                name, kind = _scene_field(member)
                if name and kind in DATA_CLASSES and values.get(f"scene.{name}", name) is not None:
                    found.setdefault(name, kind)
    return found


def _scene_field(member: ast.stmt) -> tuple[str, str]:
    """Name and class of the thing that a field of a scene's configuration stands for."""
    if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
        return member.target.id, ast.unparse(member.annotation).split(".")[-1].split(" ")[0].removesuffix("Cfg")
    if (
        isinstance(member, ast.Assign)
        and isinstance(member.targets[0], ast.Name)
        and isinstance(member.value, ast.Call)
    ):
        return member.targets[0].id, ast.unparse(member.value.func).split(".")[-1].removesuffix("Cfg")
    return "", ""


def _commands(task: TaskSource, values: Values) -> list[FoundSignal]:
    """Terms of the configuration of commands, which stand in a class that the field `commands` names."""
    names: dict[str, None] = {}
    classes = {d.name: d.node for d in task.shown.values() if isinstance(d.node, ast.ClassDef)}
    for cfg in task.cfg_classes:
        for member in cfg.body:
            if isinstance(member, ast.AnnAssign) and ast.unparse(member.target) == "commands" and member.value:
                node = classes.get(ast.unparse(member.value).split("(")[0])
                for term in node.body if node else ():
                    if isinstance(term, ast.Assign | ast.AnnAssign):
                        names[ast.unparse(targets(term)[0])] = None
    return [
        FoundSignal(signal_name("command", name), "command", (name,), "(N, ?)", f"present command '{name}'")
        for name in names
        if values.get(f"commands.{name}", name) is not None
    ]


def _attributes(
    task: TaskSource, things: dict[str, str], documents: dict[str, dict[str, tuple[str, str]]]
) -> list[FoundSignal]:
    shapes = Shapes(
        {thing: {name: shape for name, (shape, _) in fields.items()} for thing, fields in documents.items()}
    )
    for _ in range(2):  # bases are read after what uses them
        for cls in task.env_classes:
            shapes.read(cls)
    return [
        FoundSignal(
            signal_name(name), "attribute", (name,), shape, origin or "see the source", origin.rpartition(".")[2]
        )
        for name, shape in shapes.attributes.items()
        for origin in [shapes.origin.get(name, "")]
        if name not in things and name not in task.rewarded and shape.startswith(PER_WORLD) and "action" not in name
    ]

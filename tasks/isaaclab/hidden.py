"""What a designer must not read of a foreign task: which names and texts speak of its reward.

By words, whatever the case or the underscores: `rew_scale_alive`, `RewardsCfg`, `actions_cost_scale`, "fall penalty".
What has no such name but serves the reward alone (`heading_weight`) is found by its use, in `tasks.isaaclab.prune`.
"""

from __future__ import annotations

import ast
import re

_STEMS = ("reward", "penal", "bonus", "punish")
_WORDS = ("rew", "rews", "cost", "costs")
_PIECES = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

NOT_TOLD = frozenset((
    "debug_vis", "set_debug_vis", "_set_debug_vis_impl", "_debug_vis_callback", "viewer", "ui_window_class_type",
    "log_dir", "xr", "rerender_on_reset", "num_rerenders_on_reset", "wait_for_textures", "teleop_devices",
    "export_io_descriptors", "recorders",
))  # fmt: skip
"""How a task is drawn, logged or steered by hand: no secret, but nothing a reward is made of."""
LOG = "extras"
"""The attribute of an environment that holds what it logs, terms of its reward among it."""


def says_reward(text: str) -> bool:
    """Whether a name or a text speaks of a reward."""
    return any(
        piece in _WORDS or piece.startswith(_STEMS) for piece in (found.lower() for found in _PIECES.findall(text))
    )


def texts(node: ast.AST) -> list[str]:
    """Every name and string of one syntax node, its children aside."""
    found: list[str] = []
    for part in ("id", "attr", "arg", "name", "asname", "module"):
        value = getattr(node, part, None)
        if isinstance(value, str):
            found.append(value)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        found.append(node.value)
    return found


def speaks(tree: ast.AST, secrets: frozenset[str] = frozenset()) -> bool:
    """Whether anything in a syntax tree speaks of a reward, of what is logged, or has a name or text of `secrets`."""
    for node in ast.walk(tree):
        if any(text in secrets or says_reward(text) for text in texts(node)):
            return True
        if isinstance(node, ast.Attribute) and node.attr == LOG and isinstance(node.value, ast.Name):
            return True
    return False


def draws(tree: ast.AST) -> bool:
    """Whether anything in a syntax tree is of `NOT_TOLD`."""
    return any(text in NOT_TOLD for node in ast.walk(tree) for text in texts(node))


def secrets_of(classes: list[ast.ClassDef]) -> frozenset[str]:
    """What the rewards of an environment's classes name, and other code may repeat without such a word: the keys by
    which they tell their terms apart, and the attributes of `self` that keep books by these keys."""
    found: set[str] = set()
    touched: set[str] = set()
    for function in (m for c in classes for m in c.body if isinstance(m, ast.FunctionDef) and says_reward(m.name)):
        for node in ast.walk(function):
            if isinstance(node, ast.Dict):
                found |= {
                    key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
                }
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                touched.add(node.attr)
    for node in (n for c in classes for n in ast.walk(c)):
        if isinstance(node, ast.Assign) and _makes_dict(node.value):
            found |= {t.attr for t in node.targets if isinstance(t, ast.Attribute) and t.attr in touched}
    return frozenset(found)


def _makes_dict(node: ast.expr) -> bool:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("dict", "defaultdict")
    return called or isinstance(node, ast.Dict | ast.DictComp)

"""Every rule of the check, each by the smallest program that breaks it, and what must not be refused."""

import pytest
import torch

from rewards import allowed
from rewards.check import RULES, check, entry_arguments
from rewards.source import ExtractionError, extract
from tasks.errors import UserError
from tests.rewards.programs import GOOD, TABLE, program

BROKEN = [
    # code, line, words of the message or the hint, program
    ("R101", 2, "never closed", "x = 1\nx = (\n"),
    ("R102", 0, "characters", "# " + "x" * 50_000),
    ("R102", 0, "deep", "x = " + "[" * 90 + "]" * 90),
    ("R103", 5, "while", program("while True:", "    total = total + 1")),
    ("R103", 5, "try", program("try:", "    total = a", "except ValueError:", "    total = a")),
    ("R103", 5, "class", program("class A:", "    x = 1")),
    ("R103", 5, "global", program("global a")),
    ("R103", 5, ":=", program("total = (b := a) + 1")),
    ("R103", 5, "with", program("with open('x') as f:", "    pass")),
    ("R103", 5, "assert", program("assert a.shape[0] > 1")),
    ("R103", 5, "<<", program("total = total * (1 << 40)")),
    ("R103", 5, "no effect", program("a + 1")),
    ("R103", 1, "top level", "if 1:\n    x = 1\n" + program("total = a")),
    ("R103", 5, "async", program("async def f():", "    return 1")),
    ("R104", 5, "numpy", program("import numpy as np")),
    ("R104", 5, "'os'", program("import os")),
    ("R104", 5, "torch.os", program("from torch import os")),
    ("R104", 5, "torch.load", program("from torch import load")),
    ("R104", 5, "..tasks", program("from ..tasks import x")),
    ("R104", 5, "Did you mean 'sqrt'", program("from math import sqrrt")),
    ("R105", 5, "Did you mean 'total'", program("b = totl")),
    ("R105", 5, "it is a signal", program("b = up_axis_w")),
    ("R105", 5, "'open'", program("b = open('x')")),
    ("R105", 5, "'getattr'", program("b = getattr(a, 'x')")),
    ("R105", 5, "remove it", program("print(a)")),
    ("R105", 5, "as a value", program("b = torch")),
    ("R105", 5, "module", program("torch = a")),
    ("R106", 5, "__import__", program("b = __import__('os')")),
    ("R106", 5, "__class__", program("b = a.__class__")),
    ("R106", 5, "_version", program("b = a._version")),
    ("R106", 5, "__x", program("__x = a")),
    ("R107", 5, ".item()", program("b = a.item()")),
    ("R107", 5, ".numpy()", program("a.numpy().tofile('x')", "b = 1")),
    ("R107", 5, "Did you mean 'clamp'", program("b = a.clampp(0.0)")),
    ("R107", 5, ".data", program("b = a.data")),
    ("R107", 5, "call it", program("b = a.exp")),
    ("R107", 5, "NaN", program("b = a.nan_to_num()")),
    ("R107", 5, ".format()", program("b = 'x'.format(a)")),
    ("R108", 5, "torch.os", program("b = torch.os.getcwd()")),
    ("R108", 5, "torch.load", program("b = torch.load('x')")),
    ("R108", 5, "Did you mean 'square'", program("b = torch.squre(a)")),
    ("R108", 5, "deterministic", program("b = torch.rand_like(a)")),
    ("R108", 5, "NaN", program("b = torch.nan_to_num(a)")),
    ("R108", 5, "math.inf", program("import math; b = a * math.inf")),
    ("R109", 5, "use x = x.add", program("a.add_(1.0)", "b = 1")),
    ("R109", 5, "torch.sqrt_", program("b = torch.sqrt_(a)")),
    ("R109", 5, "argument 'height'", program("height += 1.0")),
    ("R109", 5, "another name", program("b = a; b += 1")),
    ("R109", 5, "in place", program("height[:, 0] = 1.0")),
    ("R109", 6, "in place", program("b = height[:, 0]", "b[0] = 1.0")),
    ("R109", 5, "attribute", program("a.x = 1.0")),
    ("R109", 5, "out=", program("b = torch.exp(a, out=height)")),
    ("R109", 5, "inplace=", program("b = torch.nn.functional.relu(a, inplace=True)")),
    ("R110", 5, "not fixed", program("for row in torso_velocity_w:", "    total = total + 1")),
    ("R110", 5, "not fixed", program("for i in range(a.shape[0]):", "    total = total + 1")),
    ("R110", 5, "not fixed", program("for i in range(len(height)):", "    total = total + 1")),
    ("R110", 5, "2000 passes", program("for i in range(2000):", "    total = total + 1")),
    (
        "R110",
        6,
        "4096 passes",
        program("for i in range(64):", "    for j in range(64):", "        total = total + 1"),
    ),
    ("R110", 5, "4096 passes", program("b = [1 for i in range(64) for j in range(64)]")),
    ("R111", 5, "calling itself", program("def f(x):", "    return f(x)")),
    ("R112", 5, "beyond", program("b = 1e400 * a")),
    ("R112", 5, "beyond", program("b = 10 ** 100000000")),
    ("R112", 5, "exponent", program("b = 10 ** 10 ** 8")),
    ("R112", 5, "beyond", program("b = " + "9" * 400)),
    ("R113", 5, "ASCII", program("tot\u00e4l = a")),
    ("R113", 5, "ASCII", program("b = torch.\uff53qrt(a)")),
    ("R114", 5, "decorator", program("@staticmethod", "def f(x):", "    return x")),
    ("R115", 5, "torch.where", program("if a > 0:", "    total = a")),
    ("R115", 6, "torch.where", program("b = a * 2", "total = a if b.mean() > 0 else total")),
    ("R115", 5, "'and'", program("b = torch.where(a > 0 and a < 1, a, total)")),
    ("R115", 5, "chained", program("b = torch.where(0 < a < 1, a, total)")),
    ("R115", 5, "'not'", program("b = not (a > 0)")),
    ("R115", 5, "torch.maximum", program("b = max(a, total)")),
    ("R115", 5, "torch.exp", program("import math; b = math.exp(a)")),
    ("R115", 5, ".float()", program("b = float(a)")),
    ("R116", 5, "text", program("b = '%1000000000d' % 1")),
    ("R116", 5, "text", program("b = float('nan')")),
    ("R116", 5, "f-string", program("b = f'{a.shape}'")),
    ("R116", 5, "complex", program("b = 2j")),
    ("R117", 5, "outlives", "CACHE = {}\n" + program("CACHE['x'] = a").split("\n", 1)[1]),
    ("R118", 5, "'*'", program("b = torch.stack(*[a])")),
    ("R118", 5, "requires_grad", program("b = torch.tensor(1.0, requires_grad=True)")),
    ("R118", 5, "default", program("def f(x, y=[]):", "    return x")),
    ("R118", 5, "which function", program("b = a(total)")),
    ("R119", 5, "4096 numbers", program("b = torch.zeros(20000, 20000)")),
    ("R119", 5, "4096 numbers", program("b = a.repeat(10 ** 9)")),
    ("R119", 5, "4096 numbers", program("b = torch.arange(0, 1, 1e-9)")),
    ("R120", 5, "builtin", program("sum = a + total")),
    ("R120", 5, "builtin", program("def len(x):", "    return x")),
    ("R121", 0, "no function", "x = 1\n"),
    ("R121", 1, "Rename 'compute_rewards'", "def compute_rewards(actions):\n    return actions, {}\n"),
    (
        "R122",
        8,
        "second time",
        program("b = 1") + "\ndef compute_reward(actions):\n    return actions, {'a': actions}\n",
    ),
    ("R123", 1, "Did you mean 'actions'?", "def compute_reward(action):\n    return action, {'a': action}\n"),
    ("R123", 1, "simulator", "def compute_reward(self):\n    return self, {'a': self}\n"),
    ("R124", 1, "default", "def compute_reward(actions, height=None):\n    return actions, {'a': height}\n"),
    ("R124", 1, "'*'", "def compute_reward(*actions):\n    return actions, {'a': 1}\n"),
    ("R124", 1, "no argument", "def compute_reward():\n    return x(), {'a': 1}\n"),
    ("R125", 6, "one value", program("b = 1", ret="total * 1.0")),
    ("R125", 6, "3 values", program("b = 1", ret="total, {'a': a}, 1")),
    ("R125", 6, "nothing", program("b = 1", ret="")),
    ("R125", 6, "not a dict", program("b = 1", ret="total, [a]")),
    ("R125", 6, "total is not", program("b = 1", ret="0.0, {'a': a}")),
    ("R126", 6, "'total' is reserved", program("b = 1", ret="total, {'total': a}")),
    ("R126", 6, "not a component name", program("b = 1", ret="total, {'a b': a}")),
    ("R126", 6, "empty", program("b = 1", ret="total, {}")),
    ("R126", 6, "twice", program("b = 1", ret="total, {'a': a, 'a': a}")),
    (
        "R126",
        6,
        "33 components",
        program("b = 1", ret="total, {" + ", ".join(f"'a{i}': a" for i in range(33)) + "}"),
    ),
    ("R127", 5, "plain type", program("b: open('x') = 1")),
    ("R127", 5, "plain type", program("def f(x: [y for y in (1,)]):", "    return x")),
    ("R127", 5, "plain type", program("def f(x) -> torch.__dict__:", "    return x")),
    # Found by following the program only: `rewards.dry_run`.
    (
        "R110",
        6,
        "30000 steps",
        program(
            "def f(x):",
            "    for i in range(1000):",
            "        x = x + i",
            "    return x",
            "for i in range(1000):",
            "    b = f(1.0)",
        ),
    ),
    (
        "R110",
        7,
        "2000 tensor operations",
        program("for i in range(30):", "    for j in range(30):", "        total = total + i * a - torch.exp(a)"),
    ),
    ("R110", 7, "while a loop goes", program("b = [1]", "for i in b:", "    b.append(i)")),
    ("R112", 7, "whole number grows", program("n = 10", "for i in range(1000):", "    n = n * n")),
    ("R112", 5, "whole number grows", program("b = (((9 ** 64) ** 64) ** 64) ** 64")),
    ("R112", 6, "whole number grows", program("n = 100000000", "b = 10 ** n")),
    ("R112", 6, "whole number grows", program("n = a.shape[0]", "b = 2 ** n")),
    ("R112", 5, "a list grows", program("b = [0.0] * 1000000000")),
    ("R112", 7, "a list grows", program("b = [a]", "for i in range(40):", "    b = b + b")),
    ("R112", 7, "grows beyond", program("b = [a]", "for i in range(40):", "    b.extend(b)")),
    ("R116", 7, "text grows", program("s = 'a'", "for i in range(40):", "    s = f'{s}{s}'")),
    ("R116", 5, "f-string", program("b = f'{a}'")),
    ("R116", 6, "of a text", program("s = 'nan'", "b = float(s) * a")),
    ("R116", 6, "arithmetic on text", program("s = 'a'", "b = s * 3")),
    ("R109", 6, "slice of a list", program("b = [a]", "b[0:0] = b")),
    ("R112", 6, "4096 elements", program("b = [1.0]", "b.append(b)")),
    (
        "R110",
        6,
        "not fixed",
        program("def f(x):", "    for row in x:", "        x = x + 1", "    return x", "b = f(a)"),
    ),
    (
        "R110",
        6,
        "range of more",
        program("def f(n):", "    for i in range(n):", "        b = 1", "    return n", "b = f(10 ** 9)"),
    ),
    ("R111", 5, "nested here", program("f = lambda g, x: g(g, x)", "b = f(f, a)")),
    ("R109", 6, "argument 'height'", program("b = height.view(-1)", "b[0] = 1.0")),
    ("R109", 6, "argument 'height'", program("b = height.squeeze(-1)", "b += 1.0")),
    ("R109", 6, "argument 'height'", program("b = [height]", "b[0][0] = 1.0")),
    ("R109", 6, "argument 'height'", program("b = height[:, 0] if a.shape[0] > 5 else total", "b += 1.0")),
    ("R109", 6, "out=", program("f = torch.exp", "b = f(a, out=height)")),
    ("R117", 6, "constant", "S = torch.zeros(1)\n" + program("s = S", "s += 1").split("\n", 1)[1]),
    ("R117", 6, "outlives", "S = [0.0]\n" + program("s = S", "s.append(1.0)").split("\n", 1)[1]),
]


@pytest.mark.parametrize(("code", "line", "words", "text"), BROKEN)
def test_each_rule_refuses_with_line_and_words(code: str, line: int, words: str, text: str) -> None:
    found = [item for item in check(text, TABLE) if item.code == code]
    assert any(words in f"{item.message} {item.hint}" for item in found), check(text, TABLE)
    assert any(item.line == line for item in found), found


def test_every_rule_has_a_program_that_breaks_it() -> None:
    assert {code for code, *_ in BROKEN} == set(RULES)


FINE = [
    GOOD,
    program("pass"),
    program("b = [0.5] * 8 + [1.0]", "total = total + torch.tensor(b).sum()"),
    program("def f(x, min, max):", "    return torch.clamp(x, min, max)", "total = f(a, 0.0, max=1.0)"),
    program(
        "parts = {'x': a * 1.0}",
        "for k, v in parts.items():",
        "    parts[k] = 2.0 * v",
        "    parts[k] *= 0.5",
        ret="total, parts",
    ),
    program("x = [1]", "x = [i for i in x]", "for j in x:", "    total = total + j"),
    program("x = height.squeeze(-1).clone()", "x += 1.0", "y = torch.exp(height[:, 0])", "y *= 2.0", "total = x + y"),
    program("gamma = 0.9", "for i in range(20):", "    total = total + gamma ** i * a + 2 ** i"),
    program("f = torch.tanh", "total = f(a)"),
    program(
        "def scaled(terms, n):",
        "    out = {**terms}",
        "    for k, v in terms.items():",
        "        out[k] = 2.0 * v",
        "    for i in range(n):",
        "        out[f'c{i}'] = i * a",
        "    return out",
        "parts = scaled({'a': a}, 3)",
        ret="total, parts",
    ),
    program("b = torch.stack([a, total], dim=-1).norm(dim=-1)", "total = total + b"),
    program("b = [torch.cos(x) for x in (a, total)]", "total = sum(b)"),
    program("mask = torch.zeros_like(a)", "mask[a > 0] = 1.0", "total += mask"),
    program("total = total ** 2 - 2 ** -1 + a ** 0.5"),
    program("f = lambda x, k=2.0: k * x", "total = f(a)"),
    program("def f(x, scale: float = -1.0, pair=(1, 2)):", "    return x * scale", "total = f(a, scale=2.0)"),
    program(
        "for n, (w, x) in enumerate(((1.0, a), (2.0, total))):",
        "    total = total + w * x if n > 0 else total",
    ),
    program("parts = {'x': a}", "parts['y'] = total", "total = sum(parts.values())", ret="total, parts"),
    program(
        "out = {}",
        "for k, v in {'x': a, 'y': a}.items():",
        "    if k == 'x':",
        "        out[k] = v",
        ret="total, out",
    ),
    program("n = a.shape[0]", "total = total + torch.zeros(n, dtype=torch.float32, device=a.device)"),
    program("total = torch.linalg.norm(torso_velocity_w, dim=-1) + torch.nn.functional.relu(a)"),
    program("total = torch.einsum('ij,ij->i', actions, actions)"),
    "import torch as th\nfrom torch.nn import functional as fn\nfrom math import pi\n"
    "def compute_reward(actions):\n    x = fn.relu(th.sin(actions[:, 0] * pi))\n    return x, {'x': x}\n",
    "def compute_reward(actions):\n    x = torch.sin(actions[:, 0]) + F.relu(actions[:, 1]) * math.pi\n"
    "    return x, {'x': x}\n",
    "from __future__ import annotations\nN: int = 3\ndef compute_reward(actions):\n    s = actions[:, 0]\n"
    "    for i in range(N - 1):\n        s = s + i\n    return s, dict(x=s)\n",
]


@pytest.mark.parametrize("text", FINE)
def test_ordinary_programs_pass(text: str) -> None:
    assert check(text, TABLE) == []


def test_all_violations_come_at_once_sorted_by_line() -> None:
    text = program("b = a.item()", "c = torch.rand(3)", "import os", "height += 1", "while True:", "    d = undefined")
    found = check(text, TABLE)
    assert [(item.line, item.code) for item in found] == [
        (5, "R107"),
        (6, "R108"),
        (7, "R104"),
        (8, "R109"),
        (9, "R103"),
        (10, "R105"),
    ]


def test_allowed_names_exist_and_none_works_in_place_or_leaves_torch() -> None:
    for name in allowed.TORCH_FUNCTIONS:
        assert callable(getattr(torch, name))
    for name in allowed.TENSOR_METHODS:
        assert callable(getattr(torch.Tensor, name))
        assert not name.endswith("_")
    for names in allowed.MODULES.values():
        assert not any(type(getattr(torch, name, None)).__name__ == "module" for name in names)
    assert not allowed.TENSOR_METHODS & {
        "item",
        "numpy",
        "tolist",
        "cpu",
        "apply_",
        "map_",
        "backward",
        "data_ptr",
    }


def test_entry_arguments() -> None:
    assert entry_arguments(GOOD) == ("torso_velocity_w", "up_axis_w", "height", "actions")
    with pytest.raises(UserError, match="found 0"):
        entry_arguments("x = 1")
    with pytest.raises(UserError):
        entry_arguments("def (")


def test_check_and_extract_agree_on_the_good_program() -> None:
    assert check(extract(f"```python\n{GOOD}```").text, TABLE) == []
    with pytest.raises(ExtractionError):
        extract(GOOD.replace("def compute_reward", "def reward"))

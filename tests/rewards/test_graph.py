"""The reward graph: equal in value to the program, read as data that nobody vouches for, bounded, hashed.

Programs run in the test's own process here, where each can be called beside its graph.
"""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards.check import check, entry_arguments
from rewards.function import RewardFunction, build_reward
from rewards.graph import MAX_NODES, GraphError, read_graph
from rewards.library.library import load
from rewards.operators import NAMES, overload
from rewards.rebuild import compiled, interpret, measure, rebuild
from rewards.recorder import Untraceable, record
from rewards.result import RewardError
from rewards.source import extract
from rewards.trace import load_program
from rewards.trial import examine
from tasks import registry
from tasks.env import sample_signals
from tasks.errors import UserError
from tasks.signals import Signals, SignalTable
from tests.rewards.programs import GOOD, TABLE, program, signals
from tests.rewards.random_programs import random_program

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "examples" / "recorded").glob("*/replies/*.md"))
TASKS = registry.names()


def graph_of(text: str, table: SignalTable = TABLE) -> dict[str, Any]:
    return record(load_program(text, table), [(name, table[name].dims) for name in entry_arguments(text)])


def assert_equal_values(text: str, table: SignalTable, batch: Signals) -> None:
    """By graph and by the program itself: the same bits."""
    entry = load_program(text, table)
    arguments = [batch[name] for name in entry_arguments(text)]
    with torch.no_grad():
        total, components = entry(*[tensor.clone() for tensor in arguments])  # type: ignore[misc]
    data = json.loads(json.dumps(graph_of(text, table), allow_nan=False))
    by_graph, parts = RewardFunction(read_graph(data))(batch)
    assert list(parts) == list(components)
    for name, value in [("total", total), *components.items()]:
        came = by_graph if name == "total" else parts[name]
        assert torch.equal(came.nan_to_num(123.0), value.nan_to_num(123.0)), (name, text)


@pytest.mark.parametrize("name", TASKS)
def test_library_rewards_are_equal_in_value(name: str) -> None:
    task = registry.make(name)
    for worlds in (33, 128):
        # Few steps: a hand with an object takes a thousand times as long for one as a cart-pole.
        batch = sample_signals(task, worlds, num_steps=12, seed=worlds)
        for kind in ("human", "sparse", "zero"):
            assert_equal_values(load(name, kind).text, task.signal_table, batch)


@pytest.mark.parametrize("name", sorted({path.parents[1].name for path in RECORDED}))
def test_recorded_programs_are_equal_in_value(name: str) -> None:
    task = registry.make(name)
    replies = [path for path in RECORDED if path.parents[1].name == name]
    assert len(replies) >= 12
    batch = sample_signals(task, 64, seed=5)
    for path in replies:
        assert_equal_values(extract(path.read_text()).text, task.signal_table, batch)


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_are_equal_in_value(seed: int) -> None:
    text = random_program(seed)
    assert check(text, TABLE) == []
    for worlds in (2, 257):
        assert_equal_values(text, TABLE, signals(worlds, seed))


STATEFUL = """import torch
W = torch.zeros(2)
def compute_reward(actions):
    x = actions[:, 0]
    W[0] = 1.0
    return x, {'a': x + W[0]}
"""
UNTRACEABLE = [
    # code, line, words, program
    ("T214", 5, "number of worlds", program("for i in range(a.shape[0]):", "    total = total + 0.0")),
    ("T214", 5, "number of worlds", program("total = total if a.shape[0] > 1000 else total + 0.0")),
    ("T214", 5, "number of worlds", program("b = a.reshape(64, -1)", "total = total + 0.0 * b.reshape(-1)")),
    ("T214", 5, "number of worlds", program("total = total + a.shape[0] * 0.0")),
    ("T214", 0, "'a' is (64,)", program("a = torch.zeros(64)")),
    ("T214", 5, "number of worlds", program("total = total + torch.zeros(64)")),
    ("T208", 0, "argument", program("b = height.view(-1)", "b[0] = 7.0")),
    ("T210", 5, "truth value", program("total = total * (1.0 if a.sum() > 0 else 2.0)")),
    ("T210", 5, "mask", program("total = total + a[a > 0].sum()")),
    ("T211", 5, "proportion", program("b = (a[:, None] * a).reshape(-1)", "total = total + b.sum() * 0.0")),
    ("T215", 6, "tensor operations", program(f"for i in range({MAX_NODES + 1}):", "    total = total + i")),
    ("T207", 5, "top level", STATEFUL),
]


@pytest.mark.parametrize(("code", "line", "words", "text"), UNTRACEABLE)
def test_what_has_no_graph_for_every_number_of_worlds_is_refused(
    code: str, line: int, words: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the tracer alone, also what the check would have refused before."""
    monkeypatch.setattr("rewards.result.check", lambda text, table: [])
    with pytest.raises(Untraceable) as caught:
        graph_of(text)
    found = caught.value.violation
    assert (found.code, found.line) == (code, line), found
    assert words in found.message and found.hint


def test_the_trial_tells_of_it_with_line_and_rule() -> None:
    text = program("total = total if a.shape[0] > 100000 else total + 0.0")
    verdict = examine(text, TABLE, [signals(64), signals(257)])
    assert [(item[0], item[1]) for item in verdict["problems"]] == [(5, "T214")]
    assert verdict["graph"] is None


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        ("total = total / (height[:, 0] * height[:, 0])", "T206", "zero state"),
        ("total = total + torch.exp(30.0 * a)", "T206", "extreme states"),
    ],
)
def test_a_reward_is_finite_on_states_that_no_sample_holds(lines: str, code: str, words: str) -> None:
    batches = [signals(64), signals(257)]
    for batch in batches:
        batch["torso_velocity_w"].clamp_(-1.0, 1.0)
    problems = examine(program(lines), TABLE, batches)["problems"]
    assert [item[1] for item in problems] == [code]
    assert words in problems[0][2]


def test_a_graph_that_computes_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> dict[str, Any]:
        data = record(*arguments)
        node = next(node for node in data["nodes"] if node["op"] == "mul.Tensor" and node["args"][1] == 2.0)
        node["args"][1] = 2.001
        return data

    monkeypatch.setattr("rewards.agreement.record", wrong)
    problems = examine(program("pass"), TABLE, [signals(64)])["problems"]
    assert [item[1] for item in problems] == ["T216"]


def test_a_write_by_mask_into_rows_is_a_choice() -> None:
    text = program(
        "b = actions * 1.0", "b[a > 0] = 5.0", "b[b < 0] = torch.tensor(-1.0)", "total = total + b.sum(dim=-1)"
    )
    assert_equal_values(text, TABLE, signals(50))
    assert not {node["op"] for node in graph_of(text)["nodes"]} & {"index_put.default", "index.Tensor"}


# -- hash


def digest(text: str) -> str:
    return read_graph(graph_of(text)).sha256()


def test_equal_graphs_have_equal_hashes() -> None:
    plain = program("b = torch.exp(-a)", "c = actions[:, 0] * 2.0", "total = b + c", ret="total, {'x': b, 'y': c}")
    renamed = program(
        "unused = height * 3.0",
        "second = actions[:, 0] * 2.0",
        "first = torch.exp(-a)",
        "again = torch.exp(-a)",
        "def plus(p, q):",
        "    return p + q",
        "total = plus(again, second)",
        ret="total, {'y': second, 'x': first}",
    )
    assert digest(plain) == digest(renamed)


@pytest.mark.parametrize(
    "changed",
    [
        ("* 2.0", "* 2.5"),
        ("exp(-a)", "tanh(-a)"),
        ("b + c", "c + b * 1.0"),
        ("'x': b", "'z': b"),
        ("[:, 0] *", "[:, 1] *"),
    ],
)
def test_other_graphs_have_other_hashes(changed: tuple[str, str]) -> None:
    plain = program("b = torch.exp(-a)", "c = actions[:, 0] * 2.0", "total = b + c", ret="total, {'x': b, 'y': c}")
    assert digest(plain) != digest(plain.replace(*changed))


def test_a_change_in_place_inside_torch_is_a_new_value() -> None:
    """cosine_similarity of a constant clamps norms in place where only it sees them."""
    text = program("total = torch.cosine_similarity(torso_velocity_w, torch.tensor([[1.0, 2.0, 0.0]]), dim=-1)")
    batch = signals(40)
    batch["torso_velocity_w"][:3] = 0.0
    total = RewardFunction(read_graph(graph_of(text)))(batch)[0]
    v = batch["torso_velocity_w"].double()
    by_hand = (v[:, 0] + 2 * v[:, 1]) / (v.norm(dim=-1).clamp(min=1e-8) * 5**0.5)
    assert torch.allclose(total.double(), by_hand, atol=1e-6) and not total[:3].any()


def test_a_change_in_place_that_another_tensor_shows_is_refused() -> None:
    """Where `functionalize` is not there to follow views, a view would keep its old value."""
    recorder_sees = record.__globals__["_Recorder"]

    def run(change: Callable[[torch.Tensor], object]) -> dict[str, Any]:
        def inside(x: torch.Tensor) -> object:
            made = torch.ops.aten.exp.default(x)
            return change(made)

        shapes = record.__globals__["Symbolic"]()
        with shapes.mode, torch.no_grad():
            recorder = recorder_sees(shapes)
            x = recorder.argument(0, 3)
            with recorder:
                total = inside(x)
            return {"nodes": recorder.nodes, "total": recorder.result("total", total)}

    def alone(made: torch.Tensor) -> torch.Tensor:
        return made.clamp_min_(2.0)[:, 0]

    def shown(made: torch.Tensor) -> torch.Tensor:
        column = made[:, 0]
        made.clamp_min_(2.0)
        return column

    def by_view(made: torch.Tensor) -> torch.Tensor:
        made[:, 0].clamp_min_(2.0)
        return made[:, 0]

    assert [item["op"] for item in run(alone)["nodes"]][:2] == ["exp.default", "clamp_min.default"]
    for change in (shown, by_view):
        with pytest.raises(Untraceable):
            run(change)


# -- memory and work


def test_memory_is_known_before_it_is_needed() -> None:
    """Two live (N, 2) float32 tensors at the peak of x * 2 + x * 3; the views before them are free."""
    text = (
        "def compute_reward(actions):\n    b = (actions * 2.0) + (actions * 3.0)\n    return b[:, 0], {'a': b[:, 1]}\n"
    )
    graph = read_graph(graph_of(text))
    assert measure(graph, 1000).peak_bytes == 3 * 1000 * 2 * 4
    assert measure(graph, 65_536).peak_bytes == 3 * 65_536 * 2 * 4


def test_pairs_of_worlds_are_refused_before_they_are_made() -> None:
    graph = read_graph(graph_of(program("total = (a + height).sum(dim=-1)")))
    assert measure(graph, 4_096).peak_bytes == pytest.approx(4_096**2 * 4, rel=1e-2)
    rebuild(graph, 64, torch.device("cpu"))
    with pytest.raises(GraphError, match=r"needs 16\.0 GiB for 65536 worlds"):
        rebuild(graph, 65_536, torch.device("cpu"))
    with pytest.raises(RewardError, match="GiB"):
        RewardFunction(graph)({name: tensor.expand(65_536, -1) for name, tensor in signals(1).items()})


@pytest.mark.parametrize(
    ("line", "products"),
    [
        ("b = torch.einsum('ni,ij->nj', actions, torch.ones(2, 50))", 2 * 50),
        ("b = torch.einsum('ni,nj->nij', actions, actions).flatten(1)", 2 * 2),
        ("b = actions @ torch.ones(2, 50)", 2 * 50),
        ("b = torch.matmul(actions.unsqueeze(1).expand(-1, 7, -1), torch.ones(2, 9)).flatten(1)", 7 * 2 * 9),
        ("b = torch.bmm(actions.unsqueeze(2), actions.unsqueeze(1)).flatten(1)", 2 * 2),
    ],
)
def test_the_work_of_products_is_known_from_their_shapes(line: str, products: int) -> None:
    """At least the multiplications, and at most those with every number read or written a few times."""
    graph = read_graph(graph_of(program(line, "total = total + b.sum(dim=-1)")))
    for worlds in (64, 65_536):
        operations = measure(graph, worlds).operations
        assert products * worlds <= operations <= 12 * products * worlds + 60 * worlds + 10_000


def test_too_much_work_is_refused() -> None:
    text = program(
        "b = actions[:, 0:1] * torch.ones(1, 4000)", *["b = b.sort(dim=-1).values"] * 150, "total = total + b[:, 0]"
    )
    with pytest.raises(GraphError, match="operations for each of 64 worlds"):
        rebuild(read_graph(graph_of(text)), 64, torch.device("cpu"))


# -- data of unknown origin


def altered(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    data = copy.deepcopy(GRAPH)
    change(data)
    return data


def node(data: dict[str, Any], operator: str) -> dict[str, Any]:
    return next(item for item in data["nodes"] if item["op"] == operator)


GRAPH = graph_of(GOOD)
HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown operator": lambda d: node(d, "exp.default").update(op="bernoulli.default"),
    "operator in place": lambda d: node(d, "exp.default").update(op="exp_.default"),
    "path for an operator": lambda d: node(d, "exp.default").update(op="os.system"),
    "operator that is a list": lambda d: node(d, "exp.default").update(op=["exp.default"]),
    "memory by strides": lambda d: node(d, "exp.default").update(op="as_strided.default"),
    "uninitialised memory": lambda d: node(d, "zeros.default").update(op="empty.memory_format"),
    "forward reference": lambda d: node(d, "exp.default").update(args=[{"v": 10**6}]),
    "itself": lambda d: d["nodes"][0].update(args=[{"v": len(d["inputs"]) + len(d["constants"])}, 1, 0]),
    "negative reference": lambda d: node(d, "exp.default").update(args=[{"v": -1}]),
    "boolean reference": lambda d: node(d, "exp.default").update(args=[{"v": True}]),
    "text for a tensor": lambda d: node(d, "exp.default").update(args=["x0"]),
    "device": lambda d: node(d, "zeros.default")["kwargs"].update(device="cuda:7"),
    "out": lambda d: node(d, "exp.default")["kwargs"].update(out={"v": 0}),
    "code as keyword": lambda d: node(d, "exp.default")["kwargs"].update({"x=__import__('os')": 1}),
    "other dtype": lambda d: node(d, "zeros.default")["kwargs"].update(dtype={"dtype": "float64"}),
    "wrong shape": lambda d: node(d, "exp.default")["out"][0].__setitem__(1, [7]),
    "non-finite constant": lambda d: d["constants"][0].update(data=[float("inf")]),
    "constant of other length": lambda d: d["constants"][0].update(data=[1.0, 2.0, 3.0]),
    "text in a constant": lambda d: d["constants"][0].update(data=["1.0"]),
    "huge integer": lambda d: node(d, "select.int").update(args=[{"v": 0}, 1, 2**70]),
    "column beyond the last": lambda d: node(d, "select.int").update(args=[{"v": 0}, 1, 99]),
    "component name": lambda d: d["components"][0].__setitem__(0, "../../etc/passwd"),
    "reserved name": lambda d: d["components"][0].__setitem__(0, "total"),
    "repeated name": lambda d: d["components"][1].__setitem__(0, d["components"][0][0]),
    "no components": lambda d: d.update(components=[]),
    "total of another shape": lambda d: d.update(total=0),
    "total that is none": lambda d: d.update(total=10**9),
    "input name": lambda d: d["inputs"][0].__setitem__(0, "x; import os"),
    "input width": lambda d: d["inputs"][0].__setitem__(1, 10**9),
    "other format": lambda d: d.update(format=2),
    "extra key": lambda d: d.update(pickle="gASV"),
    "missing key": lambda d: d.pop("nodes"),
    "too many nodes": lambda d: d.update(nodes=d["nodes"] * 100),
    "nodes that are none": lambda d: d.update(nodes={"0": 1}),
    "endless text": lambda d: d.update(torch="x" * 2_000_000),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_data_of_unknown_origin_are_refused_in_one_line(what: str) -> None:
    measure(read_graph(GRAPH), 4096)  # sound as it is
    with pytest.raises(GraphError) as caught:
        measure(read_graph(altered(HOSTILE[what])), 4096)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"format": NaN}', "[" * 100_000, "null", '{"format": 1}'])
def test_text_that_is_no_graph(text: str) -> None:
    with pytest.raises(GraphError):
        read_graph(text)


def test_a_graph_of_another_task_is_refused() -> None:
    other = SignalTable([item for item in TABLE if item.name != "height"])
    with pytest.raises(UserError, match="'height'"):
        build_reward(GOOD, other, GRAPH)


def test_operators_are_pure() -> None:
    harmful = {torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output}
    for name in NAMES:
        operator = overload(name)
        if operator is not None:
            assert not operator._schema.is_mutable and not set(operator.tags) & harmful, name


# -- in the trainer


def test_a_process_that_trains_never_loads_what_runs_programs(tmp_path: Path) -> None:
    """A graph is all that it needs: the module with `exec` is not imported, the text not even looked at."""
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH))
    code = f"""
import json, sys, torch
import rl.train
from rewards.function import build_reward
from tests.rewards.programs import TABLE, signals
reward = build_reward("import os; os.abort()", TABLE, json.load(open({str(tmp_path / "graph.json")!r})))
print(float(reward(signals(9))[0].sum()))
loaded = [name for name in ("rewards.trace", "rewards.recorder", "rewards.trial") if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    arguments = [signals(9)[name] for name in entry_arguments(GOOD)]
    expected = load_program(GOOD, TABLE)(*arguments)[0].sum()  # type: ignore[index]
    assert float(done.stdout) == pytest.approx(float(expected), rel=1e-6)


def test_signals_that_do_not_fit_are_refused_on_the_first_call() -> None:
    reward = RewardFunction(read_graph(GRAPH))
    with pytest.raises(RewardError, match=r"'height' is \(8, 3\)"):
        reward({**signals(8), "height": torch.zeros(8, 3)})


def test_compilation_that_takes_too_long_falls_back_and_says_so() -> None:
    graph = read_graph(GRAPH)
    batch = signals(16)
    inputs = [batch[name] for name, _ in graph.inputs]
    plain = rebuild(graph, 16, torch.device("cpu"))
    function, note = compiled(graph, plain, inputs, limit_s=0.0)
    assert function is plain and "uncompiled: not ready after 0 s" in note
    assert all(map(torch.equal, function(*inputs), interpret(graph, inputs)))

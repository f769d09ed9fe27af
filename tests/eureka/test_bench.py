"""The scoreboard: its statistics against numbers worked out by hand, and a toy one that is stopped and goes on."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from eureka.bench import BenchConfig, Row, begin, load, run_bench
from eureka.bench_page import as_markdown, summary, tables, write_pages
from eureka.bench_statistics import estimate, interquartile_mean, mean_estimate, probability_of_improvement
from eureka.executors.base import Ended
from eureka.executors.create import Wanted
from eureka.listener import Listener
from rl.record import make_result
from tasks.errors import UserError
from tests.eureka.scripted import SLIDER
from tests.eureka.test_confirm import TableExecutor

DATA = SLIDER.parent

# -- statistics


def test_the_interquartile_mean_is_that_of_the_middle_half():
    """Of eight scores the lowest and the highest two are left out, of five one each (5 x 0.25 rounded down)."""
    assert interquartile_mean([[8.0, 1.0, 3.0, 100.0], [5.0, 4.0, -50.0, 6.0]]) == (3 + 4 + 5 + 6) / 4
    assert interquartile_mean([[10.0, 0.0, 1.0, 2.0, 3.0]]) == 2.0
    assert interquartile_mean([[7.0]]) == 7.0


def test_the_probability_of_improvement_counts_pairs():
    """Task one: of (1, 3) against (2, 2), two of four pairs are won. Task two: (5, 5) against (5, 4): a tie is a half,
    so 3 of 4. Together 5/8."""
    assert probability_of_improvement([[1.0, 3.0], [5.0, 5.0]], [[2.0, 2.0], [5.0, 4.0]]) == pytest.approx(5 / 8)
    assert probability_of_improvement([[1.0]], [[2.0]]) == 0.0


def test_intervals_are_bootstrap_percentiles():
    """The mean of many draws of two values, 0 and 1, is 0, 1/2 or 1 with 1/4, 1/2 and 1/4: the interval is all of it. A
    single value has no width, and draws stay within their task."""
    told = mean_estimate([0.0, 1.0])
    assert (told.value, told.low, told.high) == (0.5, 0.0, 1.0)
    assert mean_estimate([3.0]).low == mean_estimate([3.0]).high == 3.0
    apart = estimate(interquartile_mean, [[0.0, 0.0], [1.0, 1.0]])
    assert apart.low == apart.high == 0.5
    many = mean_estimate([float(i % 2) for i in range(400)])
    # By the normal law: 1.96 x 0.5 / sqrt(400) = 0.049.
    assert many.high - many.value == pytest.approx(0.049, abs=0.006)


# -- pages


ROWS = [
    Row("ant", "human", "m/s", (4.0, 6.0), env_steps=10, wall_s=1.0, budget=5),
    Row("ant", "sparse", "m/s", (1.0, 1.0), env_steps=10, wall_s=1.0, budget=5),
    Row("ant", "evolution", "m/s", (9.0, 5.0), failed=1, env_steps=100, wall_s=70.0, budget=5, best="g01_c00"),
    Row("door", "human", not_run="the robot <b>cannot</b> be fetched"),
    Row("door", "sparse", not_run="the robot <b>cannot</b> be fetched"),
    Row("door", "evolution", not_run="the robot <b>cannot</b> be fetched"),
]


def test_scores_are_worked_out_by_hand():
    """Human 5, sparse 1, so evolution's seeds score 2 and 1; it beats the human reward in 3.0 of 4 pairs."""
    told = summary(ROWS, {})
    by_name = {(row["task"], row["method"]): row for row in told["rows"]}
    assert by_name["ant", "evolution"]["normalised"] == [2.0, 1.0]
    assert by_name["ant", "human"]["normalised"] == [0.75, 1.25]
    assert by_name["door", "human"]["normalised"] is None and by_name["door", "human"]["mean"] is None
    evolution = told["methods"]["evolution"]
    assert evolution["interquartile_mean"]["value"] == 1.5
    assert evolution["improvement_over_human"]["value"] == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert evolution["better_than_human"] == {"tasks": 1, "of": 1}
    assert (evolution["tasks"], evolution["tasks_run"], evolution["env_steps"]) == (2, 1, 100)
    assert told["methods"]["human"]["interquartile_mean"]["value"] == 1.0


def test_pages_show_every_row(tmp_path):
    """What was not run is a row that says so; markup from outside is text."""
    page = write_pages(ROWS, {"seeds": 2}, tmp_path / "results", "2026-01-02-here")
    files = sorted(path.name for path in page.parent.iterdir())
    assert files == ["2026-01-02-here.html", "2026-01-02-here.json", "2026-01-02-here.md"]
    text, markdown = page.read_text(), page.with_suffix(".md").read_text()
    assert "the robot &lt;b&gt;cannot" in text and "<b>" not in text
    assert markdown.count("not run") == 3 and "- door, human: the robot" in markdown
    assert "| ant | evolution | 7.00 [5.00, 9.00] | m/s | 1.50 | 2, 1 failed | 5 | 100 | 1 min 10 s |" in markdown
    told = json.loads(page.with_suffix(".json").read_text())
    assert told == json.loads(json.dumps(summary(ROWS, {"seeds": 2})))
    assert all(len(row) == len(table.head) for table in tables(told) for row in table.rows)
    assert as_markdown(told) == markdown


# -- the run

SMALL = {"seeds": 2, "samples": 2, "generations": 1, "budget": 0.5}


class RoleExecutor(TableExecutor):
    """Fitness by what is trained: human 3 and 5, sparse 1, anything of a search 7."""

    def result_of(self, request):
        role, seed = request.run_id.partition("_")[0], request.seed
        fitness = {"human": 3.0 + 2 * (seed % 2), "sparse": 1.0}.get(role, 7.0)
        told = {"fitness": fitness, "fitness_std": 0.1, "fitness_unit": "m", "wall_s": 2.0}
        steps = request.config.env_steps
        return make_result(request, "ok", env_steps=steps, iterations=request.config.iterations, **told)


class DyingMachine(RoleExecutor):
    """No training ends with a word after `well` of them."""

    def __init__(self, well: int) -> None:
        super().__init__()
        self.well = well
        self.died: list[str] = []

    def wait(self, timeout_s):
        if len(self.ran) < self.well:
            return super().wait(timeout_s)
        job = self._jobs.pop(0)
        self.died.append(job.run_id)
        return [Ended(job.run_id, "crashed", -11, "no driver", attempt=job.attempt)]


def bench(folder: Path, executor: RoleExecutor) -> list[Row]:
    @contextmanager
    def executor_for(task: str):
        yield executor

    return run_bench(folder, executor_for, Listener())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A task that is gone and the slider, by three methods."""
    place = tmp_path_factory.mktemp("bench")
    gone = place / "gone.py"
    shutil.copyfile(SLIDER, gone)
    shutil.copyfile(SLIDER.with_name("slider_human.py"), place / "gone_human.py")
    folder, executor = place / "run", RoleExecutor()
    begin(folder, BenchConfig(tasks=(str(gone), str(SLIDER)), **SMALL))
    gone.unlink()
    return folder, executor, bench(folder, executor)


def test_a_toy_scoreboard(whole):
    """Half of the slider's four iterations of 320 steps; the search trains two programs and its best on two seeds, and
    takes human and sparse from where the scoreboard has trained them."""
    folder, executor, rows = whole
    by_method = {row.method: row for row in rows if row.task == "slider"}
    assert by_method["human"].fitness == (3.0, 5.0) and by_method["sparse"].fitness == (1.0, 1.0)
    assert by_method["evolution"].fitness == (7.0, 7.0) and by_method["evolution"].best == "g01_c00"
    assert {row.budget for row in by_method.values()} == {640}
    assert by_method["human"].env_steps == 2 * 640 and by_method["human"].wall_s == 4.0
    assert by_method["evolution"].env_steps == (2 + 2) * 640
    assert sorted(executor.ran) == sorted(
        [f"{role}_s{1000 + n}" for role in ("human", "sparse", "final") for n in (0, 1)] + ["g01_c00_s0", "g01_c01_s0"]
    )
    assert [row.not_run != "" for row in rows] == [True] * 3 + [False] * 3
    assert "gone.py" in rows[0].not_run
    assert load(folder)[0].budget == 0.5


@pytest.mark.parametrize("stop_at", ["human_s1001", "g01_c01_s0", "final_s1001"])
def test_a_scoreboard_that_was_stopped_goes_on(whole, tmp_path, stop_at):
    """Nothing that had ended is trained again, and the rows are the same."""
    first, second, third = RoleExecutor(stop_at), RoleExecutor(), RoleExecutor()
    begin(tmp_path / "run", BenchConfig(tasks=(str(SLIDER),), **SMALL))
    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path / "run", first)
    rows = bench(tmp_path / "run", second)
    assert sorted(first.ran + second.ran) == sorted(whole[1].ran)
    assert rows == [row for row in whole[2] if row.task == "slider"]
    assert bench(tmp_path / "run", third) == rows and third.ran == []


@pytest.mark.parametrize("well", [0, 1, 2, 4, 6])
def test_a_machine_at_fault_stops_a_scoreboard_which_goes_on_at_a_resume(whole, tmp_path, monkeypatch, eureka, well):
    """In the human or the sparse reward's trainings (0, 1, 2), a search's (4) or its finals (6): no later method is tried,
    no row says that one failed, and after a resume the rows are those of a machine that was well."""
    machine, mended, folder = DyingMachine(well), RoleExecutor(), tmp_path / "run"
    begin(folder, BenchConfig(tasks=(str(SLIDER),), **SMALL))
    monkeypatch.setattr(Wanted, "started", lambda *_: nullcontext(machine))
    code, _, err = eureka("bench", "--resume", folder)
    assert code == 2 and "the machine is at fault" in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith(f"When it is well again: eureka bench --resume {folder}")
    assert "not run" not in err and len({run_id.partition("_")[0] for run_id in machine.died} - {"probe"}) == 1
    rows = bench(folder, mended)
    assert rows == [row for row in whole[2] if row.task == "slider"]
    assert sorted(machine.ran + mended.ran) == sorted(whole[1].ran)


def test_a_reward_that_is_there_is_a_method(tmp_path):
    """A file trains on the same fresh seeds as the human reward; one of another task is a row that says so."""
    executor, file = RoleExecutor(), SLIDER.with_name("slider_human.py")
    recording = Path(__file__).parents[2] / "examples" / "recorded" / "ant-run"
    methods = (f"reward:{file}", f"reward:{recording}")
    begin(tmp_path / "run", BenchConfig(tasks=(str(SLIDER),), **{**SMALL, "methods": methods}))
    given, foreign = bench(tmp_path / "run", executor)
    assert (given.fitness, given.env_steps, given.not_run) == ((7.0, 7.0), 2 * 640, "")
    assert sorted(executor.ran) == ["reward_s1000", "reward_s1001"]
    assert "is of task 'ant-run', not of 'slider'" in foreign.not_run
    assert bench(tmp_path / "run", RoleExecutor())[0] == given


def test_the_command_writes_the_pages(whole, eureka, tmp_path):
    """A finished scoreboard is resumed for its pages alone; what was not run makes the exit code 1."""
    code, out, _ = eureka("bench", "--resume", whole[0], "--out", tmp_path / "results", "--machine", "a machine")
    assert code == 1 and "not run" in out
    page = next((tmp_path / "results").glob("*-a-machine.html"))
    assert "slider" in page.read_text()
    code, _, err = eureka("bench", "--resume", whole[0], "--seeds", 9)
    assert code == 2 and "--seeds cannot change" in err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("humen",)}, "no method 'humen'.*did you mean 'human'"),
        ({"methods": ("replay",)}, "no method 'replay'.*replay:DIR"),
        ({"methods": ("replay:nowhere",)}, "no folder nowhere"),
        ({"methods": ("human", "human")}, "human is named twice"),
        ({"methods": (f"replay:{DATA}", f"replay:{DATA}/")}, "two methods are named replay:.../data"),
        ({"methods": ("reward:nowhere.py",)}, "there is no nowhere.py"),
        ({"methods": ("reward",)}, "no method 'reward'.*reward:PATH"),
        ({"seeds": 0}, "seeds is 0"),
        ({"budget": 0.0}, "budget is 0"),
        ({"tasks": ()}, "at least one task"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, words):
    with pytest.raises(UserError, match=f"(?i){words}"):
        BenchConfig(**{"tasks": ("ant-run",), **changes})


def test_a_folder_holds_one_scoreboard(whole):
    with pytest.raises(UserError, match=r"holds a scoreboard already.*--resume"):
        begin(whole[0], BenchConfig(tasks=("ant-run",)))

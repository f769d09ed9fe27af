"""How well `eureka act` keeps its control rate while a planner draws pictures, asks over HTTP, waits and fails.

    python benchmarks/act.py --seconds 60 --rate 120

The ant stands (zero actions) on ant-tour, so that nothing ends the run; each control step is the task's own, with
physics, signals and the copy of the state that a planner sees. The planner talks to an HTTP server on loopback in
this very process, which makes it harder: its threads want the same Python lock. A child process draws the pictures.

Prints one line a case: control rate, quantiles of the period, share of the periods more than a fifth late.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os

import torch

from distill.planner import Subtask, Vocabulary
from distill.runtime import Body, RuntimeConfig, run
from distill.runtime_driver import ExpertDriver
from distill.runtime_eyes import Eyes
from distill.runtime_journal import Journal
from distill.runtime_system2 import Rhythm
from eureka.planner_openai import OpenAIPlanner, PlannerConfig
from tasks import registry
from tasks.env import make_env
from tests.eureka.chat_server import Behaviour, ChatServer, error, raw, reply

STANDING = json.dumps({"note": "", "instruction": "stand still", "until": "planner decides"})
CASES: dict[str, Behaviour | None] = {
    "no pictures, no endpoint": None,
    "answers at once": reply(STANDING),
    "answers after 0.5 s": reply(STANDING, delay_s=0.5),
    "answers after 2 s": reply(STANDING, delay_s=2.0),
    "answers after 10 s": reply(STANDING, delay_s=10.0),
    "429": error(429, headers={"Retry-After": "0.1"}),
    "500": error(500),
    "malformed JSON": raw(b'{"choices": ['),
    "outside the list": reply(json.dumps({"note": "", "instruction": "fly", "until": 1.0})),
}


class Standing:
    """A planner that needs nothing."""

    name, wants_images = "standing", False

    def plan(self, images, goal, history) -> Subtask:
        return Subtask("stand still")

    def facts(self) -> dict[str, object]:
        return {}

    def close(self) -> None:
        """Nothing is held."""


def measure(behaviour: Behaviour | None, seconds: float, rate: float) -> dict[str, object]:
    """One case for `seconds` of the machine's time."""
    task = registry.make("ant-tour")
    task.episode_length_s = 1e6  # type: ignore[misc] - the time limit is not what is measured
    env = make_env(task, 1, seed=0, num_threads=1)
    speed = rate * task.control_dt_s
    rhythm = Rhythm(give_up_after=10**6, planner_hz=10.0 / speed)
    config = RuntimeConfig(speed=speed, max_s=seconds * speed, rhythm=rhythm)
    vocabulary = Vocabulary(task.commands)
    driver = ExpertDriver(lambda observation: torch.zeros(1, env.num_actions), task)
    with ChatServer(default=behaviour) as server:
        eyes = None
        planner = Standing()
        if behaviour is not None:
            eyes = Eyes(task, ("eyes", "above"), 320, 240)
            settings = PlannerConfig(model="loop-1", base_url=server.base_url, deadline_s=15.0, request_timeout_s=12.0)
            planner = OpenAIPlanner(settings, vocabulary, api_key=server.key)
        look = (lambda state: ()) if eyes is None else eyes.look
        body = Body("ant", env, driver, planner, "stand", config, Journal(None), vocabulary=vocabulary, look=look)
        (result,), rates = run([body], config)
        if eyes is not None:
            eyes.close()
    env.close()
    assert rates is not None
    return {
        "rates": dataclasses.asdict(rates),
        "counts": result.counts,
        "latency_s": result.latency_s,
        "end": result.end,
    }


def main() -> None:
    """Measure all cases, or some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=120.0, help="control steps a second")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for case in options.cases:
        found = measure(CASES[case], options.seconds, options.rate)
        if options.json:
            print(json.dumps({"case": case, "load": os.getloadavg()[0], **found}), flush=True)
            continue
        rates = found["rates"]
        assert isinstance(rates, dict)
        print(
            f"{case:26s} {1 / rates['mean_s']:6.1f} Hz   period median {1e3 * rates['median_s']:6.2f}  p99 "
            f"{1e3 * rates['p99_s']:6.2f}  longest {1e3 * rates['longest_s']:7.2f} ms   "
            f"late {100 * rates['late_share']:5.2f} %   work median {1e3 * rates['work_median_s']:.2f}  "
            f"p99 {1e3 * rates['work_p99_s']:.2f} ms   "
            f"asked {found['counts']}   load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Physics of each robot's training model beside the robot as shipped, interleaved in one run.

    python benchmarks/robots.py --num-envs 64 --rounds 20

Both are stepped by `mujoco.batch` from the default pose, with the same servos and the same random targets around that
pose, new ones each control step. Printed are physics steps per second of processor time of each, their ratio, and the
ratio of simulated time, which counts that a training model takes longer steps. Processor time and turns of a few
control steps keep the ratios steady on a busy machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco.batch import Batch

import tasks.sim_native  # noqa: F401 - sets MuJoCo's warning handler
from tasks.robots import allegro, anymal_c, g1, panda, shadow, x2
from tasks.robots.menagerie import missing_reason, robot_spec

CONTROL_DT_S = 0.02
STEPS_A_TURN = 3
"""Control steps of one model before it is the other's turn."""


@dataclass(frozen=True)
class Robot:
    """A row of the table."""

    menagerie: str
    shipped: Callable[[], mujoco.MjModel]
    training: Callable[[], mujoco.MjModel]
    start: Sequence[float]
    """qpos that worlds start in."""
    amplitude: float = 0.2
    """Random targets lie within +- this of the pose, rad."""
    targets: Sequence[float] | None = None
    """What the random targets lie around; None: the last nu numbers of `start`."""


def standing(robot) -> list[float]:
    return [0.0, 0.0, robot.STAND_HEIGHT_M, 1.0, 0.0, 0.0, 0.0, *robot.STAND_POSE_RAD]


def as_shipped(robot: str, file: str) -> Callable[[], mujoco.MjModel]:
    return lambda: robot_spec(robot, file).compile()


PANDA_HOME_RAD = [0.0, 0.0, 0.0, -1.57079, 0.0, 1.57079, -0.7853]
"""The keyframe of its file."""
ALLEGRO_OPEN_RAD = [*([0.0, 0.0, 0.0, 0.0] * 3), 0.3, 0.0, 0.0, 0.0]

ROBOTS = {
    "anymal-c": Robot(anymal_c.ROBOT, anymal_c.shipped_model, anymal_c.training_model, standing(anymal_c)),
    "g1": Robot(g1.ROBOT, g1.shipped_model, g1.training_model, standing(g1)),
    # Its training model has other servos: see tasks/robots/panda.py.
    "panda": Robot(
        panda.ROBOT,
        as_shipped(panda.ROBOT, panda.FILE),
        lambda: panda.training_spec().compile(),
        [*PANDA_HOME_RAD, 0.04, 0.04],
        targets=[*PANDA_HOME_RAD, 255.0],
    ),
    "allegro": Robot(
        allegro.ROBOT,
        as_shipped(allegro.ROBOT, allegro.FILE),
        lambda: allegro.training_spec().compile(),
        ALLEGRO_OPEN_RAD,
    ),
    "shadow": Robot(
        shadow.ROBOT,
        as_shipped(shadow.ROBOT, "right_hand.xml"),
        lambda: shadow.training_spec().compile(),
        [0.0] * len(shadow.JOINTS),
        targets=[0.0] * len(shadow.ACTUATORS),
    ),
    # Motors: around the thrust in N that holds the weight.
    "x2": Robot(
        x2.ROBOT,
        as_shipped(x2.ROBOT, x2.FILE),
        lambda: x2.training_spec().compile(),
        [0.0, 0.0, 5.0, 1.0, 0.0, 0.0, 0.0],
        targets=[3.25] * 4,
    ),
}


class Stepper:
    """Worlds of one model, and the processor time that their steps took."""

    def __init__(self, model: mujoco.MjModel, robot: Robot, num_envs: int) -> None:
        self.substeps = round(CONTROL_DT_S / model.opt.timestep)
        self.timestep_s = model.opt.timestep
        self._batch = Batch(model, num_envs, 1)
        self._batch.reset()
        self._batch.bind("qpos")[:] = robot.start
        self._ctrl = self._batch.bind("ctrl")
        around = robot.start[-model.nu :] if robot.targets is None else robot.targets
        self._pose, self._amplitude = np.array(around), robot.amplitude
        self._rng = np.random.default_rng(0)
        self.steps, self.seconds = 0, 0.0

    def turn(self) -> None:
        """A few control steps."""
        for _ in range(STEPS_A_TURN):
            self._ctrl[:] = self._pose + self._rng.uniform(-self._amplitude, self._amplitude, self._ctrl.shape)
            began = time.process_time()
            self._batch.step(nstep=self.substeps)
            self.seconds += time.process_time() - began
            self.steps += self.substeps * len(self._ctrl)

    @property
    def rate(self) -> float:
        """Physics steps per second of processor time."""
        return self.steps / self.seconds


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robots", nargs="+", default=list(ROBOTS), choices=list(ROBOTS), help="(default: all)")
    parser.add_argument("--num-envs", type=int, default=64, help="worlds of each model (default: 64)")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each model (default: 20)")
    options = parser.parse_args()
    print(f"{'robot':<12}{'shipped steps/s':>17}{'training steps/s':>18}{'ratio':>8}{'ratio of simulated time':>25}")
    for name in options.robots:
        robot = ROBOTS[name]
        reason = missing_reason(robot.menagerie)
        if reason:
            print(f"{name:<12}not measured: {reason}")
            continue
        shipped, training = (Stepper(build(), robot, options.num_envs) for build in (robot.shipped, robot.training))
        for _ in range(options.rounds):
            shipped.turn()
            training.turn()
        ratio = training.rate / shipped.rate
        simulated = ratio * training.timestep_s / shipped.timestep_s
        print(f"{name:<12}{shipped.rate:>17,.0f}{training.rate:>18,.0f}{ratio:>8.2f}{simulated:>25.2f}", flush=True)


if __name__ == "__main__":
    main()

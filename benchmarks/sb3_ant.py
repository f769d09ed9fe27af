"""Speed of Stable-Baselines3's PPO on Gymnasium's Ant-v5, with the network that ours uses for ant-run.

    pip install stable-baselines3 "gymnasium[mujoco]"
    python benchmarks/sb3_ant.py --seconds 30 --threads 2

Imports nothing of ours, so it may run in a virtual environment of its own. 8 environments in one process
(more than one process is slower at this size), 256 steps each: as many samples per update as SB3's defaults give
one environment, and 2 passes over them as in our preset. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to train")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--envs", type=int, default=8, help="environments")
    args = parser.parse_args()
    try:
        import torch
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError as error:
        raise SystemExit(f"{error}: pip install stable-baselines3 'gymnasium[mujoco]'") from None

    torch.set_num_threads(args.threads)
    env = make_vec_env("Ant-v5", n_envs=args.envs)
    model = PPO(
        "MlpPolicy", env, n_steps=256, batch_size=512, n_epochs=2, device="cpu",
        policy_kwargs={"net_arch": {"pi": [128, 64], "vf": [128, 64]}, "activation_fn": torch.nn.SiLU},
    )  # fmt: skip
    chunk = args.envs * 256
    model.learn(chunk)  # first iteration allocates
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < args.seconds:
        model.learn(chunk, reset_num_timesteps=False)
        steps += chunk
    print(json.dumps({"steps_per_s": steps / (time.perf_counter() - began), "steps": steps, "envs": args.envs}))


if __name__ == "__main__":
    main()

"""What System 1's action head costs: time per chunk, actions per second, training samples per second.

    python benchmarks/head.py --presets toy tiny --compile --onnx
    python benchmarks/head.py --presets base n1 --device cuda --compile

chunk:    the whole sampler (states and context in, a chunk of the preset's horizon out, the config's Euler steps) for a
          body of 48 state numbers and 12 actions, by batch: eager, compiled by inductor, and on CUDA as a CUDA graph.
          The context's tokens are given: on a robot they are made once an instruction. Also in one Euler step, and the
          regression head, which takes one. With --onnx also the exported file in ONNX Runtime, one thread.
training: forward, backward and AdamW on --train-batch samples, float32.

On a CPU one thread is used and the process's processor time counts, so that other work on the machine disturbs little;
on CUDA the time between synchronisations. Medians of --rounds rounds in which all ways take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.action_head import ActionHead
from distill.batch import Demonstration, Observation
from distill.config import HEADS, HeadConfig, head_config
from distill.embodiments import Embodiment, EmbodimentTable
from distill.export import Sampler, export_head, random_inputs
from distill.normalize import compute_statistics

STATE, ACTION = 48, 12
"""Sizes of a quadruped's observation and action."""
CONTROL_HZ = 120.0
"""Rate that GR00T N1's System 1 is wanted at."""
NAME = "quadruped"


Calls = dict[str, Callable[[], object]]


def make_head(config: HeadConfig, device: torch.device) -> ActionHead:
    """A head with one body, random weights."""
    draw = torch.Generator().manual_seed(0)
    embodiment = Embodiment(
        name=NAME,
        state_size=STATE,
        action_size=ACTION,
        control_dt_s=0.02,
        horizon=config.horizon,
        execute=config.horizon // 2,
        history=1,
        state_normalization="mean_std",
        action_normalization="quantile",
        state_statistics=compute_statistics(torch.randn(256, STATE, generator=draw)),
        action_statistics=compute_statistics(torch.randn(256, ACTION, generator=draw)),
    )
    return ActionHead(config, EmbodimentTable((embodiment,))).to(device)


def clock(device: torch.device) -> float:
    """Seconds of this process's processor time, or until the device's work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def medians_ms(calls: Calls, device: torch.device, rounds: int) -> dict[str, float]:
    """Milliseconds of each call, the calls in turn; at least 3 calls and 50 ms of each a round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    for _ in range(rounds):
        for name, call in calls.items():
            began, count = clock(device), 0
            while count < 3 or clock(device) - began < 0.05:
                call()
                count += 1
            times[name].append(1e3 * (clock(device) - began) / count)
    return {name: statistics.median(values) for name, values in times.items()}


def as_cuda_graph(sampler: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    """The sampler's kernels recorded once, and started together."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            sampler(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sampler(*inputs)
    return graph.replay


@functools.cache
def onnx_session(config: HeadConfig) -> Any:
    """The exported sampler in ONNX Runtime; exporting takes seconds to minutes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        report = export_head(make_head(config, torch.device("cpu")), NAME, Path(folder) / "head.onnx")
        return onnxruntime.InferenceSession(report["path"], options, providers=["CPUExecutionProvider"])


def chunk_calls(config: HeadConfig, batch: int, device: torch.device, compiled: bool, onnx: bool = False) -> Calls:
    """Ways to make a chunk, by name."""
    head = make_head(config, device).eval()
    inputs = [value.to(device) for value in random_inputs(head, NAME, batch).values()]
    sampler, one_step = Sampler(head, NAME, config.sampling_steps), Sampler(head, NAME, 1)
    calls: Calls = {"eager": functools.partial(sampler, *inputs)}
    if compiled:
        calls["compiled"] = functools.partial(torch.compile(sampler), *inputs)
    if device.type == "cuda":
        calls["cuda graph"] = as_cuda_graph(sampler, inputs)
    if onnx:
        given = {name: value.numpy() for name, value in random_inputs(head, NAME, batch).items()}
        calls["onnx"] = functools.partial(onnx_session(config).run, None, given)
    calls["1 step"] = functools.partial(one_step, *inputs)
    if config.objective == "flow":
        baseline = make_head(dataclasses.replace(config, objective="regression"), device).eval()
        calls["regression"] = functools.partial(Sampler(baseline, NAME, 1), *inputs[:-1])
    return calls


def training_call(config: HeadConfig, batch: int, device: torch.device, compiled: bool) -> Callable[[], object]:
    """One optimiser step on a batch."""
    head = make_head(config, device).train()
    inputs = {name: value.to(device) for name, value in random_inputs(head, NAME, batch).items()}
    seen = Observation(inputs["state"], inputs["context"], inputs["context_mask"])
    samples = {NAME: Demonstration(seen, torch.randn(batch, config.horizon, ACTION, device=device))}
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-5)
    loss_of = torch.compile(head.loss) if compiled else head.loss

    def step() -> None:
        optimiser.zero_grad()
        loss_of(samples)[0].backward()
        optimiser.step()

    return step


def report(preset: str, args: argparse.Namespace, device: torch.device) -> None:
    """Measure one preset and print its lines."""
    config = head_config(preset)
    head = make_head(config, torch.device("cpu"))
    adapter = sum(p.numel() for p in head.adapters.parameters())
    total = sum(p.numel() for p in head.parameters())
    print(
        f"{preset}: {config.layers} x {config.width}, {total / 1e6:.2f} M parameters, {adapter / 1e6:.2f} M of them "
        f"the body's; chunks of {config.horizon}, {config.sampling_steps} steps, {config.context_tokens} context tokens"
    )
    if args.onnx and device.type != "cpu":
        raise SystemExit("--onnx is measured on the CPU; leave it out, or --device.")
    for batch in args.batches:
        found = medians_ms(chunk_calls(config, batch, device, args.compile, args.onnx), device, args.rounds)
        for name, ms in found.items():
            rate = 1e3 * batch * config.horizon / ms
            print(
                f"  chunk, batch {batch:4d}, {name:10s} {ms:9.2f} ms {rate:12,.0f} actions/s, {rate / CONTROL_HZ:9.1f} "
                f"x {CONTROL_HZ:.0f} Hz, {ms / found['eager']:5.2f} x eager"
            )
    ways = {"eager": training_call(config, args.train_batch, device, False)}
    if args.compile:
        ways["compiled"] = training_call(config, args.train_batch, device, True)
    for name, ms in medians_ms(ways, device, args.rounds).items():
        rate = 1e3 * args.train_batch / ms
        print(f"  training, batch {args.train_batch}, {name:10s} {ms:9.2f} ms {rate:10,.0f} samples/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=sorted(HEADS), default=["toy", "tiny"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 256])
    parser.add_argument("--train-batch", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also compiled by inductor: minutes of compiling")
    parser.add_argument("--onnx", action="store_true", help="also in ONNX Runtime, on its CPU")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU thread"
    print(f"torch {torch.__version__}, {where}")
    for preset in args.presets:
        report(preset, args, device)


if __name__ == "__main__":
    main()

"""Configurations, embodiments and scales: JSON both ways, closed forms, and refusals of one line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from distill.config import (
    ENCODERS,
    HEADS,
    EncoderConfig,
    HeadConfig,
    config_to_json,
    encoder_config,
    encoder_from_json,
    head_config,
    head_from_json,
)
from distill.embodiments import EmbodimentTable, table_from_json, table_to_json
from distill.layers import Trunk
from distill.normalize import MODES, Normalizer, compute_statistics, statistics_from_json, statistics_to_json
from tasks.errors import UserError
from tests.distill.conftest import body


def test_presets_go_together_and_through_json():
    assert set(HEADS) == set(ENCODERS) == {"toy", "tiny", "base", "n1"}
    for name in HEADS:
        assert HEADS[name].context_width == ENCODERS[name].width
        assert HEADS[name].context_tokens >= ENCODERS[name].tokens
        assert head_from_json(json.loads(json.dumps(config_to_json(HEADS[name])))) == HEADS[name]
        assert encoder_from_json(json.loads(json.dumps(config_to_json(ENCODERS[name])))) == ENCODERS[name]


@pytest.mark.parametrize(("preset", "millions"), [("n1", 538.0), ("base", 30.0)])
def test_sizes_are_the_published_ones(preset, millions):
    """GR00T N1's transformer has 538 M parameters (counted from its public checkpoint)."""
    config = HEADS[preset]
    with torch.device("meta"):
        trunk = Trunk(config.width, config.layers, config.heads, config.feedforward, config.context_width)
    count = sum(parameter.numel() for parameter in trunk.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: head_config("tinny"), "preset is 'tinny', expected one of toy, tiny, base, n1. Did you mean 'tiny'?"),
        (lambda: head_config("toy", {"layer": 3}), "unknown field 'head.layer'. Did you mean 'layers'?"),
        (lambda: head_config("toy", {"objective": "flows"}), "Did you mean 'flow'?"),
        (lambda: HeadConfig(layers=1), "head.layers is 1, expected a whole number of at least 2"),
        (lambda: HeadConfig(width=100), "head.width is 100, expected a multiple of twice its 4 heads"),
        (lambda: HeadConfig(time_scale=1.5), "head.time_scale is 1.5, expected a number above 0 and at most 1."),
        (lambda: HeadConfig(sampling_steps=0), "head.sampling_steps is 0, expected a whole number of at least 1."),
        (lambda: HeadConfig(state_noise=-0.1), "head.state_noise is -0.1, expected a number of at least 0."),
        (lambda: head_from_json({"width": 8}), "head: missing objective, layers"),
        (lambda: head_from_json(config_to_json(HeadConfig()) | {"drop_out": 0.1}), "unknown field 'head.drop_out'"),
        (lambda: encoder_config("tiny", {"bucket": 3}), "unknown field 'encoder.bucket'. Did you mean 'buckets'?"),
        (lambda: EncoderConfig(image_size=50), "encoder.image_size is 50, expected a multiple of patch_size, 16."),
        (lambda: body("ant", execute=9), "execute is 9, more than the 8 actions of a chunk"),
        (lambda: body("ant", state_size=8), "state_size is 8, but state_statistics has 7 columns"),
        (lambda: body("ant", action_normalization="minmax"), "Did you mean 'min_max'?"),
        (lambda: body("ant", control_dt_s=0.0), "control_dt_s is 0.0, expected a number of seconds above 0."),
        (lambda: body("An.t"), "embodiment name 'An.t': expected small letters"),
        (lambda: EmbodimentTable((body("ant"),)).with_new(body("ant")), "embodiment 'ant' is there already"),
        (lambda: EmbodimentTable((body("ant"), body("ant"))), "embodiment 'ant' comes twice"),
        (lambda: EmbodimentTable((body("ant"),))["and"], "unknown embodiment 'and'; known: ant. Did you mean 'ant'?"),
        (lambda: compute_statistics(torch.zeros(0, 3)), "at least one row, got shape (0, 3)"),
        (lambda: compute_statistics(torch.tensor([[0.0, 1.0], [0.0, torch.nan]])), "row 1, column 1 is nan"),
    ],
)  # fmt: skip
def test_what_cannot_work_gives_one_line(make, line):
    with pytest.raises(UserError) as caught:
        make()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_goes_through_json_to_the_bit():
    table = EmbodimentTable((body("ant"), body("hand")))
    assert table_from_json(json.loads(json.dumps(table_to_json(table)))) == table
    damaged = json.loads(json.dumps(table_to_json(table)))
    damaged[1]["action_statistics"]["q01"][2] = "nan"
    with pytest.raises(UserError, match="q01 holds 'nan', expected finite numbers"):
        table_from_json(damaged)
    damaged[1]["action_statistics"]["q01"][2] = 99.0
    with pytest.raises(UserError, match="column 2 has min, q01, q99, max"):
        table_from_json(damaged)
    del damaged[1]["action_statistics"]["q01"]
    with pytest.raises(UserError, match=r"embodiments\[1\]\.action_statistics: missing q01"):
        table_from_json(damaged)


def test_places_stay_when_a_body_joins():
    table = EmbodimentTable((body("hand"), body("drone")))
    assert [table.with_new(body("ant")).place(name) for name in ("hand", "drone", "ant")] == [0, 1, 2]


DATA = np.stack([np.linspace(-3.0, 5.0, 201), np.full(201, 0.7), np.where(np.arange(201) == 9, 4.0, 1.0)], axis=1)
"""A ramp; a constant; a column that moves in one row of 201, which neither percentile sees."""


def test_statistics_are_those_of_the_columns():
    statistics = compute_statistics(DATA)
    assert (statistics.count, statistics.min[0], statistics.max[0]) == (201, -3.0, 5.0)
    assert statistics.mean[0] == pytest.approx(1.0)
    assert statistics.std[0] == pytest.approx(0.04 * np.sqrt((201**2 - 1) / 12))  # of equal steps of 0.04
    assert (statistics.q01[0], statistics.q99[0]) == pytest.approx((-2.92, 4.92))
    assert statistics_from_json(json.loads(json.dumps(statistics_to_json(statistics)))) == statistics


@pytest.mark.parametrize("mode", MODES)
def test_scales_have_the_promised_ends_and_an_inverse(mode):
    scale = Normalizer(compute_statistics(DATA), mode)
    data = torch.tensor(DATA, dtype=torch.float32)
    normalised = scale(data)
    ramp = normalised[:, 0]
    if mode == "mean_std":
        assert ramp.mean() == pytest.approx(0.0, abs=1e-6)
        assert ramp.std(correction=0) == pytest.approx(1.0, abs=1e-5)
    else:
        first = 2 if mode == "quantile" else 0  # row 2 of 201 is the 1st percentile
        assert (ramp[first], ramp[-1 - first]) == (pytest.approx(-1.0, abs=1e-6), pytest.approx(1.0, abs=1e-6))
    assert (normalised[:, 1] == 0.0).all(), "a constant column is 0"
    assert torch.equal(scale.invert(normalised)[:, 1], data[:, 1]), "and comes back as it was"
    assert scale(torch.tensor([0.0, 0.8, 1.0]))[1] == pytest.approx(0.1, abs=1e-6), "a small change of it stays small"
    if mode == "quantile":  # to which the third column is constant: its deviation, 3 sqrt(200) / 201, is its scale
        assert normalised[9, 2].item() == pytest.approx(3.0 / (3.0 * np.sqrt(200.0) / 201.0), rel=1e-5)
    torch.testing.assert_close(scale.invert(normalised), data, atol=2e-6, rtol=0)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HeadConfig().width = 3  # pyright: ignore[reportAttributeAccessIssue]

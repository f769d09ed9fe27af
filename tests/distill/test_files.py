"""A head on the disk and as ONNX: the same to the bit, the same to 1e-5, and damage in one line."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnxruntime
import pytest
import torch

from distill import export
from distill.checkpoint import META, WEIGHTS, Backbone, StoredHead, load_head, save_head
from distill.config import encoder_config, head_config
from distill.encoder import ScratchEncoder
from tasks.errors import UserError
from tests.distill.conftest import SIZES, body, make_head, noise_for, observation


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A head with its encoder, and its folder."""
    generalist = StoredHead(make_head(), ScratchEncoder(encoder_config("toy"), seed=2), {"rounds": 3})
    folder = tmp_path_factory.mktemp("head") / "best"
    save_head(generalist, folder)
    return generalist, folder


def test_a_loaded_head_is_the_saved_one_to_the_bit(saved):
    """Its bodies, its words, and the first weights of a body that joins later."""
    generalist, folder = saved
    loaded = load_head(folder)
    assert loaded.head.table == generalist.head.table
    assert loaded.head.config == generalist.head.config
    assert loaded.about == {"rounds": 3}
    assert not loaded.head.training
    told = ["walk forward", "stop"]
    assert isinstance(loaded.encoder, ScratchEncoder)
    assert torch.equal(loaded.encoder(told)[0], generalist.encoder(told)[0])
    for name in SIZES:
        seen, noise = observation(loaded.head.table[name], 2), noise_for(loaded.head.table[name], 2)
        before = generalist.head.sample(name, seen, noise=noise)
        assert torch.equal(loaded.head.sample(name, seen, noise=noise), before)
    loaded.head.add(body("fish"))
    wanted = make_head("fish").state_dict()
    got = loaded.head.state_dict()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted if key.startswith("adapters.fish"))


def test_of_a_model_its_name_is_kept(tmp_path):
    backbone = Backbone("a/model", 12)
    save_head(StoredHead(make_head("ant"), backbone, {}), tmp_path)
    assert load_head(tmp_path).encoder == backbone


def cut(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def change(name, value):
    def apply(folder):
        meta = json.loads((folder / META).read_text())
        meta[name] = value(meta[name]) if callable(value) else value
        (folder / META).write_text(json.dumps(meta))

    return apply


def foreign(folder):
    (folder / WEIGHTS).write_bytes(b"no weights")
    change("sha256", hashlib.sha256(b"no weights").hexdigest())(folder)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (cut, "head.pt: damaged, its sha256 is not the one in head.json"),
        (foreign, "head.pt: damaged, or no head of ours ("),
        (lambda folder: (folder / WEIGHTS).unlink(), "head.pt: cannot be read (No such file or directory)."),
        (lambda folder: (folder / META).unlink(), "head.json: no such file; expected the folder of a distilled head."),
        (change("schema", 9), "head.json: schema 9 is not the supported 1: from another version."),
        (change("seed", "x"), "head.json: field 'seed' is 'x', expected int."),
        (change("head", lambda head: head | {"widht": 3}), "unknown field 'head.widht'. Did you mean 'width'?"),
        (change("head", lambda head: head | {"width": 64}), "head.pt and head.json disagree"),
        (change("embodiments", lambda rows: rows[:1]), "head.pt and head.json disagree"),
        (change("encoder", {"kind": "vlm"}), "encoder of kind 'vlm', expected scratch or transformers."),
        (change("encoder", {"kind": "transformers"}), "expected a source and a layer."),
    ],
)
def test_damage_gives_one_line(saved, tmp_path, damage, line):
    _, folder = saved
    for name in (WEIGHTS, META):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    damage(tmp_path)
    with pytest.raises(UserError) as caught:
        load_head(tmp_path)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The hand's sampler of two steps, its history included, as ONNX."""
    head = make_head("hand")
    path = tmp_path_factory.mktemp("onnx") / "deep" / "hand.onnx"
    return head, path, export.export_head(head, "hand", path, steps=2)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_graph_is_the_sampler_for_any_batch(exported, size):
    """Fed what torch's side is given as it is: a short past is masked, a short context is filled up by itself there."""
    head, path, report = exported
    seen, noise = observation(head.table["hand"], size, seed=3), noise_for(head.table["hand"], size)
    past = torch.tensor([[False, False, True]]).expand(size, 3)
    wanted = head.sample("hand", observation_with(seen, past), noise=noise, steps=2)
    context = torch.zeros(size, 16, 32)
    context[:, 4:9] = seen.context
    mask = (torch.arange(16) >= 4) & (torch.arange(16) < 9)
    inputs = {
        "state": seen.state,
        "context": context,
        "context_mask": mask.expand(size, 16),
        "state_mask": past,
        "noise": noise,
    }
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == list(inputs) == list(report["inputs"])
    (actions,) = session.run(["actions"], {name: value.numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(actions, wanted.numpy(), atol=1e-5)
    (other,) = session.run(["actions"], {**{n: v.numpy() for n, v in inputs.items()}, "noise": -noise.numpy()})
    assert np.abs(other - actions).max() > 0.1


def observation_with(seen, mask):
    return type(seen)(seen.state, seen.context, None, mask)


def test_the_file_says_what_it_is_and_not_where_it_was_made(exported):
    _, path, report = exported
    assert report["max_abs_diff"] <= 1e-5
    assert report["bytes"] == path.stat().st_size
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    described = session.get_modelmeta().custom_metadata_map
    assert (described["embodiment"], described["sampling_steps"], described["execute"]) == ("hand", "2", "2")
    assert described["control_rate_hz"] == "50"
    assert b".py" not in path.read_bytes()


def test_the_comparison_sees_another_head(exported):
    """No rubber stamp: one changed bias shows."""
    head, path, _ = exported
    other = make_head("hand")
    with torch.no_grad():
        other.adapters["hand"].action_decoder[2].bias.add_(0.01)
    inputs = export.random_inputs(head, "hand", 3)
    assert export.difference(path.read_bytes(), export.Sampler(head, "hand", 2), inputs) <= 1e-5
    assert export.difference(path.read_bytes(), export.Sampler(other, "hand", 2), inputs) > 1e-3


@pytest.mark.parametrize("worst", [1e-4, float("nan")])
def test_an_export_that_differs_is_not_written(monkeypatch, tmp_path, worst):
    """A graph that computes something else must not reach a robot."""
    head = make_head("ant", config=head_config("toy", {"objective": "regression"}))
    monkeypatch.setattr(export, "onnx_graph", lambda *_: __import__("onnx").ModelProto())
    monkeypatch.setattr("onnx.checker.check_model", lambda _: None)
    monkeypatch.setattr(export, "difference", lambda *_: worst)
    with pytest.raises(UserError, match="differ"):
        export.export_head(head, "ant", tmp_path / "ant.onnx")
    assert not list(tmp_path.iterdir())

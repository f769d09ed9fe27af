"""The head: padding and company change nothing, to the bit; losses by hand; learning; and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from distill.action_head import ActionHead, Guide
from distill.batch import Demonstration, MixedBatch, Observation, merge, split
from distill.config import head_config
from distill.embodiments import EmbodimentTable
from distill.layers import Attention, sinusoidal_code
from tasks.errors import UserError
from tests.distill.conftest import CONTEXT, SIZES, body, demonstration, draw, make_head, noise_for, observation

NAN = float("nan")
REGRESSION = head_config("toy", {"objective": "regression"})


def padded(x: Tensor, before: int = 0, after: int = 0, columns: int = 0, value: float = NAN) -> Tensor:
    """(B, T, X) with more steps and columns, filled with `value`."""
    whole = x.new_full((x.shape[0], before + x.shape[1] + after, x.shape[2] + columns), value)
    whole[:, before : before + x.shape[1], : x.shape[2]] = x
    return whole


def padded_everywhere(plain: Demonstration, value: float) -> Demonstration:
    """More state columns, more past, more actions and steps, context tokens on both sides and between."""
    seen = plain.observation
    size, history, _ = seen.state.shape
    state_mask = torch.zeros(size, history + 3, dtype=torch.bool)
    state_mask[:, 3:] = True
    place = torch.tensor([1, 4, 5, 9, 18])  # of the 5 tokens among 20, more than the head takes
    context = seen.context.new_full((size, 20, CONTEXT), value)
    context[:, place] = seen.context
    context_mask = torch.zeros(size, 20, dtype=torch.bool)
    context_mask[:, place] = True
    shown = Observation(padded(seen.state, 3, 0, 2, value), context, context_mask, state_mask)
    action_mask = torch.zeros(size, plain.actions.shape[1] + 4, dtype=torch.bool)
    action_mask[:, : plain.actions.shape[1]] = True
    return Demonstration(shown, padded(plain.actions, 0, 4, 5, value), action_mask)


@pytest.fixture(scope="module")
def head() -> ActionHead:
    return make_head()


@pytest.mark.parametrize("name", SIZES)
def test_padding_changes_no_sample_by_a_bit(head, name):
    """Whatever padding holds, and however much of it there is."""
    plain = demonstration(head.table[name], 3)
    noise = noise_for(head.table[name], 3)
    wanted = head.sample(name, plain.observation, noise=noise)
    assert wanted.shape == (3, *noise.shape[1:])
    for value in (NAN, 1e30):
        got = head.sample(name, padded_everywhere(plain, value).observation, noise=noise)
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("config", [head_config("toy"), REGRESSION], ids=["flow", "regression"])
def test_padding_changes_no_loss_and_no_gradient_by_a_bit(config):
    head = make_head("hand", config=config)
    plain = demonstration(head.table["hand"], 4)
    noise, times = {"hand": noise_for(head.table["hand"], 4)}, {"hand": torch.tensor([0.0, 0.3, 0.6, 0.9])}
    results = []
    for samples in (plain, padded_everywhere(plain, NAN), padded_everywhere(plain, 7.0)):
        head.zero_grad()
        loss, _ = head.loss({"hand": samples}, noise=noise, times=times)
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in head.parameters() if p.grad is not None]))
    for loss, gradients in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert all(map(torch.equal, gradients, results[0][1]))


def test_what_a_masked_step_holds_changes_nothing(head):
    """An episode that ends within the chunk: neither the loss nor the predictions of its valid steps."""
    plain = demonstration(head.table["ant"], 3)
    mask = torch.arange(8) < torch.tensor([[8], [5], [1]])
    noise, times = {"ant": noise_for(head.table["ant"], 3)}, {"ant": torch.tensor([0.1, 0.5, 0.9])}
    losses = []
    for value in (0.0, NAN, -3.0):
        actions = torch.where(mask[:, :, None], plain.actions, torch.tensor(value))
        losses.append(head.loss({"ant": Demonstration(plain.observation, actions, mask)}, noise=noise, times=times)[0])
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])
    whole = head.loss({"ant": plain}, noise=noise, times=times)[0]
    assert not torch.equal(losses[0], whole)


def test_a_past_that_is_missing_is_a_past_that_is_masked(head):
    """An episode's first step, given with one state, with masked states before it, or with two of them."""
    seen = observation(head.table["hand"], 2)
    noise = noise_for(head.table["hand"], 2)
    first = dataclasses.replace(seen, state=seen.state[:, -1:])
    mask = torch.tensor([[False, False, True]]).expand(2, 3)
    masked = Observation(torch.where(mask[:, :, None], seen.state, NAN), seen.context, state_mask=mask)
    wanted = head.sample("hand", first, noise=noise)
    assert torch.equal(head.sample("hand", masked, noise=noise), wanted)
    assert not torch.equal(head.sample("hand", seen, noise=noise), wanted), "the past is looked at where there is one"


def test_what_is_masked_is_as_if_it_were_not_there():
    """Against a body, of the same name and so the same weights, with a shorter horizon and no past, and a head with room
    for fewer context tokens."""
    head = ActionHead(head_config("toy"), EmbodimentTable((body("ant", history=3),))).eval()
    small = ActionHead(head_config("toy", {"context_tokens": 5}), EmbodimentTable((body("ant", horizon=5),))).eval()
    plain = demonstration(body("ant"), 3)
    mask = (torch.arange(8) < 5).expand(3, 8)
    noise, times = noise_for(body("ant"), 3), {"ant": torch.tensor([0.1, 0.5, 0.9])}
    loss, _ = head.loss({"ant": dataclasses.replace(plain, action_mask=mask)}, noise={"ant": noise}, times=times)
    short = Demonstration(plain.observation, plain.actions[:, :5])
    wanted, _ = small.loss({"ant": short}, noise={"ant": noise[:, :5]}, times=times)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)


def test_samples_of_a_batch_are_each_by_itself(head):
    """Each with its own flow time."""
    samples, noise = demonstration(head.table["hand"], 3), noise_for(head.table["hand"], 3)
    times = torch.tensor([0.05, 0.5, 0.95])
    together, _ = head.loss({"hand": samples}, noise={"hand": noise}, times={"hand": times})
    alone = [
        head.loss({"hand": samples.rows(row)}, noise={"hand": noise[row]}, times={"hand": times[row]})[0]
        for row in torch.arange(3)[:, None]
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-5, atol=1e-6)
    assert max(alone) - min(alone) > 0.01


@pytest.mark.parametrize("change", ["state", "past", "context", "noise"])
def test_everything_valid_matters(head, change):
    """Else invariance would prove nothing."""
    seen, noise = observation(head.table["hand"], 2), noise_for(head.table["hand"], 2)
    wanted = head.sample("hand", seen, noise=noise)
    state, context = seen.state.clone(), seen.context.clone()
    if change == "noise":
        noise = noise + 0.1
    elif change == "context":
        context[:, 2, ::2] += 0.5  # a shift of all columns is taken out by the norm
    else:
        state[:, -1 if change == "state" else 0] += 0.5
    moved = head.sample("hand", Observation(state, context), noise=noise)
    assert (moved - wanted).abs().amax(dim=(1, 2)).min() > 1e-4


def mixed(head: ActionHead, order: str) -> tuple[MixedBatch, dict[str, Demonstration]]:
    """A batch in which bodies alternate, padded with NaN to the largest sizes; and each body's samples by themselves."""
    names = [{"a": "ant", "h": "hand", "d": "drone"}[letter] for letter in order]
    alone = {name: demonstration(head.table[name], names.count(name), seed=len(name)) for name in set(names)}
    size = len(names)
    state, context = torch.full((size, 3, 7), NAN), torch.zeros(size, 5, CONTEXT)
    actions, action_mask = torch.full((size, 8, 6), NAN), torch.zeros(size, 8, dtype=torch.bool)
    state_mask = torch.zeros(size, 3, dtype=torch.bool)
    for name, samples in alone.items():
        rows = torch.tensor([row for row, other in enumerate(names) if other == name])
        state_size, action_size, horizon, history = SIZES[name]
        for row, sample in zip(rows.tolist(), range(len(rows)), strict=True):
            state[row, 3 - history :, :state_size] = samples.observation.state[sample]
            actions[row, :horizon, :action_size] = samples.actions[sample]
        state_mask[rows, 3 - history :] = True
        action_mask[rows, :horizon] = True
        context[rows] = samples.observation.context
    places = torch.tensor([head.table.place(name) for name in names])
    seen = Observation(state, context, state_mask=state_mask)
    return MixedBatch(places, Demonstration(seen, actions, action_mask)), alone


def test_a_mixed_batch_is_each_body_by_itself_to_the_bit(head):
    """Also in a head that knows no other body: company changes nothing."""
    batch, alone = mixed(head, "ahdhaahd")
    noise = torch.randn(8, 8, 6, generator=draw(4))
    chunks, there = head.sample_mixed(batch, noise=noise)
    assert chunks.shape == there.shape == (8, 8, 6)
    for name, samples in alone.items():
        _, action_size, horizon, _ = SIZES[name]
        rows = batch.places == head.table.place(name)
        own = noise[rows][:, :horizon, :action_size]
        wanted = make_head(name).sample(name, samples.observation, noise=own)
        assert torch.equal(chunks[rows][:, :horizon, :action_size], wanted)
        assert there[rows].sum() == wanted.numel()
    assert not chunks[~there].any(), "nothing is where nothing was asked for"
    loss, each = head.mixed_loss(batch, generator=draw(5))
    same, _ = head.loss(alone, generator=draw(5))
    assert torch.equal(loss, same)
    assert list(each) == list(SIZES)


def test_grouped_is_gathered_to_the_bit(head):
    """Against GR00T's way, written out: padded weights gathered for each sample. Small whole numbers, so that every sum
    is exact in any order, and equal means equal."""
    head = make_head()
    for parameter in head.adapters.parameters():
        torch.nn.init.uniform_(parameter, -4.0, 4.0, generator=draw(parameter.numel()))
        parameter.data.round_()
    places = torch.tensor([0, 1, 2, 1, 1, 0, 2, 0])
    states = torch.randint(-3, 4, (8, 1, 7), generator=draw(2)).float()
    batch = MixedBatch(places, Demonstration(Observation(states, torch.zeros(8, 1, CONTEXT)), torch.zeros(8, 1, 1)))
    grouped = {}
    for name, (rows, samples) in split(batch, head.table).items():
        encoder = head.adapters[name].state_encoder
        grouped[name] = (rows, encoder(samples.observation.state[:, :, : SIZES[name][0]]))
    together, _ = merge(grouped, 8)

    first = torch.zeros(3, 32, 7)
    for place, name in enumerate(head.table.names):
        first[place, :, : SIZES[name][0]] = head.adapters[name].state_encoder[0].weight
    layers = [head.adapters[name].state_encoder for name in head.table.names]
    hidden = torch.einsum("bts,bws->btw", states, first[places])
    hidden = (hidden + torch.stack([layer[0].bias for layer in layers])[places][:, None]).clamp(min=0.0)
    gathered = torch.einsum("btw,bdw->btd", hidden, torch.stack([layer[2].weight for layer in layers])[places])
    gathered = gathered + torch.stack([layer[2].bias for layer in layers])[places][:, None]
    assert gathered.abs().max() > 50.0
    assert torch.equal(together, gathered)


def test_nothing_given_is_changed(head):
    batch, alone = mixed(head, "ahhd")
    samples = padded_everywhere(alone["hand"], 0.5)
    guide = Guide(torch.zeros(2, 4, 6), torch.tensor([1.0, 0.5, 0.0, 0.0]))
    noise = noise_for(head.table["hand"], 2)
    given = [*tensors_of(batch), *tensors_of(samples), *tensors_of(guide), noise]
    assert len(given) == 15
    before = [tensor.clone() for tensor in given]
    head.mixed_loss(batch)[0].backward()
    head.loss({"hand": samples}, noise={"hand": noise}, times={"hand": torch.tensor([0.2, 0.4])})
    head.sample_mixed(batch)
    head.sample("hand", samples.observation, noise=noise)
    head.sample("hand", samples.observation, noise=noise, guide=guide)
    head.zero_grad()
    for tensor, old in zip(given, before, strict=True):
        torch.testing.assert_close(tensor, old, rtol=0, atol=0, equal_nan=True)


def tensors_of(data) -> list[Tensor]:
    """All tensors in nested dataclasses."""
    if isinstance(data, Tensor):
        return [data]
    if dataclasses.is_dataclass(data):
        return [tensor for f in dataclasses.fields(data) for tensor in tensors_of(getattr(data, f.name))]
    return []


def test_losses_by_hand_and_averaged_over_bodies_first():
    """A decoder of zeros predicts 0: what is left is the mean square of data - noise, and the mean size of the data."""
    bodies = [body("ant"), body("drone", state_normalization="min_max")]
    mask = torch.arange(8) < torch.tensor([[8], [3], [8], [1]])
    for config in (head_config("toy"), REGRESSION):
        head = ActionHead(config, EmbodimentTable(tuple(bodies)))
        for adapter in head.adapters.values():
            for parameter in adapter.action_decoder.parameters():
                nn.init.zeros_(parameter)
        samples = {
            "ant": dataclasses.replace(demonstration(bodies[0], 4), action_mask=mask),
            "drone": demonstration(bodies[1], 2),
        }
        noise = {b.name: noise_for(b, size) for b, size in zip(bodies, (4, 2), strict=True)}
        loss, each = head.loss(samples, noise=noise, times={"ant": torch.rand(4), "drone": torch.rand(2)})
        wanted = {}
        for embodiment in bodies:
            low = torch.tensor(embodiment.action_statistics.q01)
            high = torch.tensor(embodiment.action_statistics.q99)
            data = 2.0 * (samples[embodiment.name].actions - low) / (high - low) - 1.0
            target = data - noise[embodiment.name] if config.objective == "flow" else data
            error = target.square() if config.objective == "flow" else target.abs()
            wanted[embodiment.name] = error[mask].mean() if embodiment.name == "ant" else error.mean()
        assert {name: pytest.approx(value.item(), rel=1e-5) for name, value in wanted.items()} == {
            name: value.item() for name, value in each.items()
        }
        assert loss.item() == pytest.approx((wanted["ant"] + wanted["drone"]).item() / 2, rel=1e-5)


def test_what_is_drawn_is_in_the_body_s_units():
    """With a decoder of zeros noise stays noise, from the 1st to the 99th percentile instead of from -1 to 1."""
    head = make_head("ant")
    for parameter in head.adapters["ant"].action_decoder.parameters():
        nn.init.zeros_(parameter)
    noise, statistics = noise_for(head.table["ant"], 2), head.table["ant"].action_statistics
    low, high = torch.tensor(statistics.q01), torch.tensor(statistics.q99)
    drawn = head.sample("ant", observation(head.table["ant"], 2), noise=noise)
    torch.testing.assert_close(drawn, low + (noise + 1.0) / 2.0 * (high - low))


@pytest.mark.parametrize("config", [head_config("toy"), REGRESSION], ids=["flow", "regression"])
def test_it_learns_8_samples_by_heart(config):
    """What it draws afterwards are the demonstrated chunks, in the body's units."""
    head = make_head("ant", config=config).train()
    samples = demonstration(head.table["ant"], 8)
    optimiser = torch.optim.Adam(head.parameters(), lr=6e-3)
    generator = draw(0)
    repeated = samples.rows(torch.arange(8).repeat(8))  # each at eight flow times
    for _ in range(200 if config.objective == "flow" else 120):
        optimiser.zero_grad()
        head.loss({"ant": repeated}, generator=generator)[0].backward()
        optimiser.step()
    drawn = head.eval().sample("ant", samples.observation, generator=generator)
    error = (drawn - samples.actions).square().mean().sqrt() / samples.actions.std()
    assert error < 0.35, "of the spread of the data; another sample's chunk is 1.4 away"
    assert (samples.actions.roll(1, 0) - samples.actions).square().mean().sqrt() > samples.actions.std()


def test_a_body_is_added_beside_a_frozen_transformer():
    """All others stay as they are, bit for bit, through training with weight decay; the new one learns."""
    head = make_head()
    seen = {name: observation(head.table[name], 2) for name in SIZES}
    noise = {name: noise_for(head.table[name], 2) for name in SIZES}
    before = {name: head.sample(name, seen[name], noise=noise[name]) for name in SIZES}
    weights = {key: value.clone() for key, value in head.state_dict().items()}
    head.add(body("fish"))
    head.train_only("fish")
    optimiser = torch.optim.AdamW([p for p in head.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    samples = demonstration(head.table["fish"], 8)
    losses = []
    for step in range(25):
        loss, _ = head.train().loss({"fish": samples}, generator=draw(step % 5))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    head.eval()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), "the same five draws as at the start"
    for name in SIZES:
        assert torch.equal(head.sample(name, seen[name], noise=noise[name]), before[name])
    after = head.state_dict()
    assert all(torch.equal(after[key], value) for key, value in weights.items())
    head.train_only("fish", trunk=True)
    trained = {key.split(".")[0] for key, p in head.named_parameters() if p.requires_grad}
    assert trained == {"trunk", "action_position", "state_position", "adapters"}
    assert not any(p.requires_grad for p in head.adapters["ant"].parameters())


def test_first_weights_depend_on_seed_and_name_alone():
    """Not on the order of bodies, on what else there is, or on the state of torch's generator."""
    torch.manual_seed(1)
    one = make_head("ant", "hand").state_dict()
    torch.manual_seed(2)
    two = make_head("hand", "drone", "ant").state_dict()
    assert all(torch.equal(two[key], value) for key, value in one.items())
    other = make_head("ant", "hand", seed=1).state_dict()
    key = "action_encoder.mix.weight"
    assert not torch.equal(other[f"adapters.ant.{key}"], one[f"adapters.ant.{key}"])
    twins = make_head("fish", "bird").state_dict()  # of the same sizes
    assert not torch.equal(twins[f"adapters.fish.{key}"], twins[f"adapters.bird.{key}"])


def test_states_are_noisy_in_training_alone_and_clipped_always():
    head = make_head("ant", config=head_config("toy", {"state_noise": 0.3, "state_clip": 2.0}))
    samples = demonstration(head.table["ant"], 2)
    fixed = {"noise": {"ant": noise_for(head.table["ant"], 2)}, "times": {"ant": torch.tensor([0.2, 0.7])}}

    def loss(seed: int, seen: Demonstration = samples) -> Tensor:
        return head.loss({"ant": seen}, generator=draw(seed), **fixed)[0].detach()

    assert torch.equal(loss(0), loss(1))
    head.train()
    assert not torch.equal(loss(0), loss(1))
    head.eval()
    far = [Demonstration(dataclasses.replace(samples.observation, state=torch.full((2, 1, 7), size)), samples.actions)
           for size in (1e3, 1e6)]  # fmt: skip
    assert torch.equal(loss(0, far[0]), loss(0, far[1]))
    assert not torch.equal(loss(0, far[0]), loss(0))


def test_a_guide_holds_the_next_chunk(head):
    """The first steps come close to it; without weight it is the free sample."""
    seen, noise = observation(head.table["ant"], 4), noise_for(head.table["ant"], 4)
    free = head.sample("ant", seen, noise=noise, steps=8)
    target = free.roll(1, 0)
    weights = torch.tensor([1.0, 1.0, 0.5, 0.1, 0.0, 0.0, 0.0, 0.0])
    held = head.sample("ant", seen, noise=noise, steps=8, guide=Guide(target, weights))
    far = (free - target)[:, :2].abs().mean()
    assert (held - target)[:, :2].abs().mean() < 0.3 * far
    same = head.sample("ant", seen, noise=noise, steps=8, guide=Guide(target, torch.zeros(8)))
    torch.testing.assert_close(same, free)


def test_a_shared_context_is_the_same_as_one_for_each(head):
    seen, noise = observation(head.table["ant"], 3), noise_for(head.table["ant"], 3)
    shared = Observation(seen.state, seen.context[:1])
    repeated = Observation(seen.state, seen.context[:1].expand(3, -1, -1))
    torch.testing.assert_close(
        head.sample("ant", shared, noise=noise), head.sample("ant", repeated, noise=noise), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("config", [head_config("toy"), REGRESSION], ids=["flow", "regression"])
def test_products_may_be_in_bfloat16(config):
    """Under autocast: near float32's chunks and losses, not equal to them; gradients are there."""
    head = make_head(config=config)
    samples = {"ant": demonstration(head.table["ant"], 4)}
    seen, noise = samples["ant"].observation, noise_for(head.table["ant"], 4)
    plain, plain_loss = head.sample("ant", seen, noise=noise), head.loss(samples, generator=draw(1))[0]
    with torch.autocast("cpu", torch.bfloat16):
        chunk, loss = head.sample("ant", seen, noise=noise), head.loss(samples, generator=draw(1))[0]
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in head.adapters["ant"].parameters())
    scale = head.action_scales["ant"].scale
    assert 0.0 < float(((chunk - plain) / scale).abs().max()) < 0.1
    assert 0.0 < abs(loss.item() - plain_loss.item()) < 0.05 * plain_loss.item()


def test_attention_is_torch_s():
    """Its weights in nn.MultiheadAttention, which takes masks the other way round."""
    ours = Attention(16, 4, 24)
    theirs = nn.MultiheadAttention(16, 4, kdim=24, vdim=24, batch_first=True)
    with torch.no_grad():
        theirs.q_proj_weight.copy_(ours.query.weight)
        theirs.k_proj_weight.copy_(ours.key_value.weight[:16])
        theirs.v_proj_weight.copy_(ours.key_value.weight[16:])
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, source = torch.randn(3, 5, 16, generator=draw(0)), torch.randn(3, 7, 24, generator=draw(1))
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    wanted, _ = theirs(x, source, source, key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, ours.keys_values(source), mask[:, None, None, :]), wanted, atol=1e-6, rtol=1e-5)


def test_the_time_s_code():
    """By hand, for width 4: frequencies 1 and 1/100 of 1000 t."""
    code = sinusoidal_code(torch.tensor([0.0, 0.001]), 4)
    wanted = [[0.0, 0.0, 1.0, 1.0], [0.841471, 0.0099998, 0.540302, 0.99995]]
    torch.testing.assert_close(code, torch.tensor(wanted), atol=1e-5, rtol=0)


def bad(**changes) -> Observation:
    return dataclasses.replace(observation(body("ant"), 2), **changes)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda h: h.sample("antt", bad()), "unknown embodiment 'antt'; known: ant, hand, drone. Did you mean 'ant'?"),
        (lambda h: h.sample("ant", bad(state=torch.zeros(2, 7))), "'ant': state has shape (2, 7), expected (batch, "),
        (lambda h: h.sample("ant", bad(state=torch.zeros(2, 1, 6))), "'ant': state has shape (2, 1, 6), expected"),
        (lambda h: h.sample("ant", bad(context=torch.zeros(2, 5, 8))), "context has shape (2, 5, 8), expected"),
        (lambda h: h.sample("ant", bad(context=torch.zeros(3, 5, 32))), "'ant': 3 contexts for 2 states"),
        (lambda h: h.sample("ant", bad(context=torch.zeros(2, 40, 32))), "a context has 40 valid tokens, the head was"),
        (
            lambda h: h.sample("ant", bad(context_mask=torch.ones(2, 5))),
            "context_mask is torch.float32 (2, 5), expected",
        ),
        (lambda h: h.sample("ant", bad(state_mask=torch.ones(2, 2) > 0)), "state_mask is torch.bool (2, 2), expected"),
        (lambda h: h.sample("ant", bad(), steps=0), "sampling steps are 0, expected at least 1."),
        (lambda h: h.sample("ant", bad(), noise=torch.zeros(2, 8, 2)), "noise for 'ant' has shape (2, 8, 2), expected"),
        (
            lambda h: h.loss({"ant": Demonstration(bad(), torch.zeros(2, 3))}),
            "'ant': actions have shape (2, 3), expected",
        ),
        (lambda h: h.loss({"ant": Demonstration(bad(), torch.zeros(2, 7, 3))}), "actions have shape (2, 7, 3)"),
        (lambda h: h.loss({}), "the loss needs the demonstrations of at least one embodiment, got none."),
        (lambda h: h.add(body("ant")), "embodiment 'ant' is there already"),
        (lambda h: h.add(body("fish", horizon=9)), "embodiment 'fish': horizon is 9, the head was made for at most 8"),
        (lambda h: h.add(body("fish", history=5)), "embodiment 'fish': history is 5, the head was made for at most 4"),
        (lambda h: h.train_only("fisch"), "unknown embodiment 'fisch'"),
        (
            lambda h: split(MixedBatch(torch.tensor([3]), None), h.table),
            "with values [3]; expected int64 (B,) from 0 to 2",
        ),
    ],
)
def test_what_does_not_fit_gives_one_line(head, call, line):
    names = head.table.names
    with pytest.raises(UserError) as caught:
        call(head)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert head.table.names == names

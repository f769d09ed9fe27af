"""Random reward programs from the grammar that the check allows, for property tests."""

import random

from tests.rewards.programs import TABLE

UNARY = (
    "torch.exp(-({}).abs())", "torch.tanh({})", "({}).square()", "({}).abs().sqrt()", "torch.clamp({}, -1.5, 2.0)",
    "torch.log1p(({}).abs())", "F.softplus({})", "torch.sigmoid({})", "-({})", "({}) ** 2", "({}).clamp(min=0.1)",
    "torch.sin({})", "F.relu({})", "(({}) > 0.3).float()", "torch.floor({})", "kernel({}, 0.7)", "1.0 / (({}).abs() + 1.0)",
)  # fmt: skip
BINARY = (
    "{} + {}", "{} - 0.5 * {}", "({}) * ({})", "torch.maximum({}, {})", "torch.where({} > 0.1, {}, 0.25)",
    "torch.atan2({}, {} + 3.0)", "({}) / (({}).abs() + 0.5)", "torch.minimum({}, {})", "torch.hypot({}, {})",
    "torch.where(({} > 0) & ({} < 1), 1.0, -1.0)", "blend({}, {})",
)  # fmt: skip
REDUCTIONS = (
    "({}).sum(dim=-1)", "({}).mean(dim=1)", "torch.norm({}, dim=-1)", "({}).max(dim=-1).values", "({})[:, 0]",
    "torch.linalg.norm({}, dim=-1)", "({}).amin(dim=-1)", "torch.sum(torch.square({}), dim=-1)", "({}).std(dim=-1)",
    "torch.cumsum({}, dim=-1)[:, -1]", "torch.softmax({}, dim=-1)[:, 0]", "({} * SCALE).sum(dim=-1)",
    "torch.stack([({})[:, 1], ({})[:, 0]], dim=-1).prod(dim=-1)", "torch.sort({}, dim=-1).values[:, 0]",
)  # fmt: skip
WIDE = ("torso_velocity_w", "up_axis_w")

FRAME = """import torch
import torch.nn.functional as F
SCALE = torch.tensor([1.0, -0.5, 2.0])

def kernel(x, sigma):
    return torch.exp(-x.square() / sigma)

def blend(x, y):
    out = torch.zeros_like(x)
    out[x > y] = 0.5
    out += 0.1 * x
    return out

def compute_reward({inputs}):
{body}
    return total, {{{components}}}
"""


def random_program(seed: int) -> str:
    """A program that passes the check; equal seeds give equal programs."""
    rng = random.Random(seed)
    values: list[str] = ["height[:, 0]", "actions[:, 1]", "height.squeeze(-1)"]
    lines: list[str] = []
    for number in range(rng.randint(3, 14)):
        name = f"v{number}"
        kind = rng.random()
        if kind < 0.35:
            wide = rng.choice(WIDE)
            expression = rng.choice(REDUCTIONS)
            line = expression.format(*[rng.choice((wide, f"torch.tanh({wide})"))] * expression.count("{}"))
        elif kind < 0.65:
            line = rng.choice(UNARY).format(rng.choice(values))
        else:
            line = rng.choice(BINARY).format(rng.choice(values), rng.choice(values))
        if rng.random() < 0.15:
            line = f"sum([{line}, {rng.choice(values)}])"
        lines.append(f"    {name} = {line}")
        values.append(name)
    made = [value for value in values if value.startswith("v")]
    chosen = rng.sample(made, k=min(len(made), rng.randint(1, 4)))
    weights = " + ".join(f"{rng.choice((0.5, 1, -0.25, 2.0))} * {value}" for value in chosen)
    lines.append(f"    total = {weights}")
    if rng.random() < 0.5:
        lines += ["    for i in range(actions.shape[1]):", "        total = total + actions[:, i] * (i + 1)"]
    components = ", ".join(f"'part_{place}': {value}" for place, value in enumerate(chosen))
    inputs = ", ".join(item.name for item in TABLE)
    return FRAME.format(inputs=inputs, body="\n".join(lines), components=components)

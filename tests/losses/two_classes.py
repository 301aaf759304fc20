"""Two classes on a grid in the plane.

    python -m tests.losses.two_classes 8000 docs/images/mg/two-classes.png

Squares of a checkerboard, one colour per class, with gaps between them. A small
network is trained plainly and with Model-Guidance for the same number of steps, and
sampled with and without classifier-free guidance. Counted are samples outside the
squares of their class ("outliers") and the cells of those squares that samples reach
("coverage").

Source: the set of Tang et al. 2025, arXiv:2502.12154, Fig. 2, whose measures and sizes
    are not published; those here are this module's own.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxguide import guidance, losses, paths, samplers, schedules, training
from jaxguide.evaluation import toy

BOARD = toy.Board()
UNIT = 1.2  # squares per unit of the network's input
NULL = 2


def counts(points: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Share of outliers, and share of the cells of both classes that are reached."""
    places = BOARD.place(points, label)
    return toy.outlier_rate(places), toy.mode_coverage(places)


def init(key: jax.Array, width: int = 128) -> list:
    """Parameters of a network of three hidden layers."""
    sizes = [2 + 12 + 16 + 3, width, width, width, 2]
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(k, (a, b)) / np.sqrt(a), jnp.zeros(b))
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def predict(params, x, t, label):
    """The velocity [B, 2] at x [B, 2]."""
    waves = t[:, None] * (2.0 ** jnp.arange(8))[None]
    place = (x[:, :, None] * 2.0 ** jnp.arange(1, 4)[None, None]).reshape(len(x), -1)
    features = [x, *(f(a) for a in (place, waves) for f in (jnp.sin, jnp.cos))]
    features.append(jax.nn.one_hot(label, 3))
    hidden = jnp.concatenate(features, axis=1)
    for kernel, bias in params[:-1]:
        hidden = jax.nn.silu(hidden @ kernel + bias[None])
    kernel, bias = params[-1]
    return hidden @ kernel + bias[None]


def loss(params, inputs):
    """Model-Guidance; weight 0 is plain training."""
    return losses.model_guidance(
        functools.partial(predict, params),
        functools.partial(predict, inputs.teacher),
        inputs.batch,
        inputs.draws,
        path=paths.Linear(),
        weight=inputs.tuned["weight"],
        t_hi=1.0,
        null_label=NULL,
    )


@functools.cache
def trainer(steps: int):
    """`run(state, x0, label) -> state`: all steps over examples [steps, B]."""
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    step = training.make_train_step(loss, optimizer, seed=0, ema=(0.995,))

    @jax.jit
    def run(state, x0, label):
        def one(state, batch):
            return step(state, batch)[0], None

        return jax.lax.scan(one, state, (x0, label))[0]

    return optimizer, run


def train(weight: float, *, steps: int = 4000, batch: int = 256, start: float = 0.3):
    """Averaged parameters; guidance starts after the share `start` of all steps."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, (steps, batch)).astype(np.int32)
    x0 = (
        (BOARD.sample(rng, label.ravel()) / UNIT)
        .reshape(steps, batch, 2)
        .astype(np.float32)
    )
    optimizer, run = trainer(steps)
    state = training.init_state(
        init(jax.random.key(0)), optimizer, tuned={"weight": 0.0}
    )
    plain = int(start * steps)
    # Two halves of one length each would compile twice; chunks of a tenth do not.
    for at in range(0, steps, steps // 10):
        chosen = jnp.float32(weight if at >= plain else 0.0)
        state = state._replace(tuned={"weight": chosen})
        part = slice(at, at + steps // 10)
        state = run(state, x0[part], label[part])
    return jax.block_until_ready(state.ema_params)


def sample(params, scale: float, *, count: int = 4000, steps: int = 50):
    """Points and labels, sampled with classifier-free guidance of `scale`."""
    label = jnp.arange(count, dtype=jnp.int32) % 2
    network = guidance.Network(
        jax.tree_util.Partial(predict, params), "velocity", paths.Linear()
    )
    points = samplers.generate(
        network,
        jax.random.normal(jax.random.key(1), (count, 2)),
        label,
        grid=schedules.uniform(steps),
        sampler=samplers.euler(),
        guidance=guidance.cfg(scale),
        conds={"null": jnp.full_like(label, NULL)},
    )
    return UNIT * np.asarray(points), np.asarray(label)


def draw(panels: dict, file: str) -> None:
    """Samples of both classes, one panel for each way to make them."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(panels), figsize=(3 * len(panels), 3.2), layout="constrained"
    )
    for (title, (points, label)), panel in zip(panels.items(), axes, strict=True):
        colours = np.where(label == 0, "tab:orange", "tab:gray")
        panel.scatter(*points.T, s=1, c=colours, linewidths=0)
        panel.set(title=title, xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal")
        panel.set(xticks=[], yticks=[])
    figure.savefig(file, dpi=100)


def main(steps: int = 4000, file: str = "") -> None:
    """Prints outliers and coverage of every way to train and sample, and draws some."""
    label = np.arange(4000) % 2
    samples = {"real points": (BOARD.sample(np.random.default_rng(2), label), label)}
    for weight in (0.0, 0.2, 0.45):
        params = train(weight, steps=steps)
        for scale in (1.0, 1.25, 1 / 0.55, 3.0) if weight == 0 else (1.0,):
            name = f"MG, weight {weight:g}" if weight else f"plain, CFG {scale:.2f}"
            samples[name] = sample(params, scale)
    print("| trained and sampled | outliers | coverage |")
    print("| --- | --- | --- |")
    for name, made in samples.items():
        outliers, coverage = counts(*made)
        print(f"| {name} | {outliers:.2%} | {coverage:.1%} |")
    if file:
        shown = ("plain, CFG 1.00", "plain, CFG 1.82", "MG, weight 0.45")
        draw({name: samples[name] for name in shown}, file)


if __name__ == "__main__":
    steps, *file = sys.argv[1:] or ("4000",)
    main(int(steps), *file)

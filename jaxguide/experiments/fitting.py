"""Training of the small network: one scan over all steps, one program per size."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from jaxguide import losses, paths, train
from jaxguide.experiments.network import PointNet


class Recipe(NamedTuple):
    """How a network is trained; static and hashable.

    Attributes:
        steps: updates.
        batch: points per update.
        rate: first learning rate of Adam; it falls to 0 along a cosine.
        ema: decay of the averaged parameters, which are what is kept.
        label_drop: probability that a label is hidden.
        start: share of the steps after which Model-Guidance begins.
    """

    steps: int = 4000
    batch: int = 256
    rate: float = 2e-3
    ema: float = 0.995
    label_drop: float = 0.1
    start: float = 0.3


class Fitted(NamedTuple):
    """A trained network."""

    params: Any
    loss: np.ndarray  # float32 [steps]


def fit(
    net: PointNet,
    points: np.ndarray,
    label: np.ndarray,
    recipe: Recipe,
    *,
    seed: int = 0,
    weight: float = 0.0,
) -> Fitted:
    """Trains by flow matching, or by Model-Guidance if `weight` is not 0.

    Args:
        net: the architecture.
        points: [N, n], the data.
        label: int [N], of each point.
        recipe: how long and how fast.
        seed: of the first weights, the order of the points and the noise.
        weight: of Model-Guidance, from `recipe.start` on; traced.
    """
    data = jnp.asarray(points, jnp.float32), jnp.asarray(label, jnp.int32)
    # optax mixes weakly and strongly typed numbers.
    with jax.numpy_dtype_promotion("standard"):
        params, loss = _run(
            net, recipe, net.init(seed), data, jax.random.key(seed), jnp.float32(weight)
        )
    return Fitted(jax.block_until_ready(params), np.asarray(loss))


@functools.partial(jax.jit, static_argnames=("net", "recipe"))
def _run(
    net: PointNet,
    recipe: Recipe,
    params: Any,
    data: losses.Batch,
    key: Array,
    weight: Array,
) -> tuple[Any, Array]:
    """Averaged parameters and the loss of every step."""
    optimizer = optax.adam(optax.cosine_decay_schedule(recipe.rate, recipe.steps))
    order, noise = jax.random.split(key)
    pick = functools.partial(_pick, order, data, recipe.batch)

    def loss(params: Any, inputs: train.Inputs) -> Array:
        begun = inputs.step >= int(recipe.start * recipe.steps)
        moved = jax.random.fold_in(noise, inputs.step)
        return losses.model_guidance(
            functools.partial(net, params),
            functools.partial(net, inputs.teacher),
            inputs.batch,
            moved,
            path=paths.Linear(),
            weight=jnp.where(begun, weight, 0.0),
            t_hi=1.0,
            label_drop=recipe.label_drop,
            null_label=net.classes,
        )

    step = train.make_train_step(loss, optimizer, seed=0, ema=(recipe.ema,))

    def one(state: train.TrainState, index: Array):
        state, report = step(state, pick(index))
        return state, report.compute()["loss"]

    state = train.init_state(params, optimizer)
    state, history = lax.scan(one, state, jnp.arange(recipe.steps))
    return state.ema_params, history


def _pick(key: Array, data: losses.Batch, count: int, index: Array) -> losses.Batch:
    """A batch of the data, drawn with repetition."""
    points, label = data
    rows = jax.random.randint(jax.random.fold_in(key, index), (count,), 0, len(points))
    return points[rows], label[rows]

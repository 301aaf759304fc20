"""The training state and the one pure function that advances it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from clu import metrics
from jax import Array

from jaxguide.checkpoints import ema_decay, ema_update

Loss = Callable[[Any, tuple[Array, Array], Array], Array]


class TrainState(NamedTuple):
    """Everything that a training run has to remember.

    Attributes:
        step: int32 [], updates done.
        params: newest parameters.
        ema_params: their running average, which is what gets sampled.
        opt_state: of the optimizer.
    """

    step: Array
    params: Any
    ema_params: Any
    opt_state: Any


TrainMetrics = metrics.Collection.create(
    loss=metrics.Average.from_output("loss"),
    grad_norm=metrics.Average.from_output("grad_norm"),
)


def init_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update.

    The average is a copy, so that a step may overwrite both trees in place.
    """
    average = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, average, optimizer.init(params))


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema: float = 0.999,
) -> Callable[[TrainState, tuple[Array, Array]], tuple[TrainState, metrics.Collection]]:
    """Builds `train_step(state, batch) -> (state, metrics)`; pure, not yet jitted.

    The randomness of a step is a function of `(seed, state.step)`, so a resumed run
    repeats an unbroken one bit for bit.

    Args:
        loss: `(params, batch, key) -> [B]`, per sample.
        optimizer: from optax.
        seed: of times, noise and label dropout.
        ema: final decay of the average, in [0, 1).
    """
    base = jax.random.key(seed)

    def train_step(state: TrainState, batch: tuple[Array, Array]):
        key = jax.random.fold_in(base, state.step)

        def mean_loss(params: Any) -> Array:
            return loss(params, batch, key).mean()

        value, grads = jax.value_and_grad(mean_loss)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = ema_decay(state.step, decay=ema)
        average = ema_update(state.ema_params, params, decay)
        report = TrainMetrics.single_from_model_output(
            loss=value, grad_norm=optax.global_norm(grads)
        )
        return TrainState(state.step + 1, params, average, opt_state), report

    return train_step

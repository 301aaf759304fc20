"""The training state and the one pure function that advances it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from clu import metrics
from jax import Array, lax

from jaxguide import losses
from jaxguide.train import ema_decay, ema_update


class TrainState(NamedTuple):
    """Everything that a training run has to remember.

    Attributes:
        step: int32 [], updates done.
        params: newest parameters.
        averages: their running averages, one per decay; the first is what is sampled
            and what teaches.
        opt_state: of the optimizer.
        tuned: numbers float32 [] that the run itself adjusts, by name.
    """

    step: Array
    params: Any
    averages: tuple[Any, ...]
    opt_state: Any
    tuned: dict[str, Array]

    @property
    def ema_params(self) -> Any:
        """The first average."""
        return self.averages[0]


class View(NamedTuple):
    """What evaluations see during a run, whole and on one device of this process.

    Attributes:
        step: int32 [], updates done.
        ema_params: the first average.
        tuned: see `TrainState`.
    """

    step: Array
    ema_params: Any
    tuned: dict[str, Array]


class Inputs(NamedTuple):
    """What a loss may look at, beside the parameters that it differentiates.

    Attributes:
        teacher: the averaged parameters of the state before the step.
        batch: `(x0, label)`.
        draws: the randomness of this part of the batch.
        step: int32 [], updates done before.
        tuned: see `TrainState`.
    """

    teacher: Any
    batch: losses.Batch
    draws: losses.Draws
    step: Array
    tuned: dict[str, Array]


Loss = Callable[[Any, Inputs], Array]
TrainStep = Callable[[TrainState, losses.Batch], tuple[TrainState, metrics.Collection]]

TrainMetrics = metrics.Collection.create(
    loss=metrics.Average.from_output("loss"),
    grad_norm=metrics.Average.from_output("grad_norm"),
)


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    *,
    averages: int = 1,
    tuned: dict[str, float] | None = None,
) -> TrainState:
    """The state before the first update.

    Every average is a copy, so that a step may overwrite all trees in place.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        averages=tuple(jax.tree.map(jnp.copy, params) for _ in range(averages)),
        opt_state=optimizer.init(params),
        tuned={name: jnp.float32(value) for name, value in (tuned or {}).items()},
    )


def make_train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema: Sequence[float] = (0.999,),
    accumulate: int = 1,
    axis: str | None = None,
    ema_warmup: bool = True,
) -> TrainStep:
    """Builds `train_step(state, batch) -> (state, metrics)`; pure, not yet jitted.

    The randomness of an example is a function of `(seed, state.step)` and its place in
    the whole batch: a resumed run repeats an unbroken one bit for bit, and a batch may
    be cut over devices or micro-batches without changing what is drawn.

    Args:
        loss: `(params, inputs) -> [B]`, per sample.
        optimizer: from optax.
        seed: of times, noise and label dropout.
        ema: final decays of the averages, each in [0, 1).
        accumulate: micro-batches per update; divides the batch.
        axis: name of the `pmap` axis over which the batch is cut, if it is.
        ema_warmup: let the averages begin with a short memory; see `ema_decay`.
    """
    base = jax.random.key(seed)

    def mean_loss(params: Any, inputs: Inputs) -> Array:
        return loss(params, inputs).mean()

    def train_step(state: TrainState, batch: losses.Batch):
        count = len(batch[1])
        place, parts = (lax.axis_index(axis), lax.axis_size(axis)) if axis else (0, 1)
        drawn = losses.draws(
            jax.random.fold_in(base, state.step),
            count,
            first=place * count,
            total=parts * count,
        )
        whole = Inputs(state.ema_params, batch, drawn, state.step, state.tuned)
        value, grads = _accumulated(mean_loss, state.params, whole, accumulate)
        value, grads = lax.pmean((value, grads), axis) if axis else (value, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averages = tuple(
            ema_update(
                average,
                params,
                ema_decay(state.step, decay=decay, warmup=ema_warmup),
            )
            for average, decay in zip(state.averages, ema, strict=True)
        )
        report = TrainMetrics.single_from_model_output(
            loss=value, grad_norm=optax.global_norm(grads)
        )
        new = TrainState(state.step + 1, params, averages, opt_state, state.tuned)
        return new, report

    return train_step


def _accumulated(
    mean_loss: Callable, params: Any, whole: Inputs, count: int
) -> tuple[Array, Any]:
    """Loss and gradient of the whole batch, evaluated in `count` parts."""
    grad = jax.value_and_grad(mean_loss)
    if count == 1:
        return grad(params, whole)
    batch, drawn = whole.batch, whole.draws
    cut = (batch, drawn.keys, drawn.place)
    # Every `count`-th example: each part is spread over all devices, as the batch is.
    cut = jax.tree.map(lambda a: _strided(a, count), cut)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        batch, keys, place = part
        mine = drawn._replace(keys=keys, place=place, stride=count)
        inputs = whole._replace(batch=batch, draws=mine)
        return jax.tree.map(jnp.add, total, grad(params, inputs)), None

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    total, _ = lax.scan(add, zeros, cut)
    return jax.tree.map(lambda sum_: sum_ / count, total)


def _strided(array: Array, count: int) -> Array:
    """[B, ...] -> [count, B / count, ...]; part i holds examples i, i + count, ..."""
    parts = array.reshape(len(array) // count, count, *array.shape[1:])
    return parts.swapaxes(0, 1)

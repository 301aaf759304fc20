"""LinearAG: the null prediction of skipped steps, regressed on earlier predictions."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance import schedules
from jaxguide.guidance._base import NULL, RAW, Branch, Guided, View
from jaxguide.guidance._checks import check_value, is_whole, static_number
from jaxguide.guidance._contrast import Weight
from jaxguide.guidance._network import Network
from jaxguide.guidance._numbers import check_number, pytree
from jaxguide.guidance._schedule import Schedule
from jaxguide.guidance._transform import Transform
from jaxguide.paths import Array


class LinearAGState(NamedTuple):
    """The memory of `linear_ag`; predictions of noise, the newest first."""

    raw: Array  # [K, B, *D]
    null: Array  # [K, B, *D], evaluated or regressed
    step: Array  # [] int32: the step that the newest ones are of


@pytree("scale", "coefficients")
class LinearAG(Transform):
    """See `linear_ag`."""

    scale: Schedule
    coefficients: Array  # [N, 2, K]
    every: int = 2
    t_skip: float = 1.0

    name = "linear_ag"

    def init(self, x: Array) -> LinearAGState:
        """An empty memory for states like `x` [B, *D]."""
        past = jnp.zeros((self.coefficients.shape[2], *x.shape), x.dtype)
        return LinearAGState(past, past, jnp.int32(-1))

    def branches(self, network: Network) -> tuple[Branch, ...]:
        """The unconditional prediction."""
        del network
        return (NULL,)

    def live(self, t: float, index: int = 0) -> bool:
        """Whether step `index` evaluates: in its turn, or too noisy to skip."""
        full = index % self.every == 0 or t >= self.t_skip - schedules.slack(t)
        return full and not self.scale.neutral_at(t, 1.0)

    def apply(
        self,
        guided: Guided,
        state: LinearAGState,
        here: View,
        *,
        live: bool,
    ) -> tuple[Guided, LinearAGState]:
        """CFG with the null prediction, or with the regressed one."""
        index = jnp.asarray(here.step.step_index, jnp.int32)
        raw = here.read(RAW, "noise")
        if live:
            null = here.read(NULL, "noise")
            # In the network's own kind and not in noise: an evaluated step is then
            # bitwise that of `cfg`.
            change = here[RAW] - here[NULL]
        else:
            null = self._regressed(raw, state, index).astype(raw.dtype)
            change = here.to_native(raw - null, "noise")
        # Before anything was evaluated there is no past to regress on, so no guidance.
        known = jnp.logical_or(live, (state.step >= 0) & ~here.step.restart)
        weight = jnp.where(known, self.scale.number - 1, 0.0)
        pushed = LinearAGState(
            _push(state.raw, raw), _push(state.null, null), jnp.where(known, index, -1)
        )
        return guided.plus(weight, change), pushed

    def _regressed(self, raw: Array, state: LinearAGState, index: Array) -> Array:
        """The null noise; in a second stage, raw and this step's own difference."""
        # Predictions of neighbouring steps are nearly equal, and bfloat16 rounds away
        # what they differ in.
        wide = raw.astype(jnp.float32)
        past = _push(state.raw.astype(jnp.float32), wide)
        nulls = state.null.astype(jnp.float32)
        last = len(self.coefficients) - 1
        rows = jnp.asarray(self.coefficients, jnp.float32)[jnp.minimum(index, last)]
        fitted = jnp.tensordot(rows[0], past, 1) + jnp.tensordot(rows[1], nulls, 1)
        # The second stage of a step finds the first one's entry in the memory. Its
        # time was not fitted, so the difference of the first stage is used again.
        again = wide + nulls[0] - state.raw[0].astype(jnp.float32)
        return jnp.where(state.step == index, again, fitted)


def _push(past: Array, newest: Array) -> Array:
    """The newest first, the oldest gone; [K, B, *D]."""
    return jnp.concatenate([newest[None].astype(past.dtype), past[:-1]])


def linear_ag(
    scale: Weight,
    coefficients: Any,
    *,
    every: int = 2,
    t_skip: float = 1.0,
    t_lo: float = 0.0,
    t_hi: float = 1.0,
) -> LinearAG:
    """CFG whose null prediction is regressed on the past in every other step.

        null_i ~ sum_k a_ik raw_(i-k) + sum_k b_ik null_(i-1-k),   k = 0 .. K - 1

    in predictions of noise; what was regressed counts as past too. Coefficients belong
    to a network, a grid and a scale: `fit_linear_ag` finds them.

    Args:
        scale: as in `cfg`, neutral at 1.
        coefficients: [N, 2, K], a and b for each of N steps; later steps use the last.
        every: steps from one evaluated step to the next; 1 is `cfg` itself.
        t_skip: steps at noise times from here on are all evaluated.
        t_lo, t_hi: guidance interval `[t_lo, t_hi)`; scale 1 outside, at no cost. Open
            it at the first step: the past of a window that opens later is empty.

    Returns:
        A transform whose state is 2 K arrays like x [B, *D]; it needs the condition
        `null`.

    Raises:
        InputError: if `coefficients` is not [N, 2, K], `every` no positive integer, a
            number not finite or the interval empty.

    NFE: +1 in evaluated steps inside the interval, +0 in the others. Memory: 2 K copies
        of x. Through `guide` every call under jit is evaluated.
    Source: Castillo et al. 2023, Adaptive Guidance, arXiv:2312.12487, Sec. 5, known at
        second hand only (no official code; abstract and a third-party port).
    Differs from the source: the past is cut at K steps, all of it is used there; the
        source evaluates the first half of the steps (here `t_skip`).
    """
    check_number("linear_ag", "scale", scale)
    t_skip = static_number("linear_ag", "t_skip", t_skip, low=0, high=1)
    check_value("linear_ag", "coefficients", coefficients)
    shape = np.shape(coefficients)
    if len(shape) != 3 or shape[1] != 2 or 0 in shape:
        raise InputError(
            f"linear_ag: need coefficients [N, 2, K], got shape {shape}. "
            "Make them with fit_linear_ag."
        )
    if not is_whole(every) or every < 1:
        raise InputError(
            f"linear_ag: need an integer every >= 1, got every={every!r}. 1 is cfg."
        )
    schedule = schedules.window(scale, t_lo=t_lo, t_hi=t_hi, outside=1.0)
    return LinearAG(schedule, jnp.asarray(coefficients), every, t_skip)


def cfg_trajectories(
    network: Network,
    noise: Array,
    cond: Any,
    null: Any,
    *,
    grid: Any,
    scale: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Conditional and null predictions of noise along DDIM paths under CFG.

    Args:
        network, noise, cond: as in `generate`; a few samples are enough.
        null: the null condition, leaves [B, ...].
        grid: strictly decreasing noise times [N + 1].
        scale: of CFG.

    Returns:
        (raw, null), each [N, B, *D].
    """
    grid = paths.check_grid("cfg_trajectories", grid)
    x = noise * jnp.asarray(float(network.path.node(grid[0]).sigma), noise.dtype)
    predictions: tuple[list, list] = ([], [])
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        node = network.path.node(jnp.asarray(t, x.dtype))
        stop = network.path.node(jnp.asarray(s, x.dtype))
        times = jnp.full(len(x), t, x.dtype)
        outs = [network.predict(x, times, one) for one in (cond, null)]
        outs = [out[0] if isinstance(out, tuple) else out for out in outs]
        for out, kept in zip(outs, predictions, strict=True):
            kept.append(np.asarray(paths.convert(out, x, node, network.kind, "noise")))
        guided = outs[1] + jnp.asarray(scale, x.dtype) * (outs[0] - outs[1])
        x = paths.corrupt(*paths.to_pair(network.kind, guided, x, node), stop)
    return np.stack(predictions[0]), np.stack(predictions[1])


def fit_linear_ag(raw: Any, null: Any, *, history: int = 3) -> np.ndarray:
    """Least-squares coefficients for `linear_ag`, from recorded predictions of noise.

    Args:
        raw, null: conditional and null predictions [N, B, *D] of the N steps of a grid,
            such as `cfg_trajectories` gives.
        history: K, the steps looked back to, itself among them for `raw`.

    Returns:
        [N, 2, K] float32; exact where the null prediction is such a combination. What
        lies before the first step has coefficient 0, and so has a null that step 0
        would need: it is always evaluated.

    Raises:
        InputError: if the two differ in shape or `history` is no positive integer.
    """
    raw, null = (np.asarray(each, np.float64) for each in (raw, null))
    if raw.shape != null.shape or raw.ndim < 2:
        raise InputError(
            "fit_linear_ag: need raw and null of one shape [N, B, ...], got "
            f"{raw.shape} and {null.shape}."
        )
    if not is_whole(history) or history < 1:
        raise InputError(
            f"fit_linear_ag: need an integer history >= 1, got history={history!r}."
        )
    raw, null = raw.reshape(len(raw), -1), null.reshape(len(null), -1)
    table = np.zeros((len(raw), 2, history))
    for i in range(len(raw)):
        seen = min(i + 1, history), min(i, history)
        past = [raw[i - k] for k in range(seen[0])]
        past += [null[i - 1 - k] for k in range(seen[1])]
        # Neighbouring predictions are nearly equal. `lstsq` works on them as they are;
        # normal equations would square a condition number that is already large.
        best = np.linalg.lstsq(np.stack(past, axis=1), null[i], rcond=None)[0]
        table[i, 0, : seen[0]], table[i, 1, : seen[1]] = np.split(best, [seen[0]])
    return table.astype(np.float32)

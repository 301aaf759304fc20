"""Linear models of Gaussian classes, on which training is solved exactly.

Every class is a Gaussian, a network is linear in features of (x, t) that all labels
share, and every round of training is solved exactly: least squares against a target
that the network of the round before takes part in. What guidance is learnt can then be
read off, with no optimizer in between.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxguide import losses, paths

MEANS, STDS = (-1.0, 0.3, 1.2), (0.5, 0.3, 0.4)
CLASSES = len(MEANS)
TIMES = (0.3, 0.6, 0.8)
BATCH = 3000


class Case(NamedTuple):
    """One loss.

    Attributes:
        loss: name in `losses`.
        options: of the loss, but for `weight`, which is traced.
        weight: of Model-Guidance.
        extra: the further input that the network takes, if any.
        value: of that input, at which it is read.
        scale: of guidance that the loss should teach there.
        rounds: of least squares.
        teacher: "self", the round before, or "plain", a network without guidance.
        about: what guidance pushes away from: "null" or the mean of "classes".
        spread: factor of `STDS`. At 0 every class is a point, and what is learnt for
            one value of an input does not depend on which samples came with it.
    """

    loss: str
    options: tuple = ()
    weight: float | None = None
    extra: str = ""
    value: float = 1.0
    scale: float = 1.0
    rounds: int = 2
    teacher: str = "self"
    about: str = "null"
    spread: float = 1.0

    @property
    def setting(self) -> str:
        """The numbers of this case, as a table shows them."""
        shown = dict(self.options)
        if self.weight is not None:
            shown["weight"] = self.weight
        if self.extra not in ("", "duration"):
            shown[self.extra] = self.value
        hidden = ("kind", "power", "flow_ratio", "guided_share", "label_drop", "t_hi")
        words = [
            f"{name} {value}" if isinstance(value, str) else f"{name}={value:g}"
            for name, value in shown.items()
            if name not in hidden and isinstance(value, float | str)
        ]
        path = type(dict(self.options)["path"]).__name__.lower()
        return ", ".join([*words, path] if path != "linear" else words)


LINEAR = (("path", paths.Linear()),)
REFERENCES = {
    "other": losses.other_class(CLASSES),
    "mean": losses.mean_class(CLASSES),
}


def batch(key: jax.Array, spread: float = 1.0) -> losses.Batch:
    """Examples [B, 1, 1, 1] and their labels."""
    count = BATCH
    pick, draw = jax.random.split(key)
    label = jax.random.randint(pick, (count,), 0, CLASSES)
    noise = jax.random.normal(draw, (count,))
    x0 = jnp.asarray(MEANS)[label] + spread * jnp.asarray(STDS)[label] * noise
    return x0.reshape(-1, 1, 1, 1), label


def three_times(draws: losses.Draws) -> jax.Array:
    """Noise times out of `TIMES`."""
    return jnp.asarray(TIMES)[draws.integers(0, len(TIMES))]


def predict(params, x, t, label, scale=None, beta=None, duration=None):
    """Linear in x for every time, and in (1, scale), (1, 1 / beta) or (1, duration)."""
    at = (jnp.abs(t[:, None] - jnp.asarray(TIMES)[None]) < 1e-3).astype(x.dtype)
    column = x.reshape(-1, 1)
    features = jnp.concatenate([at, at * column], axis=1)
    known = [1 / beta if beta is not None else None, scale, duration]
    for number in known:
        if number is not None:
            features = jnp.concatenate([features, features * number[:, None]], axis=1)
    return (params[label] * features).sum(axis=1).reshape(x.shape)


@functools.cache
def trainer(loss: str, options: tuple, spread: float):
    """Gradient and curvature of a loss, as functions of (params, teacher, weight)."""
    settings = dict(options)
    if isinstance(settings.get("reference"), str):
        settings["reference"] = REFERENCES[settings["reference"]]
    call = functools.partial(
        getattr(losses, loss), null_label=CLASSES, t_sampling=three_times, **settings
    )
    key = jax.random.key(1)
    examples = batch(jax.random.key(0), spread)
    taught = loss not in ("flow_matching", "gft", "mean_flow")
    weighted = loss == "model_guidance"

    def mean(params, teacher, weight):
        first = [functools.partial(predict, params)]
        if taught:
            first.append(functools.partial(predict, teacher))
        more = {"weight": weight} if weighted else {}
        return call(*first, examples, key, **more).mean()

    return jax.jit(jax.grad(mean)), jax.jit(jax.hessian(mean))


def solve(case: Case, *, weight: float | None = None, rounds: int = 0) -> np.ndarray:
    """Parameters [labels, features] after all rounds."""
    grad, hessian = trainer(case.loss, case.options, case.spread)
    size = 2 * len(TIMES) * (2 if case.extra else 1)
    params = np.zeros((CLASSES + 1, size), np.float32)
    weight = case.weight if weight is None else weight
    strength = jnp.float32(weight or 0.0)
    fixed = plain() if case.teacher == "plain" else None
    # Quadratic in the parameters: its curvature is the same everywhere.
    curvature = np.asarray(
        hessian(params, params if fixed is None else fixed, strength)
    )
    inverse = np.linalg.pinv(
        curvature.reshape(params.size, -1).astype(np.float64), rcond=1e-6
    )
    for _ in range(rounds or case.rounds):
        slope = np.asarray(grad(params, params if fixed is None else fixed, strength))
        step = inverse @ slope.ravel().astype(np.float64)
        params = (params - step.reshape(params.shape)).astype(np.float32)
    return params


@functools.cache
def plain(options: tuple = (*LINEAR, ("t_hi", 1.0))) -> np.ndarray:
    """Parameters of the unguided network for the same draws."""
    return solve(Case("model_guidance", options, weight=0.0))


def unguided(case: Case) -> np.ndarray:
    """What the network would be without guidance, class by class."""
    if case.loss == "model_guidance":
        return plain(case.options)
    if case.loss == "cfg_distillation":
        return plain()
    if case.loss == "mean_flow":
        options = dict(case.options) | {"omega": 1.0, "kappa": 0.0}
        params = solve(case._replace(options=tuple(options.items()), rounds=2))
    else:
        params = solve(case)
    return read(case._replace(value=0.0 if case.extra == "duration" else 1.0), params)


def read(case: Case, params: np.ndarray) -> np.ndarray:
    """Parameters of the network as a function of (x, t) alone, at the case's input."""
    half = 2 * len(TIMES)
    if params.shape[1] == half:
        return params
    number = 1 / case.value if case.extra == "beta" else case.value
    known = params[:, :half] + number * params[:, half:]
    if case.extra in ("scale", "beta"):
        # No class: seen at scale 0, or at beta 1, alone.
        number = 0.0 if case.extra == "scale" else 1.0
        known[CLASSES] = params[CLASSES, :half] + number * params[CLASSES, half:]
    return known


def measure(case: Case) -> tuple[float, float]:
    """The scale that was learnt, and the largest error of a coefficient against it."""
    params, before = read(case, solve(case)), unguided(case)
    away = before[CLASSES] if case.about == "null" else before[:CLASSES].mean(0)
    change, base = (p[:CLASSES] - away for p in (params, before))
    scale = float((change * base).sum() / np.square(base).sum())
    return scale, float(np.abs(change - case.scale * base).max())

"""Gaussian mixtures with labels: a model whose every prediction is known exactly.

With components N(mean_k, std_k^2 I) of weight w_k, the noisy state at noise time t has
components N(alpha mean_k, v_k I), v_k = alpha^2 std_k^2 + sigma^2, and

    denoised(x, t) = sum_k r_k (mean_k + alpha std_k^2 / v_k (x - alpha mean_k))

where r_k is the posterior of component k, restricted to the label that was given.
It stands in wherever a network does, also for guidance that changes the inside of a
network: "dropping block i" widens every component by a known variance.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxguide import paths
from jaxguide.errors import InputError
from jaxguide.guidance import Network
from jaxguide.paths import Array, Path


@dataclasses.dataclass(frozen=True)
class GaussianMixture:
    """Class-conditional Gaussian mixture in any number of dimensions. A pytree.

    Args:
        means: [K, *D].
        stds: [K], > 0.
        labels: the class of each component, K integers from 0.
        weights: [K], sums to 1 over all; uniform if None.
        blocks: variance that a dropped "block" adds to every component; its length is
            the depth of the stand-in network.

    Raises:
        InputError: if the numbers of components differ, or a label, standard deviation
            or weight is out of range. Traced arrays are not looked into.
    """

    means: Array
    stds: Array
    labels: tuple[int, ...]
    weights: Array | None = None
    blocks: tuple[float, ...] = ()

    def __post_init__(self):
        given = self.means, self.stds, self.weights
        # JAX rebuilds a pytree with tracers, and with objects that are no arrays.
        if not all(_is_array(a) for a in given[:2]) or np.ndim(self.stds) > 1:
            return  # several mixtures in one, to be mapped over
        counts = [np.size(self.stds), len(np.atleast_1d(self.means)), len(self.labels)]
        if self.weights is not None and _is_array(self.weights):
            counts.append(np.size(self.weights))
        if len(set(counts)) > 1:
            raise InputError(
                "GaussianMixture: need as many stds, means, labels and weights, got "
                f"{counts}. Each component has one of each."
            )
        stds = np.asarray(self.stds)
        if not np.all((stds > 0) & (stds < np.inf)) or min(self.labels) < 0:
            raise InputError(
                "GaussianMixture: need finite stds > 0 and labels >= 0, got "
                f"stds={stds.tolist()!r:.80}, labels={self.labels!r:.80}. Labels count "
                "from 0."
            )

    @property
    def num_classes(self) -> int:
        """Number of classes; the null label is this number."""
        return max(self.labels) + 1

    def null(self, batch: int) -> Array:
        """The null label for a batch, int32 [B]."""
        return jnp.full((batch,), self.num_classes, jnp.int32)

    def log_density(self, x: Array, label: Array, node: paths.Node) -> Array:
        """log p_t(x | label) [B] at `node`; the null label gives the marginal."""
        logits, _ = self._log_joint(x, label, node, ())
        return jax.nn.logsumexp(logits, axis=1) - self._log_prior(label)

    def score(
        self, x: Array, label: Array, node: paths.Node, dropped: Any = ()
    ) -> Array:
        """grad log p_t(x | label) [B, *D]; `dropped` is the variance added by blocks.

        sum_k r_k (alpha mean_k - x) / v_k: finite at every t.
        """
        logits, variance = self._log_joint(x, label, node, dropped)
        share = jax.nn.softmax(logits, axis=1) / variance  # r_k / v_k, [B, K]
        flat, means = self._flat(x)
        pull = _column(node.alpha, x) * (share @ means)
        return (pull - share.sum(axis=1, keepdims=True) * flat).reshape(x.shape)

    def denoised(
        self, x: Array, label: Array, node: paths.Node, dropped: Any = ()
    ) -> Array:
        """E[x0 | x_t = x, label], [B, *D]; `dropped` is the variance blocks add."""
        logits, variance = self._log_joint(x, label, node, dropped)
        posterior = jax.nn.softmax(logits, axis=1)
        alpha, sigma = _column(node.alpha, x), _column(node.sigma, x)
        kept = sigma**2 / variance  # 1 - alpha^2 std_k^2 / v_k
        flat, means = self._flat(x)
        gain = alpha * self._variance(x, dropped) / variance
        shrunk = (posterior * gain).sum(axis=1, keepdims=True) * flat
        return (shrunk + (posterior * kept) @ means).reshape(x.shape)

    def predict(
        self,
        kind: str,
        path: Path,
        x: Array,
        t: Array,
        label: Array,
        keep_blocks: Array | None = None,
    ) -> Array:
        """What a perfect network of `kind` predicts, [B, *D]; see `network`."""
        node = path.node(t)
        dropped = ()
        if keep_blocks is not None:
            added = jnp.asarray(self.blocks, x.dtype)
            dropped = added.sum() - added[keep_blocks].sum()
        if kind == "score":
            return self.score(x, label, node, dropped)
        denoised = self.denoised(x, label, node, dropped)
        noise = -paths.expand(node.sigma, x) * self.score(x, label, node, dropped)
        return paths.from_pair(kind, denoised, noise, node)

    def network(self, kind: str = "velocity", path: Path | None = None) -> Network:
        """This mixture as a `Network`; the condition is an int32 label [B]."""
        path = paths.Linear() if path is None else path
        predict = jax.tree_util.Partial(_Predict(kind, path), self)
        return Network(predict, kind, path, depth=len(self.blocks))

    def sample(self, key: Array, label: Array) -> Array:
        """Exact samples [B, *D] of the data, one per label."""
        pick, draw = jax.random.split(key)
        index = jax.random.categorical(pick, self._log_weights(label), axis=1)
        means = jnp.asarray(self.means)[index]
        noise = jax.random.normal(draw, means.shape, means.dtype)
        return means + paths.expand(jnp.asarray(self.stds)[index], noise) * noise

    def moments(self, label: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Exact mean [n] and covariance [n, n] of the data, flattened, float64."""
        means = np.asarray(self.means, np.float64)
        means = means.reshape(len(means), -1)
        weights = np.asarray(self._host_weights(label))
        mean = weights @ means
        spread = (weights * np.asarray(self.stds, np.float64) ** 2).sum()
        centred = means - mean
        eye = np.eye(means.shape[1])
        return mean, (weights[:, None] * centred).T @ centred + spread * eye

    def _host_weights(self, label: int | None) -> np.ndarray:
        count = len(self.labels)
        weights = np.ones(count) if self.weights is None else np.asarray(self.weights)
        chosen = np.ones(count) if label is None else np.array(self.labels) == label
        weights = weights.astype(np.float64) * chosen
        return weights / weights.sum()

    def _log_weights(self, label: Array) -> Array:
        """log w_k where component k has the label (or the label is null), [B, K]."""
        stds = jnp.asarray(self.stds)
        count = len(self.labels)
        weights = jnp.full(count, 1 / count) if self.weights is None else self.weights
        label = jnp.asarray(label)[:, None]
        match = label == jnp.asarray(self.labels, label.dtype)[None]
        match = match | (label == self.num_classes)
        logs = jnp.log(jnp.asarray(weights, stds.dtype))[None]
        return jnp.where(match, logs, -jnp.inf)

    def _log_prior(self, label: Array) -> Array:
        return jax.nn.logsumexp(self._log_weights(label), axis=1)

    def _flat(self, x: Array) -> tuple[Array, Array]:
        means = jnp.asarray(self.means).astype(x.dtype)
        return x.reshape(len(x), -1), means.reshape(len(means), -1)

    def _variance(self, x: Array, dropped: Any) -> Array:
        """std_k^2 with what dropped blocks add, [1, K]."""
        variance = jnp.asarray(self.stds).astype(x.dtype)[None] ** 2
        return variance if isinstance(dropped, tuple) else variance + dropped

    def _log_joint(
        self, x: Array, label: Array, node: paths.Node, dropped: Any
    ) -> tuple[Array, Array]:
        """log w_k N(x; alpha mean_k, v_k) [B, K], and v_k [B or 1, K]."""
        flat, means = self._flat(x)
        alpha, sigma = _column(node.alpha, x), _column(node.sigma, x)
        total = alpha**2 * self._variance(x, dropped) + sigma**2
        gap = flat[:, None] - alpha[..., None] * means[None]  # [B, K, n]
        distance = (gap**2).sum(axis=-1)
        size = flat.shape[1]
        log_norm = 0.5 * size * jnp.log(2 * math.pi * total)
        logits = self._log_weights(label).astype(x.dtype)
        return logits - distance / (2 * total) - log_norm, total


jax.tree_util.register_dataclass(
    GaussianMixture,
    data_fields=["means", "stds", "weights"],
    meta_fields=["labels", "blocks"],
)


@dataclasses.dataclass(frozen=True)
class _Predict:
    """`GaussianMixture.predict` with the mixture as an argument; hashable."""

    kind: str
    path: Path

    def __call__(
        self, mixture: GaussianMixture, x: Array, t: Array, label: Array, **taps: Any
    ) -> Array:
        return mixture.predict(self.kind, self.path, x, t, label, **taps)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | jax.Array) and not isinstance(value, Tracer)


def _column(value: Array, x: Array) -> Array:
    """[] or [B] as [1 or B, 1], in the dtype of x."""
    return jnp.asarray(value).astype(x.dtype).reshape(-1, 1)

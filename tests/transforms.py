"""One row per transform: how to make it, what it promises, what it should compute.

Every contract law runs over `ALL_TRANSFORMS`; adding a transform is adding one row.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxguide as jg
from jaxguide import paths
from jaxguide.oracle import GaussianMixture
from tests import (
    reference as ref,
    reference_coupled as coupled,
    reference_nonlinear as nonlinear,
)
from tests.toy import DEPTH, inside, toy

SHIFT = 0.05
BATCH = 4
SHAPE = (2, 2)


def within(t: float, low: float, high: float) -> bool:
    """Half-open window, with room for rounding; a high edge of 1 is included."""
    return low - 1e-7 <= t < high - 1e-7 or (high == 1.0 and t >= low)


def always(t: float) -> bool:
    del t
    return True


@dataclasses.dataclass(frozen=True)
class Row:
    """A transform as a function of one number, and its promises.

    Args:
        make: its number (Python or traced) -> transform or chain.
        value: a number that acts; `neutral`: the one that must not, None if there is
            none.
        nfe: promised evaluations besides the raw one, at noise time t.
        expected: the guided velocity of a `reference.Scene`, from the paper's formula;
            None for what happens inside a transformer, which a mixture does not have
            (then tests/guidance/test_inside.py is the proof).
        factories: the public functions whose docstrings speak for it.
        base: what the neutral row must equal bitwise, if not the unguided result.
        invariant: same samples in every prediction space.
        stochastic, memory: whether it draws; whether it carries a copy of x.
        turns: whether the step of this number evaluates what `nfe` says.
        coupled: gives the sampler a noise of its own.
        gradients: its evaluations are gradients, three times the work.
        own: no other transform shares its branches: they hold numbers of its own, or it
            takes their gradient.
        like: the row of the same classes and promises that faces the slow laws for this
            one, which differs in settings, in the default run; None: it faces them.
    """

    name: str
    make: Callable[[Any], Any]
    value: float
    neutral: float | None
    nfe: Callable[[float], int]
    expected: Callable[[ref.Scene, float], np.ndarray] | None
    factories: tuple[Callable, ...]
    base: Callable[[], Any] = jg.chain
    invariant: bool = True
    stochastic: bool = False
    memory: bool = False
    own: bool = False
    turns: Callable[[int], bool] = lambda index: True
    coupled: bool = False
    gradients: bool = False
    like: str | None = None

    def extra(self, t: float, index: int) -> int:
        """Promised evaluations besides the raw one, in one step."""
        return int(self.nfe(t)) if self.turns(index) else 0


def _everything(w: Any) -> jg.Chain:
    return jg.chain(
        jg.cfg(1 + w, t_lo=0.2, t_hi=0.9),
        jg.sg(w, shift=SHIFT),
        jg.sg_prev(0.5 * w, t_hi=0.7),
        jg.s2(w, drop=0.3),
        jg.autoguidance(1 + w, t_hi=0.8),
        jg.compose("other", -0.3 * w),
        jg.rescale(w),
    )


def _everything_expected(s: ref.Scene, w: float) -> np.ndarray:
    inside = within(s.t, 0.1, 0.9)
    terms = [
        ref.cfg(s, 1 + w, within(s.t, 0.2, 0.9)),
        ref.sg(s, w, SHIFT),
        ref.sg_prev(s, 0.5 * w, within(s.t, 0.0, 0.7)),
        ref.s2(s, w, inside),
        ref.autoguidance(s, 1 + w if within(s.t, 0.0, 0.8) else 1.0),
        ref.compose(s, -0.3 * w),
    ]
    return ref.rescale(s, s.raw + sum(term - s.raw for term in terms), w)


ALL_TRANSFORMS = (
    Row(
        "cfg", jg.cfg, 2.5, 1.0, lambda t: 1,
        ref.cfg, (jg.cfg,),
    ),
    Row(
        "cfg_interval", lambda s: jg.cfg(s, t_lo=0.3, t_hi=0.7), 3.0, 1.0,
        lambda t: int(within(t, 0.3, 0.7)),
        lambda s, w: ref.cfg(s, w, within(s.t, 0.3, 0.7)), (jg.cfg,), like="cfg",
    ),
    Row(
        "negative", jg.negative, 1.8, 1.0, lambda t: 1,
        ref.negative, (jg.negative,), like="cfg",
    ),
    Row(
        "compose_and", lambda w: jg.compose("other", w), 0.6, 0.0, lambda t: 2,
        ref.compose, (jg.compose,),
    ),
    Row(
        "compose_not", lambda w: jg.compose("other", -w), 0.5, 0.0, lambda t: 2,
        lambda s, w: ref.compose(s, -w), (jg.compose,), like="compose_and",
    ),
    Row(
        "autoguidance", jg.autoguidance, 1.7, 1.0, lambda t: 1,
        ref.autoguidance, (jg.autoguidance,),
    ),
    Row(
        "nested", lambda s: jg.nested((s, 2 * s - 1), via=("other",)), 1.6, 1.0,
        lambda t: 2, lambda s, w: ref.nested(s, w, 2 * w - 1), (jg.nested,),
    ),
    Row(
        # Below 0.5 the class is certain: raw - null, the axis, is rounding error.
        "perp_neg", lambda w: jg.perp_neg(w, t_lo=0.5), 0.6, 0.0,
        lambda t: 2 * within(t, 0.5, 1.0),
        lambda s, w: ref.perp_neg(s, w if within(s.t, 0.5, 1.0) else 0.0),
        (jg.perp_neg,),
    ),
    Row(
        "icg", lambda s: jg.icg(s, num_classes=3), 2.0, 1.0, lambda t: 1,
        ref.icg, (jg.icg,), stochastic=True,
    ),
    Row(
        "reference_network",
        lambda s: jg.reference_network(s, network="weak", cond="null"), 1.7, 1.0,
        lambda t: 1, lambda s, w: ref.other_network(s, w, "null"),
        (jg.reference_network,), like="autoguidance",
    ),
    Row(
        "rlg", lambda s: jg.rlg(s, cfg_scale=1.5, network="weak"), 1.7, 1.0,
        lambda t: 3, lambda s, w: ref.rlg(s, w, 1.5), (jg.rlg,),
        base=lambda: jg.chain(jg.cfg(1.5)),
    ),
    Row(
        "sine", lambda w: jg.sine(2.0, w, network="weak", cond="other", t_lo=0.4),
        0.6, 0.0, lambda t: 1 + within(t, 0.4, 1.0),
        lambda s, w: ref.sine(s, 2.0, w, within(s.t, 0.4, 1.0)), (jg.sine,),
        base=lambda: jg.chain(jg.cfg(2.0)),
    ),
    Row(
        "blurred_input", lambda w: jg.blurred_input(w, sigma=0.7), 0.6, 0.0,
        lambda t: 1, lambda s, w: ref.blurred_denoised(s, w, 0.7), (jg.blurred_input,),
    ),
    Row(
        "blurred_state",
        lambda w: jg.blurred_input(w, sigma=0.7, what="state", space="velocity"),
        0.6, 0.0, lambda t: 1, lambda s, w: ref.blurred_state(s, w, 0.7),
        (jg.blurred_input,), like="blurred_input",
    ),
    Row(
        "ab2", jg.ab2, 0.8, 0.0, lambda t: 0, ref.ab2, (jg.ab2,), memory=True,
    ),
    Row(
        "sg", lambda w: jg.sg(w, shift=SHIFT), 2.0, 0.0, lambda t: int(t < 1),
        lambda s, w: ref.sg(s, w, SHIFT), (jg.sg,), invariant=False,
    ),
    Row(
        "sg_dynamic", lambda w: jg.sg(w, shift=SHIFT, dynamic=True), 2.0, 0.0,
        lambda t: int(t < 1),
        lambda s, w: ref.sg(s, w, SHIFT * s.t), (jg.sg,), invariant=False, like="sg",
    ),
    Row(
        "sg_score", lambda w: jg.sg(w, shift=SHIFT, space="score"), 0.5, 0.0,
        lambda t: int(t < 1),
        lambda s, w: ref.sg_score(s, w, SHIFT), (jg.sg,),
    ),
    Row(
        "sg_prev", lambda w: jg.sg_prev(w, t_hi=0.7), 0.8, 0.0, lambda t: 0,
        lambda s, w: ref.sg_prev(s, w, within(s.t, 0.0, 0.7)), (jg.sg_prev,),
        invariant=False, memory=True,
    ),
    Row(
        "sg_prev_denoised", lambda w: jg.sg_prev(w, t_hi=1.0, space="denoised"), 0.3,
        0.0, lambda t: 0, ref.sg_prev_denoised, (jg.sg_prev,), memory=True,
    ),
    Row(
        "s2", lambda w: jg.s2(w, drop=0.3), 0.7, 0.0,
        lambda t: int(within(t, 0.1, 0.9)),
        lambda s, w: ref.s2(s, w, within(s.t, 0.1, 0.9)), (jg.s2,), stochastic=True,
    ),
    Row(
        "s2_naive", lambda w: jg.s2(w, drop=0.3, num_masks=3), 0.7, 0.0,
        lambda t: 3 * within(t, 0.1, 0.9),
        lambda s, w: ref.s2(s, w, within(s.t, 0.1, 0.9)), (jg.s2,), stochastic=True,
        like="s2",
    ),
    Row(
        "rescale", lambda w: jg.chain(jg.cfg(3.0), jg.rescale(w)), 0.7, 0.0,
        lambda t: 1, lambda s, w: ref.rescale(s, ref.cfg(s, 3.0), w), (jg.rescale,),
        base=lambda: jg.chain(jg.cfg(3.0)), invariant=False,
    ),
    Row(
        "nag", lambda s: jg.nag(s, layers=(1, "3-5")), 3.0, 1.0, lambda t: 2,
        None, (jg.nag,), own=True,
    ),
    Row(
        "pag", lambda w: jg.pag(w, layers=("first", "middle")), 1.5, 0.0,
        lambda t: 1, None, (jg.pag,),
    ),
    Row(
        "sag", lambda w: jg.sag(w, layer=(1, 2), cond="cond", t_hi=0.9), 0.7, 0.0,
        lambda t: 2 * within(t, 0.0, 0.9), None, (jg.sag,), own=True,
    ),
    Row(
        "seg", lambda w: jg.seg(w, layers="1-4", sigma=0.5), 1.5, 0.0,
        lambda t: 1, None, (jg.seg,), like="pag",
    ),
    Row(
        "stg", lambda w: jg.stg(w, layers="2-3", t_lo=0.1), 0.7, 0.0,
        lambda t: int(within(t, 0.1, 1.0)),
        lambda s, w: ref.s2(s, w, within(s.t, 0.1, 1.0)), (jg.stg,),
    ),
    Row(
        "stg_attention", lambda w: jg.stg(w, layers=(0, -1), skip="attention"), 0.7,
        0.0, lambda t: 1, None, (jg.stg,),
    ),
    Row(
        "tpg", jg.tpg, 0.7, 0.0, lambda t: 1, None, (jg.tpg,), stochastic=True,
    ),
    Row(
        "tsg", jg.tsg, 1.5, 1.0, lambda t: 1, None, (jg.tsg,), stochastic=True,
    ),
    Row(
        "apg", lambda s: jg.apg(s, radius=1.5, t_lo=0.3), 2.5, 1.0,
        lambda t: int(within(t, 0.3, 1.0)),
        lambda s, w: nonlinear.apg(
            s, w, -0.5, 1.5, 0.0, lambda t: within(t, 0.3, 1.0)
        ),
        (jg.apg,), memory=True,
    ),
    Row(
        "apg_mix",
        lambda s: jg.apg_mix(s, 2 * s - 1, t_switch=0.65, radius=1.5), 2.0, 1.0,
        lambda t: 1, lambda s, w: nonlinear.apg_mix(s, w, 2 * w - 1, 0.65, -0.5, 1.5),
        (jg.apg_mix,), memory=True,
    ),
    Row(
        "cfg_zero", jg.cfg_zero, 2.5, 1.0, lambda t: int(t < 0.96),
        nonlinear.cfg_zero, (jg.cfg_zero, jg.zero_init),
        base=lambda: jg.chain(jg.zero_init(0.96)), invariant=False,
    ),
    Row(
        "tcfg", jg.tcfg, 2.5, 1.0, lambda t: 1, nonlinear.tcfg, (jg.tcfg,),
        invariant=False,
    ),
    Row(
        "adg", lambda s: jg.adg(s, t_lo=0.5), 2.0, 1.0,
        lambda t: int(within(t, 0.5, 1.0)),
        lambda s, w: nonlinear.adg(s, w, within(s.t, 0.5, 1.0)), (jg.adg,),
    ),
    Row(
        "mambo_g", lambda s: jg.mambo_g(s, strength=0.8), 2.5, 1.0, lambda t: 1,
        lambda s, w: nonlinear.mambo_g(s, w, 0.8), (jg.mambo_g,), invariant=False,
    ),
    Row(
        # No scale is neutral: at 0 it is the null prediction.
        "beta_cfg", lambda s: jg.beta_cfg(s, t_lo=0.5), 1.5, 0.0,
        lambda t: int(within(t, 0.5, 1.0)),
        lambda s, w: nonlinear.beta_cfg(s, w, 0.5, within(s.t, 0.5, 1.0)),
        (jg.beta_cfg,),
        base=lambda: jg.chain(jg.contrast(-1.0, jg.Branch(cond="null"), t_lo=0.5)),
    ),
    Row(
        "fdg", lambda s: jg.fdg((s, 0.5 + 0.5 * s)), 2.5, 1.0, lambda t: 1,
        lambda s, w: nonlinear.banded(s, w, 0.5 + 0.5 * w), (jg.fdg,),
    ),
    Row(
        "frequency_cfg", lambda s: jg.frequency_cfg((s, 0.5 + 0.5 * s)), 2.5, 1.0,
        lambda t: 1, lambda s, w: nonlinear.banded(s, w, 0.5 + 0.5 * w),
        (jg.frequency_cfg,), like="fdg",
    ),
    Row(
        "adaptive_guidance", lambda s: jg.adaptive_guidance(s, threshold=1.0), 2.5,
        1.0, lambda t: 1, ref.cfg, (jg.adaptive_guidance,),
    ),
    Row(
        "renorm", lambda w: jg.chain(jg.cfg(3.0), jg.renorm(w, limit=0.9)), 0.7, 0.0,
        lambda t: 1, lambda s, w: nonlinear.renorm(s, ref.cfg(s, 3.0), w, 0.9),
        (jg.renorm,), base=lambda: jg.chain(jg.cfg(3.0)), invariant=False,
    ),
    Row(
        "dynamic_threshold",
        lambda w: jg.chain(
            jg.cfg(3.0), jg.dynamic_threshold(w, percentile=0.7, limit=0.4)
        ),
        0.7, 0.0, lambda t: 1,
        lambda s, w: nonlinear.dynamic_threshold(s, ref.cfg(s, 3.0), w, 0.7, 0.4),
        (jg.dynamic_threshold,), base=lambda: jg.chain(jg.cfg(3.0)),
    ),
    Row(
        "guided_channels", lambda s: jg.chain(jg.cfg(s), jg.guided_channels(1)), 2.5,
        1.0, lambda t: 1,
        lambda s, w: nonlinear.first_channel(s, ref.cfg(s, w)), (jg.guided_channels,),
        base=jg.chain,
    ),
    Row(
        "cfgpp", jg.cfgpp, 0.6, None, lambda t: 1, coupled.cfgpp, (jg.cfgpp,),
        coupled=True,
    ),
    Row(
        "cfgpp_window", lambda s: jg.cfgpp(s, t_lo=0.3, t_hi=0.9), 0.6, None,
        lambda t: int(within(t, 0.3, 0.9)),
        lambda s, w: coupled.cfgpp(s, w, within(s.t, 0.3, 0.9)), (jg.cfgpp,),
        coupled=True, like="cfgpp",
    ),
    Row(
        "cfgpp_inverse", lambda s: jg.cfgpp(s, inverse=True), 0.6, None, lambda t: 1,
        coupled.cfgpp_inverse, (jg.cfgpp,), coupled=True, like="cfgpp",
    ),
    Row(
        "rectified_cfgpp", lambda w: jg.rectified_cfgpp(w, power=0.7), 1.4, 0.0,
        lambda t: 2 * (t < 1), lambda s, w: coupled.rectified_cfgpp(s, w, 0.7),
        (jg.rectified_cfgpp,),
    ),
    Row(
        "cfg_cache",
        lambda s: jg.cfg_cache(s, every=2, low=1.3, high=0.8, t_reuse=1.0), 2.5, 1.0,
        lambda t: 1,
        lambda s, w: coupled.cfg_cache(
            s, w, 1.3 if within(s.t, 0.1, 0.901) else 1.0,
            0.8 if within(s.t, 0.0, 0.301) else 1.0,
        ),
        (jg.cfg_cache,), turns=lambda index: index % 2 == 0, invariant=False,
        memory=True,
    ),
    Row(
        "linear_ag", lambda s: jg.linear_ag(s, coupled.COEFFICIENTS), 1.8, 1.0,
        lambda t: 1, coupled.linear_ag, (jg.linear_ag,),
        turns=lambda index: index % 2 == 0,
    ),
    Row(
        "rcfg", jg.rcfg, 1.6, 1.0, lambda t: 1, coupled.rcfg_once, (jg.rcfg,),
        turns=lambda index: index == 0, memory=True,
    ),
    Row(
        "rcfg_input", lambda s: jg.rcfg(s, delta=0.9, source="input"), 1.3, 1.0,
        lambda t: 0, lambda s, w: coupled.rcfg_input(s, w, 0.9), (jg.rcfg,),
    ),
    Row(
        "classifier", lambda w: jg.classifier(w, coupled.log_prob_noisy), 0.8, 0.0,
        lambda t: 0, coupled.classifier, (jg.classifier,),
    ),
    Row(
        "classifier_denoised",
        lambda w: jg.classifier_denoised(
            w, coupled.logits, temperature=0.9, others=0.6
        ),
        0.5, 0.0, lambda t: 0,
        lambda s, w: coupled.classifier_denoised(s, w, 0.9, 0.6),
        (jg.classifier_denoised,),
    ),
    Row(
        "energy", lambda w: jg.energy(w, coupled.energy, t_lo=0.2), 0.2, 0.0,
        lambda t: 0,
        lambda s, w: coupled.tfg(s, w if within(s.t, 0.2, 1.0) else 0.0, 0.0, 1),
        (jg.energy,), coupled=True,
    ),
    Row(
        "energy_network",
        lambda w: jg.energy(w, coupled.energy, through="network", t_hi=0.9), 0.2, 0.0,
        lambda t: int(within(t, 0.0, 0.9)),
        lambda s, w: coupled.tfg(s, 0.0, w if within(s.t, 0.0, 0.9) else 0.0, 0),
        (jg.energy,), coupled=True, gradients=True, own=True, like="tfg",
    ),
    Row(
        "tfg",
        lambda w: jg.tfg(coupled.log_prob, mean=0.1 * w, variance=0.2 * w, steps=2),
        0.8, 0.0, lambda t: 1, lambda s, w: coupled.tfg(s, 0.1 * w, 0.2 * w, 2),
        (jg.tfg,), coupled=True, gradients=True, own=True,
    ),
    Row(
        # null is shared by cfg and compose: cond is raw, so 2 = null, other.
        "chain", _everything, 0.4, 0.0,
        lambda t: 2 + (t < 1) + within(t, 0.1, 0.9) + within(t, 0.0, 0.8),
        _everything_expected, (),
        invariant=False, stochastic=True, memory=True,
    ),
)  # fmt: skip

BY_NAME = {row.name: row for row in ALL_TRANSFORMS}
WITH_NEUTRAL = tuple(row for row in ALL_TRANSFORMS if row.neutral is not None)


def mixture() -> GaussianMixture:
    """Three classes of two components each, six "blocks", states [2, 2]."""
    rng = np.random.default_rng(0)
    return GaussianMixture(
        jnp.asarray(1.5 * rng.normal(size=(6, *SHAPE)), jnp.float32),
        jnp.asarray([0.3, 0.5, 0.4, 0.6, 0.35, 0.45], jnp.float32),
        (0, 0, 1, 1, 2, 2),
        blocks=(0.05, 0.1, 0.2, 0.15, 0.1, 0.3),
    )


def weaker() -> GaussianMixture:
    """The same classes, smeared out."""
    strong = mixture()
    return dataclasses.replace(strong, stds=strong.stds + 0.3)


def in_float64(model: GaussianMixture) -> ref.Mixture:
    """The independent twin of an oracle."""
    means = np.asarray(model.means, np.float64)
    return ref.Mixture(
        means.reshape(len(means), -1),
        np.asarray(model.stds, np.float64),
        np.asarray(model.labels),
        np.asarray(model.blocks, np.float64),
        model.num_classes,
    )


def labels(batch: int = BATCH) -> dict[str, jax.Array]:
    """Every condition that a row may name."""
    label = jnp.arange(batch, dtype=jnp.int32) % 3
    null = jnp.full((batch,), 3, jnp.int32)
    source = jnp.sin(jnp.arange(batch * 4, dtype=jnp.float32)).reshape(batch, 2, 2)
    negative, other = (label + 1) % 3, (label + 2) % 3
    return dict(cond=label, null=null, negative=negative, other=other, source=source)


def start(batch: int = BATCH, dtype: Any = jnp.float32) -> jax.Array:
    """Initial noise."""
    return jax.random.normal(jax.random.key(7), (batch, *SHAPE), dtype)


@dataclasses.dataclass
class Seen:
    """One real evaluation of a network: what it was told."""

    rows: int
    t: np.ndarray
    label: np.ndarray
    keep: np.ndarray | None


class Probe:
    """Counts what a network is really asked to do: traced, and at run time.

    `calls` is filled when the program runs, not when it is traced; `traces` counts
    how often JAX looked at the network. A probe is a new function every time, so what
    is compiled with it is compiled anew: where nothing is counted, take `known`.
    """

    def __init__(self, predict: Callable, weights: Any, **facts: Any):
        self.predict, self.weights, self.facts = predict, weights, facts
        self.calls: list[Seen] = []
        self.traces = 0

    def network(self) -> jg.Network:
        return jg.Network(
            jax.tree_util.Partial(self._called, self.weights), **self.facts
        )

    def known(self) -> jg.Network:
        """The same network, not watched: equal for equal facts, so one program."""
        predict = jax.tree_util.Partial(soon(self.predict), self.weights)
        return jg.Network(predict, **self.facts)

    def evaluations(self, batch: int = BATCH) -> int:
        """Network evaluations per image: a doubled batch counts twice."""
        jax.effects_barrier()
        return sum(seen.rows for seen in self.calls) // batch

    def _called(self, weights, x, t, label, **taps):
        self.traces += 1
        keep = taps.get("keep_blocks", ())
        if traced((weights, x, t, label, taps)):
            jax.debug.callback(self._ran, t, label, keep)
            return self.predict(weights, x, t, label, **taps)
        self._ran(t, label, keep)
        return at_once(self.predict, weights, x, t, label, **taps)

    def _ran(self, t, label, keep):
        keep = None if isinstance(keep, tuple) else np.asarray(keep)
        self.calls.append(Seen(len(t), np.asarray(t), np.asarray(label), keep))


def traced(tree: Any) -> bool:
    """Whether JAX is looking, rather than running."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def at_once(predict: Callable, *arrays: Any, **taps: Any) -> Any:
    """`predict` as one program, also where everything else runs op by op.

    Taps that are functions belong to one call; with them it runs op by op as well.
    """
    if set(taps) <= {"keep_blocks"}:
        with jax.disable_jit(False):
            return _compiled(predict)(*arrays, **taps)
    return predict(*arrays, **taps)


_compiled = functools.cache(jax.jit)


@functools.cache
def soon(predict: Callable) -> Callable:
    """`predict`, run as one program by loops that run op by op."""

    def run(*arrays: Any, **taps: Any) -> Any:
        call = (
            predict if traced((arrays, taps)) else functools.partial(at_once, predict)
        )
        return call(*arrays, **taps)

    return run


FLOPS, BLOCK_FLOPS = 1000.0, 100.0


def toy_probe(scale: float = 1.3) -> Probe:
    """A counted toy network."""
    weights = jnp.asarray([scale, 0.2], jnp.float32)
    return Probe(toy, weights, depth=DEPTH, flops=FLOPS, block_flops=BLOCK_FLOPS)


def oracle(model: GaussianMixture, kind: str = "velocity", path: Any = None) -> Any:
    """`model.network(kind, path)`, for loops that run op by op."""
    return oracle_probe(model, kind, path).known()


@functools.cache
def oracle_function(kind: str, path: Any) -> Callable:
    """A mixture's prediction as a network: one function for every kind and path.

    Taps other than `keep_blocks` move the state it looks at.
    """

    def predict(model, x, t, label, keep_blocks=None, **taps):
        if not taps:
            return model.predict(kind, path, x, t, label, keep_blocks)
        node = path.node(t)
        moved, record = inside(x, t, label, **taps)
        denoised = model.denoised(moved, label, node)
        noise = (x - paths.expand(node.alpha, x) * denoised) / paths.expand(
            node.sigma, x
        )
        out = paths.from_pair(kind, denoised, noise, node)
        return out if record is None else (out, None, record)

    return predict


def oracle_probe(
    model: GaussianMixture, kind: str = "velocity", path: Any = None
) -> Probe:
    """A counted oracle."""
    path = paths.Linear() if path is None else path
    predict = oracle_function(kind, path)
    return Probe(predict, model, kind=kind, path=path, depth=len(model.blocks))


def sample(
    guidance: Any,
    probe: Probe | jg.Network,
    weak: Probe | jg.Network,
    grid: Any,
    sampler: Any = None,
    *,
    noise: jax.Array | None = None,
    seed: int = 1,
    **options: Any,
) -> jax.Array:
    """`generate` with every condition and network a row may name."""
    noise = start() if noise is None else noise
    conds = labels(len(noise))
    main, weak = (n.network() if isinstance(n, Probe) else n for n in (probe, weak))
    return jg.generate(
        main, noise, conds["cond"], grid=grid,
        sampler=jg.euler() if sampler is None else sampler,
        guidance=guidance, conds=conds, networks={"weak": weak},
        key=jax.random.key(seed), sample_keys=jg.sample_keys(0, jnp.arange(len(noise))),
        **options,
    )  # fmt: skip

"""Guiding an inference function of hackable_diffusion, in its sampler and in ours.

Run:      python examples/hackable_inference.py      (after pip install -e .)
Expected: both guidances agree to 1e-4, with fewer network calls here; the error of CFG
          below 0.05; that of SG-prev far below Euler's.

An inference function there is `f(time, xt, conditioning) -> {"velocity": ...}`, and
`conditioning=None` means "no class". Its own guidance combines two finished outputs:
`GuidedDiffusionInferenceFn` calls the network twice in every step, also outside an
interval, and remembers nothing. Both are what jaxguide adds.

hackable_diffusion needs Python 3.12 and brings TensorFlow, so it is no dependency: the
classes below stand in for it, with its names and arguments. Where it is installed, the
example uses it instead. With the modules of version 1.0.1, but without the types that
it checks at run time (they come with its large dependencies), the numbers are the same.

The data of the class and of "no class" are Gaussians N(2, 0.5^2) and N(2, 1), and the
network is exact, so the guided ODE is known too: see `exact`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

import jaxguide as jg
from jaxguide.oracle import GaussianMixture
from jaxguide.paths import Linear

try:
    from hackable_diffusion import hd
except ImportError:
    hd = None

DATA = GaussianMixture(
    means=2.0 * jnp.ones((2, 8)), stds=jnp.array([0.5, 1.0]), labels=(0, 1)
)
WEIGHT, LOWER, UPPER = 1.0, 0.2525, 0.7525  # its guidance is our scale - 1
STEPS = 200
calls = []  # one entry per network call at run time


@dataclasses.dataclass(kw_only=True, frozen=True)
class ExactInferenceFn:
    """Stands for your `FlaxLinenInferenceFn(network=..., params=...)`."""

    def __call__(self, time, xt, conditioning):
        jax.debug.callback(lambda: calls.append(1))
        label = jnp.ones(len(xt), jnp.int32)  # 1 is "no class"
        if conditioning is not None:
            label = conditioning["label"]
        return {"velocity": DATA.predict("velocity", Linear(), xt, time.ravel(), label)}


# What hackable_diffusion gives, or what stands in for it.


@dataclasses.dataclass(kw_only=True, frozen=True)
class LimitedIntervalGuidanceFn:
    """Its guidance: a function of two finished outputs."""

    guidance: float
    lower: float
    upper: float

    def __call__(self, xt, conditioning, time, cond_outputs, uncond_outputs):
        inside = (time >= self.lower) & (time <= self.upper)
        weight = jnp.where(inside, self.guidance, 0.0)
        return {
            name: (1 + weight) * out - weight * uncond_outputs[name]
            for name, out in cond_outputs.items()
        }


@dataclasses.dataclass(kw_only=True, frozen=True)
class GuidedDiffusionInferenceFn:
    """Its guided inference function."""

    base_inference_fn: Callable
    guidance_fn: Callable

    def __call__(self, time, xt, conditioning):
        shared = dict(time=time, xt=xt)
        return self.guidance_fn(
            conditioning=conditioning,
            cond_outputs=self.base_inference_fn(conditioning=conditioning, **shared),
            uncond_outputs=self.base_inference_fn(conditioning=None, **shared),
            **shared,
        )


def stand_in_sampler(inference_fn, rng, initial_noise, conditioning):
    """Euler steps over times [B, 1] from 1 to 0, as its `DiffusionSampler` does."""
    del rng  # of stochastic steps
    times = jnp.linspace(1 - 1e-6, 1e-6, STEPS + 1)

    def step(xt, pair):
        time = jnp.full((len(xt), 1), pair[0])
        prediction = inference_fn(time=time, xt=xt, conditioning=conditioning)
        return xt + (pair[1] - pair[0]) * prediction["velocity"], None

    return jax.lax.scan(step, initial_noise, jnp.stack([times[:-1], times[1:]], 1))[0]


def their_sampler() -> Callable:
    """A function `(inference_fn, rng, initial_noise, conditioning) -> x0`."""
    if hd is None:
        return stand_in_sampler
    process = hd.corruption.GaussianProcess(schedule=hd.corruption.RFSchedule())
    sampler = hd.sampling.DiffusionSampler(
        time_schedule=hd.sampling.UniformTimeSchedule(),
        stepper=hd.sampling.VelocityStep(corruption_process=process, stoch_coeff=0.0),
        num_steps=STEPS + 1,
        store_trajectory=False,
    )
    return lambda *args: sampler(*args)[0].xt


# What you write: the function as jaxguide calls it, and the other way round.


def as_predict(inference_fn):
    """Their inference function as `(x, t, cond) -> velocity`."""

    def predict(x, t, conditioning):
        time = jnp.broadcast_to(t, (len(x),))
        return inference_fn(time=time, xt=x, conditioning=conditioning)["velocity"]

    return predict


@dataclasses.dataclass(kw_only=True, frozen=True)
class GuidedInferenceFn:
    """A guidance without memory, where their `GuidedDiffusionInferenceFn` stood."""

    base_inference_fn: Callable
    guidance: jg.Chain | jg.Transform

    def __call__(self, time, xt, conditioning):
        # None has another structure than a dict: two calls, not one on a double batch.
        guided = jg.guide(
            as_predict(self.base_inference_fn), self.guidance, batched=False
        )
        t = time.ravel()[
            0
        ]  # one time for all: branches outside their window are skipped
        velocity, _ = guided(xt, t, conditioning, guided.init(xt), conds={"null": None})
        return {"velocity": velocity}


def exact(noise):
    """Where the ODE ends that is guided while LOWER < t < UPPER."""

    def spread(std):  # of the noisy state, at the window's ends
        start, stop = (((1 - t) ** 2 * std**2 + t**2) ** 0.5 for t in (UPPER, LOWER))
        return start / stop

    return 2 + 0.5 * (spread(1.0) / spread(0.5)) ** WEIGHT * noise


def run(name, sample, *args):
    """Samples, and says how often the network was called."""
    calls.clear()
    x = jax.block_until_ready(jax.jit(sample)(*args))
    jax.effects_barrier()
    print(f"{name}, network calls: {len(calls)}")
    return x


def main():
    given = "hackable_diffusion" if hd else "a stand-in with its names and arguments"
    print(f"package: {given}")
    base, conditioning = ExactInferenceFn(), {"label": jnp.zeros(100, jnp.int32)}
    noise, rng = jax.random.normal(jax.random.key(0), (100, 8)), jax.random.key(1)
    cfg = jg.cfg(1 + WEIGHT, t_lo=LOWER, t_hi=UPPER)

    # In their sampler, with their guidance and with ours.
    package = hd.inference if hd else None
    theirs = getattr(package, "GuidedDiffusionInferenceFn", GuidedDiffusionInferenceFn)(
        base_inference_fn=base,
        guidance_fn=getattr(
            package, "LimitedIntervalGuidanceFn", LimitedIntervalGuidanceFn
        )(guidance=WEIGHT, lower=LOWER, upper=UPPER),
    )
    ours = GuidedInferenceFn(base_inference_fn=base, guidance=cfg)
    sampler = their_sampler()
    x, y = (
        run(name, lambda noise, c, f=f: sampler(f, rng, noise, c), noise, conditioning)
        for name, f in (("theirs", theirs), ("jaxguide in theirs", ours))
    )
    print(f"largest difference: {jnp.abs(x - y).max():.6f}")
    print(f"CFG in a window, largest error: {jnp.abs(y - exact(noise)).max():.4f}")

    # Their network in our sampler, which carries what a guidance remembers.
    def generate(noise, conditioning, guidance, num_steps):
        return jg.generate(
            jg.Network(as_predict(base)),
            noise,
            conditioning,
            grid=jg.uniform(num_steps),
            sampler=jg.euler(),
            guidance=guidance,
            conds={"null": None},
            batched=False,
        )

    y = run("jaxguide", lambda x, c: generate(x, c, cfg, STEPS), noise, conditioning)
    print(f"largest difference of samplers: {jnp.abs(x - y).max():.6f}")
    for name, guidance in (("Euler", None), ("SG-prev", jg.sg_prev(0.5, t_hi=1.0))):
        x = generate(noise, conditioning, guidance, 20)
        error = jnp.abs(x - (2 + 0.5 * noise)).max()
        print(f"{name}, 20 calls: largest error {error:.4f}")


if __name__ == "__main__":
    main()

"""Guidance in a sampler of your own: plain JAX, no Flax, no config.

Run:      python examples/stranger.py      (after pip install -e .)
Expected: the std of CFG within two percent of the closed form; SG-prev far below Euler.

`model` stands for your network. Here it knows its answer: the data of class 0 and of
"no class" are Gaussians N(2, 0.5^2) and N(2, 1), for which the guided ODE ends in
x0 = 2 + std^scale / null_std^(scale - 1) * noise.
"""

import jax
import jax.numpy as jnp

import jaxguide as jg

MEAN, STDS = 2.0, jnp.array([0.5, 1.0])  # of class 0, and of "no class" (label 1)


def model(x, t, label):
    """Velocity of Gaussian data at noise time t; x = (1 - t) x0 + t noise."""
    std = STDS[label][:, None]
    variance = (1 - t) ** 2 * std**2 + t**2
    return (t - (1 - t) * std**2) / variance * (x - (1 - t) * MEAN) - MEAN


def my_sampler(guided, noise, label, null, num_steps=200):
    """A sampler of your own; three lines know of guidance."""
    dt = 1 / num_steps

    def step(carry, i):
        x, state = carry
        t = 1 - i * dt
        velocity, state = guided(x, t, label, state, conds={"null": null})
        return (x - dt * velocity, state), None

    carry = noise, guided.init(noise)
    (x, _), _ = jax.lax.scan(step, carry, jnp.arange(num_steps))
    return x


def main():
    noise = jax.random.normal(jax.random.key(0), (2000, 1))
    label = jnp.zeros(2000, jnp.int32)
    sample = jax.jit(my_sampler, static_argnames="num_steps")

    guided = jg.guide(model, jg.cfg(2.0))
    x = sample(guided, noise, label, label + 1)
    exact = MEAN + 0.5**2 / 1.0 * noise
    print(f"CFG: mean {x.mean():.3f}, std {x.std():.3f}")
    print(f"closed form: mean {exact.mean():.3f}, std {exact.std():.3f}")

    # With weight 1/2, SG-prev on equal Euler steps is a second-order solver: the same
    # number of network calls, a smaller error.
    exact = MEAN + 0.5 * noise
    for name, chain in (("Euler", jg.chain()), ("SG-prev", jg.sg_prev(0.5, t_hi=1.0))):
        x = sample(jg.guide(model, chain), noise, label, label + 1, num_steps=20)
        print(f"{name}, 20 calls: largest error {jnp.abs(x - exact).max():.4f}")


if __name__ == "__main__":
    main()

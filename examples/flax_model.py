"""A small Flax NNX network of your own: trained, guided by CFG and S2, jitted.

Run:      python examples/flax_model.py       (after pip install -e .; seconds on a CPU)
Expected: the guided mean of the network within 0.1 of that of the exact model.

The data are two classes of points in the plane, for which `jaxguide.oracle` knows every
prediction exactly. S2 needs one thing of a network: the argument `keep_blocks`, the
indices of the blocks that run.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxguide as jg
from jaxguide.oracle import GaussianMixture

DEPTH, WIDTH = 6, 64
DATA = GaussianMixture(
    means=jnp.array([[-1.0, 0.0], [1.0, 0.5]]),
    stds=jnp.array([0.5, 0.5]),
    labels=(0, 1),
)


class Block(nnx.Module):
    """One residual block."""

    def __init__(self, rngs):
        self.fc1 = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.fc2 = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, h, cond):
        return h + self.fc2(nnx.gelu(self.fc1(h + cond)))


class Network(nnx.Module):
    """(x [B, 2], t [B], label [B]) -> velocity [B, 2]."""

    def __init__(self, rngs):
        self.x_in = nnx.Linear(2, WIDTH, rngs=rngs)
        self.t_in = nnx.Linear(16, WIDTH, rngs=rngs)
        self.labels = nnx.Embed(3, WIDTH, rngs=rngs)
        self.blocks = nnx.vmap(Block)(rngs.fork(split=DEPTH))
        self.out = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, x, t, label, keep_blocks=None):
        angle = t[:, None] * 2.0 ** jnp.arange(8)
        waves = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)
        cond = self.t_in(waves) + self.labels(label)
        graph, stacked = nnx.split(self.blocks)
        keep = jnp.arange(DEPTH) if keep_blocks is None else keep_blocks

        def run(h, index):  # only the chosen blocks are computed
            chosen = jax.tree.map(lambda leaf: leaf[index], stacked)
            return nnx.merge(graph, chosen)(h, cond), None

        h, _ = jax.lax.scan(run, self.x_in(x), keep)
        return self.out(h)


def train(network, steps=600):
    """Flow matching on the mixture; the label is hidden (2) one time in ten."""
    optimizer = nnx.Optimizer(network, optax.adam(3e-3), wrt=nnx.Param)

    @nnx.jit
    def step(network, optimizer, key):
        keys = jax.random.split(key, 5)
        label = jax.random.randint(keys[0], (512,), 0, 2)
        x0, noise = DATA.sample(keys[1], label), jax.random.normal(keys[2], (512, 2))
        t = jax.random.uniform(keys[3], (512,))
        label = jnp.where(jax.random.bernoulli(keys[4], 0.1, (512,)), 2, label)
        x = (1 - t[:, None]) * x0 + t[:, None] * noise

        def loss(network):
            return jnp.mean((network(x, t, label) - (noise - x0)) ** 2)

        optimizer.update(network, nnx.grad(loss)(network))

    for i in range(steps):
        step(network, optimizer, jax.random.fold_in(jax.random.key(1), i))


def main():
    network = Network(nnx.Rngs(0))
    train(network)
    graph, params = nnx.split(network)  # once; from here on everything is pure

    def forward(params, *args, **taps):
        return nnx.merge(graph, params)(*args, **taps)

    mine = jg.Network(jax.tree_util.Partial(forward, params), depth=DEPTH)
    noise = jg.initial_noise(jg.sample_keys(0, jnp.arange(1000)), (2,))
    label = jnp.ones(1000, jnp.int32)
    inputs = dict(grid=jg.uniform(40), sampler=jg.euler(), key=jax.random.key(2))

    @functools.partial(jax.jit, static_argnames="null")
    def sample(network, guidance, null):
        conds = {"null": jnp.full_like(label, null)}
        return jg.generate(
            network, noise, label, guidance=guidance, conds=conds, **inputs
        )

    mean = sample(mine, jg.cfg(2.0), null=2).mean(0)
    exact = sample(DATA.network(), jg.cfg(2.0), null=2).mean(0)
    print(f"CFG, the network: mean {mean[0]:.3f} {mean[1]:.3f}")
    print(f"CFG, the exact model: mean {exact[0]:.3f} {exact[1]:.3f}")

    guidance = jg.chain(jg.cfg(2.0), jg.s2(0.25, drop=0.3))
    mean = sample(mine, guidance, null=2).mean(0)
    print(f"CFG + S2, the network: mean {mean[0]:.3f} {mean[1]:.3f}")
    cost = jg.cost(mine, guidance, inputs["grid"], inputs["sampler"])
    print(f"CFG + S2, cost: {cost}")


if __name__ == "__main__":
    main()

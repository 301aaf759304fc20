"""Guiding a transformer that is called as those of maxdiffusion are.

Run:      python examples/maxdiffusion_transformer.py      (after pip install -e .)
Expected: the pipeline's own CFG and ours agree to 1e-4; three scales, one compilation;
          the error of CFG below 1e-4.

maxdiffusion is no package of PyPI and was not available. `Transformer` stands for its
`WanModel`, with the arguments, shapes and units of `WanModel.__call__`:

    hidden_states [B, C, F, H, W], timestep [B] in 0..1000, encoder_hidden_states
    [B, L, D]  ->  velocity (noise - data) [B, C, F, H, W]

Its answer is known: it believes in latents that are Gaussian around a mean which is
linear in the text, so CFG moves that mean and nothing else.

A Linen module, such as `FluxTransformer2DModel`, differs in two lines: `predict` calls
`module.apply({"params": params}, hidden_states=x, timestep=t, **cond).sample`, and the
condition is a dict of `encoder_hidden_states` and `pooled_projections`.
"""

import jax
import jax.numpy as jnp
from flax import nnx

import jaxguide as jg

STD, SHAPE, TEXT = 0.5, (4, 3, 8, 8), (6, 16)  # latents C, F, H, W; text L, D
GRID = jg.shifted(20, 5.0)  # the pipeline's flow shift
traces = []  # one entry per compiled network call


class Transformer(nnx.Module):
    """Stands for your transformer; exact here."""

    def __init__(self, rngs):
        self.text_in = nnx.Linear(TEXT[1], SHAPE[0], use_bias=False, rngs=rngs)

    def __call__(self, hidden_states, timestep, encoder_hidden_states):
        traces.append(1)
        t = (timestep / 1000).reshape(-1, 1, 1, 1, 1)
        mean = mean_of(self, encoder_hidden_states)
        gain = (t - (1 - t) * STD**2) / ((1 - t) ** 2 * STD**2 + t**2)
        return gain * (hidden_states - (1 - t) * mean) - mean


def mean_of(transformer, text):
    """The mean of the latents for a text [B, L, D], as [B, C, 1, 1, 1]."""
    return transformer.text_in(text).mean(axis=1)[:, :, None, None, None]


# The loop of its pipelines: one scale, CFG on a doubled batch in every step.


def pipeline(transformer, latents, prompt_embeds, negative_prompt_embeds, scale):
    """Euler steps of flow matching, with the guidance written into the loop."""
    both = jnp.concatenate([prompt_embeds, negative_prompt_embeds])
    for t, t_next in zip(GRID[:-1], GRID[1:], strict=True):
        doubled = jnp.concatenate([latents] * 2)
        timestep = jnp.full(len(doubled), 1000 * t)
        cond, uncond = jnp.split(transformer(doubled, timestep, both), 2)
        latents = latents + (t_next - t) * (uncond + scale * (cond - uncond))
    return latents


# What you write: split the module once, say its units, and guide.


def as_network(transformer):
    """The module as a network of jaxguide; its parameters stay arguments."""
    graph, params = nnx.split(transformer)

    def predict(params, x, t, text):
        module = nnx.merge(graph, params)
        return module(hidden_states=x, timestep=1000 * t, encoder_hidden_states=text)

    return jg.Network(jax.tree_util.Partial(predict, params))


@jax.jit
def sample(network, latents, prompt_embeds, negative_prompt_embeds, guidance):
    """Guided latents; scales and weights are traced, so others do not recompile."""
    return jg.generate(
        network,
        latents,
        prompt_embeds,
        grid=GRID,
        sampler=jg.euler(),
        guidance=guidance,
        conds={"null": negative_prompt_embeds},
        batched=True,  # both prompts in one forward pass, as the pipeline does
    )


def main():
    transformer = Transformer(nnx.Rngs(0))
    network = as_network(transformer)
    keys = jax.random.split(jax.random.key(0), 3)
    latents = jax.random.normal(keys[0], (2, *SHAPE))
    prompt, negative = (jax.random.normal(key, (2, *TEXT)) for key in keys[1:])

    images = {}
    traces.clear()
    for scale in (1.0, 3.0, 5.0):
        guidance = jg.cfg(scale)
        images[scale] = sample(network, latents, prompt, negative, guidance)
    print(f"network calls compiled, for three scales: {len(traces)}")
    expected = pipeline(transformer, latents, prompt, negative, 5.0)
    error = jnp.abs(images[5.0] - expected).max()
    print(f"CFG 5, largest difference from the pipeline: {error:.6f}")

    # CFG of two Gaussians of one width moves the mean, along straight lines: exactly,
    # also in few steps.
    shift = 4 * (mean_of(transformer, prompt) - mean_of(transformer, negative))
    error = jnp.abs(images[5.0] - images[1.0] - shift).max()
    print(f"CFG 5, largest error: {error:.6f}")

    # What the loop above would have to be rewritten for.
    window = jg.cfg(5.0, t_lo=0.3, t_hi=0.9)
    guidance = jg.chain(window, jg.sg_prev(1.0, t_hi=0.3))
    x = sample(network, latents, prompt, negative, guidance)
    print(f"CFG in a window + SG-prev: {jg.cost(network, guidance, GRID, jg.euler())}")
    print(
        f"its latents against CFG 5: mean change {jnp.abs(x - images[5.0]).mean():.3f}"
    )


if __name__ == "__main__":
    main()

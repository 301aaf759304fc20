"""Stable Diffusion's autoencoder at full size against diffusers, random weights.

    python -m benchmarks.autoencoder_parity --size 256
    python -m benchmarks.autoencoder_parity --latent-channels 16 --dtype bfloat16

Builds diffusers' `AutoencoderKL` (83.7 M parameters), reads the folder that it writes,
and encodes and decodes one image with both. Prints the largest differences and the
seconds of a second call; needs torch and diffusers, and about 6 GB of memory.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import timing
from jaxguide.convert.autoencoder_import import read_autoencoder_kl
from jaxguide.models import autoencoder_kl
from jaxguide.models.autoencoder_kl import AutoencoderKLConfig
from jaxguide.models.convolution import parameter_count
from tests.diffusers_autoencoders import their_kl, to_numpy, to_torch


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call, and the seconds of the next."""
    run()
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def report(name: str, ours: tuple[Any, float], theirs: tuple[Any, float]) -> None:
    """One line: the largest difference, and the time of both."""
    (result, seconds), (wanted, their_seconds) = ours, theirs
    difference = np.abs(np.asarray(result) - wanted).max()
    print(
        f"{name}: largest difference {difference:.1e} of values up to "
        f"{np.abs(wanted).max():.2f}; {seconds:.2f} s, PyTorch {their_seconds:.2f} s"
    )


def main() -> None:
    """Prints two lines."""
    parser = argparse.ArgumentParser("benchmarks.autoencoder_parity")
    parser.add_argument("--size", type=int, default=256, help="edge in pixels")
    parser.add_argument("--latent-channels", type=int, default=4, choices=(4, 16))
    parser.add_argument("--dtype", default="float32", help="of our computation")
    options = parser.parse_args()
    old = options.latent_channels == 4
    config = AutoencoderKLConfig(
        latent_channels=options.latent_channels, quant_conv=old, post_quant_conv=old
    )
    theirs = their_kl(config)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = read_autoencoder_kl(folder)
    count = parameter_count(autoencoder_kl.init, config)
    print(
        f"{count:,} parameters, {options.size} px, {options.dtype}; {timing.machine()}"
    )
    half = dataclasses.replace(ours.config, dtype=options.dtype)
    params = jax.tree.map(jnp.asarray, ours.params)
    edges = (1, options.size, options.size, 3)
    images = np.random.default_rng(0).uniform(-1, 1, edges).astype(np.float32)
    encode = jax.jit(autoencoder_kl.encode, static_argnums=0)
    decode = jax.jit(autoencoder_kl.decode, static_argnums=0)

    def their_moments() -> np.ndarray:
        moments = theirs.encode(to_torch(images)).latent_dist
        return to_numpy(torch.cat([moments.mean, moments.logvar], 1))

    with torch.no_grad():
        wanted = timed(their_moments)
        run = timed(lambda: encode(half, params, images).block_until_ready())
        report("encode", run, wanted)
        latents = np.ascontiguousarray(wanted[0][..., : options.latent_channels])
        wanted = timed(lambda: to_numpy(theirs.decode(to_torch(latents)).sample))
        run = timed(lambda: decode(half, params, latents).block_until_ready())
        report("decode", run, wanted)


if __name__ == "__main__":
    main()

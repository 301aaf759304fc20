"""What generated images are compared with: statistics of real ones.

In memory, from real images, or from published files of statistics:

    ADM's VIRTUAL_*.npz          mu, sigma, mu_s, sigma_s, and arr_0 with 10,000 images
    pytorch-fid's, FID's own     mu, sigma
"""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxguide.errors import InputError
from jaxguide.evaluate import frechet
from jaxguide.evaluate.features import FeatureNetwork
from jaxguide.evaluate.frechet import Gaussian
from jaxguide.evaluate.images import Images, InMemory, open_images
from jaxguide.evaluate.kernel import Within
from jaxguide.evaluate.manifold import Balls
from jaxguide.evaluate.store import Store, extract
from jaxguide.runtime.shards import write_whole


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of real images under one network.

    Args:
        pool: of the features [D].
        spatial: of the features that keep their places [S]; for sFID.
        features: float32 [M, D] of real images, for what looks at single images.
        count: images behind `pool`; 0 if a file does not say.
    """

    pool: Gaussian
    spatial: Gaussian | None = None
    features: np.ndarray | None = None
    count: int = 0
    _kept: dict[Any, Any] = dataclasses.field(
        default_factory=dict, repr=False, init=False
    )

    @property
    def reals(self) -> np.ndarray:
        """`features`.

        Raises:
            InputError: if there are statistics alone.
        """
        if self.features is None:
            raise InputError(
                "Reference: need features of real images for this measure, got "
                "features=None, statistics alone. Name real images as the reference."
            )
        return self.features

    def some(self, count: int) -> np.ndarray:
        """At most `count` features (0: all) in random order, always the same.

        Files are often sorted by class, so the first ones would be no fair choice.
        """
        order = shuffled(len(self.reals))[: count or None]
        return self._once(("some", count), lambda: self.reals[order])

    def radii(self, k: int, balls: Balls, count: int) -> np.ndarray:
        """`balls.radii` of `some(count)`."""
        asked = ("radii", k, balls, count)
        return self._once(asked, lambda: balls.radii(self.some(count), k))

    def within(self, count: int) -> Within:
        """Kernels inside `some(count)`."""
        return self._once(("within", count), lambda: Within.of(self.some(count)))

    def _once(self, asked: Any, find: Callable[[], Any]) -> Any:
        """What `find` gives, kept for the next time."""
        if asked not in self._kept:
            self._kept[asked] = find()
        return self._kept[asked]

    @functools.cached_property
    def factor(self) -> np.ndarray:
        """`frechet.factor` of the covariance of `pool`."""
        return frechet.factor(self.pool.covariance)

    @classmethod
    def of_store(cls, store: Store, *, features: bool = True) -> Reference:
        """From features on disk; `features` takes them into memory."""
        spatial = None
        if "spatial" in store.fields:
            spatial = Gaussian.of(store.moments("spatial"))
        pool = Gaussian.of(store.moments("pool"))
        rows = store.all("pool") if features else None
        return cls(pool, spatial, rows, len(store))

    @classmethod
    def of(
        cls,
        images: Images | np.ndarray | str | Path,
        network: FeatureNetwork,
        *,
        cache: str | Path,
        spatial: bool = False,
    ) -> Reference:
        """From real images; a second call with the same ones reads the disk only.

        Args:
            images: uint8 [M, H, W, C], or what `open_images` opens, or an opened set.
            network: of the features.
            cache: folder for features of real images.
            spatial: whether sFID will be computed.

        Raises:
            InputError: if there are fewer than two images.
        """
        images = as_images(images)
        if len(images) < 2:
            raise InputError(
                f"Reference: need two images or more, got {len(images)}. "
                "Name a larger set."
            )
        fields = ("pool", "spatial") if spatial else ("pool",)
        folder = extract(images, network, cache, fields=fields, title="reference")
        return cls.of_store(Store(folder))


def shuffled(count: int) -> np.ndarray:
    """Numbers below `count` in a random order, always the same."""
    return np.random.default_rng(0).permutation(count)


def as_images(images: Any) -> Images:
    """An opened set of what may be an array, a path or one already."""
    if isinstance(images, np.ndarray):
        return InMemory(images)
    return open_images(images) if isinstance(images, str | Path) else images


def is_statistics(path: str | Path) -> bool:
    """Whether a path is a file with `mu` and `sigma`."""
    path = Path(path).expanduser()
    if path.suffix != ".npz" or not path.is_file():
        return False
    with zipfile.ZipFile(path) as archive:
        return {"mu.npy", "sigma.npy"} <= set(archive.namelist())


def read_statistics(path: str | Path, size: int) -> Reference:
    """A statistics file of ADM, pytorch-fid or `write_statistics`.

    Its images, if any, are those of `statistics_images`; `features` stays None.

    Args:
        path: an `.npz` with `mu` and `sigma`, and perhaps `mu_s` and `sigma_s`.
        size: features of the network, D.

    Raises:
        InputError: if the numbers are of another network.
    """
    with np.load(Path(path).expanduser(), allow_pickle=False) as file:
        pool = Gaussian(_float64(file["mu"]), _float64(file["sigma"]))
        spatial = None
        if "mu_s" in file:
            spatial = Gaussian(_float64(file["mu_s"]), _float64(file["sigma_s"]))
        count = int(file["count"]) if "count" in file else 0
    if pool.mean.shape != (size,) or pool.covariance.shape != (size, size):
        raise InputError(
            f"read_statistics: need mu [{size}] and sigma [{size}, {size}] for this "
            f"network, got {list(pool.mean.shape)!r} and "
            f"{list(pool.covariance.shape)!r} in path={str(path)!r}. Published files "
            "are of Inception: use its weights."
        )
    return Reference(pool, spatial, None, count)


def statistics_images(path: str | Path) -> Images | None:
    """The images in a statistics file, if it has any."""
    with zipfile.ZipFile(Path(path).expanduser()) as archive:
        return open_images(path) if "arr_0.npy" in archive.namelist() else None


def write_statistics(
    path: str | Path, reference: Reference, images: np.ndarray | None = None
) -> None:
    """Writes a file that ADM's evaluator and pytorch-fid read.

    Args:
        path: of the `.npz`.
        reference: `mu` and `sigma` from its `pool`, `mu_s` and `sigma_s` from its
            `spatial`.
        images: uint8 [n, H, W, 3] for precision and recall, kept as `arr_0`.
    """
    arrays: dict[str, Any] = {"count": np.int64(reference.count)}
    arrays |= {"mu": reference.pool.mean, "sigma": reference.pool.covariance}
    if reference.spatial is not None:
        arrays |= {"mu_s": reference.spatial.mean}
        arrays |= {"sigma_s": reference.spatial.covariance}
    if images is not None:
        arrays["arr_0"] = images

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, **arrays)

    write_whole(Path(path).expanduser(), write)


def _float64(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64)

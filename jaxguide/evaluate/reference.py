"""What generated images are compared with: statistics of real ones.

In memory, from real images, or from published files of statistics:

    ADM's VIRTUAL_*.npz          mu, sigma, mu_s, sigma_s, and arr_0 with 10,000 images
    pytorch-fid's, FID's own     mu, sigma
"""

from __future__ import annotations

import dataclasses
import functools
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
from jaxguide.runtime.files import say
from jaxguide.runtime.npz import Npz
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
    """Whether a path is a file with `mu` and `sigma`.

    Raises:
        InputError: if it is a damaged `.npz`.
    """
    path = Path(path).expanduser()
    if path.suffix != ".npz" or not path.is_file():
        return False
    return {"mu", "sigma"} <= set(Npz(path, "read_statistics").fields)


def read_statistics(path: str | Path, network: FeatureNetwork) -> Reference:
    """A statistics file of ADM, pytorch-fid or `write_statistics`.

    Its images, if any, are those of `statistics_images`; `features` stays None. A file
    that does not say which network made it is taken for one of `network`, which is
    said where that is not Inception.

    Args:
        path: an `.npz` with `mu` and `sigma`, and perhaps `mu_s` and `sigma_s`.
        network: of the features that it will be compared with.

    Raises:
        InputError: if the numbers are of another network, are not those of a mean and
            a covariance, or are not finite.
    """
    file, size = Npz(path, "read_statistics"), network.size
    made_by = str(file.read("network")) if "network" in file.fields else ""
    if made_by not in ("", network.fingerprint):
        raise file.refused(
            f"statistics of network={network.fingerprint!r}",
            f"those of {made_by!r}",
            "Compute them with this network: name images as the reference.",
        )
    shapes = [file.header(field).shape for field in ("mu", "sigma")]
    if shapes != [(size,), (size, size)]:
        raise InputError(
            f"read_statistics: need mu [{size}] and sigma [{size}, {size}] for this "
            f"network, got {list(shapes[0])!r} and {list(shapes[1])!r} in "
            f"path={str(path)!r}. Published files are of Inception: use its weights."
        )
    pool = _gaussian(file, "mu", "sigma")
    spatial = _gaussian(file, "mu_s", "sigma_s") if "mu_s" in file.fields else None
    count = _count(file)
    if not made_by and network.frechet != "FID":
        say(
            f"read_statistics: {str(path)!r} does not say which network made it; it is "
            f"taken for {network.fingerprint!r}"
        )
    return Reference(pool, spatial, None, count)


def _gaussian(file: Npz, mean: str, covariance: str) -> Gaussian:
    """Mean and covariance from a file, checked."""
    values = {}
    for name in (mean, covariance):
        array = file.read(name)
        if array.dtype.kind not in "fiu":
            raise file.refused(f"numbers in {name!r}", str(array.dtype))
        values[name] = np.asarray(array, np.float64)
    size = values[mean].size
    if values[mean].ndim != 1 or values[covariance].shape != (size, size):
        wanted = f"{mean} [D] and {covariance} [D, D]"
        raise file.refused(wanted, repr([one.shape for one in values.values()]))
    found = Gaussian(values[mean], values[covariance])
    try:
        frechet.check(found)
        frechet.factor(found.covariance)
    except InputError as error:
        kind = type(error)
        raise kind(f"{error} It is path={str(file.path)!r}.") from error
    return found


def _count(file: Npz) -> int:
    """Images behind the statistics, 0 if the file does not say."""
    if "count" not in file.fields:
        return 0
    count = file.read("count")
    if count.shape != () or count.dtype.kind not in "iu" or count < 0:
        raise file.refused("a number of images in 'count'", repr(count))
    return int(count)


def statistics_images(path: str | Path) -> Images | None:
    """The images in a statistics file, if it has any."""
    fields = Npz(path, "read_statistics").fields
    return open_images(path) if "arr_0" in fields else None


def write_statistics(
    path: str | Path,
    reference: Reference,
    images: np.ndarray | None = None,
    *,
    network: FeatureNetwork | None = None,
) -> None:
    """Writes a file that ADM's evaluator and pytorch-fid read.

    Args:
        path: of the `.npz`.
        reference: `mu` and `sigma` from its `pool`, `mu_s` and `sigma_s` from its
            `spatial`.
        images: uint8 [n, H, W, 3] for precision and recall, kept as `arr_0`.
        network: that made them; its fingerprint is kept as `network`, so that no other
            one is compared with them.
    """
    arrays: dict[str, Any] = {"count": np.int64(reference.count)}
    arrays |= {"mu": reference.pool.mean, "sigma": reference.pool.covariance}
    if reference.spatial is not None:
        arrays |= {"mu_s": reference.spatial.mean}
        arrays |= {"sigma_s": reference.spatial.covariance}
    if images is not None:
        arrays["arr_0"] = images
    if network is not None:
        arrays["network"] = np.str_(network.fingerprint)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, **arrays)

    write_whole(Path(path).expanduser(), write)

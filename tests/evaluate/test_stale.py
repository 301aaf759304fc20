"""No number of what no longer is: caches are keyed by what is in them."""

import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

from jaxguide import data
from jaxguide.errors import InputError, NonFiniteError
from jaxguide.evaluate import store
from jaxguide.evaluate.images import InMemory, InSource, open_images
from jaxguide.evaluate.reference import Reference, read_statistics, write_statistics
from jaxguide.evaluate.statistics import Moments
from tests.evaluate import toy_network

FAST_COMPILE = True


def made(count=20):
    rng = np.random.default_rng(0)
    return rng.integers(0, 200, (count, 4, 4, 3), dtype=np.uint8)


def changed(images, number=5):
    images = images.copy()
    images[number] //= 4
    return images


def in_memory(folder, pixels):
    del folder
    return data.Dataset(pixels, np.zeros(len(pixels), np.int32), ("all",))


def in_npz(folder, pixels):
    np.savez(folder / "a.npz", x=pixels, y=np.zeros(len(pixels), int))
    return data.npz(folder / "a.npz")


def in_folder(folder, pixels):
    (folder / "all").mkdir(exist_ok=True)
    for number, picture in enumerate(pixels):
        path = folder / "all" / f"{number:02}.bmp"
        if not path.exists() or (np.asarray(Image.open(path)) != picture).any():
            Image.fromarray(picture).save(path)  # of the same size in any case
            os.utime(path, ns=(1, 1 + int(picture.sum())))
    return data.image_folder(folder, size=4)


class Own:
    """A source of the user's, which says nothing of itself."""

    def __init__(self, folder, pixels):
        self._inside = in_memory(folder, pixels)
        for name in ("class_names", "num_classes", "image_shape", "is_latent", "read"):
            setattr(self, name, getattr(self._inside, name))

    def __len__(self):
        return len(self._inside)


@pytest.mark.parametrize("kind", [in_memory, in_npz, in_folder, Own])
def test_one_other_image_in_the_middle_is_another_set(tmp_path, kind):
    def identity(pixels):
        return InSource(kind(tmp_path, pixels), "set").identity

    first = identity(made())
    assert identity(made()) == first
    assert identity(changed(made())) != first
    assert len(identity(made())) < 100


def test_other_labels_are_another_set():
    ones = data.Dataset(made(), np.arange(20, dtype=np.int32) % 2, ("a", "b"))
    others = dataclasses.replace(ones, labels=1 - ones.labels)
    named = dataclasses.replace(ones, class_names=("a", "c"))
    assert len(set(map(data.identity, (ones, others, named)))) == 3


def test_a_changed_npz_is_computed_anew_and_an_unchanged_one_is_not(tmp_path):
    network = toy_network.network()

    def mean(pixels):
        source = InSource(in_npz(tmp_path, pixels), "npz(path='a.npz')")
        return Reference.of(source, network, cache=tmp_path / "cache").pool.mean

    first, second = mean(made()), mean(changed(made()))
    right = np.asarray(network.extract(changed(made())).pool, np.float64).mean(0)
    np.testing.assert_allclose(second, right, rtol=1e-6)
    assert np.abs(first - second).max() > 1e-4
    assert len(list((tmp_path / "cache").iterdir())) == 2
    np.testing.assert_array_equal(mean(made()), first)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_network_of_ones_own_is_known_by_its_code():
    def scaled(factor):
        network = toy_network.network()
        apply = network.apply
        return dataclasses.replace(network, apply=lambda p, x: apply(p, factor * x))

    names = {scaled(factor).fingerprint for factor in (1, 2)}
    names.add(toy_network.network().fingerprint)
    assert len(names) == 3
    assert scaled(2).fingerprint in names and all("toy-" in name for name in names)


def test_statistics_say_which_network_they_are_of(tmp_path, capfd):
    network, path = toy_network.network(), tmp_path / "stats.npz"
    reference = Reference.of(made(), network, cache=tmp_path)
    write_statistics(path, reference, network=network)
    capfd.readouterr()
    assert read_statistics(path, network).count == 20 and not capfd.readouterr().err
    with pytest.raises(InputError, match="need statistics of network='toy-.*stats.npz"):
        read_statistics(path, toy_network.network(seed=1))
    write_statistics(path, reference)
    read_statistics(path, toy_network.network(seed=1))
    assert "does not say which network made it" in capfd.readouterr().err


def broken(network, value, field="pool"):
    """The network, which makes a number of the last image of every call `value`."""

    def apply(params, x):
        features = network.apply(params, x)
        rows = getattr(features, field).at[-1, 0].set(value)
        return features._replace(**{field: rows})

    return dataclasses.replace(network, apply=apply)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_stop_before_they_are_written(tmp_path, value):
    network = broken(toy_network.network(), value)
    with pytest.raises(
        NonFiniteError, match="need finite features, .*'pool' of network"
    ):
        store.extract(InMemory(made(16)), network, tmp_path)
    assert not list(tmp_path.rglob("features-*"))


def test_features_of_another_size_are_refused():
    network = toy_network.network()
    wrong = dataclasses.replace(network, size=9)
    with pytest.raises(InputError, match=r"with pool \[3, 9\] .*\(3, 5\)"):
        wrong.extract(made(3))
    plain = dataclasses.replace(network, apply=lambda p, x: network.apply(p, x).pool)
    with pytest.raises(InputError, match=r"pool \[3, 5\] .* got ndarray"):
        plain.extract(made(3))


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_damaged_moments_are_made_again(tmp_path, content, capfd):
    images = InMemory(made())
    folder = store.extract(images, toy_network.network(), tmp_path)
    path = folder / "moments-pool-0-of-1.npz"
    whole = store.Store(folder).moments("pool")
    if content is None:
        Moments.of(np.ones((3, 5))).save(path)  # of other images
    else:
        path.write_bytes(content)
    assert store.extract(images, toy_network.network(), tmp_path) == folder
    found = store.Store(folder).moments("pool")
    np.testing.assert_array_equal(found.scatter, whole.scatter)
    (line,) = [one for one in capfd.readouterr().err.splitlines() if "again" in one]
    assert "moments-pool-0-of-1.npz" in line


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_with_a_wrong_checksum_or_in_fortran_order(tmp_path, save):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    path = tmp_path / "a.npz"
    save(path, arr_0=np.asfortranarray(pixels))
    np.testing.assert_array_equal(open_images(path).read(3, 9), pixels[3:9])
    save(path, arr_0=pixels)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match="need a whole .npz file, got path=.*a.npz"):
        open_images(path).read(0, 64)

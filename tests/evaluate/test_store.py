"""Features on disk: resumed bit for bit, shared out, and the same as at once."""

import dataclasses

import numpy as np
import pytest

from jaxguide.evaluate import measures, store
from jaxguide.evaluate.images import InMemory
from jaxguide.evaluate.measures import Sample
from jaxguide.evaluate.protocols import PLAIN
from jaxguide.evaluate.reference import (
    Reference,
    is_statistics,
    read_statistics,
    statistics_images,
    write_statistics,
)
from tests.evaluate import toy_network

FAST_COMPILE = True
NAMES = ("fd", "kd", "sfid", "is", "precision", "recall", "density", "coverage")


@pytest.fixture(scope="module")
def network():
    return toy_network.network()


def made(count=90, seed=0, brightness=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (count, 4, 4, 3)) * rng.random((count, 1, 1, 3))
    return np.clip(images + brightness, 0, 255).astype(np.uint8)


class Counting(InMemory):
    """Images that note what is read, and stop at a given one."""

    def __init__(self, images, stop_at=10**9):
        super().__init__(images)
        object.__setattr__(self, "seen", [])
        object.__setattr__(self, "stop_at", stop_at)

    def read(self, start, stop):
        if stop > self.stop_at:
            raise KeyboardInterrupt
        self.seen.append(start)
        return super().read(start, stop)


def extracted(images, network, cache, **named):
    named = dict(fields=store.FIELDS, shard_size=20) | named
    return store.extract(images, network, cache, **named)


def contents(folder):
    found = store.Store(folder)
    moments = [found.moments(field) for field in ("pool", "spatial")]
    return [
        *(found.all(field) for field in store.FIELDS),
        *(array for one in moments for array in (one.mean, one.scatter)),
    ]


def test_a_killed_run_carries_on_to_the_same_bits(tmp_path, network):
    whole = extracted(Counting(made()), network, tmp_path / "whole")
    killed = Counting(made(), stop_at=60)
    with pytest.raises(KeyboardInterrupt):
        extracted(killed, network, tmp_path / "cut")
    assert killed.seen == [0, 20, 40]
    resumed = Counting(made())
    folder = extracted(resumed, network, tmp_path / "cut")
    assert resumed.seen == [60, 80]
    for one, other in zip(contents(whole), contents(folder), strict=True):
        np.testing.assert_array_equal(one, other)
    again = Counting(made())
    assert extracted(again, network, tmp_path / "cut") == folder
    assert again.seen == []


def test_a_file_that_was_cut_short_is_made_again(tmp_path, network):
    folder = extracted(InMemory(made()), network, tmp_path)
    before = contents(folder)
    file = folder / "features-00001-of-00005.npz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match="need .* bytes in features-00001-of-00005"):
        store.Store(folder)
    again = Counting(made())
    assert extracted(again, network, tmp_path) == folder and again.seen == [20]
    for one, other in zip(before, contents(folder), strict=True):
        np.testing.assert_array_equal(one, other)


def test_parts_are_what_all_at_once_are(tmp_path, network):
    found = store.Store(extracted(InMemory(made()), network, tmp_path))
    whole = network.extract(made())
    for field in store.FIELDS:
        np.testing.assert_allclose(found.all(field), getattr(whole, field), rtol=1e-6)
    covariance = found.moments("pool").covariance()
    rows = found.all("pool").astype(np.float64)
    np.testing.assert_allclose(covariance, np.cov(rows, rowvar=False), rtol=1e-10)


@pytest.mark.parametrize("count", [3, 7])
def test_processes_share_the_files_out(tmp_path, network, count):
    alone = store.Store(extracted(InMemory(made()), network, tmp_path / "alone"))
    parts = [Counting(made()) for _ in range(count)]
    for index, images in enumerate(parts):
        folder = extracted(images, network, tmp_path / "many", share=(index, count))
    assert sorted(start for one in parts for start in one.seen) == [0, 20, 40, 60, 80]
    together = store.Store(folder, count)
    np.testing.assert_array_equal(together.all("pool"), alone.all("pool"))
    for field in store.SUMMED:
        one, other = together.moments(field), alone.moments(field)
        assert one.count == other.count == 90
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-12)
        np.testing.assert_allclose(one.covariance(), other.covariance(), rtol=1e-11)


def test_other_images_weights_or_fields_have_another_folder(tmp_path, network):
    others = [
        (InMemory(made()), network, ("pool",)),
        (InMemory(made(seed=1)), network, ("pool",)),
        (InMemory(made()), toy_network.network(seed=1), ("pool",)),
        (InMemory(made()), network, ("pool", "logits")),
    ]
    found = {
        extracted(images, one, tmp_path, fields=fields)
        for images, one, fields in others
    }
    assert len(found) == 4


def test_a_score_in_memory_is_that_of_the_files(tmp_path, network):
    real = Reference.of(made(120, 1), network, cache=tmp_path, spatial=True)
    images = made(brightness=20)
    network = toy_network.network()
    quick = measures.measure(
        NAMES,
        Sample.of_store(store.Store(extracted(InMemory(images), network, tmp_path))),
        real,
    )
    names = [name for name in NAMES if name != "sfid"]
    scored = measures.score(images, network, real, names)
    for name, value in scored.items():
        np.testing.assert_allclose(value, quick[name].value, rtol=1e-5, atol=1e-9)
    darker = measures.score(made(90, 2), network, real, names)
    assert darker["fd"] < scored["fd"] and darker["kd"] < scored["kd"]


def test_the_reference_is_read_once(tmp_path, network, monkeypatch):
    first = Reference.of(made(120, 1), network, cache=tmp_path)
    monkeypatch.setattr(InMemory, "read", None)
    second = Reference.of(made(120, 1), network, cache=tmp_path)
    np.testing.assert_array_equal(first.features, second.features)
    np.testing.assert_array_equal(first.pool.covariance, second.pool.covariance)


def test_some_real_images_are_a_random_choice_of_sorted_ones():
    rows = np.arange(1000.0)[:, None] * np.ones((1, 3))
    reference = Reference(None, features=rows)
    some = reference.some(100)
    assert some is reference.some(100) and len(np.unique(some[:, 0])) == 100
    assert abs(some.mean() - 500) < 120, "four of its deviations"
    np.testing.assert_array_equal(np.sort(reference.some(0), 0), rows)
    np.testing.assert_array_equal(reference.some(10**6), reference.some(0))


def test_statistics_files_come_back_and_are_adms(tmp_path, network):
    real = Reference.of(made(120, 1), network, cache=tmp_path, spatial=True)
    path = tmp_path / "VIRTUAL_made.npz"
    write_statistics(path, real, made(3))
    with np.load(path) as file:
        names = {"mu", "sigma", "mu_s", "sigma_s", "arr_0"}
        assert names <= set(file) and file["sigma"].shape == (5, 5)
    assert is_statistics(path)
    found = read_statistics(path, network)
    np.testing.assert_array_equal(found.pool.mean, real.pool.mean)
    np.testing.assert_array_equal(found.spatial.covariance, real.spatial.covariance)
    assert found.count == 120 and found.features is None
    np.testing.assert_array_equal(statistics_images(path).read(0, 3), made(3))
    with pytest.raises(ValueError, match=r"need mu \[2048\] .* got \[5\]"):
        read_statistics(path, toy_network.network(2048))


def test_files_of_pytorch_fid_have_two_arrays(tmp_path):
    path = tmp_path / "stats.npz"
    np.savez(path, mu=np.zeros(5, np.float32), sigma=np.eye(5, dtype=np.float32))
    found = read_statistics(path, toy_network.network(5))
    assert found.pool.covariance.dtype == np.float64 and found.spatial is None
    assert statistics_images(path) is None and found.count == 0
    np.savez(path, arr_0=made(3))
    assert not is_statistics(path) and not is_statistics(tmp_path)


def test_the_floor_is_what_real_images_reach(tmp_path, network):
    features = np.asarray(network.extract(made(400)).pool)
    count, found = measures.floor(("fd", "kd", "precision", "is"), features, 10**6)
    assert count == 200 and set(found) == {"fd", "kd", "precision"}
    shifted = made(200, 1, brightness=30)
    shifted = measures.measure(
        ("kd",),
        Sample.of_features(np.asarray(network.extract(shifted).pool)),
        Reference(None, features=features),
    )
    assert abs(found["kd"].value) < shifted["kd"].value / 10
    assert found["fd"].value > 0 and found["precision"].value > 0.7
    fewer, less = measures.floor(("fd",), features, 50)
    assert fewer == 50 and less["fd"].value > found["fd"].value


def test_the_spread_of_a_frechet_distance_is_that_of_new_images(network):
    features = [
        np.asarray(network.extract(made(150, seed, 10)).pool) for seed in range(30)
    ]
    fixed = np.asarray(network.extract(made(500, 99)).pool)
    reference = Reference(measures.Gaussian.of(measures.Moments.of(fixed)))
    found = [
        measures.measure(("fd",), Sample.of_features(one), reference, PLAIN, blocks=10)[
            "fd"
        ]
        for one in features
    ]
    spread = np.std([one.value for one in found])
    claimed = np.mean([one.spread for one in found])
    assert 0.5 < claimed / spread < 2


def test_measures_say_what_they_need(network):
    features = np.ones((9, 5), np.float32)
    sample = Sample.of_features(features)
    reference = Reference(measures.Gaussian(np.zeros(5), np.eye(5)))
    for name, line in {
        "kd": "need features of real images",
        "sfid": "need spatial features of both sets",
        "is": "need logits for 'is'",
        "fed": "Did you mean 'fd'",
    }.items():
        with pytest.raises(ValueError, match=line):
            measures.measure((name,), sample, reference)
    for name in ("fid", "kid", "sfid"):
        with pytest.raises(ValueError, match=f"need Inception's weights for '{name}'"):
            measures.score(made(9), network, reference, (name,))
    assert measures.title("fd", network) == "FD-toy"
    assert measures.title("is", network) == "IS-toy"


def test_a_network_without_a_field_is_named(tmp_path, network):
    bare = dataclasses.replace(
        network, apply=lambda p, x: network.apply(p, x)._replace(spatial=None)
    )
    with pytest.raises(ValueError, match="need a network with the features 'spatial'"):
        extracted(InMemory(made()), bare, tmp_path)

"""Latent caches: known answers, posterior samples, stopped runs, damaged files."""

import json
import signal
import subprocess
import sys
import time
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import data
from jaxguide.runtime.npz import Npz

FAST_COMPILE = True
FORMATS = ("npz", "array_record")


def images(count=11, size=8, seed=0):
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return data.Dataset(pixels, np.arange(count, dtype=np.int32) % 3, ("a", "b", "c"))


def cached(folder, source=None, encoder=None, **choices):
    choices = {"shard_size": 4, "batch_size": 3, **choices}
    encoder = encoder or data.space_to_depth(4)
    assert data.write_latents(source or images(), encoder, folder, **choices)
    return data.LatentCache(folder)


def read(source, picked, flip=False, draws=None):
    picked = np.asarray(picked)
    flip = np.broadcast_to(flip, picked.shape)
    draws = np.zeros(len(picked), np.uint64) if draws is None else draws
    return source.read(picked, flip=flip, draws=np.asarray(draws, np.uint64))


def pixels(x0, factor=4):
    """Undoes `space_to_depth`."""
    count, rows, columns, channels = x0.shape
    squares = x0.reshape(count, rows, columns, factor, factor, -1)
    whole = squares.transpose(0, 1, 3, 2, 4, 5)
    return whole.reshape(count, rows * factor, columns * factor, -1)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_exact_encoder_gives_every_image_back(tmp_path, format, dtype):
    source = images()
    cache = cached(tmp_path, source, format=format, dtype=dtype)
    assert len(cache) == 11 and cache.class_names == ("a", "b", "c")
    assert cache.image_shape == (2, 2, 48) and cache.is_latent
    picked = np.array([10, 0, 7, 7, 3, 4])
    flip = np.array([True, False, True, False, False, True])
    x0, label = read(cache, picked, flip, draws=[1, 2, 3, 4, 5, 6])
    wanted, wanted_label = read(source, picked, flip)
    assert x0.dtype == np.float32 and label.dtype == np.int32
    np.testing.assert_array_equal(label, wanted_label)
    np.testing.assert_array_equal(data.to_uint8(pixels(x0)), data.to_uint8(wanted))
    if dtype == "float32":
        np.testing.assert_array_equal(pixels(x0), wanted)


def test_the_stand_in_has_the_factor_of_the_autoencoder():
    moments = data.space_to_depth().encode(jnp.zeros((1, 256, 256, 3)))
    assert moments.shape == (1, 32, 32, 2 * 192)
    with pytest.raises(ValueError, match="space_to_depth: need edges that 8 divides"):
        data.space_to_depth().encode(jnp.zeros((1, 12, 8, 3)))


def lopsided(images):
    """Means that tell left from right, log variance 2 log 0.5 or 2 log 3."""
    mean = images[:, ::4, ::4, :1] + jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)
    deviation = jnp.full_like(mean, 0.5).at[:, 0].set(3)
    return jnp.concatenate([mean, 2 * jnp.log(deviation)], axis=-1)


@pytest.mark.parametrize("format", FORMATS)
def test_examples_are_posterior_samples_scaled_and_shifted(tmp_path, format):
    source = images(count=2)
    encoder = data.Encoder("lopsided", lopsided, scale=0.25, shift=0.5)
    cache = cached(tmp_path, source, encoder, format=format, dtype="float32")
    draws = data.draws(0, 4000, seed=0)
    for flip in (False, True):
        samples, _ = read(cache, np.ones(4000, np.int64), flip, draws)
        image = read(source, [1], flip)[0][0]
        mean = image[::4, ::4, :1] + np.arange(2)[:, None]
        found = samples.mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(found, (mean - 0.5) * 0.25, atol=0.05)
        deviation = 0.25 * np.array([3, 3, 0.5, 0.5]).reshape(2, 2, 1)
        np.testing.assert_allclose(samples.std(axis=0), deviation, rtol=0.06)
    normal = (samples - samples.mean(axis=0)) / samples.std(axis=0)
    np.testing.assert_allclose((normal**4).mean(), 3, atol=0.15)
    correlation = np.corrcoef(normal.reshape(4000, 4).T) - np.eye(4)
    np.testing.assert_allclose(correlation, 0, atol=0.07)


def test_noise_is_fresh_in_every_epoch_and_the_same_in_a_resumed_run(tmp_path):
    encoder = data.Encoder("lopsided", lopsided)
    cache = cached(tmp_path, images(count=5), encoder)

    def seen(step, **share):
        return data.batch(cache, step, batch_size=6, seed=1, flip=True, **share)[0]

    unbroken = np.concatenate([seen(step) for step in range(5)])
    assert len(np.unique(unbroken.reshape(30, -1), axis=0)) == 30
    again = data.LatentCache(tmp_path)
    resumed, _ = data.batch(again, 3, batch_size=6, seed=1, flip=True)
    np.testing.assert_array_equal(resumed, unbroken[18:24])
    shares = [seen(3, share=(index, 3)) for index in range(3)]
    np.testing.assert_array_equal(np.concatenate(shares), resumed)


def test_mirror_images_have_moments_of_their_own(tmp_path):
    def corner(images):  # sees the left columns alone: not equivariant
        mean = images[:, ::4, :2]
        return jnp.concatenate([mean, jnp.full_like(mean, -jnp.inf)], axis=-1)

    source = images(count=4)
    encoder = data.Encoder("corner", corner)
    cache = cached(tmp_path / "both", source, encoder, dtype="float32")
    mirrored, _ = read(cache, [2], flip=True)
    wanted, _ = read(source, [2], flip=True)
    np.testing.assert_array_equal(mirrored, wanted[:, ::4, :2])
    single = cached(tmp_path / "one", source, encoder, mirrored=False)
    assert read(single, [2])[0].shape == (1, 2, 2, 3)
    with pytest.raises(ValueError, match="need encoded mirror images, got flip=True"):
        read(single, [1, 2], flip=np.array([False, True]))


class Stopped(Exception):
    pass


class Counted:
    """A source that counts what is read, and breaks after `left` images."""

    def __init__(self, source, left=10**6):
        self._source, self._left, self.picked = source, left, []

    def __getattr__(self, name):
        return getattr(self._source, name)

    def __len__(self):
        return len(self._source)

    def read(self, picked, **keywords):
        self.picked += picked.tolist()
        if len(self.picked) > self._left:
            raise Stopped
        return self._source.read(picked, **keywords)


def shards(folder):
    return sorted(path.name for path in folder.glob("moments-*.npz"))


def test_a_stopped_run_carries_on_at_the_first_missing_file(tmp_path):
    whole = cached(tmp_path / "whole")
    folder, encoder = tmp_path / "stopped", data.space_to_depth(4)
    choices = {"shard_size": 4, "batch_size": 2}
    with pytest.raises(Stopped):
        data.write_latents(Counted(images(), left=6), encoder, folder, **choices)
    assert shards(folder) == ["moments-00000-of-00003.npz"]
    with pytest.raises(ValueError, match="need a finished folder with manifest.json"):
        data.LatentCache(folder)
    rest = Counted(images())
    assert data.write_latents(rest, encoder, folder, **choices)
    assert sorted(rest.picked) == list(range(4, 11))
    for name in shards(folder):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    finished = Counted(images())
    assert data.write_latents(finished, encoder, folder, **choices)
    assert finished.picked == [] and len(whole) == len(data.LatentCache(folder))


ENCODE = """
import sys
from jaxguide import data
source, encoder = data.npz(sys.argv[1]), data.space_to_depth(4)
data.write_latents(source, encoder, sys.argv[2], batch_size=8, shard_size=4)
"""


@pytest.mark.exhaustive
def test_a_run_killed_again_and_again_ends_with_the_same_files(tmp_path):
    source = images(count=400, size=16)
    np.savez(tmp_path / "set.npz", x=source.images, y=source.labels)

    def start(folder):
        words = [sys.executable, "-c", ENCODE, str(tmp_path / "set.npz"), str(folder)]
        return subprocess.Popen(words, stderr=subprocess.DEVNULL)

    def files(folder):
        return {path.name: path.read_bytes() for path in folder.glob("moments-*")}

    killed = tmp_path / "killed"
    for enough in (1, 40):
        run = start(killed)
        while len(list(killed.glob("moments-*.npz"))) < enough:
            assert run.poll() is None
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        assert not (killed / "manifest.json").exists()
    assert start(killed).wait() == 0
    data.LatentCache(killed).verify()
    data.write_latents(
        data.npz(tmp_path / "set.npz"),
        data.space_to_depth(4),
        tmp_path / "whole",
        shard_size=4,
    )
    assert len(files(killed)) == 200
    assert files(killed) == files(tmp_path / "whole")


@pytest.mark.parametrize("harm", ["cut", "changed", "unnoted", "half_written"])
def test_a_damaged_file_is_redone_alone(tmp_path, harm):
    cached(tmp_path)
    path = tmp_path / shards(tmp_path)[1]
    content = path.read_bytes()
    if harm == "cut":
        path.write_bytes(content[:-100])
    elif harm == "changed":
        path.write_bytes(content[:-300] + b"\7" + content[-299:])
    elif harm == "unnoted":
        path.with_suffix(".json").unlink()
    else:
        path.rename(path.with_name(f".{path.name}.part"))
    source = Counted(images())
    choices = {"shard_size": 4, "batch_size": 3}
    assert data.write_latents(source, data.space_to_depth(4), tmp_path, **choices)
    assert source.picked == [4, 5, 6, 7] and path.read_bytes() == content
    data.LatentCache(tmp_path).verify()


def test_hosts_write_files_of_their_own_and_the_last_ends_the_folder(tmp_path):
    whole = cached(tmp_path / "whole")
    folder, seen = tmp_path / "hosts", []
    for index in (2, 0, 1):
        source = Counted(images())
        done = data.write_latents(
            source,
            data.space_to_depth(4),
            folder,
            shard_size=2,
            share=(index, 3),
        )
        assert done == (index == 1)
        seen += source.picked
    assert sorted(seen) == list(range(11))
    picked = np.arange(11)
    found, wanted = read(data.LatentCache(folder), picked), read(whole, picked)
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])


def test_npz_files_are_mapped_not_loaded(tmp_path):
    cached(tmp_path)
    path = tmp_path / shards(tmp_path)[2]
    mapped = Npz(path).map("moments")
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    with np.load(path) as archive:
        np.testing.assert_array_equal(mapped, archive["moments"])
        np.testing.assert_array_equal(Npz(path).map("labels"), archive["labels"])
        assert archive["moments"].shape == (3, 2, 2, 2, 96)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    np.savez_compressed(tmp_path / "other.npz", moments=np.zeros(9))
    with pytest.raises(ValueError, match="need an array that is not compressed"):
        Npz(tmp_path / "other.npz").map("moments")


def test_the_manifest_says_what_the_folder_holds(tmp_path):
    cached(tmp_path, note={"data": "made here"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["encoder"] == "space_to_depth" and manifest["count"] == 11
    assert manifest["shape"] == [2, 2, 96] and manifest["dtype"] == "float16"
    assert manifest["scale"] == 1 and manifest["shift"] == 0
    assert manifest["class_names"] == ["a", "b", "c"]
    assert manifest["note"] == {"data": "made here"}
    assert [shard["count"] for shard in manifest["shards"]] == [4, 4, 3]
    assert all(shard["bytes"] and shard["crc32"] for shard in manifest["shards"])


def test_broken_folders_are_named_in_one_line(tmp_path):
    cached(tmp_path)
    path = tmp_path / shards(tmp_path)[1]
    content = path.read_bytes()

    def refused(match, **keywords):
        with pytest.raises(ValueError, match=match) as caught:
            data.LatentCache(tmp_path, **keywords).verify()
        assert "\n" not in str(caught.value)

    refused("need latents of encoder='vae', got encoder='space_to", encoder="vae")
    path.write_bytes(content[:-1])
    refused(rf"need {len(content)} bytes in moments-00001.*again: only damaged")
    path.write_bytes(content[:-300] + b"\7" + content[-299:])
    refused("need crc32 .* in moments-00001")
    path.unlink()
    refused("got bytes=0")
    (tmp_path / "manifest.json").write_text("{")
    refused("need a manifest of kind")
    (tmp_path / "manifest.json").unlink()
    refused("need a finished folder with manifest.json")


def test_a_folder_is_not_filled_from_two_plans(tmp_path):
    cached(tmp_path)

    def refused(match, source=None, encoder=None, **choices):
        with pytest.raises(ValueError, match=match) as caught:
            cached(tmp_path, source, encoder, **choices)
        assert "\n" not in str(caught.value)

    refused(
        "need the encoder .* got encoder='other'",
        encoder=data.Encoder("other", data.space_to_depth(4).encode),
    )
    other = data.Encoder("space_to_depth", lambda x: -data.space_to_depth(4).encode(x))
    refused("need the encoder_digest that the folder was begun with", encoder=other)
    source = images()
    source.images[5] //= 2
    refused("need the images that the folder was begun with", source=source)
    refused("need the dtype .*'float32' instead of 'float16'", dtype="float32")
    refused("need the count .* got count=4 instead of 11", source=images(4))
    refused("need the note", note={"split": "test"})
    refused("need format in", format="zip")
    refused("need dtype in", dtype="int8")
    refused("need shard_size >= 1", shard_size=0)
    refused(r"need 0 <= index < count, got share=\(3, 3\)", share=(3, 3))


def test_what_is_no_encoder_is_refused(tmp_path):
    def refused(match, encode, source=None):
        with pytest.raises(ValueError, match=match) as caught:
            cached(tmp_path, source, data.Encoder("mine", encode))
        assert "\n" not in str(caught.value)

    refused(r"need an encoder to moments .* shape=\[1\]", lambda x: x[:, 0, 0, 0])
    refused(r"got shape=\[1, 8, 8, 3\] from mine", lambda x: x)
    infinite = lambda x: jnp.concatenate([x / 0, x], axis=-1)  # noqa: E731
    refused("need finite means", infinite)
    large = lambda x: jnp.concatenate([1e6 + x, x], axis=-1)  # noqa: E731
    refused("got nan or inf in dtype='float16'", large)
    made = data.made_latents(count=3, shape=(2, 2, 2), classes=2)
    refused("got is_latent=True", lambda x: x, made)


def test_made_latents_have_a_mean_for_every_class():
    source = data.made_latents(count=12, shape=(4, 4, 2), classes=3, seed=5)
    assert len(source) == 12 and source.is_latent and source.num_classes == 3
    picked = np.tile(np.arange(3), 4000)
    x0, label = read(source, picked, draws=data.draws(0, 12000, seed=0))
    np.testing.assert_array_equal(label, picked)
    np.testing.assert_allclose(x0.var(), 1, atol=0.15)
    for one in range(3):
        mean = x0[label == one].mean(axis=0)
        np.testing.assert_allclose(mean, source.means[one], atol=0.05)
        np.testing.assert_allclose(x0[label == one].std(axis=0), 0.5**0.5, rtol=0.06)
    mirrored, _ = read(source, picked[:600], True, data.draws(0, 600, seed=1))
    flipped = source.means[0][:, ::-1]
    np.testing.assert_allclose(mirrored[::3].mean(axis=0), flipped, atol=0.25)
    with pytest.raises(ValueError, match="need count, classes and shape >= 1"):
        data.made_latents(count=0)

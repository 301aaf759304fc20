"""The same images, wherever they lie."""

import numpy as np
import pytest
from PIL import Image

from jaxguide import data
from jaxguide.evaluate import images
from jaxguide.evaluate.compressed import Compressed
from jaxguide.runtime import shards
from jaxguide.runtime.npz import Npz
from jaxguide.sample import sets


def pictures(count=9, channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 6, 4, channels), dtype=np.uint8)


def in_npz(folder, save=np.savez, name="arr_0"):
    save(folder / "images.npz", **{name: pictures(), "arr_1": np.arange(9)})
    return folder / "images.npz"


def in_folder(folder, ending="png"):
    (folder / "b").mkdir()
    for number, picture in enumerate(pictures()):
        place = folder / "b" if number > 4 else folder
        Image.fromarray(picture).save(place / f"{'ab'[number > 4]}-{number}.{ending}")
    return folder


def in_set(folder):
    """What `jaxguide.sample` writes."""
    files = shards.Files(sets.KIND, 9, 4)
    plan = {"count": 9, "class_names": ["all"]}
    shards.write_plan(folder, sets.KIND, plan)
    for shard in range(files.number):
        span = files.span(shard)
        np.savez(folder / files.file(shard), images=pictures()[span], labels=span)
        shards.write_facts(folder, files, shard, plan)
    assert shards.write_manifest(folder, files, plan)
    return folder


PLACES = {
    "npz": in_npz,
    "compressed": lambda folder: in_npz(folder, np.savez_compressed),
    "x": lambda folder: in_npz(folder, name="x"),
    "folder": in_folder,
    "set": in_set,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_gives_the_same_images(place, tmp_path):
    path = PLACES[place](tmp_path)
    found = images.open_images(path)
    assert len(found) == 9 and found.shape == (6, 4, 3)
    for start, stop in ((0, 9), (2, 6), (3, 4), (1, 2), (8, 9)):
        part = found.read(start, stop)
        assert part.dtype == np.uint8
        np.testing.assert_array_equal(part, pictures()[start:stop])
    assert images.open_images(path).identity == found.identity


def test_other_images_have_another_identity(tmp_path):
    found = [images.open_images(in_npz(tmp_path)).identity]
    np.savez(tmp_path / "images.npz", arr_0=255 - pictures())
    found.append(images.open_images(tmp_path / "images.npz").identity)
    found += [images.InMemory(some).identity for some in (pictures(), pictures(8))]
    assert len(set(found)) == 4


def test_compressed_rows_are_unpacked_as_they_are_read(tmp_path, monkeypatch):
    rows = Compressed(Npz(in_npz(tmp_path, np.savez_compressed)), "arr_0")
    read = []
    ask = rows._rows
    monkeypatch.setattr(rows, "_rows", lambda n: read.append(n) or ask(n))
    for start in (0, 3, 6):
        np.testing.assert_array_equal(
            rows[start : start + 3], pictures()[start : start + 3]
        )
    assert read == [3, 3, 3], "nothing is read twice"


def test_data_sources_are_read_as_training_reads_them():
    source = data.Dataset(pictures(), np.zeros(9, np.int32), ("all",))
    found = images.InSource(source, "made")
    np.testing.assert_array_equal(found.read(2, 7), pictures()[2:7])
    assert found.shape == (6, 4, 3) and len(found) == 9
    other = data.Dataset(255 - pictures(), np.zeros(9, np.int32), ("all",))
    assert images.InSource(other, "made").identity != found.identity


def test_the_first_images_of_a_set():
    some = images.Some(images.InMemory(pictures()), 4)
    assert len(some) == 4 and some.shape == (6, 4, 3)
    np.testing.assert_array_equal(some.read(1, 4), pictures()[1:4])
    assert len(images.Some(some, 99)) == 4


def test_what_holds_no_images_is_named(tmp_path):
    with pytest.raises(ValueError, match="need an .npz or a folder .* got path="):
        images.open_images(tmp_path / "nothing")
    with pytest.raises(ValueError, match="need pictures in the folder"):
        images.open_images(tmp_path)
    np.savez(tmp_path / "a.npz", y=pictures())
    with pytest.raises(ValueError, match=r"need one of the arrays .* got \['y'\]"):
        images.open_images(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", arr_0=pictures() / 255)
    with pytest.raises(ValueError, match=r"need uint8 \[N, H, W, C\] .* got float64"):
        images.open_images(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"need images uint8 \[N, H, W, C\]"):
        images.InMemory(pictures()[0])


def test_pictures_of_other_sizes_and_broken_ones_are_named(tmp_path):
    in_folder(tmp_path)
    Image.new("RGB", (5, 5)).save(tmp_path / "z.png")
    with pytest.raises(ValueError, match=r"need pictures of one size, got \[5, 5, 3\]"):
        images.open_images(tmp_path).read(0, 10)
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="need a readable picture, got file="):
        images.open_images(tmp_path)

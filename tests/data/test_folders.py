"""Folders of pictures: what is a class, what a picture, and what is passed over."""

import os

import pytest
from PIL import Image

from jaxguide import data
from jaxguide.errors import InputError
from jaxguide.evaluate import images


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    return tmp_path


def add(place, *names):
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(place / name)


def opened(folder):
    return data.image_folder(folder, size=8)


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints",
        "__pycache__",
        "__MACOSX",
        "@eaDir",
        "lost+found",
        "$RECYCLE.BIN",
    ],
)
def test_folders_of_systems_are_no_classes(folder, name, capfd):
    add(folder / name, "1.png")
    add(folder / "dog" / name, "1.png")
    assert opened(folder).class_names == ("cat", "dog") and len(opened(folder)) == 2
    assert len(images.open_images(folder)) == 2
    assert not capfd.readouterr().err


def test_hidden_files_are_no_pictures(folder):
    (folder / "cat" / "._1.png").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").touch()
    assert len(opened(folder)) == len(images.open_images(folder)) == 2


def test_an_empty_class_is_refused_by_name(folder):
    (folder / "bird").mkdir()
    (folder / "bird" / "notes.txt").touch()
    with pytest.raises(InputError, match="in every class folder, got none in 'bird'"):
        opened(folder)


def test_classes_one_level_further_down_are_refused(tmp_path):
    for split in ("train", "val"):
        add(tmp_path / split / "cat", "1.png", "2.png")
    with pytest.raises(InputError, match="with 4 pictures in folders further down"):
        opened(tmp_path)


def test_all_that_pillow_reads_is_read(folder):
    names = ["2.gif", "3.tif", "4.TIFF", "5.ppm", "6.bmp", "7.webp", "8.JPEG"]
    add(folder / "cat", *names)
    assert len(opened(folder)) == len(images.open_images(folder)) == 9


def test_what_is_passed_over_is_counted_in_one_line(folder, capfd):
    add(folder / "cat" / "more", "1.png", "2.png")
    add(folder, "3.png")
    for name in ("a.heic", "b.heic", "README"):
        (folder / "dog" / name).touch()
    assert len(opened(folder)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    for part in (
        "2 pictures in folders further down",
        "1 pictures beside the folders",
        "2 .heic files",
        "1 files without an ending",
    ):
        assert part in line
    assert len(images.open_images(folder)) == 5
    assert "passed over" in capfd.readouterr().err


def test_links_are_followed_once_and_what_is_no_file_is_passed_over(folder, capfd):
    add(folder / "elsewhere", "2.png")
    (folder / "elsewhere").rename(folder.parent / f"{folder.name}-elsewhere")
    (folder / "bird").symlink_to(folder.parent / f"{folder.name}-elsewhere")
    (folder / "cat" / "round").symlink_to(folder)
    (folder / "cat" / "lost.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "dog" / "pipe.png")
    assert opened(folder).class_names == ("bird", "cat", "dog")
    assert len(opened(folder)) == len(images.open_images(folder)) == 3
    assert "2 links that lead nowhere, or pipes" in capfd.readouterr().err


def test_a_strip_that_would_fill_the_memory_is_refused(folder):
    Image.new("L", (50_000, 1)).save(folder / "cat" / "1.png")
    source = data.image_folder(folder, size=256)
    with pytest.raises(InputError, match="need a picture of at most .*cat/1.png"):
        data.in_memory(source)

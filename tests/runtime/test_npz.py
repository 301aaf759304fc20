"""The reader of `.npz` files: what numpy reads is read the same, damage is named."""

import io
import struct
import zipfile

import numpy as np
import pytest

from jaxguide.errors import InputError
from jaxguide.runtime.npz import Npz, read_npz

ROWS = np.random.default_rng(0).integers(0, 256, (7, 4, 3), np.uint8)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "array",
    [
        ROWS,
        np.asfortranarray(ROWS),
        ROWS.astype(">f8"),
        np.array(["a", "bcd"]),
        np.float32(3),
        np.zeros((0, 3)),
        np.zeros(3, "U0"),
    ],
    ids=["C", "F", "big_endian", "text", "scalar", "empty", "empty_text"],
)
def test_what_numpy_wrote_is_read_as_numpy_reads_it(tmp_path, save, array):
    save(tmp_path / "a.npz", x=array, y=1)
    with np.load(tmp_path / "a.npz") as wanted:
        found = read_npz(tmp_path / "a.npz", ("x",))["x"]
        np.testing.assert_array_equal(found, wanted["x"])
        assert found.dtype == wanted["x"].dtype
        if save is np.savez:
            mapped = Npz(tmp_path / "a.npz").map("x")
            np.testing.assert_array_equal(mapped, wanted["x"])


def member(content, name="x.npy", **named):
    """An archive with one member of any content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content, **named)
    return buffer.getvalue()


def npy(array, shape=None):
    """An array as `.npy`, with a shape of one's own in its header."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(array.dtype)
    facts = dict(descr=descr, fortran_order=False, shape=shape or array.shape)
    np.lib.format.write_array_header_1_0(buffer, facts)
    return buffer.getvalue() + array.tobytes()


def saved(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def alone(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


WHOLE = saved(x=ROWS)
BODY = WHOLE.index(ROWS.tobytes())
DEEP = b"\x93NUMPY\x01\0" + struct.pack("<H", 9000) + b"(" * 9000
DAMAGED = {
    "empty": (b"", "need a whole .npz file"),
    "text": (b"no archive", "File is not a zip file"),
    "truncated": (WHOLE[:-20], "need a whole .npz file"),
    "npy": (alone(ROWS), "one array of np.save, not an .npz"),
    "none": (member(b"", "readme.txt"), "need the fields"),
    "other": (saved(y=ROWS), r"need the fields \['x'\], got fields=\['y'\]"),
    "objects": (saved(x=np.array([{}, None])), "got Python objects"),
    "not_npy": (member(b"text"), "in the array 'x'"),
    "deep": (member(DEEP), "in the array 'x'"),
    "crc": (flipped(WHOLE, BODY + 5), "Bad CRC-32"),
    "huge": (member(npy(ROWS, (36 << 30,))), "need 38654705664 bytes in the array"),
    "negative": (member(npy(ROWS, (-84,))), "need -84 bytes in the array"),
    "short": (member(npy(ROWS, (7, 4))), "need 28 bytes .* got 84 bytes"),
    "longer": (member(npy(ROWS) + b"more"), "need 84 bytes .* got 88 bytes"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_one_line_that_names_the_file(tmp_path, kind):
    content, words = DAMAGED[kind]
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_npz(tmp_path / "a.npz", ("x",), "tool")
    line = str(caught.value)
    assert "\n" not in line and "a.npz" in line and line.startswith("tool: need")


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_before_that(tmp_path):
    path, size = tmp_path / "bomb.npz", (1 << 30) + 1
    header = npy(np.zeros(0, np.uint8), (size,))
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as inside,
    ):
        inside.write(header)
    # The directory says what the header says; the content is not looked at.
    content = path.read_bytes()
    place = content.index(b"PK\x01\x02") + 24
    claimed = struct.pack("<I", size + len(header))
    path.write_bytes(content[:place] + claimed + content[place + 4 :])
    with pytest.raises(InputError, match="need at most 200 times what is stored"):
        Npz(path).read("x")


def test_folders_and_missing_files_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.npz"):
        with pytest.raises(InputError, match="need an existing .npz file, got path="):
            Npz(path)


def test_a_map_has_its_checksum_compared_when_asked(tmp_path):
    rows = np.ones(20_000, np.uint8)  # longer than what is read with the header
    content = saved(x=rows)
    place = content.index(rows.tobytes()) + 19_000
    (tmp_path / "a.npz").write_bytes(flipped(content, place))
    file = Npz(tmp_path / "a.npz")
    assert (file.map("x") != rows).sum() == 1
    with pytest.raises(InputError, match="Bad CRC-32"):
        file.check("x")

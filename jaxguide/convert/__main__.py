"""Others' weights into ours, and back: `python -m jaxguide.convert --from dit IN OUT`.

Prints what was read, what was assumed, and what was written.
"""

import argparse
import ast
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxguide.convert.folders import check_there
from jaxguide.convert.formats import FORMATS, Format, Opened
from jaxguide.convert.tensors import Tensors, open_tensors, table
from jaxguide.errors import InputError, UnwritableError
from jaxguide.models import looks
from jaxguide.models.safetensors_file import check_regular
from jaxguide.runtime import flags
from jaxguide.runtime.calls import lookup
from jaxguide.runtime.devices import DTYPES

# Names that are no options of a reader.
OWN = ("format", "path", "out", "key", "dtype", "opened")
PROGRAM = "python -m jaxguide.convert"


def import_file(
    format: str,
    path: str | Path,
    out: str | Path,
    *,
    key: str = "",
    dtype: str = "float32",
    **options: Any,
) -> str:
    """Writes the file of ours that a file of theirs becomes.

    Args:
        format: one of `formats.FORMATS`.
        path: theirs: a file or a folder.
        out: ours, ending in `.safetensors`.
        key: of a training checkpoint, "ema" or "model"; "" takes the average.
        dtype: of the numbers in the file: float32, float16 or bfloat16.
        **options: of the format's reader, as in `published.ReadOptions`; and `prefix`,
            as for `open_tensors`.

    Returns:
        A table of what was read and what was assumed, for people.

    Raises:
        InputError: if a name is unknown, the file is of another layout or damaged, or
            `out` is that file.
        NonFiniteError: if a weight is NaN or infinite, or too large for `dtype`.
        UnwritableError: if `out` cannot be written.
    """
    chosen, path, out = lookup("convert", format, FORMATS), Path(path), Path(out)
    if out.suffix != ".safetensors" or dtype not in DTYPES:
        raise InputError(
            f"convert: need out ending in .safetensors and dtype in {DTYPES}, got "
            f"out={str(out)!r}, dtype={dtype!r}."
        )
    check_there(path)
    _check_out(path, out)
    start = time.perf_counter()
    opened = _opened(chosen, path, key, _text("prefix", options.pop("prefix", "")))
    if isinstance(opened, Tensors):
        _check_looks(format, opened)
    read = [table(opened), ""] if isinstance(opened, Tensors) else []
    ours = chosen.read(opened, dtype, options)
    chosen.save(out, ours, dtype)
    seconds = time.perf_counter() - start
    return "\n".join([*read, chosen.about, chosen.describe(ours), _wrote(out, seconds)])


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"convert: need a text for {name}, got {name}={value!r}. Write net., say."
        )
    return value


def _check_out(path: Path, out: Path) -> None:
    """Refuses an `out` that is what is read, or that cannot be written, at once.

    Raises:
        InputError: if it is the file that is read.
        UnwritableError: if a folder or a file is in the way, or the rights are missing.
    """
    try:
        same = out.exists() and path.exists() and out.samefile(path)
        folder = next(above for above in out.absolute().parents if above.exists())
        inside = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise UnwritableError(
            f"convert: need an out that can be written, got out={str(out)!r}: "
            f"{error.strerror}. Use another name."
        ) from error
    if same:
        raise InputError(
            f"convert: need another file than is read, got out={str(out)!r}. It would "
            "be lost."
        )
    if not inside or (out.is_dir() and out.suffix):
        way = "a folder is in the way" if inside else f"{str(folder)!r} is no folder "
        way = way if inside or not folder.is_dir() else f"no right to write {folder}"
        raise UnwritableError(
            f"convert: need a folder that can be written, got out={str(out)!r}: "
            f"{way.strip()}. Use another name."
        )


def _check_looks(format: str, opened: Tensors) -> None:
    """Raises InputError if the file looks like another format, or is ours already."""
    ours = next((what for name, what in looks.OURS.items() if name in opened.said), "")
    if ours:
        raise InputError(
            f"convert: need a file of format {format!r}, got "
            f"path={str(opened.path)!r}, which is converted already: it holds {ours}."
        )
    formats = looks.published_as(opened.names)
    if formats and format not in formats:
        raise InputError(
            f"convert: need a file of format {format!r}, got "
            f"path={str(opened.path)!r}, which looks like "
            f"{' or '.join(formats)}. Write --from {formats[0]}."
        )


def export_file(format: str, path: str | Path, out: str | Path) -> str:
    """Writes the file of theirs that a file of ours becomes; the way back.

    Args:
        format: one of `formats.FORMATS`.
        path: ours.
        out: theirs: `.safetensors`, `.pt`, or a folder where the format is one.

    Returns:
        A line of what was written.

    Raises:
        InputError: if the name is unknown, there is no way back, or the weights are of
            another convention than the format.
        OSError: if `out` cannot be written.
    """
    chosen, path, out = lookup("convert", format, FORMATS), Path(path), Path(out)
    if chosen.export is None:
        known = sorted(name for name, other in FORMATS.items() if other.export)
        raise InputError(
            f"convert: need a format that is written, one of {known}, got "
            f"format={format!r}."
        )
    check_regular("convert", path)
    _check_out(path, out)
    start = time.perf_counter()
    chosen.export(out, chosen.load(path))
    return _wrote(out, time.perf_counter() - start)


def _opened(format: Format, path: Path, key: str, prefix: str) -> Opened:
    """What the file holds; a folder of several halves is left to its reader."""
    if path.is_dir() and not format.component:
        if key or prefix:
            raise InputError(
                f"convert: need a file for key and prefix, got path={str(path)!r}, "
                f"key={key!r}, prefix={prefix!r}. Name the file."
            )
        return path
    return open_tensors(path, key=key, prefix=prefix, component=format.component)


def _wrote(out: Path, seconds: float) -> str:
    files = [out] if out.is_file() else sorted(out.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    return f"wrote     {out}, {size / 1e6:,.1f} MB in {seconds:.1f} s"


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, FORMATS))
    known = "\n".join(f"  {n:<{width}}  {f.about}" for n, f in FORMATS.items())
    parser = flags.Parser(
        prog=PROGRAM,
        description="Others' weights into a file of ours, or back.",
        epilog=f"formats:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--from", dest="source", metavar="FORMAT", help="theirs to ours")
    way.add_argument("--to", dest="target", metavar="FORMAT", help="ours to theirs")
    parser.add_argument("file", metavar="FILE", help="what is read: a file or folder")
    parser.add_argument("out", metavar="OUT", help="what is written")
    parser.add_argument(
        "--key", default="", help="of a training checkpoint: ema, model"
    )
    parser.add_argument("--dtype", default="float32", help=f"{', '.join(DTYPES)}")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the reader, such as heads=8 or noise_path=gvp, or prefix=net. for "
        "what stands before all names; may be repeated",
    )
    return parser


def _option(text: str) -> tuple[str, Any]:
    """Name and value of "name=value"; a value that is no literal is text."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals or name in OWN:
        raise InputError(
            f"convert: need --option NAME=VALUE of the reader, got {text!r}. Write "
            "--option heads=8; key and dtype have flags of their own."
        )
    if name == "prefix":  # "0." is a number otherwise
        return name, value
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return name, value


def _options(texts: Sequence[str]) -> dict[str, Any]:
    """Options by name; none is given twice."""
    pairs = [_option(text) for text in texts]
    options = dict(pairs)
    if len(options) < len(pairs):
        raise InputError(
            f"convert: need every option once, got {list(texts)!r}. Leave one out."
        )
    return options


def _check_unused(chosen: argparse.Namespace) -> None:
    """Raises InputError for flags that only reading theirs has."""
    unused = {
        "--key": chosen.key,
        "--option": chosen.option,
        "--dtype": "" if chosen.dtype == "float32" else chosen.dtype,
    }
    given = [name for name, value in unused.items() if value]
    if given:
        raise InputError(
            f"convert: need --from for {', '.join(given)}, got --to {chosen.target}. "
            "Theirs is written whole, as float32: leave it out."
        )


def run(words: Sequence[str] | None = None) -> None:
    """Converts what the words of a command line say, and prints what was done."""
    chosen = _parser().parse_args(words)
    if chosen.target:
        _check_unused(chosen)
        print(export_file(chosen.target, chosen.file, chosen.out))
        return
    options = _options(chosen.option)
    named = {**options, "key": chosen.key, "dtype": chosen.dtype}
    print(import_file(chosen.source, chosen.file, chosen.out, **named))


def main() -> None:
    """The command line."""
    with flags.command():
        run()


if __name__ == "__main__":
    main()

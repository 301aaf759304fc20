"""Others' weights into ours, and back: `python -m jaxguide.convert --from dit IN OUT`.

Prints what was read, what was assumed, and what was written.
"""

import argparse
import ast
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxguide.convert.formats import FORMATS, Format, Opened
from jaxguide.convert.tensors import Tensors, open_tensors, table
from jaxguide.errors import InputError
from jaxguide.models.container import DTYPES
from jaxguide.runtime import flags
from jaxguide.runtime.calls import lookup

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
        **options: of the format's reader, as in `published.ReadOptions`.

    Returns:
        A table of what was read and what was assumed, for people.

    Raises:
        InputError: if a name is unknown, or the file is of another layout.
        OSError: if `out` cannot be written.
    """
    chosen, out = lookup("convert", format, FORMATS), Path(out)
    if out.suffix != ".safetensors" or dtype not in DTYPES:
        raise InputError(
            f"convert: need out ending in .safetensors and dtype in {DTYPES}, got "
            f"out={str(out)!r}, dtype={dtype!r}."
        )
    start = time.perf_counter()
    opened = _opened(chosen, Path(path), key)
    read = [table(opened), ""] if isinstance(opened, Tensors) else []
    ours = chosen.read(opened, dtype, options)
    chosen.save(out, ours, dtype)
    seconds = time.perf_counter() - start
    return "\n".join([*read, chosen.about, chosen.describe(ours), _wrote(out, seconds)])


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
    chosen, out = lookup("convert", format, FORMATS), Path(out)
    if chosen.export is None:
        known = sorted(name for name, other in FORMATS.items() if other.export)
        raise InputError(
            f"convert: need a format that is written, one of {known}, got "
            f"format={format!r}."
        )
    start = time.perf_counter()
    chosen.export(out, chosen.load(Path(path)))
    return _wrote(out, time.perf_counter() - start)


def _opened(format: Format, path: Path, key: str) -> Opened:
    """What the file holds; a folder of several halves is left to its reader."""
    if path.is_dir() and not format.component:
        return path
    return open_tensors(path, key=key, component=format.component)


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
        help="of the reader, such as heads=8 or noise_path=gvp; may be repeated",
    )
    return parser


def _option(text: str) -> tuple[str, Any]:
    """Name and value of "name=value"; a value that is no literal is text."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals or name in ("format", "path", "out"):
        raise InputError(
            f"convert: need --option NAME=VALUE, got {text!r}. Write --option heads=8."
        )
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def run(words: Sequence[str] | None = None) -> None:
    """Converts what the words of a command line say, and prints what was done."""
    chosen = _parser().parse_args(words)
    if chosen.target:
        print(export_file(chosen.target, chosen.file, chosen.out))
        return
    options = dict(map(_option, chosen.option))
    named = {**options, "key": chosen.key, "dtype": chosen.dtype}
    print(import_file(chosen.source, chosen.file, chosen.out, **named))


def main() -> None:
    """The command line."""
    with flags.one_line():
        run()


if __name__ == "__main__":
    main()

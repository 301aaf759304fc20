"""The command line: `python -m jaxguide.experiments NAME`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxguide import experiments
from jaxguide.experiments.report import Setting
from jaxguide.runtime import flags

PROGRAM = "python -m jaxguide.experiments"


def _parser() -> argparse.ArgumentParser:
    parser = flags.Parser(
        prog=PROGRAM,
        description="One experiment of a paper: its claims beside what is measured.",
        epilog=f"experiments:\n{experiments.listing()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", help="of the experiment; none lists them")
    parser.add_argument(
        "--folder", default="", help="for what is written (outputs/experiments/NAME)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of data, training, noise")
    parser.add_argument(
        "--tiny", action="store_true", help="seconds long; its numbers mean nothing"
    )
    parser.add_argument("--data", default="", help="images of your own, for s2_cifar")
    parser.add_argument(
        "--steps", type=int, default=0, help="training steps, for s2_cifar"
    )
    return parser


def run(words: Sequence[str] | None = None) -> None:
    """Runs what the words of a command line say; without a name, lists."""
    chosen = vars(_parser().parse_args(words))
    name = chosen.pop("name")
    del chosen["traceback"]  # `flags.command` looks at the words
    if not name:
        print(experiments.listing())
        return
    folder = chosen.pop("folder") or Path("outputs") / "experiments" / name
    setting = dataclasses.replace(Setting(Path(folder)), **chosen)
    print(experiments.run(name, setting).text())


def main() -> None:
    """The command line."""
    with flags.command():
        run()


if __name__ == "__main__":
    main()

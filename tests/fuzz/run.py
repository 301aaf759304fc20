"""Runs cases in forks of one process that has imported every command."""

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fuzz.cases import Case, Ended

LIMIT = 120.0  # seconds; more is a hang
PROGRAMS = ("sample", "train", "evaluate", "sweep", "convert", "experiments")
MODULES = {
    **{name: f"jaxguide.{name}.__main__" for name in PROGRAMS},
    "data.encode": "jaxguide.data.encode",
}
# Imported where they are used; every fork would do it again.
HEAVY = ("diffrax", "matplotlib.pyplot", "orbax.checkpoint", "PIL.Image", "sklearn")


def load() -> None:
    """Imports all commands; JAX's backend must not start before a fork."""
    warnings.filterwarnings("ignore", message=".*fork")
    for name in (*MODULES.values(), *HEAVY):
        importlib.import_module(name)


def run(cases: Sequence[Case], inputs: Path, workers: int) -> Iterator[Ended]:
    """Every case in its own fork and folder, in order."""
    running: dict[int, tuple[int, int, float]] = {}
    done: dict[int, Ended] = {}
    folders = Path(tempfile.mkdtemp(prefix="jaxguide-fuzz-"))
    waiting = iter(enumerate(cases))
    given = 0
    try:
        while given < len(cases):
            while len(running) < workers and (following := next(waiting, None)):
                index, case = following
                folder = folders / str(index)
                running[index] = (_start(case, inputs, folder), index, time.monotonic())
            for index, (child, _, start) in list(running.items()):
                ended = _poll(child, start, folders / str(index))
                if ended is not None:
                    done[index] = ended
                    del running[index]
            while given in done:
                yield done.pop(given)
                given += 1
            time.sleep(0.005)
    finally:
        for child, *_ in running.values():
            os.kill(child, signal.SIGKILL)
        shutil.rmtree(folders, ignore_errors=True)


def _start(case: Case, inputs: Path, folder: Path) -> int:
    """Forks; the child never returns."""
    folder.mkdir()
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        shutil.copytree(inputs, folder / "work")
        os.mkfifo(folder / "work" / "pipe")
        for name, number in (("out", 1), ("error", 2)):
            os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder / "work")
        code = _call(case)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _call(case: Case) -> int:
    """The exit code of the command, in this process."""
    module = sys.modules[MODULES[case.program]]
    sys.argv = [str(module.__file__), *case.words]
    try:
        module.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _poll(child: int, start: float, folder: Path) -> Ended | None:
    """How a child ended; None while it runs."""
    gone, status = os.waitpid(child, os.WNOHANG)
    if not gone and time.monotonic() - start < LIMIT:
        return None
    code = os.waitstatus_to_exitcode(status) if gone else None
    if not gone:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    error = (folder / "error").read_text(errors="replace")
    made = [
        str(path.relative_to(folder / "work"))
        for path in sorted((folder / "work" / "new").rglob("*"))
        if path.is_file()
    ]
    shutil.rmtree(folder, ignore_errors=True)
    return Ended(code, error, tuple(made))

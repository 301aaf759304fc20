"""Ctrl-C ends a command in one line, and only where it is not ignored."""

import subprocess
import sys

import pytest

# A program started in the background may ignore Ctrl-C, and then so do its children.
START = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxguide.runtime import interrupt
"""
PROGRAMS = {
    "importing": (
        "interrupt.install(); os.kill(os.getpid(), signal.SIGINT)",
        (130, ""),
    ),
    "working": (
        "interrupt.install()\n"
        "with interrupt.answered():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally:\n"
        "        print('cleaned', flush=True)",
        (130, "cleaned\n"),
    ),
    "in a callback that swallows": (
        "import time\n"
        "def _xla_gc_callback():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        print('lost')\n"
        "interrupt.install()\n"
        "with interrupt.answered():\n"
        "    _xla_gc_callback()\n"
        "    time.sleep(60)",
        (130, ""),
    ),
    "ignored": (
        "signal.signal(signal.SIGINT, signal.SIG_IGN); interrupt.install()\n"
        "os.kill(os.getpid(), signal.SIGINT); print('goes on')",
        (0, "goes on\n"),
    ),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c(name):
    program, (code, printed) = PROGRAMS[name]
    done = subprocess.run(
        [sys.executable, "-c", START + program], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (code, printed)
    assert len(done.stderr.strip().splitlines()) == (1 if code else 0)

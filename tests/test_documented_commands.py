"""Every command line that the docs and the config headers name is understood.

The commands are parsed, with all their overrides, and not run.
"""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from jaxguide.runtime import flags

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "configs").glob("*.py")),
    ROOT / "sample" / "README.md",
    ROOT / "train" / "README.md",
]
COMMAND = re.compile(r"python -m (jaxguide\.[\w.]+)((?:[^\n\\`]|\\\\?\n)*)")
OTHER_PROGRAMS = ("jaxguide.convert", "jaxguide.experiments")  # no config file
OF_HOSTS = ("--coordinator", "--num_processes")  # would wait for the others


def commands():
    """(page, program, its words) of every command with a config."""
    for page in PAGES:
        for program, rest in COMMAND.findall(page.read_text(encoding="utf-8")):
            words = shlex.split(re.sub(r"\\\\?\n", " ", rest), comments=True)
            config = any(re.match("--config(=|$)", word) for word in words)
            if program in OTHER_PROGRAMS or not config or "--help" in words:
                continue
            if any(word.startswith(OF_HOSTS) for word in words) or "..." in words:
                continue
            yield page, program, words


COMMANDS = {
    f"{page.name}-{number}": (program, words)
    for number, (page, program, words) in enumerate(commands())
}


def test_there_are_commands():
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_understood(name, monkeypatch):
    program, words = COMMANDS[name]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        sys, "argv", [importlib.import_module(program).__file__, *words]
    )
    configs = []
    flags.run(lambda config, *processes: configs.append(config))
    assert len(configs) == 1

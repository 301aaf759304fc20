"""Config files are executed once, and what is wrong with them is one line."""

import pytest

import jaxguide as jg
from jaxguide.runtime import config_file
from jaxguide.sample.config import SampleConfig

IMPORT = "from jaxguide.sample.config import SampleConfig\n"


@pytest.mark.parametrize(
    ("text", "arg", "line"),
    [
        ("def get_config(arg=''):\n    return None\n", "", "which returns None"),
        ("def get_config(arg=''):\n    return {}\n", "", "which returns a dict"),
        (IMPORT + "get_config = lambda: SampleConfig\n", "", "which returns a type"),
        (
            "from jaxguide.sweep.config import SweepConfig as get_config\n",
            "",
            "returns a SampleConfig, got --config=",
        ),
        ("x = 1\n", "", "which has none"),
        (
            "def get_config():\n    return None\n",
            ":a",
            "need get_config() to take ['a']",
        ),
        ("def get_config(:\n", "", "SyntaxError"),
        ("raise SystemExit(0)\n", "", "SystemExit"),
        ("\n\nraise RuntimeError('two\\nlines')\n", "", "line 3. RuntimeError"),
        (
            IMPORT + "def get_config():\n    return SampleConfig(seed=None)\n",
            "",
            "need an integer for seed",
        ),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, arg, line):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(jg.InputError) as refused:
        config_file.load(f"{file}{arg}", SampleConfig)
    assert line in str(refused.value)


def test_it_is_executed_once(tmp_path, monkeypatch, capsys):
    from jaxguide.runtime import flags

    file = tmp_path / "mine.py"
    file.write_text(
        IMPORT + "print('executed')\ndef get_config():\n    return SampleConfig()\n"
    )
    words = ["sample.py", f"--config={file}", "--config.seed=3"]
    monkeypatch.setattr("sys.argv", words)
    taken = []

    def main(config: SampleConfig, processes):
        taken.append(config)

    flags.run(main)
    assert capsys.readouterr().out == "executed\n" and taken[0].seed == 3


def test_an_argument_that_no_config_has_is_refused():
    with pytest.raises(jg.InputError, match="got name='tny'. Did you mean 'tiny'"):
        config_file.load("configs/digits.py:tny")

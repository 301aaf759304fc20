"""The notebook: every cell runs, in order, and what is stored of it is tidy."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import quick

ROOT = Path(__file__).parent.parent
FILE = ROOT / "sample" / "colab.ipynb"

pytestmark = pytest.mark.skipif(not FILE.exists(), reason="needs the source tree")

# Cells are plain Python, so that this needs no Jupyter.
EXECUTE = """
import json, sys
namespace = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        print("## " + cell["id"], flush=True)
        exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
"""


def read():
    return json.loads(FILE.read_text(encoding="utf-8"))


def code_cells():
    return [cell for cell in read()["cells"] if cell["cell_type"] == "code"]


def printed():
    """What the stored cells have printed, by the name of the cell."""
    return {
        cell["id"]: "".join(
            "".join(output["text"])
            for output in cell["outputs"]
            if output["output_type"] == "stream"
        )
        for cell in code_cells()
    }


def executed(folder):
    """What the cells print with small sizes in a fresh process, by their names."""
    small = {"JAXGUIDE_SMALL": "1"}
    paths = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(FILE)],
        cwd=folder,
        env=quick.environment() | small | paths,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    parts = done.stdout.split("## ")[1:]
    return dict(part.split("\n", 1) for part in parts)


def evaluations(text):
    """NFE of the arms of the last cell, by their titles."""
    return {
        title: int(count)
        for title, count in re.findall(r"^(.*): (\d+) evaluations", text, re.MULTILINE)
    }


@pytest.mark.exhaustive
def test_every_cell_runs_in_a_fresh_process(tmp_path):
    found = executed(tmp_path)
    assert list(found) == list(printed())
    assert found["sweep"].splitlines()[1].endswith(": 0")  # compilations
    counts = evaluations(found["mg-sample"])
    assert counts["MG"] == counts["plain"] < counts["plain, CFG 1.82"]


def test_stored_outputs_are_those_of_one_run_from_top_to_bottom():
    assert [cell["execution_count"] for cell in code_cells()] == list(
        range(1, len(code_cells()) + 1)
    )
    outputs = [output for cell in code_cells() for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    pictures = [one for one in outputs if "image/png" in one.get("data", {})]
    assert len(pictures) >= 9


def test_stored_numbers_say_what_the_text_says():
    found = printed()
    assert "compilations while both were sampled: 0" in found["sweep"]
    counts = evaluations(found["mg-sample"])
    assert counts["MG"] == counts["plain"]
    assert counts["plain, CFG 1.82"] > 1.7 * counts["MG"]  # two, up to t = 0.75


def test_the_file_is_small_and_changes_only_where_something_changed():
    text = FILE.read_text(encoding="utf-8")
    notebook = read()
    assert len(text) < 1.5e6
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"] == {"language_info": {"name": "python"}}
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    again = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
    assert text == again + "\n"

"""Every python block of the README and the docs runs as it stands.

Links between pages, and to headings, are checked by `mkdocs build --strict`; those to
other sites are not: the tests are offline.
"""

import re
from pathlib import Path

import pytest

FAST_COMPILE = True
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a reader meets first; all other pages in the exhaustive run.
FIRST = ("README.md", "index.md", "start.md", "extend.md")
BLOCKS = [
    pytest.param(
        code,
        id=f"{page.name}-{number}",
        marks=[] if page.name in FIRST else [pytest.mark.exhaustive],
    )
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_block_runs(code):
    exec(compile(code, "block", "exec"), {"__name__": "block"})


def test_there_are_blocks_in_the_readme():
    assert any("README" in block.id for block in BLOCKS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_are_run_or_marked_as_not(page):
    """A fence says python, and runs; or text or bash, and does not."""
    fences = re.findall(r"^```.*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) % 2 == 0, "a fence is open"
    assert set(fences[::2]) <= {"```python", "```text", "```bash"}
    assert set(fences[1::2]) <= {"```"}


def test_relative_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"

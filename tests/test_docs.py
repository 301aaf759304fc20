"""Every python block of the README and the docs runs as it stands."""

import re
from pathlib import Path

import pytest

FAST_COMPILE = True
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Pages of single methods differ in one line: all of them in the exhaustive run.
BLOCKS = [
    pytest.param(
        code,
        id=f"{page.name}-{number}",
        marks=[pytest.mark.exhaustive] if page.parent.name == "methods" else [],
    )
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("code", BLOCKS)
def test_block_runs(code):
    exec(compile(code, "block", "exec"), {"__name__": "block"})


def test_there_are_blocks_in_the_readme():
    assert any("README" in block.id for block in BLOCKS)


def test_relative_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"

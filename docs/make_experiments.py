"""Puts what experiments have written into docs/experiments.md, and their pictures.

    python -m jaxguide.experiments sg_modes      writes outputs/experiments/sg_modes
    python docs/make_experiments.py sg_modes     takes its table and its pictures

The page holds a line `<!-- sg_modes -->` where the table of that name begins, and
`<!-- end -->` where it ends; what is between them is replaced. Without a name, all
experiments that are in the folder are taken.
"""

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from method_pictures import shrink

DOCS = Path(__file__).parent
PAGE, IMAGES = DOCS / "experiments.md", DOCS / "images" / "experiments"


def table(report: dict[str, Any]) -> str:
    """The claims of one experiment, and how it was run."""
    lines = [
        "| what | paper's claim | measured | agrees, and by which rule |",
        "| --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        verdict = f"**{row['agrees']}**. {row['why']}"
        cells = (row["quantity"], row["claim"], row["measured"], verdict)
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    command = f"python -m jaxguide.experiments {report['experiment']}"
    return "\n".join([*lines, "", f"`{command}`, seed {report['seed']}."])


def placed(page: str, name: str, text: str) -> str:
    """The page with `text` between the marks of `name`.

    Raises:
        ValueError: if the page has no such marks.
    """
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marks.search(page):
        raise ValueError(
            f"make_experiments: need the mark <!-- {name} -->, got none in {PAGE.name}."
        )
    return marks.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--folder", default="outputs/experiments")
    chosen = parser.parse_args()
    reports = sorted(Path(chosen.folder).glob("*/report.json"))
    IMAGES.mkdir(parents=True, exist_ok=True)
    page = PAGE.read_text(encoding="utf-8")
    for file in reports:
        name = file.parent.name
        if chosen.names and name not in chosen.names:
            continue
        report = json.loads(file.read_text(encoding="utf-8"))
        page = placed(page, name, table(report))
        for picture in sorted(file.parent.glob("*.png")):
            copy = IMAGES / f"{name}-{picture.name}"
            shutil.copyfile(picture, copy)
            shrink(copy)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

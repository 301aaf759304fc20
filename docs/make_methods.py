"""Makes the pages of the methods from docstrings and notes.

    python docs/make_methods.py                         all pages, their index, the nav
    python docs/make_methods.py --pictures              all pictures as well
    python docs/make_methods.py --pictures --only cfg   one page with its pictures

A page holds what the docstring of the factory says, and what `docs/methods/notes.toml`
says under the same name. Nothing else is written by hand; a transform without notes
gets a page that says so.
"""

import argparse
import dataclasses
import math
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import method_examples
import numpy as np
from method_values import MODULE, resolved

from jaxguide.guidance import PAPERS, Paper
from jaxguide.sample import listing
from jaxguide.sample.build import TRANSFORMS
from jaxguide.sample.listing import Method

DOCS = Path(__file__).parent
PAGES, IMAGES = DOCS / "methods", DOCS / "images" / "methods"
MADE = (
    "<!-- Made by docs/make_methods.py; edit the docstring or notes.toml instead. -->"
)
OTHER = "other"
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})(v\d+)?")
KINDS = {"dit": "DiT, SiT", "text": "text to image", "video": "video"}


@dataclasses.dataclass(frozen=True)
class Page:
    """One method with the notes on it; `notes` is {} if there are none."""

    method: Method
    notes: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def family(self) -> str:
        return self.notes.get("family", OTHER)

    @property
    def file(self) -> Path:
        return PAGES / f"{self.name}.md"

    def settings(self, kind: str) -> Mapping[str, Any]:
        """How to make the picture `kind`, "demo" or "toy"; {} if there is none."""
        found = self.notes.get(kind, {})
        return {} if "impossible" in found else resolved(found)

    def picture(self, kind: str) -> Path:
        return IMAGES / f"{self.name}-{kind}.png"


def read_notes() -> dict[str, Any]:
    """The hand-written part of all pages."""
    return tomllib.loads((PAGES / "notes.toml").read_text(encoding="utf-8"))


def pages() -> dict[str, Page]:
    """Every transform, by family in the order of the notes, then by name."""
    notes = read_notes()
    families = [*notes["families"], OTHER]
    found = [
        Page(listing.describe(name, factory), notes.get(name, {}))
        for name, factory in TRANSFORMS.items()
    ]
    found.sort(key=lambda page: (families.index(page.family), page.name))
    return {page.name: page for page in found}


def by_family(found: Mapping[str, Page]) -> dict[str, list[Page]]:
    """Title of each family that has pages -> its pages, in order."""
    titles = read_notes()["families"] | {OTHER: "Others"}
    grouped: dict[str, list[Page]] = {}
    for page in found.values():
        grouped.setdefault(titles[page.family], []).append(page)
    return grouped


def render(page: Page) -> str:
    """The page as Markdown."""
    method, notes = page.method, page.notes
    parts = [
        f"# {method.name}",
        MADE,
        method.summary,
        "\n".join(f"    {line}" for line in method.formula),
        *method.remarks,
    ]
    if method.second_hand:
        parts.append(
            '!!! warning "Known at second hand only"\n'
            "    Not all of this was read in the paper or the authors' code; the "
            "[source](#source) says what was."
        )
    settings = [paper for paper in PAPERS if paper.function == method.name]
    if settings:
        parts += ["## Papers that are settings of it", render_papers(settings)]
    if "suits" in notes:
        parts += ["## Networks it suits", notes["suits"]]
    parts += ["## Cost", f"Network evaluations per step: {method.nfe}"]
    parts += [notes["cost"]] if "cost" in notes else []
    for title, key in (("When to use it", "use"), ("When not to", "avoid")):
        parts += [f"## {title}", notes.get(key, "Not written yet.").strip()]
    if "wrong" in notes:
        parts += ["## How it goes wrong", notes["wrong"]]
    parts += ["## Values to start with", _defaults(notes)]
    parts += _example(page)
    parts += ["## Pictures", *_pictures(page)]
    parts += ["## Arguments", f"`{method.signature}`", _arguments(method)]
    parts += ["## Source", _linked(method.source)]
    parts.append(f"Differs from the source: {_linked(method.differs)}")
    return "\n\n".join(parts) + "\n"


def render_papers(papers: Sequence[Paper]) -> str:
    """A list of methods that are a setting of a transform with another name."""
    return "\n".join(
        f"- **{paper.name}**: {paper.title} `{paper.call}` {_linked(paper.source)} "
        f"{paper.remark}".rstrip()
        for paper in papers
    )


def _defaults(notes: Mapping[str, Any]) -> str:
    """The values that papers and official code use, by kind of model."""
    known = notes.get("defaults", {})
    rows = [
        f"| {title} | {known.get(key, 'not known')} |" for key, title in KINDS.items()
    ]
    return "\n".join(
        [
            "Values of the papers and of official code; none of them was tuned here.",
            "",
            "| kind of model | values |",
            "| --- | --- |",
            *rows,
        ]
    )


def _example(page: Page) -> list[str]:
    """A program with the chain of the toy picture, or of the demo's."""
    settings = page.settings("toy") or page.settings("demo")
    if not settings and "example" not in page.notes:
        return []
    return ["## Example", method_examples.program(page.name, page.notes, settings)]


def _arguments(method: Method) -> str:
    rows = [
        f"| `{argument.name}` | {_code(argument.default)} | {_cell(argument.text)} |"
        for argument in method.arguments
    ]
    return "\n".join(["| argument | default | meaning |", "| --- | --- | --- |", *rows])


def _code(default: str | None) -> str:
    return "required" if default is None else f"`{default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _linked(text: str) -> str:
    """arXiv numbers as links."""
    return ARXIV.sub(
        lambda match: f"[{match[0]}](https://arxiv.org/abs/{match[1]})", text
    )


def _pictures(page: Page) -> list[str]:
    """Both pictures, each with what it shows, or why there is none."""
    texts = []
    for kind, title in (("demo", "The demo checkpoint"), ("toy", "A toy density")):
        why = page.notes.get(kind, {}).get("impossible")
        if why:
            texts.append(f"{title}: no picture. {why}")
        elif not page.settings(kind):
            texts.append(f"{title}: no picture yet.")
        else:
            file = page.picture(kind).relative_to(DOCS).as_posix()
            texts.append(f"![{title}, {page.name}](../{file})")
            texts.append(CAPTIONS[kind](page.settings(kind)))
    return texts


def calls(entries: list[Mapping[str, Any]]) -> str:
    """Config entries as calls."""
    texts = []
    for entry in entries:
        words = [f"{k}={_spelled(value)}" for k, value in entry.items() if k != "name"]
        texts.append(f"`{entry['name']}({', '.join(words)})`")
    return " + ".join(texts) or "no guidance"


def _spelled(value: Any) -> str:
    """As Python; a function by its name, an array not at all."""
    if isinstance(value, np.ndarray):
        return "..."
    if isinstance(value, str) and value.startswith(MODULE):
        return value.removeprefix(MODULE)
    return repr(value)


def _demo_caption(settings: Mapping[str, Any]) -> str:
    base = settings.get("base", [])
    left = settings.get("left", base)
    text = (
        f"Left: {calls(left)}. Right: {calls([*base, *settings['method']])}. Emoji "
        "checkpoint, 16 x 16, 50 Euler steps, the same noise on both sides."
    )
    return " ".join([text, *filter(None, [settings.get("remark")])])


def _toy_caption(settings: Mapping[str, Any]) -> str:
    base = settings.get("base", [])
    text = (
        "Samples for one class of a two-class mixture of Gaussians whose predictions "
        "are exact, over the contours of that class's true density (filled) and of the "
        f"other class's (dotted). Last panel: {calls([*base, *settings['method']])}. "
        "100 Euler steps, the same noise in all panels."
    )
    return " ".join([text, *filter(None, [settings.get("remark")])])


CAPTIONS = {"demo": _demo_caption, "toy": _toy_caption}


def render_index(found: Mapping[str, Page]) -> str:
    """One table per family."""
    parts = [
        "# Methods",
        MADE,
        f"{len(found)} transforms. `python -m jaxguide.sample --list` prints the same "
        "in a terminal. Which one to take: [choose](../choose.md).",
    ]
    for title, group in by_family(found).items():
        rows = [
            f"| [`{page.name}`]({page.name}.md) | {_cell(page.method.summary)} | "
            f"{_cell(page.method.nfe)} |"
            for page in group
        ]
        head = [
            "| transform | what it does | extra evaluations |",
            "| --- | --- | --- |",
        ]
        parts += [f"## {title}", "\n".join([*head, *rows])]
    parts += ["## Papers that are settings of these", render_papers(PAPERS)]
    return "\n\n".join(parts) + "\n"


def render_nav(found: Mapping[str, Page]) -> str:
    """The lines of mkdocs.yml that list the pages."""
    lines = ["  - Methods:", "      - All: methods/index.md"]
    for title, group in by_family(found).items():
        lines.append(f"      - {title}:")
        lines += [f"          - {page.name}: methods/{page.name}.md" for page in group]
    return "\n".join(lines)


def between(text: str, mark: str, content: str) -> str:
    """`text` with what stands between the two comments of `mark` replaced.

    Raises:
        ValueError: if the comments are not there.
    """
    lines = rf"([^\n]*{mark}: begin[^\n]*\n)(.*?)([^\n]*{mark}: end)"
    pattern = re.compile(lines, re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"make_methods: need '{mark}: begin' and 'end' in the text.")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[3]}", text)


def render_costs(found: Mapping[str, Page]) -> str:
    """The table of docs/choose.md: cost from `jaxguide.cost`, effect from the notes."""
    import method_pictures

    lines = [
        "| chain | NFE | GFLOP | x unguided |",
        "| --- | --- | --- | --- |",
    ]
    _, unguided = method_pictures.demo_job({"method": []}).costs().values()
    plain = unguided.flops or math.nan
    for page in found.values():
        if not page.settings("demo"):
            continue
        entries = [
            *page.settings("demo").get("base", []),
            *page.settings("demo")["method"],
        ]
        job = method_pictures.demo_job(page.settings("demo"))
        _, cost = job.costs().values()
        flops = cost.flops or math.nan
        cells = [
            calls(entries),
            f"{cost.nfe}",
            f"{flops / 1e9:.3g}",
            f"{flops / plain:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def outputs(found: Mapping[str, Page]) -> dict[Path, str]:
    """Every text file this script writes, with its content."""
    texts = {page.file: render(page) for page in found.values()}
    texts[PAGES / "index.md"] = render_index(found)
    nav, choose = DOCS.parent / "mkdocs.yml", DOCS / "choose.md"
    texts[nav] = between(nav.read_text("utf-8"), "methods", render_nav(found))
    texts[choose] = between(choose.read_text("utf-8"), "costs", render_costs(found))
    return texts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", action="store_true", help="make pictures too")
    parser.add_argument("--only", default="", metavar="NAME", help="pictures of one")
    options = parser.parse_args()
    found = pages()
    if options.only and options.only not in found:
        parser.error(f"need --only in {sorted(found)}, got {options.only!r}")
    if options.pictures:
        import method_pictures

        picked = [options.only] if options.only else list(found)
        for number, name in enumerate(picked, 1):
            print(f"{number}/{len(picked)} {name}", flush=True)
            method_pictures.make(found[name])
    for file, text in outputs(found).items():
        file.write_text(text, encoding="utf-8")
    print(f"wrote {len(found)} pages")


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS))
    main()

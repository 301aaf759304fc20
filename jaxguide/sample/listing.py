"""What every transform is: `python -m jaxguide.sample --list [NAME]`.

The docstrings of the factories are the only source: the list, the pages of the
documentation and the tests of the docstrings all read them through here.
"""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from jaxguide.guidance import Paper
from jaxguide.runtime.calls import lookup
from jaxguide.sample.build import SETTINGS, TRANSFORMS

WIDTH = 100
HEADINGS = ("Args", "Returns", "Raises", "NFE", "Source", "Differs from the source")
NEEDED = ("summary", "formula", "nfe", "source", "differs")
_HEADING = re.compile(rf"({'|'.join(HEADINGS)}):(.*)")
_ARGUMENT = re.compile(r"(\w[\w, ]*): (.*)")  # not indented, unlike what follows
_SECOND_HAND = re.compile(r"second[\s-]hand", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument of a factory; `default` is source text, None if it is required."""

    name: str
    default: str | None
    text: str

    def __str__(self) -> str:
        return self.name if self.default is None else f"{self.name}={self.default}"


@dataclasses.dataclass(frozen=True)
class Method:
    """A guidance method as its docstring describes it; a missing part is empty.

    `formula` holds the lines of the first indented block, `remarks` the paragraphs
    around it. `second_hand` is set where the docstring says that something is known at
    second hand only.
    """

    name: str
    summary: str
    formula: tuple[str, ...]
    remarks: tuple[str, ...]
    arguments: tuple[Argument, ...]
    returns: str
    nfe: str
    source: str
    differs: str
    second_hand: bool

    @property
    def signature(self) -> str:
        """The call, with all defaults."""
        return f"{self.name}({', '.join(map(str, self.arguments))})"

    def missing(self) -> list[str]:
        """Which parts every docstring needs and this one lacks."""
        return [part for part in NEEDED if not getattr(self, part)]


def describe(name: str, factory: Callable[..., Any]) -> Method:
    """Reads the docstring and the signature of the factory known as `name`."""
    text = inspect.getdoc(factory) or ""
    body, sections = _split(text)
    blocks = re.split(r"\n\s*\n", body)
    indented = [block for block in blocks[1:] if block.startswith("    ")]
    plain = [_one_line(block) for block in blocks[1:] if not block.startswith("    ")]
    formula = textwrap.dedent(indented[0]) if indented else ""
    return Method(
        name=name,
        summary=_one_line(blocks[0]),
        formula=tuple(formula.splitlines()),
        remarks=tuple(paragraph for paragraph in plain if paragraph),
        arguments=_arguments(factory, sections.get("Args", "")),
        returns=_one_line(sections.get("Returns", "")),
        nfe=_one_line(sections.get("NFE", "")),
        source=_one_line(sections.get("Source", "")),
        differs=_one_line(sections.get("Differs from the source", "")),
        second_hand=bool(_SECOND_HAND.search(_one_line(text))),
    )


def _split(text: str) -> tuple[str, dict[str, str]]:
    """What stands before the first heading, and the text under each; no doctest."""
    body: list[str] = []
    sections: dict[str, list[str]] = {}
    lines = body
    for line in text.splitlines():
        match = _HEADING.match(line)
        if match:
            lines = sections.setdefault(match[1], [])
            line = match[2].strip()
        elif line.startswith(">>>"):
            break
        lines.append(line)
    return "\n".join(body), {name: "\n".join(lines) for name, lines in sections.items()}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _arguments(factory: Callable[..., Any], section: str) -> tuple[Argument, ...]:
    """Every parameter, with what the docstring says of it."""
    said: dict[str, str] = {}
    current: list[str] = []
    for line in textwrap.dedent(section.strip("\n")).splitlines():
        match = _ARGUMENT.match(line)
        if match:
            current = [name.strip() for name in match[1].split(",")]
        for name in current:
            said[name] = f"{said.get(name, '')} {match[2] if match else line}"
    parameters = inspect.signature(factory).parameters.values()
    return tuple(
        Argument(p.name, _default(p), _one_line(said.get(p.name, "")))
        for p in parameters
    )


def _default(parameter: inspect.Parameter) -> str | None:
    """The default as source text."""
    default = parameter.default
    if default is parameter.empty:
        return None
    return getattr(default, "__name__", None) or repr(default)


def text(name: str = "") -> str:
    """All transforms and papers in short, or the one called `name` whole.

    Raises:
        InputError: if there is none of that name; the nearest one is named.
    """
    if name in SETTINGS:
        return setting(SETTINGS[name])
    if name:
        return whole(describe(name, lookup("list", name, TRANSFORMS)))
    methods = [describe(n, factory) for n, factory in sorted(TRANSFORMS.items())]
    papers = "\n\n".join(map(setting, SETTINGS.values()))
    foot = (
        f"{len(methods)} transforms, and {len(SETTINGS)} papers that are settings of "
        "them. One of them in full: --list NAME. In a config: "
        "dict(name='cfg', scale=1.5)."
    )
    return "\n\n".join([*map(short, methods), papers, "\n".join(_wrap(foot))])


def setting(paper: Paper) -> str:
    """A paper that is a setting of a transform with another name."""
    return "\n".join(
        [
            *_wrap(f"{paper.name}  {paper.title}", "", "    "),
            f"    {paper.call}",
            *_labelled("source", paper.source),
            *_labelled("note", paper.remark),
        ]
    )


def short(method: Method) -> str:
    """Name and summary, formula, cost and source."""
    return "\n".join(
        [
            *_wrap(f"{method.name}  {method.summary}", "", "    "),
            *_formula(method),
            *_labelled("cost", method.nfe),
            *_labelled("source", method.source),
            *_labelled("note", _caveat(method)),
        ]
    )


def whole(method: Method) -> str:
    """All that the docstring says, with arguments and defaults."""
    arguments = [
        line
        for argument in method.arguments
        for line in _wrap(f"{argument}: {argument.text}", "    ", "        ")
    ]
    return "\n".join(
        [
            *_wrap(method.signature, "", "    "),
            "",
            *_wrap(method.summary),
            "",
            *_formula(method),
            *(line for remark in method.remarks for line in ("", *_wrap(remark))),
            "",
            "arguments",
            *arguments,
            "",
            *_labelled("returns", method.returns),
            *_labelled("cost", method.nfe),
            *_labelled("source", method.source),
            *_labelled("differs", method.differs),
            *_labelled("note", _caveat(method)),
        ]
    )


def _caveat(method: Method) -> str:
    return "known at second hand only: see the source" if method.second_hand else ""


def _formula(method: Method) -> Iterator[str]:
    """The formula; spaces inside a line that fits are kept."""
    for line in method.formula:
        fits = len(line) + 4 <= WIDTH
        yield from [f"    {line}"] if fits else _wrap(line, "    ", "      ")


def _labelled(label: str, content: str) -> list[str]:
    return _wrap(f"{label:8}{content}", "    ", " " * 12) if content else []


def _wrap(line: str, first: str = "", other: str = "") -> list[str]:
    return textwrap.wrap(
        line,
        WIDTH,
        initial_indent=first,
        subsequent_indent=other,
        break_on_hyphens=False,
    )

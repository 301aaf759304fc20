"""The transforms as text for a terminal: `python -m jaxguide.sample --list [NAME]`."""

import textwrap
from collections.abc import Iterator

from jaxguide import methods
from jaxguide.config_sampling import TRANSFORMS
from jaxguide.methods import Method
from jaxguide.names import lookup

WIDTH = 100


def text(name: str = "") -> str:
    """All transforms in short, or the one called `name` whole.

    Raises:
        ValueError: if there is none of that name; the nearest one is named.
    """
    if name:
        return whole(methods.describe(name, lookup("list", name, TRANSFORMS)))
    found = [methods.describe(n, factory) for n, factory in sorted(TRANSFORMS.items())]
    foot = (
        f"{len(found)} transforms. One of them whole: --list NAME. In a config: "
        "dict(name='cfg', scale=1.5)."
    )
    return "\n\n".join([*map(short, found), foot])


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

"""Names and calls in a config: found in a table, checked against signatures."""

import ast
import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxguide.errors import InputError
from jaxguide.runtime import values

Value = TypeVar("Value")
# Modules whose functions a config names by mistake or with ill will, never as a curve.
_ACTING = set(
    "_io _posixsubprocess _thread builtins nt os posix runpy shutil signal socket "
    "subprocess sys time".split()
)


def lookup(owner: str, name: str, known: Mapping[str, Value]) -> Value:
    """The object called `name`.

    Raises:
        InputError: if there is none; names the nearest and all known ones.
    """
    if name in known:
        return known[name]

    def alike(other: str) -> tuple[float, int]:
        ratio = difflib.SequenceMatcher(None, name, other).ratio()
        return ratio, len(set(name) & set(other))

    near = max(sorted(known), key=alike)
    raise InputError(
        f"{owner}: need a name in {sorted(known)}, got name={name!r}. "
        f"Did you mean {near!r}?"
    )


def call(owner: str, function: Callable, arguments: Mapping[str, Any]) -> Any:
    """`function(**arguments)`, with one clear line for a wrong name or type.

    Raises:
        InputError: if a name is unknown, a required one is missing, or a plain value
            is of a type that the signature of `function` does not allow.
    """
    title = f"{owner} {function.__name__}"
    parameters = inspect.signature(function).parameters
    for name in arguments:
        if name not in parameters:
            lookup(title, name, dict.fromkeys(parameters))
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise InputError(
                f"{title}: need {name}, got "
                f"{sorted(arguments)}. Add {name}=... to its entry."
            )
    hints = typing.get_type_hints(function)
    checked = {
        name: _checked(title, name, value, hints.get(name, Any))
        for name, value in arguments.items()
    }
    return function(**checked)


def _checked(title: str, name: str, value: Any, hint: Any) -> Any:
    """`value`, or the function that "module:function" names where one may be."""
    if isinstance(value, str) and ":" in value and values.takes_function(hint):
        return imported(f"{title} {name}", value)
    return values.plain(title, name, value, hint)


def imported(owner: str, text: str) -> Callable:
    """The function that "package.module:function" names.

    Raises:
        InputError: if there is no such module, or no such function in it.
    """
    module, _, name = text.partition(":")
    try:
        function = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever the module does when it is executed
        said = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{owner}: need 'package.module:function', got {text!r} ({said}). "
            "Start where the module can be imported."
        ) from error
    if getattr(function, "__module__", None) in _ACTING:
        raise InputError(
            f"{owner}: need a function that computes, got {text!r}, which acts on the "
            "system. Wrap it in a module of yours."
        )
    if not callable(function):
        raise InputError(
            f"{owner}: need a function of {module}, got {text!r}, which has no such "
            "function."
        )
    return function


def parse_call(owner: str, text: str) -> tuple[str, dict[str, Any]]:
    """A name and its arguments, from "name" or "name(argument=value, ...)".

    Raises:
        InputError: if the text is anything else.

    >>> parse_call("sampler", "ddim(eta=1.0)")
    ('ddim', {'eta': 1.0})
    """
    parsed = _parsed(text)
    if parsed is None or parsed[1]:
        raise InputError(
            f"{owner}: need a name, or name(argument=value), got {text!r}. "
            "Write 'ddim' or 'ddim(eta=1.0)'."
        )
    return parsed[0], parsed[2]


def described_call(
    owner: str, value: Any, known: Mapping[str, Callable]
) -> tuple[Callable, dict[str, Any]] | None:
    """The function of `known` and the arguments that a text or dict describes.

    "name(value, argument=value)" or dict(name=..., argument=value); None for anything
    else, a bare unknown word among it.

    Raises:
        InputError: if the function is not in `known` or gets too many arguments.
    """
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        name, listed = value["name"], []
        named = {key: one for key, one in value.items() if key != "name"}
    elif isinstance(value, str) and (parsed := _parsed(value)):
        name, listed, named = parsed
        if "(" not in value and name not in known:
            return None
    else:
        return None
    function = lookup(owner, name, known)
    return function, _named(f"{owner} {name}", function, listed) | named


def _named(title: str, function: Callable, listed: list[Any]) -> dict[str, Any]:
    """Values given by position, by the names of the parameters."""
    parameters = inspect.signature(function).parameters.values()
    names = [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY]
    if len(listed) > len(names):
        raise InputError(
            f"{title}: need at most {len(names)} values without a name, got {listed!r}."
        )
    return dict(zip(names, listed, strict=False))


def _parsed(text: str) -> tuple[str, list[Any], dict[str, Any]] | None:
    """Name, values by position and by name; None if the text is no call of literals."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Call):
            pairs = [(word.arg, ast.literal_eval(word.value)) for word in tree.keywords]
            listed = [ast.literal_eval(one) for one in tree.args]
            named = {str(name): value for name, value in pairs}
            return ast.unparse(tree.func), listed, named
        if isinstance(tree, ast.Name):
            return tree.id, [], {}
    except (SyntaxError, ValueError):
        pass
    return None

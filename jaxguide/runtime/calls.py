"""Names and calls in a config: found in a table, checked against signatures."""

import ast
import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxguide.errors import InputError

Value = TypeVar("Value")

# What a config can spell, in words and as an example; any other value (an array, a
# function) is left to the callee.
_PLAIN = {
    bool: ("True or False", "True"),
    int: ("an integer", "2"),
    float: ("a number", "1.5"),
    str: ("a string", "'text'"),
    tuple: ("a tuple", "(0, 1)"),
    list: ("a list", "[0, 1]"),
    dict: ("a dict", "{}"),
    types.NoneType: ("None", "None"),
}


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
    """`value`, a list as the tuple and "module:function" as the function that the
    hint may ask for.

    Raises:
        InputError: if it is a plain value of none of the plain types in `hint`.
    """
    members = typing.get_args(hint) if _is_union(hint) else (hint,)
    kinds = {typing.get_origin(member) or member: member for member in members}
    plain = {kind: member for kind, member in kinds.items() if kind in _PLAIN}
    if isinstance(value, str) and Callable in kinds and ":" in value:
        return imported(f"{title} {name}", value)
    if type(value) is list and tuple in plain and list not in plain:
        value = tuple(value)
    kind = type(value)
    kind = float if kind is int and int not in plain and float in plain else kind
    if plain and kind in _PLAIN and kind not in plain:
        wanted = " or ".join(_PLAIN[allowed][0] for allowed in plain)
        raise InputError(
            f"{title}: need {wanted} for {name}, got {name}={value!r}. "
            f"Write {name}={_PLAIN[next(iter(plain))][1]}."
        )
    inner = typing.get_args(plain.get(kind, Any))
    if kind is tuple and inner[1:] == (...,):
        return tuple(_checked(title, name, item, inner[0]) for item in value)
    return value


def imported(owner: str, text: str) -> Callable:
    """The function that "package.module:function" names.

    Raises:
        InputError: if there is no such module, or no such function in it.
    """
    module, _, name = text.partition(":")
    try:
        function = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{owner}: need 'package.module:function', got {text!r} ({error}). "
            "Start where the module can be imported."
        ) from error
    if not callable(function):
        raise InputError(
            f"{owner}: need a function of {module}, got {text!r}, which has no such "
            "function."
        )
    return function


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


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

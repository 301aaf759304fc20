"""The example on each page: a short program that runs as it stands.

It holds the chain of the toy picture or, where there is none, of the demo picture. A
method whose arguments do not fit on a line has its own program in `notes.toml`.
"""

import re
from collections.abc import Mapping
from typing import Any

DRAWS = ("icg", "s2", "tpg", "tsg")  # need a key
SKIPS = ("s2", "stg")  # need blocks

TOY = """\
import jax
import jax.numpy as jnp

import jaxguide as jg
from jaxguide.oracle import GaussianMixture

# In place of your network: two classes in the plane, whose predictions are exact.
means, stds = jnp.array([[-1.0, 0.0], [1.0, 0.0]]), jnp.array([0.3, 0.3])
mixture = GaussianMixture(means, stds, (0, 1){blocks})
label = jnp.zeros(4, jnp.int32)

guidance = {guidance}
samples = jg.generate(
    mixture.network(),
    jg.initial_noise(jg.sample_keys(0, jnp.arange(4)), (2,)),
    label,
    grid=jg.uniform(10),
    sampler=jg.euler(),
    guidance=guidance,
{further})
assert samples.shape == (4, 2)"""

DEMO = """\
import jax
import jax.numpy as jnp

import jaxguide as jg
from jaxguide.sample.build import build_network, build_weights

weights = build_weights("emoji", "float32")
label = jnp.array([{label}])  # "{class_name}"

guidance = {guidance}
images = jg.generate(
    build_network(weights),
    jg.initial_noise(jg.sample_keys(0, jnp.arange(1)), weights.model.image_shape),
    label,
    grid=jg.uniform(5),  # 50 for a good picture
    sampler=jg.euler(),
    guidance=guidance,
{further})
assert images.shape == (1, 16, 16, 3)"""

FURTHER = {  # kinds of networks, see docs/method_pictures.py
    "wider": "GaussianMixture(means, stds + 0.3, (0, 1))",
    "moved": "GaussianMixture(means + 0.3, stds, (0, 1))",
}
MAIN, SHOWN = (3, "heart"), {"sign": 9}


def program(name: str, notes: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The program as Markdown; `settings` are those of the toy or of the demo."""
    if "example" in notes:
        return f"```python\n{notes['example'].strip()}\n```"
    toy = bool(settings) and "impossible" not in notes["toy"]
    conds = _conds(settings, toy)
    lines = [f"conds={{{', '.join(conds)}}},"]
    networks = settings.get("networks", {}) if toy else {}
    inner = [f'"{key}": {FURTHER[kind]}.network()' for key, kind in networks.items()]
    lines += [f"networks={{{', '.join(inner)}}},"] if inner else []
    lines += ["key=jax.random.key(0),"] if name in DRAWS else []
    text = (TOY if toy else DEMO).format(
        guidance=spelled_chain([*settings.get("base", []), *settings["method"]]),
        further="".join(f"    {line}\n" for line in lines),
        blocks=", blocks=(0.04,) * 6" if name in SKIPS else "",
        label=MAIN[0],
        class_name=MAIN[1],
    )
    if name not in DRAWS:
        text = text.removeprefix("import jax\n")
    return f"```python\n{text}\n```"


def _conds(settings: Mapping[str, Any], toy: bool) -> list[str]:
    """The null condition, and those that the chain names."""
    null = "mixture.null(4)" if toy else "label * 0 + weights.model.null_label"
    found = [f'"null": {null}']
    used = str([settings.get("base", []), settings["method"]])
    named = {**settings.get("conds", {})}
    for cond, pattern in (("negative", "negative|perp_neg"), ("also", "also")):
        if toy and re.search(pattern, used):
            named.setdefault(cond, 1)
    for cond, value in named.items():
        number = value if toy else SHOWN[value]
        found.append(f'"{cond}": label * 0 + {number}')
    return found


def spelled_chain(entries: list[Mapping[str, Any]]) -> str:
    """Config entries as a Python expression."""
    calls = [_call(entry) for entry in entries]
    if len(calls) == 1:
        return calls[0]
    return "jg.chain(" + ", ".join(calls) + ")"


def _call(entry: Mapping[str, Any]) -> str:
    words = [f"{key}={_value(value)}" for key, value in entry.items() if key != "name"]
    return f"jg.{entry['name']}({', '.join(words)})"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):  # a schedule
        words = [f"{k}={_value(v)}" for k, v in value.items() if k != "name"]
        return f"jg.schedules.{value['name']}({', '.join(words)})"
    text = repr(tuple(value) if isinstance(value, list) else value)
    return text.replace("'", '"')

"""The two pictures of a method: the demo checkpoint, and a toy density.

`settings` is the table `demo` or `toy` of a method in `notes.toml`:

    base, method   lists of config entries; the picture compares base with base + method
    left           what the demo picture compares with instead of base
    networks       further networks, name -> kind. Demo: "noisy", the checkpoint with
                   noise added to its weights. Toy: "wider", the mixture with larger
                   standard deviations; "moved", with all components moved
    conds          further conditions, name -> class name (demo) or number (toy)
    edge           half the edge of the toy picture, 2.4 by default

Values that TOML cannot spell, and both models, stand in docs/method_values.py.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from method_values import demo, mixture, resolved
from PIL import Image

import jaxguide as jg
from jaxguide import paths
from jaxguide.runtime import sheets
from jaxguide.sample import build, columns, jobs

Settings = Mapping[str, Any]
Entries = Sequence[Mapping[str, Any]]

NOISE = 0.3  # of the standard deviation of each weight array, in the "noisy" network
WIDER = 0.3  # added to every standard deviation, in the "wider" mixture
MOVED = (0.5, 0.3)  # added to every mean, in the "moved" mixture
COUNT = 700  # samples in a panel of the toy
CFG = {"name": "cfg", "scale": 3.0}
INK, DOTS = "#303030", "#c2410c"


def make(page: Any) -> None:
    """Writes the pictures of a page, those that are possible."""
    for kind, draw in (("demo", draw_demo), ("toy", draw_toy)):
        if page.settings(kind):
            file = page.picture(kind)
            file.parent.mkdir(parents=True, exist_ok=True)
            draw(file, resolved(page.notes[kind], fitted=True))
            shrink(file)


def shrink(file: Path) -> None:
    """Saves the picture again with a palette of 256 colours, nothing dithered."""
    picture = Image.open(file).convert("RGB")
    picture.quantize(dither=Image.Dither.NONE).save(file, optimize=True)


# The demo checkpoint.


def demo_job(settings: Settings) -> jobs.SampleJob:
    """The two columns of the demo picture, ready to sample."""
    job = demo()
    names = list(job.weights.class_names)
    conds = {name: names.index(label) for name, label in _items(settings, "conds")}
    return dataclasses.replace(
        job,
        columns={
            title: build.build_guidance(entries)
            for title, entries in sides(settings).items()
        },
        networks={
            name: _demo_network(kind) for name, kind in _items(settings, "networks")
        },
        conds=job.conds | conds,
    )


def sides(settings: Settings) -> dict[str, Entries]:
    """Both sides of the demo picture; the second one is always the method."""
    base, method = settings.get("base", []), settings["method"]
    if "left" not in settings:
        return {"without": base, "with": [*base, *method]}
    titles = (entries[-1]["name"] for entries in (settings["left"], method))
    return dict(zip(titles, (settings["left"], [*base, *method]), strict=True))


def draw_demo(file: Path, settings: Settings) -> None:
    """Images without the method on the left, with it on the right."""
    job = demo_job(settings)
    found = {
        title: _demo_images(job, title, _key(entries, settings))
        for title, entries in sides(settings).items()
    }
    names = [job.weights.class_names[label] for label in job.labels]
    sheets.write_sheet(file, found, names, zoom=3)


def _key(entries: Entries, settings: Settings) -> str:
    """Equal for columns that are the same images."""
    plain = all(entry["name"] == "cfg" for entry in entries)
    further = [] if plain else [settings.get(key) for key in ("networks", "conds")]
    return repr((entries, further))


_found: dict[str, np.ndarray] = {}  # many pictures share their left-hand side


def _demo_images(job: jobs.SampleJob, title: str, key: str) -> np.ndarray:
    if key not in _found:
        alone = dataclasses.replace(job, columns={title: job.columns[title]})
        ((_, column),) = columns.run(alone)
        _found[key] = column.images
    return _found[key]


@functools.cache
def _demo_network(kind: str) -> jg.Network:
    """A further network for the demo."""
    if kind != "noisy":
        raise ValueError(f"method_pictures: need kind 'noisy', got {kind!r}.")
    weights, rng = demo().weights, np.random.default_rng(0)

    def blurred(leaf: Any) -> jax.Array:
        leaf = np.asarray(leaf)
        noise = rng.standard_normal(leaf.shape).astype(leaf.dtype)
        return jnp.asarray(leaf + NOISE * leaf.std() * noise)

    params = jax.tree.map(blurred, weights.params)
    return build.build_network(weights._replace(params=params))


def _items(settings: Settings, key: str) -> list[tuple[str, Any]]:
    return list(settings.get(key, {}).items())


# The toy.


def _toy_network(kind: str) -> jg.Network:
    """A further network for the toy."""
    changes: dict[str, Any] = {
        "wider": {"stds": mixture().stds + WIDER},
        "moved": {"means": mixture().means + jnp.asarray(MOVED)[None]},
    }
    return dataclasses.replace(mixture(), **changes[kind]).network()


def toy_samples(entries: Entries, settings: Settings) -> np.ndarray:
    """Samples [COUNT, 2] of class 0."""
    key = "toy" + _key(entries, settings)
    if key not in _found:
        _found[key] = _sample_toy(entries, settings)
    return _found[key]


def _sample_toy(entries: Entries, settings: Settings) -> np.ndarray:
    label = jnp.zeros(COUNT, jnp.int32)
    conds = {"null": 2, "negative": 1, "also": 1, **settings.get("conds", {})}
    keys = jg.sample_keys(0, jnp.arange(COUNT))
    samples = jg.generate(
        mixture().network(),
        jg.initial_noise(keys, (2,)),
        label,
        grid=jg.uniform(100),
        sampler=jg.euler(),
        guidance=build.build_guidance(entries),
        conds={name: jnp.full_like(label, number) for name, number in conds.items()},
        networks={
            name: _toy_network(kind) for name, kind in _items(settings, "networks")
        },
        key=jax.random.key(0),
        sample_keys=keys,
    )
    return np.asarray(samples)


def draw_toy(file: Path, settings: Settings) -> None:
    """Samples over the true density: no guidance, CFG, and the method."""
    from matplotlib import pyplot as plt

    base, method = settings.get("base", []), settings["method"]
    panels = {"no guidance": [], "CFG": [CFG], "this method": [*base, *method]}
    if panels["this method"][0]["name"] == "cfg" and len(panels["this method"]) == 1:
        del panels["CFG"]
    edge = settings.get("edge", 2.4)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.3 * len(panels), 2.5), layout="constrained"
    )
    for axis, (title, entries) in zip(axes, panels.items(), strict=True):
        _contours(axis, edge)
        axis.scatter(*toy_samples(entries, settings).T, s=1.2, lw=0, color=DOTS)
        axis.set(xlim=(-edge, edge), ylim=(-edge, edge), xticks=[], yticks=[])
        axis.set_aspect("equal")
        axis.set_title(title, fontsize=9, color=INK)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def _contours(axis: Any, edge: float) -> None:
    """The true density of class 0, filled, and of class 1, dotted."""
    line = np.linspace(-edge, edge, 120, dtype=np.float32)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    node = paths.Linear().node(jnp.zeros(()))
    for label in (0, 1):
        labels = jnp.full(len(points), label, jnp.int32)
        log = mixture().log_density(jnp.asarray(points), labels, node)
        density = np.exp(np.asarray(log)).reshape(len(line), -1)
        levels = density.max() * np.array([0.03, 0.15, 0.4, 0.7, 1.01])
        if label == 0:
            axis.contourf(line, line, density, levels, cmap="Blues", alpha=0.7)
        else:
            axis.contour(
                line, line, density, levels[:3], colors="grey", linestyles="dotted",
                linewidths=0.8,
            )  # fmt: skip

"""All cases: commands with one thing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxguide.data.encode import EncodeConfig
from jaxguide.evaluate.config import EvaluateConfig
from jaxguide.sample.config import SampleConfig
from jaxguide.sweep.config import SweepConfig
from jaxguide.train.config import TrainConfig
from tests.fuzz import files, values
from tests.fuzz.cases import Case

# The class, the config file, and what makes a run of it short.
TOY = "--config.network=tests.evaluate.toy_network:network"
COMMANDS: dict[str, tuple[type, str, tuple[str, ...]]] = {
    "sample": (
        SampleConfig,
        "demo",
        ("checkpoint=net.safetensors", "folder=new/out", "columns=('none',)"),
    ),
    "sweep": (
        SweepConfig,
        "sweep",
        ("checkpoint=net.safetensors", "folder=new/out", "num_steps=1"),
    ),
    "train": (
        TrainConfig,
        "digits",
        ("data.name=npz", "data.path=data.npz", "folder=new/run", "steps=1"),
    ),
    "evaluate": (
        EvaluateConfig,
        "evaluate",
        (
            "samples=gen.npz",
            "reference=npz(path='color.npz')",
            "network=tests.evaluate.toy_network:network",
            "metrics=fd",
            "num_samples=0",
            "num_reference=0",
            "folder=new/out",
            "cache=new/cache",
        ),
    ),
    "data.encode": (
        EncodeConfig,
        "encode",
        ("data.name=npz", "data.path=color.npz", "folder=new/out"),
    ),
}
# Fields that are given as files, and what kind of file.
NPZ = {
    "train": ("data.path",),
    "data.encode": ("data.path",),
    "evaluate": ("samples", "reference"),
}
WEIGHTS = {
    "sample": ("checkpoint", "weak_checkpoint", "autoencoder"),
    "sweep": ("checkpoint",),
    "train": ("start_from",),
}
# A long run is no nonsense, and would be a hang here.
LONG = {"steps", "num_samples", "evaluate_images", "num_reference", "score.num_samples"}
UNWRITABLE = ("data.npz", "data.npz/below", "/proc/nosuch", "/dev/null", "pipe")


def base(program: str, config: str, *more: str) -> tuple[str, ...]:
    """The words of a short run, the last ones changed by `more`."""
    given = dict(word.split("=", 1) for word in (*COMMANDS[program][2], *more))
    return (f"--config={config}", *(f"--config.{k}={v}" for k, v in given.items()))


def overrides(program: str, configs: Path) -> Iterator[Case]:
    """Every field of a command with text that is no value of it."""
    config, name, _ = COMMANDS[program]
    file = f"{configs / name}.py:tiny"
    for field in values.fields(config):
        last = field.path.rpartition(".")[2]
        wrong = list(values.WORDS.get(field.kind, ()))
        table = field.path.removeprefix("score.") in values.TABLES
        wrong += values.NAMES if field.kind is str and table else []
        if last == "batched":
            wrong = [text for text in wrong if text != "3"]  # rows of one call
        # A score is looked at only where there is a reference: its text is not read.
        strict = not field.path.startswith("score.") or field.kind is not str
        for text in wrong:
            words = base(program, file, f"{field.path}={text}")
            yield Case(program, words, strict, f"text for {field.kind.__name__}")
        if last == "folder":
            for text in UNWRITABLE:
                words = base(program, file, f"{field.path}={text}")
                yield Case(program, words, strict, "folder")
        for text in values.EDGES.get(field.kind, ()):
            if last not in LONG:
                words = base(program, file, f"{field.path}={text}")
                yield Case(program, words, False, "edge")


def in_files(program: str) -> Iterator[Case]:
    """Every field of a config with an object of another type, from a config file."""
    config, name, _ = COMMANDS[program]
    for field in values.fields(config):
        kind = field.kind if field.kind in values.EXPRESSIONS else dict
        for text in values.EXPRESSIONS[kind]:
            file = f"field.py:{name}:{field.path}={text}"
            others = [w for w in base(program, file)[1:] if f".{field.path}" not in w]
            words = (f"--config={file}", *others)
            yield Case(program, words, True, "type in a file")


def guidance() -> Iterator[Case]:
    """Entries of guidance that mean nothing."""
    for entry in values.GUIDANCE:
        file = f"field.py:demo:guidance=[{entry}]"
        words = ("--config.checkpoint=net.safetensors", "--config.folder=new/out")
        yield Case("sample", (f"--config={file}", *words), True, "guidance")


def paths(inputs: Path, configs: Path) -> Iterator[Case]:
    """Every odd file at every place where one is read."""
    rng = np.random.default_rng(0)
    npz = [f"{name.replace(' ', '_')}.npz" for name in files.odd_npz(rng)]
    labels = [f"{name.replace(' ', '_')}.npz" for name in files.odd_labels(rng)]
    places = ["hollow", "pipe", "/dev/null", "/dev/zero", "pictures_none"]
    for program, fields in NPZ.items():
        file = f"{configs / COMMANDS[program][1]}.py:tiny"
        wrong = npz + places + (labels if program != "evaluate" else [])
        for field in fields:
            for path in wrong:
                # The tiny network of training takes five channels.
                strict = path != "five_channels.npz"
                words = base(program, file, f"{field}={path}")
                yield Case(program, words, strict, "npz")
        for name in files.odd_pictures(rng):
            folder = f"pictures_{name}"
            more = (f"{fields[0]}={folder}",)
            if program != "evaluate":
                more += ("data.name=image_folder", "data.size=8")
            yield Case(program, base(program, file, *more), True, "picture")
    odd = sorted(path.name for path in (inputs / "weights").iterdir())
    for program, fields in WEIGHTS.items():
        file = f"{configs / COMMANDS[program][1]}.py:tiny"
        for field in fields:
            for path in ["gen.npz", "field.py", *places]:
                words = base(program, file, f"{field}={path}")
                yield Case(program, words, True, "weights")
            for path in odd:
                words = base(program, file, f"{field}=weights/{path}")
                yield Case(program, words, False, "odd weights")
    for path in odd:
        words = ("--from", "sit", f"weights/{path}", "new/out.safetensors")
        yield Case("convert", words, False, "odd weights")


def config_files(inputs: Path, configs: Path) -> Iterator[Case]:
    """Config files that are none, and those of other commands."""
    odd = sorted(path.name for path in inputs.glob("config_*.py"))
    odd += ["nosuch.py", "gen.npz", "hollow", "", ":", "pipe", "net.safetensors"]
    for program, (_, name, _) in COMMANDS.items():
        others = {other for _, other, _ in COMMANDS.values()} - {name}
        for file in [*odd, *(f"{configs / other}.py:tiny" for other in others)]:
            yield Case(program, base(program, file), True, "config file")
        for arg in ("tny", "tiny,", " ", "nosuch", "tiny:tiny"):
            words = base(program, f"{configs / name}.py:{arg}")
            yield Case(program, words, True, "argument")


def options(configs: Path) -> Iterator[Case]:
    """Words that no command has, and flags of several processes."""
    two = ("--num_processes=2",)
    there = ("--coordinator=localhost:9", *two)
    wrong = [
        ("--nosuch",), ("extra",), ("--config",), ("--config.nosuch=1",),
        ("--config.=1",), ("--config.seed",), ("--config.seed.x=1",),
        ("--config[0]=1",), ("--configs=x",), ("--wait=nan",), ("--coordinator=x",),
        ("--coordinator=localhost:99999999",), ("--coordinator=", *two),
        ("--num_processes=-3",), (*two, "--process_id=2"), (*two, "--process_id=-4"),
        ("--num_processes=x",), ("--process_id=0",), ("--num_processes=" + "9" * 30,),
        (*there, "--process_id=7"), (*there, "--process_id=1", "--wait=0.1"),
        (*there, "--process_id=1", "--wait=-1"),
    ]  # fmt: skip
    for program, (_, name, _) in COMMANDS.items():
        for words in wrong:
            file = f"{configs / name}.py:tiny"
            yield Case(program, (*base(program, file), *words), True, "option")
        yield Case(program, (), True, "option")
    for words in _convert():
        yield Case("convert", words, True, "option")
    for words in [
        ("nosuch",), ("--seed=x", "tilted"), ("--nosuch",), ("tilted", "sg_modes"),
        ("--seed=1.5", "tilted"), ("--steps=x", "s2_cifar"),
        ("s2_cifar", "--data=nosuch"), ("s2_cifar", "--data=hollow", "--folder=new/x"),
        ("tilted", "--folder=data.npz", "--tiny"),
    ]:  # fmt: skip
        yield Case("experiments", words, True, "option")


def _convert() -> Iterator[tuple[str, ...]]:
    """Command lines of `convert` that mean nothing."""
    file, out = "weights/published.safetensors", "new/out.safetensors"
    yield from ((), ("--from",), ("--from", "sit"), ("--from", "sit", file))
    yield from (("--from", name, file, out) for name in ("nosuch", "", "3", "SIT "))
    for path in ("nosuch", "hollow", "pipe", "/dev/zero", "gen.npz", "field.py", ""):
        yield "--from", "sit", path, out
    for path in ("nosuch/below.txt", "hollow", "data.npz/x.safetensors", "", "x.npz"):
        yield "--from", "sit", file, path
    for option in (
        "heads", "heads=", "heads=0", "heads=-2", "heads=abc", "heads=5", "heads=1.5",
        "heads=None", "nosuch=1", "=3", "path=x", "noise_path=nosuch", "noise_path=3",
        "prefix=nosuch.", "prefix=3",
    ):  # fmt: skip
        yield "--from", "sit", f"--option={option}", file, out
    for dtype in ("nosuch", "", "int8", "float64", "3"):
        yield "--from", "sit", f"--dtype={dtype}", file, out
    yield "--from", "sit", "--key=nosuch", file, out
    yield "--to", "nosuch", "net.safetensors", out
    yield "--to", "sit", "gen.npz", out
    yield "--from", "sit", "--to", "sit", file, out


def all_cases(inputs: Path, configs: Path) -> list[Case]:
    """Every case of the grammars."""
    cases = [*guidance(), *paths(inputs, configs), *config_files(inputs, configs)]
    cases += options(configs)
    for program in COMMANDS:
        cases += [*overrides(program, configs), *in_files(program)]
    return cases

"""The config of an evaluation, and its names into objects."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxguide.data import config as data_config
from jaxguide.errors import InputError
from jaxguide.evaluate import features, images, measures
from jaxguide.evaluate.features import FeatureNetwork
from jaxguide.evaluate.protocols import ADM, PLAIN, PROTOCOLS, Protocol
from jaxguide.runtime import config_file, values
from jaxguide.runtime.calls import call, imported, lookup, parse_call
from jaxguide.runtime.files import check_writable
from jaxguide.sample.config import SampleConfig

NETWORKS: dict[str, Callable[..., FeatureNetwork]] = {
    "efficientnet_lite0": features.efficientnet_lite0,
    "inception": features.inception,
}
WEIGHTS = (
    "Download pt_inception-2015-12-05-6726825d.pth, from pytorch-fid's releases, or "
    "weights-inception-2015-12-05-6726825d.pth, from torch-fidelity's, or "
    "classify_image_graph_def.pb, from ADM's, which needs no PyTorch, and write "
    "--config.network=inception --config.weights=FILE. Without it: "
    "--config.network=efficientnet_lite0 --config.metrics=fd,kd"
)


@dataclass
class EvaluateConfig:
    """One evaluation: `python -m jaxguide.evaluate --config configs/evaluate.py`.

    Args:
        samples: what is judged: an `.npz` (`arr_0`, ADM's format), a folder of
            pictures, a folder that `jaxguide.sample` wrote, a data set as in
            `reference`, or a config of `jaxguide.sample` with one column, which is
            sampled first. Several, such as one for each seed, are joined by commas.
        reference: real images: the same forms, an `.npz` of statistics (`mu`,
            `sigma`, ...), or a data set: "fashion_mnist(split='test')".
        metrics: names in `measures.MEASURES`, joined by commas.
        network: one of `NETWORKS`, as in "efficientnet_lite0(edge=224)", or
            "package.module:function" that makes a `FeatureNetwork`.
        weights: file of its weights; "" is the one of an installed package.
        protocol: one of `PROTOCOLS`; "" is "adm" for Inception, "plain" for others.
        num_samples: images to make, or to take of each set; 0 is all there are.
        num_reference: real images to take, the first ones, which is no fair choice
            where files are sorted by class; 0 is all.
        floor_seeds: random halves of the real images for the floor; 0 leaves it out.
        blocks: of images that are left out in turn for the standard error of a
            Frechet distance; 0 leaves it out.
        batch_size: images per call.
        shard_size: images per file of features; so many are in memory.
        save_reference: file to write the statistics of the reference to.
        cache: folder of features, kept for other runs; one with 2,048 features takes
            8 MB per 1,000 images.
        folder: for evaluation.json, and the samples of a config.
    """

    samples: str = ""
    reference: str = ""
    metrics: str = "fd,kd,precision,recall,density,coverage"
    network: str = "efficientnet_lite0"
    weights: str = ""
    protocol: str = ""
    num_samples: int = values.number(0, 0)
    num_reference: int = values.number(0, 0)
    floor_seeds: int = values.number(3, 0, 10_000)
    blocks: int = values.number(10, 0, 10_000)
    batch_size: int = values.number(64, 1)
    shard_size: int = values.number(1000, 1)
    save_reference: str = ""
    cache: str = "outputs/features"
    folder: str = "outputs/evaluation"


def check(config: EvaluateConfig) -> None:
    """Raises InputError unless numbers and folders of the config can be used."""
    values.check(config, "evaluate")
    if config.blocks == 1:
        raise InputError(
            "evaluate: need blocks >= 2 to leave each out in turn, or 0, got blocks=1. "
            "Write --config.blocks=10."
        )
    if config.save_reference:
        if not config.save_reference.endswith(".npz"):
            raise InputError(
                "evaluate: need a name that ends in .npz, got "
                f"save_reference={config.save_reference!r}. Add the ending."
            )
        folder = Path(config.save_reference).expanduser().parent
        check_writable(folder, "evaluate", "save_reference")


def build_names(config: EvaluateConfig) -> list[str]:
    """The measures that the config names, in its order.

    Raises:
        InputError: if one is unknown, or not to be had from the network.
    """
    names = [name.strip() for name in config.metrics.split(",") if name.strip()]
    for name in names or [""]:
        lookup("evaluate", name, measures.MEASURES)
    wanted = [name for name in names if name in measures.INCEPTION_ONLY]
    factory, _ = _network(config)
    inception = factory is features.inception
    known = factory in NETWORKS.values()  # one of the user's own says what it is
    if (wanted and known and not inception) or (inception and not config.weights):
        raise InputError(
            "evaluate: need Inception's weights, got "
            f"metrics={config.metrics!r}, network={config.network!r}, "
            f"weights={config.weights!r}. {WEIGHTS}"
        )
    return list(dict.fromkeys(names))


def _is_inception(config: EvaluateConfig) -> bool:
    return _network(config)[0] is features.inception


def _network(
    config: EvaluateConfig,
) -> tuple[Callable[..., FeatureNetwork], dict[str, Any]]:
    """The function that makes the network, and its arguments."""
    if ":" in config.network:
        return imported("evaluate network", config.network), {}
    name, arguments = parse_call("evaluate network", config.network)
    return lookup("evaluate network", name, NETWORKS), arguments


def build_protocol(config: EvaluateConfig) -> Protocol:
    """The protocol that the config names, or the network's own.

    Raises:
        InputError: if it is unknown, or made for another network.
    """
    inception = _is_inception(config)
    if not config.protocol:
        return ADM if inception else PLAIN
    protocol = lookup("evaluate", config.protocol, PROTOCOLS)
    if bool(protocol.input) != inception:
        fitting = [p.name for p in PROTOCOLS.values() if bool(p.input) == inception]
        raise InputError(
            f"evaluate: need a protocol in {fitting} for network={config.network!r}, "
            f"got protocol={config.protocol!r}."
        )
    return protocol


def build_features(config: EvaluateConfig, protocol: Protocol) -> FeatureNetwork:
    """The network that the config names, fed as the protocol says.

    Raises:
        InputError: if the name, an argument or the file of weights is wrong.
    """
    factory, arguments = _network(config)
    known = inspect.signature(factory).parameters
    if config.weights:
        arguments["path"] = config.weights
    if "protocol" in known:
        arguments["protocol"] = protocol.input
    if "batch_size" in known:
        arguments["batch_size"] = config.batch_size
    network = call("evaluate network", factory, arguments)
    if not isinstance(network, FeatureNetwork):
        raise InputError(
            "evaluate: need a function that makes a FeatureNetwork, got "
            f"network={config.network!r}, which makes {type(network).__name__}. See "
            "jaxguide.evaluate.features."
        )
    return network


def is_sampling(text: str) -> bool:
    """Whether a set of images is a config of `jaxguide.sample`."""
    return text.partition(":")[0].endswith(".py")


def build_sampling(text: str, config: EvaluateConfig, number: int) -> SampleConfig:
    """The config of a set that is to be sampled into a folder of this evaluation.

    Raises:
        InputError: if the file is missing or is another config.
    """
    settings = config_file.load(text, SampleConfig, flag="--config.samples")
    if len(settings.columns) != 1:
        raise InputError(
            f"evaluate: need a config with one column, got samples={text!r} with "
            f"columns={settings.columns!r}. Write one, or sample the column you want "
            "with jaxguide.sample and name its folder."
        )
    settings.num_samples = config.num_samples or settings.num_samples
    if not settings.num_samples:
        raise InputError(
            f"evaluate: need num_samples >= 1 to sample {text!r}, got num_samples=0. "
            "Write --config.num_samples=50000."
        )
    settings.folder = str(Path(config.folder).expanduser() / f"samples-{number}")
    return settings


def build_images(owner: str, text: str, count: int = 0) -> images.Images:
    """Images of a path, or of a data set with its arguments.

    Args:
        owner: the field of the config, for errors.
        text: of the config.
        count: how many to take; 0 is all.

    Raises:
        InputError: if there are none, or fewer than `count`.
    """
    opened = _opened(owner, text)
    if len(opened) < count:
        raise InputError(
            f"evaluate: need {count} images, got {owner}={text!r} with {len(opened)}. "
            "Ask for fewer."
        )
    return images.Some(opened, count) if count else opened


def _opened(owner: str, text: str) -> images.Images:
    if not text:
        raise InputError(
            f"evaluate: need images, got {owner}=''. Write --config.{owner}=PATH, an "
            ".npz or a folder."
        )
    if Path(text).expanduser().exists():
        return images.open_images(text)
    if not text.partition("(")[0].isidentifier():
        raise InputError(
            f"evaluate: need an .npz, a folder or a data set, got {owner}={text!r}, "
            "which does not exist. Check the path."
        )
    name, arguments = parse_call(f"evaluate {owner}", text)
    lookup(f"evaluate {owner}", name, data_config.DATASETS)
    arguments["name"] = name
    source = data_config.build_dataset(
        call(f"evaluate {owner}", data_config.DataConfig, arguments)
    )
    if source.is_latent:
        raise InputError(
            f"evaluate: need images, got {owner}={text!r}, which holds latents. "
            "Name the images they were made from."
        )
    return images.InSource(source, text)

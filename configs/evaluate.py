"""Samples against real images, in features of EfficientNet-Lite0: no download.

Run:      python -m jaxguide.evaluate --config configs/evaluate.py \\
              --config.samples=outputs/set --config.reference=data/images
          A stopped run is carried on by the same command; features of real images are
          kept for other runs. FID as ADM, DiT and SiT report it, with a file to
          download first (docs/evaluation.md):
              --config.network=inception --config.weights=<file> \\
              --config.metrics=fid,sfid,is,precision,recall \\
              --config.reference=VIRTUAL_imagenet256_labeled.npz
Cost:     not measured. Features of 1,000 images are in memory at a time, and those of
          all images, 5 KB each, for precision, recall, density, coverage and "kd".
Expected: evaluation.json. Compare numbers of one N, reference, network and protocol
          alone, and with the floor beside them.
"""

from jaxguide.evaluate.config import EvaluateConfig
from jaxguide.runtime.config_file import variant


def get_config(arg: str = "") -> EvaluateConfig:
    """The run; `arg="tiny"` judges 128 digits by others in seconds."""
    if variant(arg, "", "tiny") == "tiny":
        return EvaluateConfig(
            samples="digits(split='test')",
            reference="digits(split='train')",
            metrics="kd,precision,recall,density,coverage",
            network="efficientnet_lite0(edge=32)",
            num_samples=128,
            num_reference=256,
            cache="outputs/features-tiny",
            folder="outputs/evaluation-tiny",
        )
    return EvaluateConfig()

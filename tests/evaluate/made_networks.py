"""Random weights of feature networks in the layout that others published."""

import numpy as np
from flax import traverse_util

from jaxguide.models import inception


def inception_state(seed: int = 0) -> dict[str, np.ndarray]:
    """A state dict of Inception in which every layer keeps the scale of its input."""
    rng = np.random.default_rng(seed)
    shapes = traverse_util.flatten_dict(inception.shapes())

    def normal(shape: tuple[int, ...], std: float) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * np.float32(std)

    state = {"fc.weight": normal((1008, 2048), 0.02), "fc.bias": normal((1008,), 1.0)}
    for place in inception.convolutions():
        rows, columns, inputs, outputs = shapes[*place, "kernel"].shape
        std = np.sqrt(2 / (rows * columns * inputs))
        name = ".".join(place)
        kernel = normal((outputs, inputs, rows, columns), std)
        state[f"{name}.conv.weight"] = kernel
        state[f"{name}.bn.weight"] = 1 + normal((outputs,), 0.2)
        state[f"{name}.bn.bias"] = normal((outputs,), 0.2)
        state[f"{name}.bn.running_mean"] = normal((outputs,), 0.2)
        state[f"{name}.bn.running_var"] = np.exp(normal((outputs,), 0.2))
        state[f"{name}.bn.num_batches_tracked"] = np.array(7)
    return state

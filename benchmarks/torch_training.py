"""A training step in PyTorch around diffusers' DiT; needs torch and diffusers."""

from typing import Any

import numpy as np
import torch

from benchmarks.torch_cfg import compile_with
from jaxguide.models import DiTConfig
from tests.diffusers_dit import fresh_network


def network(config: DiTConfig) -> Any:
    """diffusers' DiT of this shape, on the GPU if there is one."""
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return fresh_network(config)


class TorchTraining:
    """Flow matching as one writes it in PyTorch: AdamW, clipping, one average.

    Args:
        network: as `tests.diffusers_dit.their_network` makes it.
        x0: float32 [B, H, W, C].
        labels: int [B].
        time_scale: the network gets `time_scale * t`.
        dtype: "float32", or "bfloat16" for autocast.
        compiled: through `torch.compile`; a string names its backend.
    """

    def __init__(
        self,
        network: Any,
        x0: np.ndarray,
        labels: np.ndarray,
        *,
        time_scale: float = 1000.0,
        dtype: str = "float32",
        compiled: bool | str = False,
    ):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = torch.nn.Module.to(network.train(), device)
        self.parameters = list(self.network.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=1e-4, weight_decay=0.0, fused=True
        )
        self.x0 = torch.from_numpy(x0).permute(0, 3, 1, 2).contiguous().to(device)
        self.labels = torch.from_numpy(labels).long().to(device)
        self.forward = compile_with(self.network, compiled)
        self.time_scale, self.dtype, self.device = time_scale, dtype, device
        self.null = network.config.num_embeds_ada_norm

    def loss(self) -> torch.Tensor:
        """Squared error of the velocity at random times; a tenth without class."""
        noise = torch.randn_like(self.x0)
        t = torch.rand(len(self.x0), device=self.device)
        at = t[:, None, None, None]
        dropped = torch.rand(len(t), device=self.device) < 0.1
        labels = torch.where(dropped, self.null, self.labels)
        half = self.dtype != "float32"
        with torch.autocast(self.device, torch.bfloat16, enabled=half):
            found = self.forward(
                (1 - at) * self.x0 + at * noise,
                timestep=self.time_scale * t,
                class_labels=labels,
            ).sample[:, : self.x0.shape[1]]
        return (found.float() - (noise - self.x0)).square().mean()

    def step(self) -> torch.Tensor:
        """One update of parameters, moments and average; the loss."""
        loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.parameters), 0.001)
        return loss.detach()

"""diffusers' autoencoders with random weights, and TAEF2 rebuilt in plain PyTorch.

Shared by the parity tests and the benchmarks; needs torch and diffusers.
"""

from typing import Any

import diffusers
import numpy as np
import torch
from torch import nn

from jaxguide.models.autoencoder_kl import AutoencoderKLConfig


def their_kl(config: AutoencoderKLConfig, *, tile: int = 64, seed: int = 0) -> Any:
    """`AutoencoderKL` of this shape with random weights, norms and biases included.

    Args:
        config: the architecture.
        tile: edge of its tiles in latent pixels.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    stages = len(config.widths)
    network = diffusers.AutoencoderKL(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        block_out_channels=config.widths,
        layers_per_block=config.layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
        sample_size=tile * config.factor,
        use_quant_conv=config.quant_conv,
        use_post_quant_conv=config.post_quant_conv,
        mid_block_add_attention=config.mid_attention,
    ).eval()
    return shaken(network)


def shaken(network: nn.Module, std: float = 0.1) -> Any:
    """The same network with noise on all vectors, which start at 0 or 1."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(std * torch.randn_like(parameter))
    return network


def to_torch(images: Any) -> torch.Tensor:
    """[B, H, W, C] to [B, C, H, W]."""
    return torch.from_numpy(np.array(images, np.float32).transpose(0, 3, 1, 2))


def to_numpy(images: torch.Tensor) -> np.ndarray:
    """[B, C, H, W] to [B, H, W, C]."""
    return images.detach().numpy().transpose(0, 2, 3, 1)


class _Block(nn.Module):
    def __init__(self, width: int, pooled: bool):
        super().__init__()
        layers = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        first, second, third = layers
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.pool = None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(width, 4 * width, 1, bias=False),
                nn.GroupNorm(4, 4 * width),
                nn.ReLU(),
                nn.Conv2d(4 * width, width, 1, bias=False),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.pool is None else x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _Clamp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * torch.tanh(x / 3)


def taef2(half: str, *, width: int = 64, latent: int = 32) -> nn.Sequential:
    """One half of TAEF2, with the names of its published file; images in [0, 1]."""

    def blocks(count: int, pooled: bool = False) -> list[nn.Module]:
        return [_Block(width, pooled) for _ in range(count)]

    def conv(stride: int = 1) -> nn.Module:
        return nn.Conv2d(width, width, 3, padding=1, stride=stride, bias=False)

    if half == "encoder":
        layers = [nn.Conv2d(3, width, 3, padding=1), *blocks(1)]
        layers += [conv(2), *blocks(3), conv(2), *blocks(3), conv(2), *blocks(3, True)]
        return nn.Sequential(*layers, nn.Conv2d(width, latent, 3, padding=1)).eval()
    layers = [_Clamp(), nn.Conv2d(latent, width, 3, padding=1), nn.ReLU()]
    for count, pooled in ((3, True), (3, False), (3, False)):
        layers += [*blocks(count, pooled), nn.Upsample(scale_factor=2), conv()]
    layers += [*blocks(1), nn.Conv2d(width, 3, 3, padding=1)]
    return nn.Sequential(*layers).eval()

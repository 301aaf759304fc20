"""CFG with Euler steps in PyTorch around diffusers' DiT; needs torch and diffusers."""

from typing import Any

import diffusers
import numpy as np
import torch


class TorchCFG:
    """A sampler as one writes it in PyTorch: eager, inference mode, one Python loop.

    Args:
        network: as `tests.diffusers_dit.their_network` makes it.
        noise: float32 [B, H, W, C].
        labels: int [B].
        grid: falling noise times [N + 1].
        time_scale: the network gets `time_scale * t`.
        dtype: "float32" or "bfloat16".
        compiled: through `torch.compile`; a string names its backend.
    """

    def __init__(
        self,
        network: Any,
        noise: np.ndarray,
        labels: np.ndarray,
        grid: np.ndarray,
        *,
        time_scale: float,
        dtype: str,
        compiled: bool | str = False,
    ):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = getattr(torch, dtype)
        # Not network.to: diffusers warns there about modules that DiT has none of.
        network = torch.nn.Module.to(network, self.device, self.dtype)
        self.network = compile_with(network, compiled)
        channels_first = np.ascontiguousarray(noise.transpose(0, 3, 1, 2))
        self.noise = torch.from_numpy(channels_first).to(self.device)
        self.labels = torch.as_tensor(labels, dtype=torch.long, device=self.device)
        self.null = torch.full_like(self.labels, network.config.num_embeds_ada_norm)
        self.grid, self.time_scale = grid, time_scale

    @torch.inference_mode()
    def sample(self, scale: float, *, doubled: bool) -> np.ndarray:
        """Guided samples [B, H, W, C]; `doubled` is one forward pass of 2B, as the
        pipelines of diffusers do, else two of B."""
        x = self.noise
        predict = self._doubled if doubled else self._separate
        for t, t_next in zip(self.grid[:-1], self.grid[1:], strict=True):
            raw, null = predict(x, float(t))
            x = x + float(t_next - t) * (null + scale * (raw - null))
        return x.float().cpu().numpy().transpose(0, 2, 3, 1)

    def forward(self) -> np.ndarray:
        """One conditional forward pass of the noise at t = 0.5."""
        with torch.inference_mode():
            raw = self._forward(self.noise, 0.5, self.labels)
        return raw.float().cpu().numpy().transpose(0, 2, 3, 1)

    def _forward(self, x: Any, t: float, labels: Any) -> Any:
        times = torch.full((len(x),), t * self.time_scale, device=self.device)
        out = self.network(x.to(self.dtype), timestep=times, class_labels=labels)
        return out.sample[:, : x.shape[1]].to(x.dtype)

    def _separate(self, x: Any, t: float) -> tuple[Any, Any]:
        return self._forward(x, t, self.labels), self._forward(x, t, self.null)

    def _doubled(self, x: Any, t: float) -> tuple[Any, Any]:
        both = torch.cat([self.labels, self.null])
        return self._forward(torch.cat([x, x]), t, both).chunk(2)


def compile_with(network: Any, compiled: bool | str) -> Any:
    """The network, or `torch.compile` of it; a string names the backend."""
    if not compiled:
        return network
    return torch.compile(network, backend="inductor" if compiled is True else compiled)


def set_tf32(allowed: bool) -> None:
    """Whether float32 products may run in TF32 on a GPU."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def versions() -> str:
    """What ran, and where."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    threads = torch.get_num_threads()
    return (
        f"torch {torch.__version__}, diffusers {diffusers.__version__} on {where}, "
        f"{threads} threads"
    )

"""The grids of noise times that samplers walk."""

import numpy as np

from jaxguide.errors import InputError
from jaxguide.paths import Path, check_grid


def uniform(num_steps: int, *, last_step: float | None = None) -> np.ndarray:
    """Equal steps from t = 1 to 0; float64 [num_steps + 1].

    With `last_step`, the last step has that length and the others share the rest
    equally: SiT's and REPA's stochastic samplers use 0.04.

    Raises:
        InputError: if `num_steps` < 1 or `last_step` is outside (0, 1).
    """
    _check_steps("uniform", num_steps)
    if last_step is None:
        return np.linspace(1.0, 0.0, num_steps + 1)
    if not 0 < last_step < 1 or num_steps < 2:
        raise InputError(
            "uniform: need 0 < last_step < 1 and num_steps >= 2, got "
            f"last_step={last_step!r}, num_steps={num_steps!r}."
        )
    return np.append(np.linspace(1.0, last_step, num_steps), 0.0)


def shifted(num_steps: int, shift: float = 3.0) -> np.ndarray:
    """Equal steps, moved towards noise: t <- shift t / (1 + (shift - 1) t).

    SD3 uses shift 3; FLUX's dynamic `mu` is `shift = exp(mu)`; LightningDiT's 0.3
    (in data time) is 1 / 0.3 here. `shift = 1` is `uniform`. float64 [num_steps + 1].
    """
    _check_steps("shifted", num_steps)
    if not 0 < shift < np.inf:
        raise InputError(f"shifted: need a finite shift > 0, got shift={shift!r}.")
    t = np.linspace(1.0, 0.0, num_steps + 1)
    return shift * t / (1 + (shift - 1) * t)


def karras(
    num_steps: int,
    path: Path,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> np.ndarray:
    """Karras et al. 2022 (arXiv:2206.00364, Eq. 5): equal steps in sigma^(1/rho).

    `sigma_min`, `sigma_max` are ratios sigma/alpha, so that the grid serves every
    path; the last step goes to t = 0. float64 [num_steps + 1].
    """
    _check_steps("karras", num_steps, least=2)
    if not 0 < sigma_min < sigma_max or not rho > 0:
        raise InputError(
            "karras: need 0 < sigma_min < sigma_max and rho > 0, got "
            f"sigma_min={sigma_min!r}, sigma_max={sigma_max!r}, rho={rho!r}."
        )
    ends = np.array([sigma_max, sigma_min]) ** (1 / rho)
    sigmas = np.linspace(ends[0], ends[1], num_steps) ** rho
    grid = np.append(np.asarray(path.time(sigmas), np.float64), 0.0)
    return check_grid("karras", grid)


def respaced(num_steps: int, num_timesteps: int = 1000) -> np.ndarray:
    """DiT's evenly respaced table: timesteps round(i (T - 1) / (num_steps - 1)).

    Timestep i sits at t = (i + 1) / T (see `paths.DDPM`). float64 [num_steps + 1].
    """
    _check_steps("respaced", num_steps)
    if num_steps > num_timesteps:
        raise InputError(
            f"respaced: need num_steps <= num_timesteps, got num_steps={num_steps!r}, "
            f"num_timesteps={num_timesteps!r}."
        )
    stride = (num_timesteps - 1) / max(num_steps - 1, 1)
    steps = (
        [round(i * stride) for i in range(num_steps)]
        if num_steps > 1
        else [num_timesteps - 1]
    )
    return np.append((np.array(steps[::-1]) + 1) / num_timesteps, 0.0)


def _check_steps(name: str, num_steps: int, least: int = 1) -> None:
    if not isinstance(num_steps, int | np.integer) or num_steps < least:
        raise InputError(
            f"{name}: need an integer num_steps >= {least}, "
            f"got num_steps={num_steps!r}."
        )

"""The grids of noise times that samplers walk."""

import itertools

import numpy as np

from jaxguide.errors import InputError
from jaxguide.paths import Path, as_number, check_path, is_integer

# A scan walks every step: a grid above this is a slip of the hand, not a wish.
MAX_STEPS = 1_000_000


def uniform(num_steps: int, *, last_step: float | None = None) -> np.ndarray:
    """Equal steps from t = 1 to 0; float64 [num_steps + 1].

    With `last_step`, the last step has that length and the others share the rest
    equally: SiT's and REPA's stochastic samplers use 0.04.

    Raises:
        InputError: if `num_steps` is no integer from 1 to `MAX_STEPS`, or `last_step`
            is outside (0, 1).
    """
    _check_steps("uniform", num_steps)
    if last_step is None:
        return np.linspace(1.0, 0.0, num_steps + 1)
    if not 0 < as_number(last_step) < 1 or num_steps < 2:
        raise InputError(
            "uniform: need 0 < last_step < 1 and num_steps >= 2, got "
            f"last_step={last_step!r}, num_steps={num_steps!r}. SiT's is 0.04."
        )
    return np.append(np.linspace(1.0, last_step, num_steps), 0.0)


def shifted(num_steps: int, shift: float = 3.0) -> np.ndarray:
    """Equal steps, moved towards noise: t <- shift t / (1 + (shift - 1) t).

    The shift of the papers of SD3 (3) and FLUX (`shift = exp(mu)`); LightningDiT's 0.3
    (in data time) is 1 / 0.3 here. `shift = 1` is `uniform`. diffusers makes SD3's
    grid otherwise: see `shifted_twice`. float64 [num_steps + 1].

    Raises:
        InputError: if `num_steps` is no integer from 1 to `MAX_STEPS`, or `shift` is
            not positive and finite.

    Source: Esser et al. 2024, arXiv:2403.03206, Eq. 23.
    """
    _check_steps("shifted", num_steps)
    _check_shift("shifted", shift)
    return _shift(np.linspace(1.0, 0.0, num_steps + 1), shift)


def shifted_twice(
    num_steps: int, shift: float = 3.0, *, num_timesteps: int = 1000
) -> np.ndarray:
    """SD3's grid as diffusers makes it: from 1 to a shifted end, then all shifted.

        t_i equal from 1 to shift / (num_timesteps + shift - 1), num_steps of them
        t <- shift t / (1 + (shift - 1) t), and 0

    Its scheduler shifts the table of `num_timesteps` when it is made, takes the last
    time of that table as the grid's end, and shifts the grid between. With 28 steps
    and shift 3 it differs from `shifted` by up to 0.09. SD3.5 uses it too; FLUX's
    pipeline passes times of its own and has `shifted`. float64 [num_steps + 1].

    Raises:
        InputError: as `shifted`, or if `num_timesteps` is no positive integer.

    Source: diffusers, FlowMatchEulerDiscreteScheduler with a fixed `shift`.
    """
    _check_steps("shifted_twice", num_steps)
    _check_shift("shifted_twice", shift)
    _check_table("shifted_twice", num_timesteps)
    end = _shift(np.array(1.0 / num_timesteps), shift)
    return np.append(_shift(np.linspace(1.0, end, num_steps), shift), 0.0)


def _shift(t: np.ndarray, shift: float) -> np.ndarray:
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
    path; the last step goes to t = 0. One step leads from `sigma_max` to 0. float64
    [num_steps + 1].

    Raises:
        InputError: if `num_steps` is no integer from 1 to `MAX_STEPS`, the sigmas are
            not positive and in order, or `sigma_max` is more than the path has.
    """
    _check_steps("karras", num_steps)
    check_path("karras", path)
    low, high = as_number(sigma_min), as_number(sigma_max)
    if not 0 < low < high < np.inf or not 0 < as_number(rho) < np.inf:
        raise InputError(
            "karras: need finite 0 < sigma_min < sigma_max and rho > 0, got "
            f"sigma_min={sigma_min!r}, sigma_max={sigma_max!r}, rho={rho!r}. "
            "0.002, 80 and 7 are published."
        )
    most = _largest_ratio(path)
    if sigma_max > most * (1 + 1e-5):  # takes the rounded number that it names
        raise InputError(
            f"karras: need sigma_max <= {most:.6g}, the sigma/alpha of {path!r} at "
            f"t = 1, got sigma_max={sigma_max!r}. Pass sigma_max={most:.6g}."
        )
    with np.errstate(all="ignore"):
        ends = np.array([high, low]) ** (1 / rho)
        sigmas = np.linspace(ends[0], ends[1], num_steps) ** rho
        times = np.minimum(np.asarray(path.time(sigmas), np.float64), 1.0)
    if not np.all(np.diff(times, append=0.0) < 0):
        raise InputError(
            f"karras: need steps that float64 can tell apart, got rho={rho!r}, "
            f"num_steps={num_steps!r}. rho=7 is published."
        )
    return np.append(times, 0.0)


def _largest_ratio(path: Path) -> float:
    """sigma / alpha at t = 1; infinite where no data is left."""
    node = path.node(1.0)
    with np.errstate(divide="ignore"):
        return float(node.sigma / np.float64(node.alpha))


def respaced(num_steps: int, num_timesteps: int = 1000) -> np.ndarray:
    """DiT's evenly respaced table of timesteps, the stride added up and rounded.

        timestep_i = round(stride + ... + stride),   stride = (T - 1) / (num_steps - 1)

    with i strides in float64, halves to the even number, so that ties fall as they do
    in DiT's code. Timestep i sits at t = (i + 1) / T (see `paths.DDPM`). float64
    [num_steps + 1].

    Raises:
        InputError: if `num_steps` is no integer from 1 to `num_timesteps`, or the
            latter is no positive integer.

    Source: DiT @facebookresearch, diffusion/respace.py (`space_timesteps`).
    Differs from the source: a single step starts at timestep T - 1, where noise is;
        the code gives timestep 0, from where nothing is sampled.
    """
    _check_steps("respaced", num_steps)
    _check_table("respaced", num_timesteps)
    if num_steps > num_timesteps:
        raise InputError(
            f"respaced: need num_steps <= num_timesteps, got num_steps={num_steps!r}, "
            f"num_timesteps={num_timesteps!r}. The table has no more timesteps."
        )
    if num_steps == 1:
        return np.array([1.0, 0.0])
    stride = (num_timesteps - 1) / (num_steps - 1)
    # Added up, not multiplied: the last digit decides where a half is rounded to.
    places = itertools.accumulate([0.0] + [stride] * (num_steps - 1))
    steps = np.array([round(place) for place in places])
    return np.append((steps[::-1] + 1) / num_timesteps, 0.0)


def _check_steps(name: str, num_steps: int) -> None:
    if not is_integer(num_steps) or not 1 <= num_steps <= MAX_STEPS:
        raise InputError(
            f"{name}: need an integer num_steps from 1 to {MAX_STEPS}, "
            f"got num_steps={num_steps!r}. 50 is common."
        )


def _check_table(name: str, num_timesteps: int) -> None:
    if not is_integer(num_timesteps) or not 1 <= num_timesteps <= MAX_STEPS:
        raise InputError(
            f"{name}: need an integer num_timesteps from 1 to {MAX_STEPS}, "
            f"got num_timesteps={num_timesteps!r}. Published tables have 1000."
        )


def _check_shift(name: str, shift: float) -> None:
    if not 0 < as_number(shift) < np.inf:
        raise InputError(
            f"{name}: need a finite shift > 0, got shift={shift!r}. 1 is no shift."
        )

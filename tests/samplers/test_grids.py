"""The grids of noise times: published tables, and one line for what cannot be one."""

import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.errors import InputError

FAST_COMPILE = True


def timesteps(num_steps):
    grid = jg.respaced(num_steps)
    return np.round(grid[-2::-1] * 1000).astype(int) - 1


def test_every_respaced_table_is_rounded_as_dit_rounds():
    """Its code adds a float64 stride up and rounds halves to even; so does numpy."""
    multiplied = 0
    for num_steps in range(2, 1001):
        strides = np.full(num_steps, 999 / (num_steps - 1))
        strides[0] = 0.0
        want = np.rint(np.cumsum(strides)).astype(int).tolist()
        assert timesteps(num_steps).tolist() == want, num_steps
        product = np.rint(np.arange(num_steps) * strides[-1]).astype(int).tolist()
        multiplied += product != want
    assert multiplied == 278  # ties that a product puts elsewhere


def test_a_single_step_starts_at_pure_noise():
    assert jg.respaced(1).tolist() == [1.0, 0.0]
    assert jg.karras(1, paths.EDM()).tolist() == [1.0, 0.0]
    assert jg.shifted_twice(1).tolist() == [1.0, 0.0]


def test_karras_takes_the_number_that_it_advises():
    for path in (paths.EDM(20.0), paths.VP(0.1, 5.0), paths.DDPM(50)):
        with pytest.raises(InputError, match="Pass sigma_max=") as error:
            jg.karras(20, path)
        grid = jg.karras(
            20, path, sigma_max=float(str(error.value)[:-1].split("=")[-1])
        )
        assert grid[0] == pytest.approx(1, abs=1e-4) and len(grid) == 21


NO_COUNTS = [0, -1, 2.0, 1e11, 10**11, True, None, "5", float("nan"), [3]]
GRIDS = {
    "uniform": jg.uniform,
    "shifted": jg.shifted,
    "shifted_twice": jg.shifted_twice,
    "karras": lambda n: jg.karras(n, paths.EDM()),
    "respaced": jg.respaced,
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_number_of_steps_is_a_whole_number_within_the_limit(name):
    for count in NO_COUNTS:
        with pytest.raises(InputError) as error:
            GRIDS[name](count)
        text = str(error.value)
        assert text.startswith(f"{name}: need an integer num_steps from 1 to 1000000")
        assert f"num_steps={count!r}" in text and "\n" not in text


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: jg.uniform(5, last_step="x"), "uniform: need 0 < last_step < 1"),
        (lambda: jg.shifted(5, None), "shifted: need a finite shift.*shift=None"),
        (lambda: jg.shifted_twice(5, np.inf), "shifted_twice: .*shift=inf"),
        (lambda: jg.shifted_twice(5, num_timesteps=0), "num_timesteps=0"),
        (lambda: jg.respaced(5, 1e3), "respaced: need an integer num_timesteps"),
        (lambda: jg.karras(5, "linear"), "karras: need a noise path.*path='linear'"),
        (lambda: jg.karras(5, paths.EDM), "karras: need a noise path"),
        (lambda: jg.karras(5, paths.EDM(), sigma_max=np.nan), "sigma_max=nan"),
        (lambda: jg.karras(5, paths.EDM(), rho=1e-6), "karras: need .*rho=1e-06"),
        (lambda: paths.check_grid("f", ["a", "b"]), "at least two.*got grid=list"),
        (lambda: paths.check_grid("f", None), "at least two.*got grid=NoneType"),
        (lambda: paths.check_grid("f", np.zeros((30, 30))), r"got grid=\(30, 30\)"),
        (lambda: paths.check_grid("f", [1, np.nan, 0]), r"grid\[1\]=nan"),
        (lambda: paths.check_grid("f", [1, 0.5, 0.5]), r"grid\[1\]=0.5, grid\[2\]=0.5"),
        (
            lambda: paths.check_grid("f", np.linspace(999, 0, 50)),
            r"grid\[0\]=999.0.*divided by 1000",
        ),
    ],
)
def test_what_is_no_grid_is_one_short_line(make, match):
    with pytest.raises(InputError, match=match) as error:
        make()
    assert len(str(error.value)) < 250 and "\n" not in str(error.value)

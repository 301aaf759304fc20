"""Grids that touch t = 1 and t = 0: finite samples, or one line before they run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxguide as jg
from jaxguide import paths
from jaxguide.errors import InputError
from tests.contract.common import SAMPLERS

FAST_COMPILE = True
MORE = {
    "ddim(1.0)": jg.ddim(1.0),
    "ddpm(large)": jg.ddpm("large"),
    "dpmpp_2m(mixed)": jg.dpmpp_2m("mixed"),
    "euler_maruyama(sbdm)": jg.euler_maruyama("sbdm"),
    "euler_maruyama(noisy)": jg.euler_maruyama(last="noisy"),
    "heun(heun)": jg.heun("heun"),
    "recurrent": jg.recurrent(jg.heun(), 2),
    "sde_heun(noisy)": jg.sde_heun(last="noisy"),
    "unipc(3, bh1)": jg.unipc(3, variant="bh1"),
}
KEYS = jg.sample_keys(0, jnp.arange(2))
X = jnp.asarray([[0.5, -1.0, 0.2], [1.5, 0.1, -0.7]])
PATHS = {name: make() for name, make in paths.PATHS.items()}
FEW = {"linear", "vp"}


def cases():
    """Where alpha or sigma vanish; the rest of the product in the exhaustive run."""
    for name in SAMPLERS | MORE:
        for path in PATHS:
            shown = path in FEW and name in ("ddim", "heun(heun)")
            marks = [] if shown else pytest.mark.exhaustive
            yield pytest.param(name, path, marks=marks, id=f"{name}-{path}")


@pytest.mark.parametrize(("name", "path"), cases())
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_from_pure_noise_to_clean_data_is_finite_or_refused(name, path):
    sampler = (SAMPLERS | MORE)[name]
    for kind in paths.KINDS:
        asked = []

        def predict(x, t, cond, asked=asked):
            asked.append(t)
            return 0.3 * x

        network = jg.Network(predict, kind, PATHS[path])
        for grid in ([1.0, 0.6, 0.2, 0.0], [1.0, 0.0], [0.9, 0.5, 0.1]):
            try:
                with jax.disable_jit():
                    out = jg.generate(
                        network, X, None, grid=grid, sampler=sampler, sample_keys=KEYS
                    )
            except InputError as error:
                text = str(error)
                assert not asked and "\n" not in text and grid != [0.9, 0.5, 0.1], text
                assert "t=1.0" in text or "t=0.0" in text or " to 0.0 " in text
                continue
            assert np.isfinite(out).all(), (kind, grid)
            asked.clear()

"""Guidance inside an ODE of diffrax, and `integrate`, which does it for you.

Run:      python examples/diffrax_ode.py      (after pip install -e .)
Expected: both largest errors below 0.001.

The data of the class and of "no class" are Gaussians N(2, 0.5^2) and N(2, 1). The
noisy state x_t of either has the std s(t) = sqrt((1 - t)^2 std^2 + t^2), and guidance
with a scale from t_hi to t_lo divides the end by (s(t_hi) / s(t_lo))^(scale - 1) of the
class, and multiplies it by the same of "no class".
"""

import diffrax
import jax
import jax.numpy as jnp

import jaxguide as jg
from jaxguide.oracle import GaussianMixture
from jaxguide.paths import Linear
from jaxguide.samplers import adaptive

DATA = GaussianMixture(
    means=2.0 * jnp.ones((2, 8)), stds=jnp.array([0.5, 1.0]), labels=(0, 1)
)
SCALE = 2.0


def velocity(x, t, label):
    """Stands for your network; exact here."""
    return DATA.predict("velocity", Linear(), x, t, label)


@jax.jit
def my_ode(guided, noise, label, null):
    """Any solver of diffrax; time runs from 1 (noise) to 0 (data)."""

    def field(t, x, args):
        # Right for transforms without memory: the state stays the initial one.
        prediction, _ = guided(x, t, label, guided.init(x), conds={"null": null})
        return prediction

    return diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        t0=1.0,
        t1=0.0,
        dt0=None,
        y0=noise,
        stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
    ).ys[0]


def exact(noise, t_lo, t_hi):
    """The guided ODE's end, guided from t_hi to t_lo only."""

    def spread(std):
        start, stop = (((1 - t) ** 2 * std**2 + t**2) ** 0.5 for t in (t_hi, t_lo))
        return start / stop

    return 2 + 0.5 * (spread(1.0) / spread(0.5)) ** (SCALE - 1) * noise


def main():
    noise = jax.random.normal(jax.random.key(0), (100, 8))
    label = jnp.zeros(100, jnp.int32)
    null = label + 1

    x = my_ode(jg.guide(velocity, jg.cfg(SCALE)), noise, label, null)
    error = jnp.abs(x - exact(noise, 0.0, 1.0)).max()
    print(f"diffrax, largest error: {error:.6f}")

    # The solver stops at the edges of a window, and pays for CFG only inside.
    solution = adaptive.integrate(
        DATA.network(),
        noise,
        label,
        guidance=jg.cfg(SCALE, t_lo=0.2, t_hi=1.0),
        conds={"null": null},
        rtol=1e-6,
        atol=1e-6,
    )
    error = jnp.abs(solution.x - exact(noise, 0.2, 1.0)).max()
    print(f"integrate, largest error: {error:.6f}")
    print(f"integrate, NFE per image: {solution.nfe.mean():.1f}")


if __name__ == "__main__":
    main()

"""What classifier-free guidance samples, beside the tilted density it is said to.

At every noise time the guided score is that of p_t(x|c)^w p_t(x)^(1-w); but these
densities are not the noisy forms of p(x|c)^w p(x)^(1-w), so the end of the sampling is
another distribution. Both are known here: the tilted one by quadrature, the other by
integrating exact scores.

For one Gaussian each, N(m, s^2) and N(n, u^2), with a linear velocity, the two ends are

    tilted:  variance 1 / (w / s^2 + (1 - w) / u^2)
    CFG:     standard deviation s^w u^(1-w)

since a Gaussian's velocity stretches x by its own standard deviation, and the logarithm
of the stretch is what guidance adds up.

Source: Bradley & Nakkiran 2024, arXiv:2408.09000 (CFG does not sample the
    gamma-powered distribution); Tang et al. 2025, arXiv:2502.12154, Sec. 3.1 and
    Eq. 10; the closed form of the end is this module's own.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxguide import guidance, samplers
from jaxguide.experiments import figures, points
from jaxguide.experiments.report import Report
from jaxguide.oracle import GaussianMixture

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
STDS = (0.6, 1.0)  # of the conditional and the unconditional Gaussian
MEANS = (1.0, 0.0)
STEPS = 200
LINE = np.linspace(-6.0, 6.0, 4801)
LABEL = 1
SAMPLERS = {"ODE": samplers.heun(), "SDE": samplers.euler_maruyama()}


def gaussian(mean: float, std: float) -> GaussianMixture:
    """One Gaussian on a line."""
    return GaussianMixture(jnp.array([[mean]]), jnp.array([std]), (0,))


def mixture() -> GaussianMixture:
    """Two overlapping classes on a line; the second has two modes."""
    means, stds = jnp.array([[-1.0], [0.5], [1.6]]), jnp.array([0.5, 0.4, 0.3])
    return GaussianMixture(means, stds, (0, 1, 1))


def tilted(cond: np.ndarray, null: np.ndarray, scale: float) -> np.ndarray:
    """p(x|c)^w p(x)^(1-w) on `LINE`, normalised by quadrature."""
    logs = scale * np.log(cond + 1e-300) + (1 - scale) * np.log(null + 1e-300)
    return points.normalised(LINE, np.exp(logs - logs.max()))


def cfg_std(scale: float) -> float:
    """Standard deviation of what CFG samples for two Gaussians: s^w u^(1-w)."""
    return STDS[0] ** scale * STDS[1] ** (1 - scale)


def tilted_std(scale: float) -> float:
    """That of the tilted Gaussian."""
    return (scale / STDS[0] ** 2 + (1 - scale) / STDS[1] ** 2) ** -0.5


def run(report: Report) -> None:
    """Fills the report."""
    gaussians(report)
    mixtures(report)


def gaussians(report: Report) -> None:
    """One Gaussian: measured beside both closed forms."""
    setting = report.setting
    noise = points.start(setting.pick(5000, 100), 1, setting.seed)
    main, base = (gaussian(m, s).network() for m, s in zip(MEANS, STDS, strict=True))
    # This transform is CFG whose null prediction comes from another network.
    made = {
        scale: points.sample(
            main,
            noise,
            0,
            steps=STEPS,
            sampler=samplers.heun(),
            transforms=(
                guidance.reference_network(scale, network="base", cond="null"),
            ),
            networks={"base": base},
        )
        for scale in SCALES
    }
    # A linear map of the noise: its own spread is taken out.
    spread = float(np.asarray(noise).std())
    rows = {
        scale: {
            "measured": float(found.std()) / spread,
            "cfg": cfg_std(scale),
            "tilted": tilted_std(scale),
        }
        for scale, found in made.items()
    }
    own = max(abs(row["measured"] / row["cfg"] - 1) for row in rows.values())
    off = [abs(r["measured"] / r["tilted"] - 1) for s, r in rows.items() if s > 1]
    report.claim(
        f"std of one Gaussian guided with scales {', '.join(f'{s:g}' for s in SCALES)}",
        "the guided score is that of p(x|c)^w p(x)^(1-w) (SG Eq. 5), but sampling does "
        "not end there (MG Sec. 3.1; arXiv:2408.09000)",
        "; ".join(
            f"{s:g}: {r['measured']:.3f}, tilted {r['tilted']:.3f}"
            for s, r in rows.items()
        ),
        {"more than 5 % from the tilted std at every scale above 1": min(off) > 0.05},
    )
    report.claim(
        "the same beside the closed form s^w u^(1-w)",
        "none: our own closed form",
        "; ".join(f"{s:g}: {r['cfg']:.3f}" for s, r in rows.items())
        + f"; at most {own:.1e} away",
        {"within 0.5 % at every scale": own < 0.005},
    )
    report.numbers["gaussian"] = rows
    _draw_gaussian(report, rows)


def mixtures(report: Report) -> None:
    """A mixture: samples of the ODE and of the SDE beside the tilted density."""
    setting, model = report.setting, mixture()
    null_label = model.num_classes
    cond, null = (points.density(model, LINE, 0.0, c) for c in (LABEL, null_label))
    noise = points.start(setting.pick(5000, 100), 1, setting.seed)
    made = {
        (kind, scale): points.sample(
            model.network(),
            noise,
            LABEL,
            null=null_label,
            steps=STEPS,
            sampler=sampler,
            transforms=(guidance.cfg(scale),),
            seed=setting.seed,
        )
        for kind, sampler in SAMPLERS.items()
        for scale in SCALES
    }
    wanted = {scale: tilted(cond, null, scale) for scale in SCALES}
    away = {
        kind: {s: points.wasserstein(made[kind, s], LINE, wanted[s]) for s in SCALES}
        for kind in SAMPLERS
    }
    for kind, row in away.items():
        floor = 3 * row[1.0]
        report.claim(
            f"Wasserstein-1 of CFG samples ({kind}) from the tilted density, scales "
            f"{', '.join(f'{s:g}' for s in SCALES)}",
            "the guided process does not end there (MG Sec. 3.1; arXiv:2408.09000)",
            ", ".join(f"{value:.3f}" for value in row.values()),
            {
                "at every scale above 1 more than three times that at scale 1": all(
                    v > floor for s, v in row.items() if s > 1
                )
            },
        )
    apart = {s: _between(made["ODE", s], made["SDE", s]) for s in SCALES}
    report.claim(
        "Wasserstein-1 between the samples of the ODE and of the SDE, same scales",
        "DDIM and DDPM end at different distributions under CFG (arXiv:2408.09000)",
        ", ".join(f"{value:.3f}" for value in apart.values()),
        {
            "at scale 3 more than three times that at scale 1": apart[3.0]
            > 3 * apart[1.0]
        },
    )
    report.numbers["mixture"] = {"away": away, "apart": apart}
    _draw_mixture(report, made, wanted, cond)


def _between(first: np.ndarray, second: np.ndarray) -> float:
    """Wasserstein-1 between two sets of equally many points on a line."""
    return float(np.abs(np.sort(first.ravel()) - np.sort(second.ravel())).mean())


def _draw_gaussian(report: Report, rows: dict) -> None:
    figure, ((panel,),) = figures.panels(1, width=4.6, height=3.2)
    fine = np.linspace(1.0, max(SCALES), 100)
    closed = [cfg_std(s) for s in fine]
    other = [tilted_std(s) for s in fine]
    panel.plot(fine, closed, color=figures.BLUE, label="CFG, closed form $s^w u^{1-w}$")
    panel.plot(fine, other, color=figures.RED, ls="--", label="tilted density")
    measured = [row["measured"] for row in rows.values()]
    panel.plot(SCALES, measured, "o", color=figures.INK, label="CFG, sampled")
    panel.set(xlabel="scale w", ylabel="standard deviation at the end", ylim=(0, None))
    panel.set(title=f"one Gaussian: s = {STDS[0]:g}, u = {STDS[1]:g}")
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small")
    report.save(figure, "gaussian")


def _draw_mixture(report: Report, made: dict, wanted: dict, cond: np.ndarray) -> None:
    shown = (1.5, 3.0, 5.0)
    figure, axes = figures.panels(len(shown), 2, width=3.6, height=2.5, sharex=True)
    bins = np.linspace(-1.0, 3.5, 91)
    for row, kind in enumerate(SAMPLERS):
        for panel, scale in zip(axes[row], shown, strict=True):
            label = f"CFG samples ({kind})"
            figures.histogram(
                panel, made[kind, scale], bins, color=figures.BLUE, label=label
            )
            panel.plot(LINE, cond, color=figures.GREY, ls=":", label="p(x|c)")
            panel.plot(LINE, wanted[scale], color=figures.RED, label="tilted density")
            panel.set(title=f"scale {scale:g}", xlim=(-1.0, 3.5))
        axes[row, 0].legend(fontsize="x-small", loc="upper left")
        axes[row, 0].set(ylabel="density")
    for panel in axes[1]:
        panel.set(xlabel="x")
    report.save(figure, "mixture")

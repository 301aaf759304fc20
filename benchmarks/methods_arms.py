"""What `benchmarks.methods` compares: chains, the numbers to try, and the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Entry = Mapping[str, Any]
SCALES = (1.5, 2.0, 3.0, 4.0)
WEIGHTS = (0.1, 0.25, 0.5, 1.0)
ONE_BLOCK = 0.17  # of six
DEPTH = 6
UNGUIDED = "no guidance"


class Arm(NamedTuple):
    """One method.

    Args:
        title: in the table.
        guidance: its chain; () for none.
        axes: numbers to try, as for a sweep.
        settings: changes of the config to try, such as another network.
    """

    title: str
    guidance: Sequence[Entry] = ()
    axes: Mapping[str, Sequence[float]] = {}
    settings: Sequence[Mapping[str, Any]] = ({},)


def entry(name: str, **arguments: Any) -> Entry:
    """One entry of a guidance list."""
    return dict(name=name, **arguments)


def trained(folder: Path, name: str, **fields: Any) -> Mapping[str, Any]:
    """The setting of a companion network."""
    return dict(checkpoint=str(folder / name / "weights.safetensors"), **fields)


def methods(folder: Path) -> list[Arm]:
    """The methods of the table; `folder` holds the companion networks."""
    cfg, s2 = entry("cfg", scale=1.5), entry("s2", weight=0.25, drop=ONE_BLOCK)
    weak = str(folder / "weak" / "weights.safetensors")
    return [
        Arm(UNGUIDED),
        Arm("CFG", [cfg], {"cfg.scale": SCALES}),
        Arm(
            "CFG in a window",
            [cfg],
            {"cfg.scale": (3.0, 4.0), "cfg.t_lo": (0.2, 0.4), "cfg.t_hi": (0.8, 1.0)},
        ),
        Arm("SG", [entry("sg", weight=1.0)], {"sg.weight": (1.0, 2.0, 4.0, 8.0, 16.0)}),
        Arm(
            "SG-prev",
            [entry("sg_prev", weight=1.0)],
            {"sg_prev.weight": WEIGHTS, "sg_prev.t_hi": (0.5, 1.0)},
        ),
        Arm(
            "CFG + SG-prev",
            [cfg, entry("sg_prev", weight=0.5)],
            {"cfg.scale": (2.0, 3.0), "sg_prev.weight": (0.25, 0.5, 1.0)},
        ),
        Arm("S2", [s2], {"s2.weight": WEIGHTS}),
        Arm(
            "CFG + S2",
            [cfg, s2],
            {"cfg.scale": (2.0, 3.0), "s2.weight": (0.1, 0.25, 0.5)},
        ),
        Arm(
            "naive S2 (4 masks)",
            [entry("s2", weight=0.25, drop=ONE_BLOCK, num_masks=4)],
            {"s2.weight": WEIGHTS},
        ),
        Arm("PAG", [entry("pag")], {"pag.weight": WEIGHTS}),
        Arm("SEG", [entry("seg")], {"seg.weight": WEIGHTS}),
        Arm(
            "autoguidance",
            [entry("autoguidance", scale=1.5)],
            {"autoguidance.scale": (1.25, 1.5, 2.0, 3.0)},
            [dict(weak_checkpoint=weak)],
        ),
        Arm("APG", [entry("apg", scale=1.5)], {"apg.scale": (2.0, 4.0, 6.0, 8.0)}),
        Arm("CFG++", [entry("cfgpp")], {"cfgpp.scale": (0.2, 0.4, 0.6, 0.8)}),
        Arm(
            "CFG-Zero*",
            [entry("cfg_zero", scale=1.5)],
            {"cfg_zero.scale": (3.0, 4.0, 6.0, 8.0)},
        ),
        Arm("MG (trained)", settings=[trained(folder, "mg")]),
        Arm(
            "GFT (trained)",
            settings=[
                trained(folder, "gft", learnt_scale=scale) for scale in (1.0, *SCALES)
            ],
        ),
    ]


def ablations(folder: Path) -> list[Arm]:
    """The ablations of the papers, one arm each."""
    blocks = [
        Arm(f"block {i} dropped", [entry("stg", weight=0.5, layers=(i,))])
        for i in range(DEPTH)
    ]
    return [
        Arm(UNGUIDED),
        Arm(
            "SG: weight and shift",
            [entry("sg", weight=1.0)],
            {"sg.weight": (0.5, 1.0, 2.0), "sg.shift": (0.01, 0.03, 0.1)},
        ),
        Arm(
            "S2: dropped blocks",
            [entry("s2", weight=0.5)],
            {"s2.drop": tuple(n / DEPTH for n in range(1, DEPTH - 1))},
        ),
        *blocks,
        Arm(
            "CFG: end of the window",
            [entry("cfg", scale=2.0)],
            {"cfg.t_hi": (0.25, 0.5, 0.75, 1.0)},
        ),
        Arm(
            "MG: scale",
            settings=[
                trained(folder, "mg_scale", learnt_scale=scale)
                for scale in (1.0, 1.5, 2.0, 2.5, 3.0)
            ],
        ),
        *(
            Arm(f"MG: {drop} % of the labels dropped", settings=[trained(folder, name)])
            for drop, name in ((5, "mg_drop5"), (10, "mg"), (20, "mg_drop20"))
        ),
    ]


STUDIES = {"methods": methods, "ablations": ablations}

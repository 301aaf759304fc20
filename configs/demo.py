"""The demo picture: no guidance, CFG, CFG + SG-prev and CFG + S2, from the same noise.

Run:      python -m jaxguide.sample --config configs/demo.py
          python -m jaxguide.sample --config configs/demo.py:fashion
Cost:     50 Euler steps; 50, 100, 100 and 140 NFE per image (printed at start).
Expected: a labelled picture, outputs/demo-emoji/grid.png; no metric is attached to it.
"""

from jaxguide.runtime.config_file import variant
from jaxguide.sample.config import SampleConfig


def get_config(arg: str = "emoji") -> SampleConfig:
    """`arg`: "emoji" (default), "fashion", or "tiny" for two steps."""
    tiny = variant(arg, "emoji", "fashion", "tiny") == "tiny"
    return SampleConfig(
        checkpoint="emoji" if tiny else arg,
        guidance=[
            dict(name="cfg", scale=2.5, t_lo=0.0, t_hi=1.0),
            dict(name="sg_prev", weight=2.0, t_lo=0.0, t_hi=0.5),
            dict(name="s2", weight=0.5, drop=0.15, t_lo=0.1, t_hi=0.9),
        ],
        columns=("none", "cfg", "cfg+sg_prev", "cfg+s2"),
        sampler="euler",
        num_steps=2 if tiny else 50,
        labels="0-1" if tiny else "all",
        per_class=2 if tiny else 4,
        zoom=2 if arg == "fashion" else 4,
        folder=f"outputs/demo-{arg}",
    )

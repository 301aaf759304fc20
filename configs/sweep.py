"""A sweep: the scale of CFG against the end of its interval, with SG-prev beside it.

Run:      python -m jaxguide.sweep --config configs/sweep.py
          python -m jaxguide.sweep --config configs/sweep.py:fashion
Cost:     12 points of 12 images, 30 Euler steps; 30 to 60 NFE per image (printed at
          start); one compilation.
Expected: outputs/sweep-emoji/sheet.png, and sweep.csv with plain statistics of the
          images. They are no measure of quality; no metric is attached.
"""

from jaxguide.runtime.config_file import variant
from jaxguide.sweep.config import SweepConfig


def get_config(arg: str = "emoji") -> SweepConfig:
    """`arg`: "emoji" (default), "fashion", or "tiny" for two steps and four points."""
    tiny = variant(arg, "emoji", "fashion", "tiny") == "tiny"
    axes = {"cfg.scale": (1.0, 2.0, 4.0), "cfg.t_hi": (0.4, 0.6, 0.8, 1.0)}
    return SweepConfig(
        checkpoint="emoji" if tiny else arg,
        guidance=[
            dict(name="cfg", scale=2.5, t_lo=0.0, t_hi=1.0),
            dict(name="sg_prev", weight=1.0, t_lo=0.0, t_hi=0.5),
        ],
        columns=("cfg+sg_prev",),
        axes={axis: values[:2] for axis, values in axes.items()} if tiny else axes,
        num_steps=2 if tiny else 30,
        labels="0-1" if tiny else "0,1,3,6",
        per_class=1 if tiny else 3,
        zoom=2,
        folder=f"outputs/sweep-{arg}",
    )

"""Papers whose method is a setting of a transform that has another name."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Paper:
    """One method by its own name.

    Args:
        name: short name, in lower case.
        title: what it is, in one line.
        source: authors, year, number.
        call: the transform with the settings that make it this method.
        remark: what else must be known; may be empty.
    """

    name: str
    title: str
    source: str
    call: str
    remark: str = ""

    @property
    def function(self) -> str:
        """Name of the transform."""
        return self.call.partition("(")[0]


PAPERS = (
    Paper(
        "domain_guidance",
        "Guidance of a tuned network by the null prediction of the pretrained one.",
        "Zhong et al. 2025, Domain Guidance, arXiv:2504.01521 (scale about 1.5), as "
        "its authors' repository describes it.",
        'reference_network(1.5, network="pretrained", cond="null")',
        "The condition null must mean the same to both networks.",
    ),
    Paper(
        "npo",
        "CFG whose null branch has weights trained on negative preferences.",
        "Wang et al. 2025, Diffusion-NPO, arXiv:2505.11245, read against "
        "G-U-N/Diffusion-NPO, gen.py; Self-NPO, arXiv:2505.11777.",
        'reference_network(scale, network="dispreferred", cond="null")',
        "The negative weights (a mix of tuned and base weights plus the trained "
        'adapter) are made beforehand, with interpolate_weights. cond="negative" takes '
        "a negative condition.",
    ),
    Paper(
        "personalization",
        "Guidance of a personalised network by the null prediction of mixed weights.",
        "Park et al. 2025, Steering Guidance for Personalized Text-to-Image Diffusion "
        "Models, arXiv:2508.00319 (omega 0 to 0.3); the formula is known at second "
        "hand only.",
        'reference_network(7.5, network="mixed", cond="null")',
        "mixed is interpolate_weights(pretrained, tuned, omega). With omega = 0 it is "
        "domain_guidance, with omega = 1 plain cfg.",
    ),
    Paper(
        "slg",
        "Skip-layer guidance of Stable Diffusion 3.5: whole blocks are left out.",
        "Stability AI's reference code of Stable Diffusion 3.5 (no paper); known at "
        "second hand only, through diffusers' SkipLayerGuidance.",
        'stg(2.8, layers="7-9", t_lo=0.8, t_hi=0.99)',
        "The layers are those of the medium model with 24 blocks. The window there is "
        "in steps and open at both ends, int(0.01 N) < i < int(0.2 N).",
    ),
    Paper(
        "unconditional_prior",
        "CFG of a tuned network with the null prediction of a better base network.",
        "Phunyaphibarn et al. 2025, Unconditional Priors Matter, arXiv:2503.20240.",
        'reference_network(scale, network="base", cond="null")',
        "The base may be any good unconditional network of the same data space.",
    ),
)

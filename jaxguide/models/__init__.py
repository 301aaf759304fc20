"""Networks. They know nothing of guidance: see `jaxguide.guidance`."""

from jaxguide.models.dit import DiT as DiT
from jaxguide.models.dit import apply as apply
from jaxguide.models.dit import init as init
from jaxguide.models.dit import parameter_count as parameter_count
from jaxguide.models.dit import softmax_attention as softmax_attention
from jaxguide.models.dit import split_sigma as split_sigma
from jaxguide.models.dit import time_features as time_features
from jaxguide.models.dit_config import DiTConfig as DiTConfig
from jaxguide.models.dit_config import dit_config as dit_config
from jaxguide.models.dit_config import flops as flops

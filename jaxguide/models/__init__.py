"""Networks. They know nothing of guidance: see `jaxguide.guidance`."""

from jaxguide.models.adapters import (
    adapter_tap as adapter_tap,
    apply_adapted as apply_adapted,
    init_adapters as init_adapters,
)
from jaxguide.models.attention import (
    dense_attention as dense_attention,
    fused_attention as fused_attention,
    softmax_attention as softmax_attention,
)
from jaxguide.models.autoencoder_kl import AutoencoderKLConfig as AutoencoderKLConfig
from jaxguide.models.autoencoders import (
    Autoencoder as Autoencoder,
    decode_latents as decode_latents,
    encode_moments as encode_moments,
    load_autoencoder as load_autoencoder,
    save_autoencoder as save_autoencoder,
)
from jaxguide.models.dit import (
    DiT as DiT,
    Params as Params,
    apply as apply,
    cast_params as cast_params,
    init as init,
    parameter_count as parameter_count,
    split_sigma as split_sigma,
    tabulate as tabulate,
    time_features as time_features,
)
from jaxguide.models.dit_config import (
    DiTConfig as DiTConfig,
    dit_config as dit_config,
    flops as flops,
)
from jaxguide.models.predictor import Predictor as Predictor
from jaxguide.models.tiny_autoencoder import (
    TinyAutoencoderConfig as TinyAutoencoderConfig,
)
from jaxguide.models.tuning import few_rows as few_rows, tuned as tuned
from jaxguide.models.weights import (
    Weights as Weights,
    load_weights as load_weights,
    save_weights as save_weights,
)

"""The train step lowers for TPU and GPU under every strategy, without the hardware."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxguide import models, train
from jaxguide.train import parallel
from jaxguide.train.loss_config import LOSSES, LossConfig

FAST_COMPILE = True

TINY = models.DiTConfig(8, 1, 4, 32, 2, 2, num_classes=10, remat=True, dtype="bfloat16")
# What JAX itself puts into a program, on every platform.
HARMLESS = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def exported(name, model, platform, batch=16, extra=None):
    """The step with Model-Guidance on eight devices, lowered for another platform."""
    chosen = {"pmap": parallel.Pmap, "fsdp": parallel.Fsdp}[name](
        parallel.all_devices()
    )
    optimizer = train.adamw(optax.constant_schedule(1e-4), clip=1.0)
    guided = LOSSES["model_guidance"](LossConfig(), model)

    def loss(params, inputs):
        value = guided(params, inputs)
        return value if extra is None else value + extra(value)

    def make_state(key):
        return train.init_state(models.init(model, key), optimizer)

    step = train.make_train_step(
        loss, optimizer, seed=0, accumulate=2, axis=chosen.axis
    )
    state = parallel.abstract(chosen, make_state, jax.random.key(0))
    rows = (batch,) if name == "fsdp" else (8, batch // 8)
    x0 = jax.ShapeDtypeStruct((*rows, *model.image_shape), jnp.float32)
    label = jax.ShapeDtypeStruct(rows, jnp.int32)
    if name == "pmap":
        state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((8, *leaf.shape), leaf.dtype), state
        )
    return chosen.compile(step, state).export(state, (x0, label), platforms=[platform])


def check(program, platform):
    """It is a program for eight devices of this platform and of nothing else."""
    text = program.mlir_module()
    assert program.platforms == (platform,) and program.nr_devices == 8
    assert "while" in text
    calls = set(re.findall(r"custom_call\s*@([\w.]+)", text))
    # The attention kernel of a TPU; a GPU's needs cuDNN beside this JAX.
    kernels = {"tpu": {"tpu_custom_call"}, "cuda": {"__cudnn$fmhaSoftmax"}}
    assert calls <= HARMLESS | kernels[platform], calls
    return text


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("pmap", "cuda"),
        pytest.param("fsdp", "tpu", marks=pytest.mark.exhaustive),
        pytest.param("pmap", "tpu", marks=pytest.mark.exhaustive),
        pytest.param("fsdp", "cuda", marks=pytest.mark.exhaustive),
    ],
)
def test_the_step_lowers(name, platform):
    text = check(exported(name, TINY, platform), platform)
    if name == "pmap":
        assert "all_reduce" in text
    else:
        assert "shard" in text.lower()


def eigenvalues(value):
    """Only LAPACK on a CPU has these."""
    matrix = jnp.outer(value, value + 1)
    return jnp.linalg.eigvals(jax.lax.stop_gradient(matrix)).real.sum()


def called_back(value):
    """Python in the middle of a step."""
    shape = jax.ShapeDtypeStruct(value.shape, value.dtype)
    stopped = jax.lax.stop_gradient(value)
    return jax.pure_callback(lambda numbers: numbers, shape, stopped)


@pytest.mark.parametrize("extra", [eigenvalues, called_back])
def test_what_only_a_cpu_can_do_is_caught(extra):
    with pytest.raises((NotImplementedError, ValueError, AssertionError)):
        check(exported("fsdp", TINY, "tpu", extra=extra), "tpu")


@pytest.mark.parametrize(
    "platform", ["tpu", pytest.param("cuda", marks=pytest.mark.exhaustive)]
)
def test_the_largest_network_lowers_with_its_state_cut(platform):
    model = models.dit_config("XL/2", remat=True, dtype="bfloat16")
    text = check(exported("fsdp", model, platform, batch=256), platform)
    kernels = '[{}, {}, {"shards"}]', "devices=[1,1,8]"  # as Shardy or GSPMD says it
    assert any(said in text for said in kernels)

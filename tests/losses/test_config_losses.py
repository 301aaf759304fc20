"""Every loss by its name, on a network of two narrow blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import losses, models, train
from jaxguide.models import Weights, save_weights
from jaxguide.train import config
from jaxguide.train.loss_config import (
    INPUTS,
    LOSSES,
    LossConfig,
    initial_params,
    read_teacher,
    teacher_passes,
)
from tests.contract.common import rest

REST = sorted(set(LOSSES) - {"model_guidance"})

FAST_COMPILE = True


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def network(name, **fields):
    inputs = INPUTS.get(name, ())
    return models.DiTConfig(4, 1, 2, 8, 1, 1, num_classes=3, inputs=inputs, **fields)


def loss_config(name, folder):
    """A config for this loss that changes the targets where it can."""
    if name == "ddpm_hybrid":
        return LossConfig(name, path="ddpm", kind="noise")
    if name == "cfg_distillation":
        plain = network("flow_matching")
        params = models.init(plain, jax.random.key(1))
        file = folder / "teacher.safetensors"
        names = ("a", "b", "c")
        save_weights(file, Weights(params, plain, "linear", "velocity", names, {}))
        return LossConfig(name, teacher=str(file))
    return LossConfig(name, omega=0.7, kappa=0.4, t_hi=1.0)


def made_inputs(params):
    x0 = jax.random.normal(jax.random.key(2), (6, 4, 4, 1))
    label = jnp.arange(6, dtype=jnp.int32) % 3
    draws = losses.draws(jax.random.key(3), 6)
    return train.Inputs(params, (x0, label), draws, jnp.int32(5), {})


@pytest.mark.parametrize("name", ["model_guidance", *rest(*REST)])
def test_a_loss_has_a_value_and_a_gradient_per_sample(name, tmp_path):
    config = loss_config(name, tmp_path)
    model = network(name, learn_sigma=name == "ddpm_hybrid")
    loss = LOSSES[name](config, model)
    start = initial_params(config, model)

    @jax.jit
    def run(key):
        params = start(key)
        # A fresh network returns zeros and hides its blocks: let it say something.
        params = jax.tree.map(lambda p: p + 0.05, params)
        inputs = made_inputs(params)
        grad = jax.grad(lambda p: loss(p, inputs).mean())(params)
        return loss(params, inputs), grad

    value, grad = run(jax.random.key(0))
    assert value.shape == (6,) and value.dtype == jnp.float32
    assert np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0)
    norms = {name: float(jnp.abs(leaf).max()) for name, leaf in _named(grad)}
    assert np.all(np.isfinite(list(norms.values())))
    for number in INPUTS.get(name, ()):
        assert norms[f"['{number}_in']['kernel']"] > 0, "the input is read"
    assert teacher_passes(config, model) == {
        "cfg_distillation": 2,
        "ddpm_hybrid": 0,
        "flow_matching": 0,
        "gft": 1,
        "mean_flow": 2.5,
        "model_guidance": 2,
        "scale_aware_model_guidance": 0.4,
    }[name]  # fmt: skip


def test_passes_of_a_teacher_are_counted_in_rows_of_a_device():
    scale_aware = LossConfig("scale_aware_model_guidance")
    model = network("scale_aware_model_guidance")
    assert teacher_passes(scale_aware, model, rows=32) == 2 * 7 / 32
    assert teacher_passes(scale_aware, model, rows=8, stride=4) == 2 * 4 / 8
    flow = LossConfig("mean_flow", flow_ratio=0.25)
    assert teacher_passes(flow, network("mean_flow"), rows=32) == 1
    flow = LossConfig("mean_flow", flow_ratio=0.75)
    assert teacher_passes(flow, network("mean_flow"), rows=32) == 2 * 9 / 32


def _named(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path), leaf


def test_a_student_starts_as_its_teacher(tmp_path):
    settings = loss_config("cfg_distillation", tmp_path)
    student = network("cfg_distillation")
    params = initial_params(settings, student)(jax.random.key(7))
    teacher = read_teacher(settings, student).params
    assert set(params) - set(teacher) == {"scale_in", "scale_out"}
    same = {name: params[name] for name in teacher}
    jax.tree.map(np.testing.assert_array_equal, same, teacher)


@pytest.mark.parametrize(
    ("name", "fields", "line"),
    [
        ("ddpm_hybrid", {}, "need path='ddpm' for this loss, got path='linear'"),
        ("ddpm_hybrid", {"path": "ddpm"}, "need kind='noise'"),
        ("ddpm_hybrid", {"path": "ddpm", "kind": "noise"}, "got learn_sigma=False"),
        ("mean_flow", {"kind": "noise"}, "need kind='velocity'"),
        ("cfg_distillation", {}, "need a weights file, got teacher=''"),
        ("model_guidance", {"reference": "nul"}, "Did you mean 'null'"),
    ],
)
def test_what_does_not_fit_is_named(name, fields, line):
    with pytest.raises(ValueError, match=line):
        LOSSES[name](LossConfig(name, **fields), network(name))


@pytest.mark.exhaustive  # reading of weights: test_weights
def test_training_starts_from_weights_of_the_same_architecture(tmp_path):
    file = loss_config("cfg_distillation", tmp_path).teacher
    model, loss = network("gft"), LossConfig("gft")
    start = config.build_start(config.TrainConfig(loss=loss, start_from=file), model)
    params = initial_params(loss, model, start)(jax.random.key(7))
    own = models.init(network("flow_matching"), jax.random.key(1))
    assert set(params) - set(own) == {"beta_in", "beta_out"}
    close = functools.partial(np.testing.assert_allclose, atol=1e-3)  # kept as float16
    jax.tree.map(close, {name: params[name] for name in own}, own)
    other = config.TrainConfig(loss=LossConfig("gft", path="gvp"), start_from=file)
    with pytest.raises(ValueError, match="train: need a start_from of the same"):
        config.build_start(other, model)


def test_a_teacher_of_another_kind_is_refused(tmp_path):
    settings = loss_config("cfg_distillation", tmp_path)
    settings.kind = "noise"
    with pytest.raises(ValueError, match="need a teacher of the same architecture"):
        LOSSES["cfg_distillation"](settings, network("cfg_distillation"))

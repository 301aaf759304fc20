"""One device, pmap and fsdp train the same network, and carry on each other's runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxguide import data, models, train
from jaxguide.runtime import devices
from jaxguide.train import parallel
from jaxguide.train.loss_config import LOSSES, LossConfig
from tests.contract.common import rest

FAST_COMPILE = True
MODEL = models.DiTConfig(8, 1, 4, 16, 2, 2, num_classes=10, remat=True)
DECAYS = (0.9, 0.5)
STEPS, BATCH = 3, 16
# Sums over the batch are taken in another order: some float32 roundings per step, in
# parameters of at most 0.5 that move by up to 0.03. Measured over all strategies: 4e-6.
TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def small_and_standard(monkeypatch):
    """Cut small arrays too; promotion as in a real run."""
    monkeypatch.setattr(devices, "SMALL", 64)
    with jax.numpy_dtype_promotion("standard"):
        yield


def strategy(name):
    devices = parallel.all_devices()
    assert len(devices) == 8
    return {
        "one": parallel.one_device,
        "pmap": lambda: parallel.Pmap(devices),
        "fsdp": lambda: parallel.Fsdp(devices),
        "fsdp in copies": lambda: parallel.Fsdp(devices, shards=2),
    }[name]()


def optimizer():
    return train.adamw(optax.constant_schedule(1e-2), clip=1.0)


def step_of(model, **named):
    """Model-Guidance: the loss with a teacher, windows, dropped labels."""
    # With a scale, the teacher sees some rows of every device's part.
    name = "scale_aware_model_guidance" if model.inputs else "model_guidance"
    loss = LOSSES[name](LossConfig(), model)
    return train.make_train_step(loss, optimizer(), seed=0, ema=DECAYS, **named)


def make_state(key, model=MODEL):
    params = models.init(model, key)
    return train.init_state(params, optimizer(), averages=len(DECAYS))


@functools.cache
def trained(name, accumulate=1, remat=True, inputs=()):
    """(losses and gradient norms [steps, 2], the whole state in numpy)."""
    chosen = strategy(name)
    model = models.DiTConfig(**{**vars(MODEL), "remat": remat, "inputs": inputs})
    make = functools.partial(make_state, model=model)
    state = parallel.init(chosen, make, jax.random.key(0))
    step = step_of(model, accumulate=accumulate, axis=chosen.axis)
    step = chosen.compile(step, state)
    seen = []
    for index in range(STEPS):
        batch = data.batch(data.digits(), index, batch_size=BATCH, seed=0)
        state, report = step(state, chosen.feed(batch))
        seen.append(list(report.compute().values()))
    saved = parallel.whole(chosen.saved(state))
    return np.asarray(seen), jax.tree.map(np.asarray, saved)


def difference(one, other):
    """The largest difference of two states."""
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, other)
    return max(map(float, jax.tree.leaves(apart)))


# In the exhaustive run; by default `fsdp` and `pmap` train in the tests below.
STRATEGIES = [
    ("pmap", 2, True),
    ("fsdp", 1, True),
    ("one", 4, True),
    ("one", 1, False),
    ("pmap", 1, True),
    ("fsdp", 2, True),
    ("fsdp in copies", 1, True),
]


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", STRATEGIES)
def test_every_strategy_trains_what_one_device_trains(how):
    numbers, state = trained("one")
    found, reached = trained(*how)
    apart = np.abs(found - numbers).max(), difference(reached, state)
    name, accumulate, remat = how
    print(
        f"{name}, {accumulate} parts, remat {remat}: numbers differ by {apart[0]:.1e}, "
        f"parameters, averages and moments by {apart[1]:.1e}"
    )
    assert int(reached.step) == STEPS and np.all(np.isfinite(found))
    assert max(apart) < TOLERANCE
    start = jax.jit(make_state)(jax.random.key(0))
    assert difference(state.params, start.params) > 0.01, "nothing was learnt"


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", [("pmap", 1), ("fsdp", 1), ("one", 4)])
def test_a_teacher_that_sees_some_rows_is_the_same_on_any_devices(how):
    numbers, state = trained("one", inputs=("scale",))
    found, reached = trained(*how, inputs=("scale",))
    assert np.abs(found - numbers).max() < TOLERANCE
    assert difference(reached, state) < TOLERANCE


def toy_state(key):
    params = {"kernel": jax.random.normal(key, (64, 8)), "bias": jnp.zeros(8)}
    return train.init_state(params, optax.sgd(0.1), averages=3)


def toy_loss(params, inputs):
    """Noisy regression of a fixed function of the pixels."""
    x0, label = inputs.batch
    found = x0.reshape(len(x0), -1) @ params["kernel"] + params["bias"][None]
    wanted = label[:, None].astype(jnp.float32) + inputs.draws.normal((8,))
    return jnp.square(found - wanted).mean(axis=1)


@pytest.mark.parametrize("name", ["pmap", "fsdp", *rest("one", "fsdp in copies")])
def test_a_step_is_traced_once_and_reports_without_waiting(name):
    chosen, traced = strategy(name), []

    def loss(params, inputs):
        traced.append(None)
        return toy_loss(params, inputs)

    state = parallel.init(chosen, toy_state, jax.random.key(0))
    step = train.make_train_step(
        loss, optax.sgd(0.1), seed=0, ema=(0.9, 0.5, 0.0), axis=chosen.axis
    )
    step = chosen.compile(step, state)
    traces = []
    for index in range(3):
        batch = data.batch(data.digits(), index, batch_size=BATCH, seed=0)
        state, report = step(state, chosen.feed(batch))
        traces.append(len(traced))
    assert traces == [traces[0]] * 3
    for leaf in jax.tree.leaves(report):
        assert leaf.ndim == 0 and len(leaf.devices()) == 1


def test_fsdp_holds_a_part_on_every_device():
    chosen = strategy("fsdp")
    state = parallel.init(chosen, make_state, jax.random.key(0))
    for tree in (state.params, *state.averages, state.opt_state):
        flat, _ = jax.tree_util.tree_flatten_with_path(tree)
        for path, leaf in flat:
            parts = {shard.data.size for shard in leaf.addressable_shards}
            is_cut = chosen.spec(path, leaf) != parallel.EVERYWHERE
            assert parts == {leaf.size // 8 if is_cut else leaf.size}
    cut = state.params["blocks"]["qkv"]["kernel"].addressable_shards[0].data
    assert cut.shape == (2, 16, 6), "along the largest dimension, never the depth"
    whole = parallel.whole(state.params)
    plain = jax.jit(make_state)(jax.random.key(0)).params
    jax.tree.map(np.testing.assert_array_equal, whole, plain)


@pytest.mark.parametrize(
    ("path", "shape", "shards", "expected"),
    [
        ("blocks", (16, 64, 256), 8, (None, None, "shards")),
        ("blocks", (4096, 6), 2, (None, "shards")),
        ("blocks", (4096, 7), 2, ()),
        ("table", (1001, 64), 8, (None, "shards")),
        ("table", (1001, 63), 8, ()),
        ("table", (1024, 1024), 1, ()),
        ("table", (7, 8), 8, ()),
        ("table", (), 8, ()),
    ],
)
def test_the_rule_cuts_the_largest_dimension_that_divides(
    path, shape, shards, expected
):
    found = parallel.cut((jax.tree_util.DictKey(path),), shape, shards)
    assert tuple(found) == expected


def toy_experiment(chosen, **changes):
    fields = dict(
        dataset=data.digits(),
        init_params=lambda key: toy_state(key).params,
        loss=toy_loss,
        optimizer=optimizer(),
        strategy=chosen,
        batch_size=BATCH,
        ema=DECAYS,
    )
    return train.Experiment(**(fields | changes))


def run(folder, chosen, steps, **changes):
    loop = train.LoopConfig(folder=folder, steps=steps, save_every=100)
    state = train.run(toy_experiment(chosen, **changes), loop)
    return jax.tree.map(np.asarray, parallel.whole(state))


@pytest.mark.exhaustive  # every strategy trains what one device trains, above
def test_strategies_carry_on_each_others_runs(tmp_path):
    unbroken = run(tmp_path / "whole", strategy("one"), 8)
    names = ["pmap", "one", "fsdp", "pmap"]
    for steps, name in zip((2, 4, 6, 8), names, strict=True):
        state = run(tmp_path / "parts", strategy(name), steps)
    assert int(state.step) == 8
    assert difference(state, unbroken) < TOLERANCE


@pytest.mark.parametrize("name", ["fsdp", *rest("pmap")])
def test_observers_see_whole_weights_and_may_retune(tmp_path, name):
    views = []

    def evaluate(step, view):
        assert view.ema_params["kernel"].shape == (64, 8)
        assert len(view.ema_params["kernel"].devices()) == 1
        views.append(float(view.tuned["weight"]))
        return {"weight": step / 10}

    loop = train.LoopConfig(folder=tmp_path, steps=3, evaluate_every=1)
    experiment = toy_experiment(strategy(name), tuned={"weight": 0.0})
    seen = []
    state = train.run(
        experiment, loop, lambda step, view: seen.append((step, view)), evaluate
    )
    np.testing.assert_allclose(views, [0.0, 0.1, 0.2], rtol=1e-6)
    assert [step for step, _ in seen] == [3] and int(seen[0][1].step) == 3
    np.testing.assert_allclose(np.asarray(state.tuned["weight"]), 0.3, rtol=1e-6)


def test_a_batch_has_to_be_cut_evenly(tmp_path):
    with pytest.raises(ValueError, match=r"8 \* 4, got batch_size=16"):
        run(tmp_path, strategy("pmap"), 1, accumulate=4)
    with pytest.raises(ValueError, match="divide 8 devices, got shards=3"):
        parallel.Fsdp(parallel.all_devices(), shards=3)


@pytest.mark.parametrize("accumulate", [4, *rest(1)])
def test_clipping_limits_the_gradient_of_the_whole_batch(accumulate):
    limit, rate = 0.5, 0.1
    state = jax.jit(toy_state)(jax.random.key(0))
    clipped = optax.chain(optax.clip_by_global_norm(limit), optax.sgd(rate))
    state = state._replace(opt_state=clipped.init(state.params))
    step = train.make_train_step(
        quiet_loss, clipped, seed=0, ema=(0.0,) * 3, accumulate=accumulate
    )
    x0, label = data.batch(data.digits(), 0, batch_size=BATCH, seed=0)
    new, report = jax.jit(step)(state, (x0, label))
    pixels = x0.reshape(BATCH, -1).astype(np.float64)
    error = pixels @ np.float64(state.params["kernel"]) - label[:, None]
    grads = {"kernel": pixels.T @ error, "bias": error.sum(axis=0)}
    grads = {name: 2 * grad / error.size for name, grad in grads.items()}
    norm = np.sqrt(sum(np.sum(grad**2) for grad in grads.values()))
    assert norm > 2 * limit, "the test needs a gradient to clip"
    np.testing.assert_allclose(float(report.compute()["grad_norm"]), norm, rtol=1e-5)
    for name, grad in grads.items():
        expected = np.float64(state.params[name]) - rate * limit / norm * grad
        np.testing.assert_allclose(new.params[name], expected, atol=2e-6)


def quiet_loss(params, inputs):
    """`toy_loss` without its noise."""
    x0, label = inputs.batch
    found = x0.reshape(len(x0), -1) @ params["kernel"] + params["bias"][None]
    return jnp.square(found - label[:, None]).mean(axis=1)


def test_averages_follow_the_recursion_in_float64():
    decays = (0.99, 0.7, 0.0)
    state = jax.jit(toy_state)(jax.random.key(0))
    step = jax.jit(train.make_train_step(toy_loss, optax.sgd(0.1), seed=0, ema=decays))
    expected = [np.float64(state.params["kernel"])] * 3
    for index in range(30):
        batch = data.batch(data.digits(), index, batch_size=BATCH, seed=0)
        state, _ = step(state, batch)
        new = np.float64(state.params["kernel"])
        for place, decay in enumerate(decays):
            kept = min(decay, (1 + index) / (10 + index))
            expected[place] = kept * expected[place] + (1 - kept) * new
    for average, wanted in zip(state.averages, expected, strict=True):
        np.testing.assert_allclose(average["kernel"], wanted, rtol=1e-5, atol=1e-6)
    assert difference(state.averages[0], state.averages[1]) > 1e-3


def test_bfloat16_computes_and_float32_remembers():
    model = models.DiTConfig(**{**vars(MODEL), "dtype": "bfloat16"})
    state = jax.eval_shape(make_state, jax.random.key(0))
    batch = data.batch(data.digits(), 0, batch_size=BATCH, seed=0)
    new, report = jax.eval_shape(step_of(model), state, batch)
    assert jax.tree.map(lambda leaf: leaf.dtype, (new, report.loss.total)) == (
        jax.tree.map(lambda leaf: leaf.dtype, (state, jnp.zeros(())))
    )
    products = str(jax.make_jaxpr(step_of(model))(state, batch)).count("bf16")
    assert products > 100
    assert "bf16" not in str(jax.make_jaxpr(step_of(MODEL))(state, batch))

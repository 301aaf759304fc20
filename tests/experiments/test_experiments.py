"""The papers' experiments: exact claims, honest tables, the command line, tiny runs."""

import importlib
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxguide import experiments, guidance, samplers, train
from jaxguide.data.dataset import Dataset
from jaxguide.experiments import (
    __main__ as command,
    mg_grid,
    points,
    s2_cifar,
    s2_cost,
    sg_modes,
    sg_spaces,
    tilted,
)
from jaxguide.experiments.fitting import Recipe, fit
from jaxguide.experiments.network import PointNet
from jaxguide.experiments.report import Report, Setting, plain
from jaxguide.models import save_weights
from jaxguide.samplers import grids

FAST_COMPILE = True
NET = PointNet(2, classes=3, width=8, depth=4, waves=1)


def report(folder, **setting):
    return Report("name", "title", Setting(folder, **setting))


# Claims with an exact answer.


@pytest.mark.parametrize("scale", [1.5, 4.0])
def test_one_gaussian_ends_at_the_closed_form_and_not_at_the_tilted_density(scale):
    main, base = (
        tilted.gaussian(mean, std).network()
        for mean, std in zip(tilted.MEANS, tilted.STDS, strict=True)
    )
    noise = jnp.array([[-1.0], [1.0]])  # of unit deviation; all that happens is linear
    made = points.sample(
        main,
        noise,
        0,
        steps=200,
        sampler=samplers.heun(),
        transforms=(guidance.reference_network(scale, network="base", cond="null"),),
        networks={"base": base},
    )
    np.testing.assert_allclose(made.std(), tilted.cfg_std(scale), rtol=2e-3)
    assert abs(made.std() / tilted.tilted_std(scale) - 1) > 0.02


def test_the_tilted_gaussian_is_the_one_that_quadrature_finds():
    line = tilted.LINE
    cond, null = (
        np.exp(-0.5 * ((line - mean) / std) ** 2) / std
        for mean, std in zip(tilted.MEANS, tilted.STDS, strict=True)
    )
    step = line[1] - line[0]
    for scale in tilted.SCALES:
        values = tilted.tilted(cond, null, scale)
        mean = (line * values).sum() * step
        variance = ((line - mean) ** 2 * values).sum() * step
        np.testing.assert_allclose(variance**0.5, tilted.tilted_std(scale), rtol=1e-6)


def test_self_guidance_of_a_density_suppresses_the_middle_more_with_more_weight():
    plain_density = points.density(points.two_modes(), sg_modes.LINE, sg_modes.AT)
    made = [sg_modes.guided(sg_modes.AT, weight) for weight in (0.0, 1.0, 4.0)]
    np.testing.assert_allclose(
        made[0], points.normalised(sg_modes.LINE, plain_density), rtol=1e-12
    )
    middle = [density[sg_modes.MIDDLE] for density in made]
    assert middle[0] > 2 * middle[1] > 8 * middle[2]
    step = sg_modes.LINE[1] - sg_modes.LINE[0]
    np.testing.assert_allclose([d.sum() * step for d in made], 1)


def test_corrections_of_raw_outputs_and_of_scores_point_apart():
    mixture = points.two_modes()
    x = jnp.linspace(-1.5, 1.5, 31)[:, None]
    score, native = sg_spaces.corrections(mixture, x, 0.15, 0.01)
    # In scores the correction is the formula itself, worked out by hand.
    label = jnp.zeros(len(x), jnp.int32)
    path = mixture.network().path
    here, later = (
        np.asarray(mixture.score(x, label, path.node(t)), np.float64)
        for t in (0.15, 0.16)
    )
    np.testing.assert_allclose(
        score, -(0.15 / 0.85) * (here - later), rtol=2e-2, atol=2e-3
    )
    assert (score * native).min() < 0 < (score * native).max()


def test_the_counted_cost_of_s2_is_that_of_its_blocks_in_its_window():
    network = guidance.Network(
        lambda x, t, label: x, depth=20, flops=120.0, block_flops=5.0
    )
    chains = s2_cost.arms()
    cost = {
        name: samplers.cost(network, chain, grids.uniform(28), samplers.euler())
        for name, chain in chains.items()
    }
    inside = int(np.sum((times := grids.uniform(28)[:-1]) < 0.9) - sum(times < 0.1))
    assert cost["CFG"].flops == 2 * 28 * 120
    assert cost["CFG + S2"].flops == 2 * 28 * 120 + inside * (120 - 2 * 5)
    assert cost["CFG + S2 at all t"].flops == 28 * (2 * 120 + 110)


def test_the_error_of_a_median_is_that_of_medians_drawn_again_and_again():
    draws = np.random.default_rng(0).normal(3.0, 0.3, (4000, 15))
    wanted = np.median(draws, axis=1).std() / 3.0
    found = np.mean([s2_cost.error(draw) for draw in draws])
    np.testing.assert_allclose(found, wanted, rtol=0.15)


# Measures of what is known.


def test_wasserstein_of_moved_points_is_how_far_they_are_moved():
    line = np.linspace(-6, 6, 2401)
    values = np.exp(-0.5 * line**2)
    quantiles = (np.arange(4000) + 0.5) / 4000
    normal = np.asarray(jax.scipy.special.ndtri(quantiles))
    np.testing.assert_allclose(points.wasserstein(normal, line, values), 0, atol=2e-3)
    np.testing.assert_allclose(
        points.wasserstein(normal + 0.7, line, values), 0.7, atol=2e-3
    )


def test_points_that_fill_their_squares_are_neither_narrow_nor_off_centre():
    label = np.arange(40_000) % 2
    made = mg_grid.BOARD.sample(np.random.default_rng(0), label)
    found = mg_grid.measures(made, label)
    np.testing.assert_allclose(found["spread"], 1, rtol=0.01)
    assert found["outliers"] == 0 and found["offset"] < 0.02
    assert mg_grid.inside_any(made).all()
    centre = np.round(made + 1.5) - 1.5
    half = mg_grid.measures(centre + 0.5 * (made - centre), label)
    np.testing.assert_allclose(half["spread"], 0.5, rtol=0.01)
    aside = mg_grid.measures(made + np.array([[0.04, 0.0]]), label)
    np.testing.assert_allclose(aside["offset"], 0.04 / mg_grid.BOARD.edge, rtol=0.1)


def test_a_straight_path_does_not_turn_and_a_corner_turns_by_a_right_angle():
    straight = np.linspace(0, 1, mg_grid.STEPS + 1)[:, None, None] * np.ones((1, 3, 2))
    np.testing.assert_allclose(mg_grid.turning(straight), 0, atol=1e-3)
    corner = straight.copy()
    corner[5:, :, 1] = 2 * corner[4, :, 1] - corner[5:, :, 1]
    np.testing.assert_allclose(mg_grid.turning(corner), 90, atol=1e-3)


def test_features_of_other_images_are_far_and_collapsed_ones_are_narrow():
    rng = np.random.default_rng(0)
    truth = [rng.normal(size=(80, 4)) + 3 * c for c in (0, 1)]
    same = s2_cifar.measures(truth, truth)
    np.testing.assert_allclose(same["spread"], 1)
    narrow = [one.mean(axis=0) + 0.25 * (one - one.mean(axis=0)) for one in truth]
    found = s2_cifar.measures(narrow, truth)
    np.testing.assert_allclose(found["spread"], 0.25)
    assert found["separation"] == 1.0 and found["doubt"] == 0.0
    assert s2_cifar.measures(truth[::-1], truth)["separation"] < 0.1


# The shared pieces.


def test_blocks_that_are_left_out_are_those_that_are_not_named():
    params = NET.init(0)
    # A fresh network returns 0; give its last layer values.
    params["leave"]["kernel"] = jax.random.normal(jax.random.key(0), (8, 2))
    x, t, label = jnp.ones((5, 2)), jnp.full(5, 0.3), jnp.arange(5, dtype=jnp.int32) % 4
    run = jax.jit(NET)
    full = run(params, x, t, label)
    np.testing.assert_array_equal(
        full, run(params, x, t, label, jnp.arange(4, dtype=jnp.int32))
    )
    fewer = run(params, x, t, label, jnp.array([0, 1, 3], jnp.int32))
    assert np.abs(fewer - full).max() > 1e-3
    block = params["blocks"]["second"]
    block["kernel"] = block["kernel"].at[2].set(0)
    block["bias"] = block["bias"].at[2].set(0)
    np.testing.assert_allclose(fewer, run(params, x, t, label), rtol=1e-6)


@pytest.mark.exhaustive
def test_training_lowers_the_loss_and_guidance_changes_what_is_learnt():
    mixture = points.corners(2, std=0.5)
    data = points.draw(mixture, 500, 0)
    net, recipe = PointNet(2, classes=4, width=16, depth=2), Recipe(steps=300)
    plainly, again, guided = (
        fit(net, *data, recipe, weight=weight) for weight in (0.0, 0.0, 0.5)
    )
    assert plainly.loss[-30:].mean() < 0.5 * plainly.loss[:10].mean()
    np.testing.assert_array_equal(plainly.loss, again.loss)
    begun = int(recipe.start * recipe.steps)
    np.testing.assert_array_equal(plainly.loss[:begun], guided.loss[:begun])
    assert np.abs(plainly.loss[begun + 10 :] - guided.loss[begun + 10 :]).max() > 1e-3


def test_a_claim_agrees_as_far_as_its_rules_hold(tmp_path):
    made = report(tmp_path, tiny=True)
    made.claim("a", "b", "c", {"1 < 2": True, "2 < 3": np.bool_(True)})
    made.claim("a", "b", "c", {"1 < 2": True, "3 < 2": False})
    made.claim("a", "b", "c", {"3 < 2": False})
    made.claim("a", "b", "c", {})
    made.missing("a", "b", "no time")
    assert [row.agrees for row in made.rows] == ["yes", "partly", "no", "-", "-"]
    assert made.rows[1].why == "1 < 2: holds; 3 < 2: fails"
    made.numbers["found"] = {0.5: np.float32(1 / 3), "more": (jnp.ones(2), 7)}
    made.write()
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["numbers"] == {"found": {"0.5": 0.333333, "more": [[1.0, 1.0], 7]}}
    assert written["rows"][4]["measured"] == "not measured"
    assert "mean nothing" in made.text() and "| no |" in made.text()


def test_numbers_are_rounded_for_the_file():
    assert plain(2 / 3) == 0.666667 and plain([np.int32(2)]) == [2]


# The command line.


def test_without_a_name_the_experiments_are_listed(capsys):
    command.run([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(experiments.EXPERIMENTS)
    assert all(len(line) <= 88 and "  " in line for line in lines)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sg_mode"], "got name='sg_mode'. Did you mean 'sg_modes'?"),
        (["tilted", "--sed", "1"], "unrecognized arguments: --sed 1"),
        (["tilted", "--seed", "one"], "invalid int value: 'one'"),
        (["s2_cifar"], "s2_cifar: need the folder of CIFAR-10's binary version"),
        (["s2_cifar", "--data", "missing.npz"], "need an existing .npz file"),
    ],
)
def test_a_mistake_is_one_line(words, line, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["x", *words, "--folder", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


def test_every_experiment_names_its_source():
    for name in experiments.EXPERIMENTS:
        module = importlib.import_module(f"jaxguide.experiments.{name}")
        assert "Source:" in module.__doc__ and "arXiv:" in module.__doc__
        assert callable(module.run)


# CIFAR-10 as users have it.


def test_the_binary_version_is_read_as_red_green_and_blue(tmp_path):
    records = np.zeros((4, s2_cifar.RECORD), np.uint8)
    records[:, 0] = [1, 3, 7, 1]
    records[2, 1:1025] = 200  # red first
    records.tofile(tmp_path / "data_batch_1.bin")
    found = s2_cifar.read(str(tmp_path))
    assert found.labels.tolist() == [0, 1, 0]
    assert found.images[1, 3, 4].tolist() == [200, 0, 0]
    records[:, 0] = 1
    records.tofile(tmp_path / "data_batch_1.bin")
    with pytest.raises(ValueError, match="s2_cifar: need images of the classes"):
        s2_cifar.read(str(tmp_path))


@pytest.mark.exhaustive
def test_a_training_that_was_stopped_ends_the_experiment(tmp_path, monkeypatch, capsys):
    """Nothing is measured with a network that is half trained."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
    dataset = Dataset(images, np.arange(20, dtype=np.int32) % 2, ("a", "b"))
    setting = Setting(tmp_path, tiny=True, steps=4)

    def save(file, weights):
        if not file.exists():
            signal.raise_signal(signal.SIGTERM)
        save_weights(file, weights)

    monkeypatch.setattr(s2_cifar, "save_weights", save)
    with pytest.raises(SystemExit) as left:
        s2_cifar.train(setting, dataset)
    assert left.value.code == train.PREEMPTED
    assert "stopped after step 2; the same" in capsys.readouterr().out
    main, weak = s2_cifar.train(setting, dataset)
    assert "resuming at step 2" in capsys.readouterr().out
    assert main.params.keys() == weak.params.keys()


# Tiny runs of everything.


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_an_experiment_runs_and_writes_what_it_says(name, tmp_path):
    setting = Setting(tmp_path / "out", tiny=True)
    if name == "s2_cifar":
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (60, 32, 32, 3), np.uint8)
        np.savez(tmp_path / "own.npz", x=images, y=np.tile([1, 7, 4], 20))
        setting = Setting(
            tmp_path / "out", tiny=True, data=str(tmp_path / "own.npz"), steps=4
        )
    made = experiments.run(name, setting)
    assert made.rows and all(row.why or row.agrees == "-" for row in made.rows)
    assert made.figures and all(file.stat().st_size > 2000 for file in made.figures)
    written = json.loads((setting.folder / "report.json").read_text(encoding="utf-8"))
    assert len(written["rows"]) == len(made.rows) and written["numbers"]

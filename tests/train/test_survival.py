"""Runs that are killed, stopped, starved or broken lose nothing that was saved."""

import contextlib
import json
import os
import re
import resource
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxguide import data, train as training
from jaxguide.train import Checkpoints

FAST_COMPILE = True
killing = runpy.run_path(str(Path(__file__).with_name("kill.py")))


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def init_params(key):
    return {"kernel": 0.1 * jax.random.normal(key, (64,)), "bias": jnp.zeros(())}


def least_squares(params, inputs):
    """A noisy linear model of the label, whose noise the run tunes."""
    x0, label = inputs.batch
    guess = x0.reshape(len(x0), -1) @ params["kernel"] + params["bias"]
    noise = inputs.tuned["noise"] * inputs.draws.normal()
    return jnp.square(guess - label + noise)


def experiment(**changes):
    fields = dict(
        dataset=data.digits(),
        init_params=init_params,
        loss=least_squares,
        optimizer=training.adamw(optax.constant_schedule(0.01), clip=1.0),
        batch_size=16,
        flip=True,
        ema=(0.9, 0.99),
        tuned={"noise": 0.1},
        meta={"name": "toy"},
    )
    return training.Experiment(**(fields | changes))


def loop(folder, steps, **changes):
    fields = dict(log_every=5, save_every=4, snapshot_every=100, evaluate_every=3)
    return training.LoopConfig(folder=folder, steps=steps, **(fields | changes))


def evaluate(step, view):
    """A number that takes effect in the next step."""
    return {"noise": 0.1 / step, "bias": float(view.ema_params["bias"])}


def curve(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    names = ("step", "loss", "grad_norm", "noise", "bias")
    return [{name: row[name] for name in names if name in row} for row in rows]


def saved(folder, like, step=None):
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.restore(like, step)[0]


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Last state and loss curve of 12 steps."""
    folder = tmp_path_factory.mktemp("unbroken")
    with jax.numpy_dtype_promotion("standard"):
        state = training.run(experiment(), loop(folder, 12), evaluate=evaluate)
    return state, curve(folder)


def stop_after(step, folder, name=signal.SIGTERM):
    """A run of 12 steps that is asked to leave; its Stop."""

    def ask(done, view):
        if done == step:
            signal.raise_signal(name)

    with training.Stop() as stop:
        config = loop(folder, 12, snapshot_every=1)
        training.run(experiment(), config, ask, evaluate, stop)
    return stop


def test_parts_of_a_run_give_its_state_and_its_loss_curve_bit_for_bit(
    tmp_path, unbroken
):
    for step in (1, 6):  # a step later it stops: between two lines, at an evaluation
        assert stop_after(step, tmp_path).code == training.PREEMPTED == 75
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 1.0}\n{"step": 9, "lo')  # of a killed run
    state = training.run(experiment(), loop(tmp_path, 12), evaluate=evaluate)
    equal(state, unbroken[0])
    equal(saved(tmp_path, state), state)
    assert curve(tmp_path) == unbroken[1]
    assert len(state.averages) == 2 and float(state.tuned["noise"]) < 0.01


def test_a_damaged_newest_checkpoint_costs_a_warning_and_some_steps(
    tmp_path, unbroken, capsys
):
    stop_after(9, tmp_path)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["10", "8"]
    (tmp_path / "checkpoints" / "10" / "state" / "manifest.ocdbt").write_bytes(b"")
    capsys.readouterr()
    state = training.run(experiment(), loop(tmp_path, 12), evaluate=evaluate)
    printed = capsys.readouterr()
    warnings = [line for line in printed.err.splitlines() if "Checkpoints" in line]
    assert len(warnings) == 1
    assert "cannot read step 10 (" in warnings[0]
    assert "going back to step 8" in warnings[0]
    assert "resuming at step 8" in printed.out
    equal(state, unbroken[0])
    assert curve(tmp_path) == unbroken[1]


def test_without_a_readable_checkpoint_nothing_is_touched(tmp_path):
    stop_after(5, tmp_path)
    folder = tmp_path / "checkpoints"
    for step in ("4", "6"):
        (folder / step / "meta" / "metadata").write_text("{")
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match=r"got step 6 \(.*\), step 4 \(.*Nothing was"):
        training.run(experiment(), loop(tmp_path, 12), evaluate=evaluate)
    assert sorted(folder.rglob("*")) == before


def not_finite(params, inputs):
    worse = jnp.where(inputs.step == 5, jnp.nan, 0.0)
    return least_squares(params, inputs) + worse


def steep(params, inputs):
    """Finite, but its gradient is 0 * inf at step 5."""
    zero = jnp.where(inputs.step == 5, 0 * params["bias"], 1.0)
    return least_squares(params, inputs) + jnp.sqrt(zero)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("loss", "line"),
    [
        (not_finite, "need a finite loss, got loss=nan at step 6"),
        (steep, "need a finite gradient, got grad_norm=nan at step 6"),
    ],
    ids=["loss", "gradient"],
)
def test_a_state_of_a_broken_loss_is_never_saved(tmp_path, loss, line):
    config = loop(tmp_path, 20, save_every=1, log_every=100)
    with pytest.raises(FloatingPointError, match=line):
        training.run(experiment(loss=loss), config)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 5
    state = training.run(experiment(), loop(tmp_path, 7))
    assert np.isfinite(state.params["kernel"]).all()


def test_what_an_error_leaves_behind_is_saved(tmp_path, unbroken):
    def fail(step, view):
        raise RuntimeError("no such picture")

    with pytest.raises(RuntimeError, match="no such picture"):
        config = loop(tmp_path, 12, save_every=100, snapshot_every=7)
        training.run(experiment(), config, fail, evaluate)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [7]
    state = training.run(experiment(), loop(tmp_path, 12), evaluate=evaluate)
    equal(state, unbroken[0])


@contextlib.contextmanager
def small_files(folder):
    """No file may grow over 100 kB: a real error of the system, EFBIG, for any user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def own_disk(folder):
    """A disk of 4 MB in memory for the checkpoints."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if (
        not shutil.which("mount")
        or subprocess.run(words, capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def full_disk(folder):
    def fill():
        free = os.statvfs(folder)
        room = free.f_bavail * free.f_bsize - 300_000
        (folder / "filler").write_bytes(b"x" * room)

    with own_disk(folder):
        yield fill
        (folder / "filler").unlink()


@contextlib.contextmanager
def read_only_disk(folder):
    def remount(how):
        words = ["mount", "-o", f"remount,{how}", str(folder)]
        subprocess.run(words, check=True)

    with own_disk(folder):
        yield lambda: remount("ro")
        remount("rw")


def large(key):
    """More than fits where there is hardly room."""
    return init_params(key) | {"unused": jax.random.normal(key, (100_000,))}


def once_saved(folder, begin):
    """Makes trouble when the checkpoint of step 2 is complete."""

    def snapshot(step, view):
        while not (folder / "checkpoints" / "2").exists():
            time.sleep(0.01)
        begin()

    return snapshot


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (small_files, "File too large"),
        (full_disk, "No space left on device"),
        (read_only_disk, "Read-only file system"),
    ],
)
def test_a_disk_that_takes_no_more_stops_the_run_in_one_line(
    tmp_path, trouble, reason, capfd
):
    wide = experiment(init_params=large, ema=(0.9,))
    with trouble(tmp_path / "checkpoints") as begin:
        config = loop(tmp_path, 12, save_every=2, log_every=100, snapshot_every=3)
        with pytest.raises(OSError, match=reason) as stopped:
            training.run(wide, config, once_saved(tmp_path, begin))
    line = str(stopped.value)
    assert "\n" not in line and str(tmp_path / "checkpoints") in line
    assert "steps that are safe: [2]" in line
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_goes_on_once_there_is_room(tmp_path):
    wide = experiment(init_params=large, ema=(0.9,))
    starved = tmp_path / "starved"
    config = loop(starved, 6, save_every=2, snapshot_every=3)
    with small_files(starved) as begin, pytest.raises(OSError, match="safe: \\[2\\]"):
        training.run(wide, config, once_saved(starved, begin))
    state = training.run(wide, config)
    assert not list((starved / "checkpoints").glob("*tmp*"))
    equal(state, training.run(wide, loop(tmp_path / "whole", 6)))


def test_the_best_checkpoint_outlives_newer_ones(tmp_path):
    def worse_and_worse(step, view):
        return {"distance": {4: 0.5, 6: 0.25}.get(step, float(step))}

    config = loop(
        *(tmp_path, 12),
        save_every=2,
        evaluate_every=2,
        keep=1,
        keep_best=1,
        best_by="distance",
    )
    training.run(experiment(), config, evaluate=worse_and_worse)
    with Checkpoints(tmp_path / "checkpoints", best_by="distance") as checkpoints:
        assert checkpoints.steps() == [6, 12]
        assert checkpoints.best_step() == 6


@pytest.fixture
def usual_ctrl_c():
    """Python's own handler: the processes of pytest-xdist ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_the_second_ctrl_c_interrupts_at_once(usual_ctrl_c):
    with training.Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked(1) and stop.code == training.INTERRUPTED == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is usual_ctrl_c


@pytest.mark.exhaustive
def test_a_command_struck_by_three_signals_ends_as_if_it_had_not_been(tmp_path):
    """SIGTERM, Ctrl-C and SIGKILL, each followed by the same command."""
    Run, steps = killing["Run"], 60
    whole, struck = Run(tmp_path / "whole", steps), Run(tmp_path / "struck", steps)
    whole.finish()
    struck.strike(6, 0.0, signal.SIGTERM)
    assert struck.code == 75 and "the same command carries on" in struck.out
    struck.strike(15, 0.0, signal.SIGINT)
    assert struck.code == 130 and "Ctrl-C again leaves at once" in struck.err
    struck.strike(30, 0.01, signal.SIGKILL)
    assert struck.code == -signal.SIGKILL
    assert "resuming at step" in struck.finish()
    assert killing["compare"](whole, struck, steps) > 30


@pytest.mark.exhaustive
def test_kills_at_random_moments_leave_no_trace(tmp_path):
    """Two, or JAXGUIDE_KILLS; also by `python tests/train/kill.py 10`."""
    kills = int(os.environ.get("JAXGUIDE_KILLS", "2"))
    blows, count = killing["kill"](tmp_path, kills=kills, steps=60 + 20 * kills, seed=1)
    assert count > 30
    assert len({blow.step for blow in blows}) > kills / 2, "different moments"


@pytest.mark.exhaustive
def test_two_processes_that_are_stopped_on_a_busy_machine_save(tmp_path):
    """Once, or JAXGUIDE_STOPS; also by `python tests/train/stop.py 50`."""
    stops = int(os.environ.get("JAXGUIDE_STOPS", "1"))
    stopping = runpy.run_path(str(Path(__file__).with_name("stop.py")))
    stopping["stop"](tmp_path, stops, seed=0)


@pytest.mark.exhaustive
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(tmp_path):
    run = killing["Run"](tmp_path, 100_000)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = [f"--coordinator={address}", "--num_processes=2"]
    both = [run.start(*words, f"--process_id={index}") for index in (0, 1)]
    try:
        while run.progress() < 3:
            assert both[0].poll() is None, both[0].communicate()
            time.sleep(0.05)
        both[1].send_signal(signal.SIGTERM)
        told = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [75, 75], told
    stopped = int(re.search(r"stopped after step (\d+)", told[0][0])[1])
    folder = tmp_path / "checkpoints" / str(stopped)
    assert len(list(folder.glob("state/ocdbt.process_*"))) == 2, "both have written"
    alone = killing["Run"](tmp_path, stopped + 2)
    assert f"resuming at step {stopped}" in alone.finish()


@pytest.mark.parametrize(
    ("way", "line"),
    [
        (
            "file",
            "need a folder that can be written, got .*: (File exists|Not a directory)",
        ),
        ("gone", "Checkpoints.restore: need a checkpoint that can be read, got step 2"),
    ],
)
def test_the_command_line_says_it_in_one_line(tmp_path, way, line, monkeypatch, capfd):
    from jaxguide.train import __main__ as train

    folder = tmp_path / "run"
    digits = Path(__file__).parents[2] / "configs" / "digits.py"
    words = [f"--config={digits}:tiny", f"--config.folder={folder}"]
    words.append("--config.model.width=8")
    monkeypatch.setattr(sys, "argv", ["train.py", *words, "--config.steps=2"])
    if way == "file":
        folder.write_text("in the way")
    else:
        (folder / "checkpoints" / "2" / "meta").mkdir(parents=True)
    with pytest.raises(SystemExit) as left:
        train.main()
    told = capfd.readouterr().err.strip()
    assert left.value.code == 2
    assert told.count("\n") == 0 and re.search(line, told), told

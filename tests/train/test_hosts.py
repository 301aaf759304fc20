"""Two real processes train together what one process trains alone."""

import dataclasses
import json
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxguide import train as training
from jaxguide.data import config as data_config
from jaxguide.runtime import hosts
from jaxguide.train import __main__ as train_program, config, parallel
from tests import quick

# Wide enough for `fsdp` to cut its kernels.
WIDTH = 64
DIGITS = str(Path(__file__).parents[2] / "configs" / "digits.py")


def free_port():
    """One that the kernel chooses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(folder, processes, devices, *words):
    """Runs the command line in some processes at once; returns what they printed."""
    common = [
        *(sys.executable, "-m", "jaxguide.train", f"--config={DIGITS}:tiny"),
        *(f"--config.folder={folder}", "--config.steps=2", *words),
        f"--config.model.width={WIDTH}",
    ]
    if processes > 1:
        common += [
            f"--coordinator=127.0.0.1:{free_port()}",
            f"--num_processes={processes}",
        ]
    env = quick.environment(devices)
    started = [
        subprocess.Popen(
            common + ([f"--process_id={index}"] if processes > 1 else []),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
        )
        for index in range(processes)
    ]
    try:
        printed = [process.communicate(timeout=500)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    codes = [process.returncode for process in started]
    assert codes == [0] * processes, "\n---\n".join(printed)
    return printed


def numbers(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def check_same(together, alone):
    """The same losses, and averaged weights of equal half-precision numbers."""
    pairs = list(zip(numbers(together), numbers(alone), strict=True))
    assert len(pairs) == 1, "one process writes"
    for one, other in pairs:
        assert one["step"] == other["step"] == 2
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-5)
        np.testing.assert_allclose(one["grad_norm"], other["grad_norm"], rtol=1e-4)
    found, wanted = (
        load_file(folder / "weights.safetensors") for folder in (together, alone)
    )
    for name, leaf in wanted.items():
        np.testing.assert_allclose(found[name], leaf, atol=2e-4)
    assert len(list((together / "samples").iterdir())) == 1


def carried_on(folder):
    """The state that one process with one device finds in the folder of a run."""
    settings = runpy.run_path(DIGITS)["get_config"]("tiny")
    settings.folder, settings.steps, settings.model.width = str(folder), 2, WIDTH
    dataset = data_config.build_dataset(settings.data)
    experiment = dataclasses.replace(
        config.build_experiment(settings, dataset), strategy=parallel.one_device()
    )
    with jax.numpy_dtype_promotion("standard"):
        state = training.run(experiment, config.build_loop(settings))
    return jax.tree.map(np.asarray, state)


@pytest.mark.exhaustive
def test_two_processes_equal_one(tmp_path):
    """Each way of sharing the work, with four devices a process, and eight in one."""
    alone = tmp_path / "alone"
    train(alone, 1, 8, "--config.parallel=pmap")
    wanted = carried_on(alone)
    for how in ("pmap", "fsdp"):
        together = tmp_path / how
        first, second = train(together, 2, 4, f"--config.parallel={how}")
        assert "2 steps done" in first and "steps done" not in second
        check_same(together, alone)
        state = carried_on(together)
        assert int(state.step) == int(wanted.step) == 2
        apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state, wanted)
        most = max(jax.tree.leaves(apart))
        print(f"2 processes with {how} and 1 process differ by {most:.1e}")
        assert most < 2e-5


def test_one_process_is_the_first_and_reads_everything(capsys):
    with hosts.join() as alone:
        assert alone == hosts.ALONE == hosts.Hosts(0, 1, joined=False)
    with hosts.join(count=1) as alone:
        assert alone == hosts.ALONE
    assert hosts.is_first() and hosts.share() == (0, 1)
    assert capsys.readouterr().out == "", "nothing is said of one process"
    hosts.say("hello")
    assert capsys.readouterr().out == "hello\n"


def test_processes_without_a_connection_have_numbers_only():
    with hosts.join(count=4, index=3) as last:
        assert last.share == (3, 4) and not last.joined
    with pytest.raises(ValueError, match="got process_id=-1, num_processes=4"):
        with hosts.join(count=4):
            pass
    with pytest.raises(ValueError, match="need ADDRESS:PORT of process 0"):
        with hosts.join(index=1):
            pass


def test_training_needs_a_connection():
    with pytest.raises(ValueError, match="got num_processes=2 without --coordinator"):
        train_program.run(config.TrainConfig(), hosts.Hosts(0, 2))

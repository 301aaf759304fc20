"""A pod is rehearsed on one machine: processes that join, die, resume and sample."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxguide.sample.sets import SampleSet
from tests import quick, tiny_checkpoint

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
MINUTE = 60


class Pod:
    """A program in several processes, by the launcher.

    Attributes:
        code: exit code, after `finish`.
        lines: what the processes printed, each with its number in brackets.
    """

    def __init__(self, folder, count, *words):
        self._output = folder / f"pod-{time.monotonic_ns()}.txt"
        words = [*words, "--wait", "300"]  # other tests use the cores too
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                [
                    "bash",
                    "train/local_pod.sh",
                    str(count),
                    "--",
                    sys.executable,
                    *words,
                ],
                cwd=ROOT,
                env=quick.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def lines(self):
        return self._output.read_text().splitlines()

    def wait_for(self, pattern):
        """Until a line matches."""
        while not any(re.search(pattern, line) for line in self.lines):
            assert self._process.poll() is None, self.lines
            time.sleep(0.05)

    def kill(self, number):
        """SIGKILL to one of the processes."""
        parent = self._process.pid
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[-3:] == [b"--process_id", str(number).encode(), b""]:
                os.kill(int(pid), signal.SIGKILL)
                return
        raise AssertionError("no such process")

    def finish(self):
        """Waits for the end; the seconds that it took."""
        start = time.monotonic()
        self.code = self._process.wait(timeout=500)
        return time.monotonic() - start


def train(folder, steps):
    words = ["-m", "jaxguide.train", f"--config={CONFIGS}/digits.py:tiny"]
    words += [f"--config.folder={folder}/run", f"--config.steps={steps}"]
    return Pod(folder, 2, *words, "--config.log_every=1", "--config.save_every=2")


@pytest.mark.exhaustive
def test_a_run_carries_on_after_either_process_was_killed(tmp_path):
    """The second time process 0 is killed, to which JAX itself is connected."""
    for victim, after in ((1, r"step 6/"), (0, r"resuming at step")):
        pod = train(tmp_path, 100_000)
        pod.wait_for(after)
        pod.wait_for(r"images/s")
        told = len(pod.lines)
        pod.kill(victim)
        seconds = pod.finish()
        print(f"process {victim} was killed; all had ended {seconds:.1f} s later")
        assert seconds < MINUTE and pod.code == 128 + signal.SIGKILL
        rest = [line for line in pod.lines[told:] if "images/s" not in line]
        line = f"process {victim} is gone; the same command carries on"
        assert rest == [f"[{1 - victim}] hosts: {line}"]
    resumed = re.search(r"resuming at step (\d+)", "\n".join(pod.lines))
    assert resumed and int(resumed[1]) >= 4
    last = train(tmp_path, int(resumed[1]) + 200)
    last.finish()
    assert last.code == 0, last.lines
    assert any("steps done; weights and samples" in line for line in last.lines)
    assert "[1] hosts: process 1 of 2, found by flags" in "\n".join(last.lines)


@pytest.mark.exhaustive
def test_two_processes_sample_what_one_samples(tmp_path):
    checkpoint = tiny_checkpoint.write(tmp_path / "tiny.safetensors")
    words = ["-m", "jaxguide.sample", f"--config={CONFIGS}/demo.py:tiny"]
    words += [f"--config.checkpoint={checkpoint}", "--config.columns=('cfg+s2',)"]
    words += ["--config.num_samples=22", "--config.shard_size=4", "--config.labels=all"]
    words += ["--config.batch_size=2"]
    found = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        pod = Pod(tmp_path, count, *words, f"--config.folder={folder}")
        pod.finish()
        assert pod.code == 0, pod.lines
        found[count] = list(SampleSet(folder))
    assert len(found[1]) == 6
    for one, two in zip(found[1], found[2], strict=True):
        assert one["images"].std() > 10
        for name, array in one.items():
            np.testing.assert_array_equal(array, two[name], err_msg=name)

"""One program for columns of equal structure and for any part of the steps."""

import ast
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxguide.runtime import devices
from jaxguide.runtime.progress import Progress
from jaxguide.sample import columns, jobs
from jaxguide.sample.config import SampleConfig
from jaxguide.sample.programs import Programs
from tests import quick, tiny_checkpoint

FAST_COMPILE = True
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return SampleConfig(
        checkpoint=tiny_checkpoint.write(file),
        guidance=[
            dict(name="cfg", scale=3.0, t_lo=0.3, t_hi=0.7),
            dict(name="sg_prev", weight=0.5),
        ],
        columns=("cfg+sg_prev",),
        sampler="ddim(eta=1.0)",
        num_steps=6,
        labels="0-1",
        per_class=4,
    )


class Parts(Progress):
    """Progress that a terminal looks at as often as it can, and what it was told."""

    def __init__(self, pause):
        super().__init__("", 6)
        self.pause, self.told = pause, []

    def step(self, count=1):
        self.told.append(count)


SAMPLERS = ("heun", "dpmpp_2m", "recurrent(sampler='ddim(eta=1.0)', repeats=2)")


@pytest.mark.parametrize(
    "sampler",
    [
        "ddim(eta=1.0)",
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in SAMPLERS),
    ],
)
def test_parts_of_the_steps_are_bitwise_the_whole_and_scales_share_a_program(
    config, sampler
):
    config = dataclasses.replace(config, sampler=sampler)
    job = jobs.build_job(config)
    (chain,) = job.columns.values()
    changed = [
        dict(config.guidance[0], scale=5.0),
        dict(config.guidance[1], weight=1.0),
    ]
    other = jobs.build_job(dataclasses.replace(config, guidance=changed))
    programs, rows = Programs(job, 8), devices.split(columns.images(job))
    sample = programs.sampler(chain)
    every, whole = Parts(0.0), Parts(1e6)
    images, nfe = sample(rows, progress=every)
    at_once, _ = sample(rows, progress=whole)
    assert every.told == [1] * 6 and whole.told == [1, 5]
    np.testing.assert_array_equal(images, at_once)
    assert set(np.asarray(nfe).tolist()) == {job.cost(chain).nfe}
    (another,) = other.columns.values()
    changed, _ = programs.sampler(another)(rows, progress=whole)
    assert len(programs.found) == 1
    assert np.abs(np.asarray(changed) - np.asarray(images)).max() > 0.01
    # Alone, as a constant of its own program.
    labels, numbers = columns.images(job)
    alone, _ = jobs.draw(other, another, job.network, {}, labels, numbers)
    np.testing.assert_allclose(changed, alone, atol=1e-5)


COUNT = """
import collections, runpy, sys
import jax
seen = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: seen.update([name]))
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: seen.update([name])
)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
hits = seen["/jax/compilation_cache/cache_hits"]
print([seen["/jax/core/compile/backend_compile_duration"] - hits, hits])
"""


def counted(cache, module, *words):
    """[programs compiled, programs found on disk] by a command.

    What calls back to Python is compiled and is no miss of the cache.
    """
    names = ("JAX_COMP", "JAX_PERS")
    env = {k: v for k, v in quick.environment().items() if not k.startswith(names)}
    env |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COUNT, module, *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


@pytest.mark.exhaustive
def test_a_second_start_compiles_nothing(config, tmp_path):
    words = ["jaxguide.sample", f"--config={ROOT}/configs/demo.py:tiny"]
    words += [f"--config.checkpoint={config.checkpoint}", f"--config.folder={tmp_path}"]
    words += ["--config.columns=('cfg',)"]
    misses, hits = counted(tmp_path / "cache", *words)
    assert misses > 0 and hits == 0
    changed = ["--config.guidance[0].scale=2.5", "--config.seed=3"]
    assert counted(tmp_path / "cache", *words, *changed) == [0, misses]
    assert os.listdir(tmp_path / "cache") == ["jaxguide"]

"""Judges images: `python -m jaxguide.evaluate --config configs/evaluate.py`.

    --config.samples=outputs/set --config.reference="fashion_mnist(split='test')"
    --config.samples=samples.npz --config.reference=VIRTUAL_imagenet256_labeled.npz
        --config.network=inception --config.weights=pt_inception-2015-12-05-6726825d.pth
        --config.metrics=fid,sfid,is,precision,recall

A stopped run carries on where it was. Exit code 2 and one line: bad input.
"""

import time
from pathlib import Path

from jaxguide.evaluate import jobs
from jaxguide.evaluate.config import EvaluateConfig
from jaxguide.runtime import flags
from jaxguide.runtime.files import replacing
from jaxguide.runtime.hosts import ALONE, Hosts
from jaxguide.sample.columns import as_json


def run(config: EvaluateConfig, processes: Hosts = ALONE) -> None:
    """Prints what will be done, does it, and writes `evaluation.json`."""
    share = processes.share
    start = time.perf_counter()
    job = jobs.build_job(config, share)
    if job is None:
        print(f"the samples of host {share[0]} are written; others are missing")
        return
    if share[0] == 0:
        print(job.describe(), flush=True)
    result = jobs.run(job, share)
    if result is None:
        print(f"the features of host {share[0]} are written")
        return
    print(jobs.table(job, result))
    seconds = round(time.perf_counter() - start, 3)
    file = Path(config.folder).expanduser() / "evaluation.json"
    text = as_json({**jobs.record(job, result), "seconds": seconds})
    with replacing(file, "evaluate folder") as part:
        part.write_text(text, encoding="utf-8")
    print(f"wrote {file} in {seconds:.1f} s")


def main() -> None:
    """The command line."""
    flags.run(run, about=__doc__ or "")


if __name__ == "__main__":
    main()

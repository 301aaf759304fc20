"""The benchmark for one run on a GPU, in small on this machine."""

import dataclasses
import json
import sys

import jax
import pytest

from benchmarks import device_record, on_device
from jaxguide.models import attention

FAST_COMPILE = True
ALONE = dataclasses.replace(on_device.tiny_plan(), batches=(2,))


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def without_torch(monkeypatch):
    for name in ("torch", "diffusers", "benchmarks.torch_cfg"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "benchmarks.torch_training", raising=False)
    if not hasattr(attention, "fused_attention"):  # until there is one

        def formula(q, k, v):
            return jax.nn.dot_product_attention(q, k, v, implementation="xla")

        for name in ("fused_attention", "dense_attention"):
            monkeypatch.setattr(attention, name, formula, raising=False)


@pytest.mark.exhaustive
def test_the_whole_path_runs_in_small_and_makes_a_table(tmp_path, without_torch):
    path = tmp_path / "record.json"
    data = on_device.measure(ALONE, str(path))
    assert json.loads(path.read_text()) == json.loads(json.dumps(data))
    assert not data["failed"], data["failed"]
    assert all(check["holds"] for check in data["checks"].values())
    made = {(row["task"], row["chain"]) for row in data["rows"]}
    losses = {"flow_matching", "model_guidance", "scale_aware_model_guidance"}
    chains = {("sample", chain) for chain in on_device.CHAINS}
    assert made == chains | {("train", loss) for loss in losses}
    assert all(row["ms"] > 0 and row["share"] > 0 for row in data["rows"])
    words = device_record.table(data)
    assert words.count("| jaxguide |") == len(data["rows"])
    assert all(why.startswith("not installed") for why in data["skipped"].values())
    assert "skipped: diffusers, eager, batch 2 (not installed" in words


def record(budget):
    return device_record.Record(dataclasses.replace(ALONE, budget=budget))


def test_what_no_time_is_left_for_is_skipped_and_said():
    made = record(10.0)
    made.part("long", "torch.compile", lambda: pytest.fail("it ran"))
    assert made.data["skipped"] == {"long": "10 s left, 90 s may be needed"}
    made = record(500.0)
    made.part("short", "torch.compile", lambda: {"ms": 1.0})
    assert made.data["rows"] == [{"name": "short", "ms": 1.0}]
    assert made.longest["torch.compile"] < 1, "what one took says what the next may"


def test_what_fails_is_a_line_and_the_rest_goes_on():
    made = record(500.0)

    def broken():
        raise RuntimeError("out of memory\nand more")

    made.part("broken", "check", broken)
    made.part("whole", "check", lambda: {"ms": 1.0})
    assert made.data["failed"] == {"broken": "RuntimeError: out of memory"}
    assert len(made.data["rows"]) == 1


def test_the_rate_has_its_share_of_what_products_reach():
    made = record(1.0)
    assert made.rate(2.0, 6e12) == {"ms": 2000.0, "tflops": 3.0}
    made.data["matmul"] = {"best_tflops": 4.0}
    assert made.rate(2.0, 6e12)["share"] == 0.75

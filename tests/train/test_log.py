"""What a run writes while it runs."""

import io
import json
import sys
import time

import pytest

from jaxguide.train.log import JsonlWriter, ProgressLine, TensorBoardWriter

NUMBERS = {"loss": 0.25, "images_per_second": 12.0, "seconds_left": 90_061.0}


def test_json_lines_are_appended(tmp_path):
    for step in (1, 2):
        writer = JsonlWriter(tmp_path / "m.jsonl")
        writer.write(step, NUMBERS)
        writer.close()
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert json.loads(lines[0])["loss"] == 0.25


def test_progress_is_plain_lines_off_a_terminal():
    stream = io.StringIO()
    writer = ProgressLine(200, stream)
    writer.write(100, NUMBERS)
    writer.close()
    assert stream.getvalue() == (
        "step 100/200  loss 0.2500  12 images/s  1 day, 1:01:01 left\n"
    )


def test_progress_is_one_moving_line_on_a_terminal():
    stream = io.StringIO()
    stream.isatty = lambda: True
    writer = ProgressLine(200, stream)
    writer.write(100, NUMBERS)
    writer.write(200, NUMBERS)
    writer.close()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r") == 2


def test_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "clu.metric_writers", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxguide\[tensorboard\]'"):
        TensorBoardWriter(tmp_path, 10)


def test_tensorboard_gets_the_numbers_and_the_progress(tmp_path, monkeypatch):
    for name in ("tensorflow", "tensorboard"):
        pytest.importorskip(name, reason=f"needs {name}, of the extra 'tensorboard'")
    from tensorboard.backend.event_processing import event_accumulator

    writer = TensorBoardWriter(tmp_path, 200)
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    writer.after_step(100)
    clock += 61
    writer.after_step(101)
    writer.write(101, NUMBERS)
    writer.close()
    events = event_accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert {"loss", "steps_per_sec"} <= set(events.Tags()["tensors"])
    assert [event.step for event in events.Tensors("loss")] == [101]

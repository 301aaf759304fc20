"""Reading ahead: order kept, memory bounded, errors where they belong."""

import threading

import pytest

from jaxguide.data import Prefetch


def test_steps_come_in_order_with_what_was_read_for_them():
    with Prefetch(lambda step: step * step, 3, 40, depth=4) as batches:
        assert list(batches) == [(step, step * step) for step in range(3, 40)]


def test_no_more_than_depth_steps_are_read_ahead():
    asked, moved = [], threading.Condition()

    def read(step):
        with moved:
            asked.append(step)
            moved.notify()
        return step

    with Prefetch(read, 0, 100, depth=3) as batches:
        for step, _ in batches:
            ahead = min(step + 3, 99)
            with moved:
                assert moved.wait_for(lambda end=ahead: end in asked, timeout=30)
            assert max(asked) == ahead
            if step == 50:
                break
    assert asked == list(range(54))


def test_reading_happens_in_another_thread_while_the_caller_works():
    here, elsewhere = threading.current_thread(), []
    with Prefetch(lambda _: threading.current_thread(), 0, 5) as batches:
        elsewhere = [thread for _, thread in batches]
    assert len(set(elsewhere)) == 1 and here not in elsewhere
    assert not elsewhere[0].is_alive()


def test_an_error_is_raised_at_its_step():
    def read(step):
        if step == 2:
            raise ValueError("read: need a picture, got step=2.")
        return step

    seen = []
    with pytest.raises(ValueError, match="got step=2") as caught:
        with Prefetch(read, 0, 9) as batches:
            for step, _ in batches:
                seen.append(step)
    assert seen == [0, 1]
    assert caught.traceback[-1].name == "read", "the command line looks who raised it"


def test_closing_ends_the_iteration_and_the_thread():
    batches = Prefetch(lambda step: step, 0, 10**9)
    found = iter(batches)
    assert next(found) == (0, 0)
    batches.close()
    assert list(found) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_a_depth_of_nothing_is_refused():
    with pytest.raises(ValueError, match="need depth >= 1, got depth=0"):
        Prefetch(lambda step: step, 0, 1, depth=0)

"""Work in a thread: in order, all of it, and its errors where the caller sees them."""

import threading

import pytest

from jaxguide.runtime.background import Background


def test_all_is_done_in_order_while_the_caller_goes_on():
    done, go = [], threading.Event()

    def work(item):
        go.wait()
        done.append(item)

    with Background(work, waiting=3) as background:
        for item in range(4):  # one in work, three wait
            background.put(item)
        assert done == []
        go.set()
        for item in range(4, 9):
            background.put(item)
    assert done == list(range(9))


@pytest.mark.parametrize("last", [3, 20])
def test_an_error_of_the_work_is_raised_and_nothing_follows_it(last):
    done = []

    def work(item):
        if item == 2:
            raise ValueError("two")
        done.append(item)

    with pytest.raises(ValueError, match="two"), Background(work) as background:
        for item in range(last):
            background.put(item)
    assert done == [0, 1]


def test_an_error_of_the_caller_leaves_the_rest_undone():
    done, begun, go = [], threading.Event(), threading.Event()

    def work(item):
        begun.set()
        go.wait()
        done.append(item)

    with pytest.raises(KeyboardInterrupt), Background(work, waiting=2) as background:
        background.put(0)
        begun.wait()
        background.put(1)
        threading.Timer(0.05, go.set).start()
        raise KeyboardInterrupt
    assert done == [0]

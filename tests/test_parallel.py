"""Work in threads: all of it, in order, inside exact arithmetic, errors included."""

import threading

import pytest
import torch

from diffcodec.exact import backends
from diffcodec.quantized.parallel import each


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_and_progress_ends_at_one(threads):
    told = []

    def work(item, progress):
        progress(0.5)
        return item * item, threading.get_ident(), torch.get_num_threads()

    with backends.exactly(threads=threads):
        made = list(each(work, range(7), told.append))
    assert [square for square, _, _ in made] == [n * n for n in range(7)]
    assert {number for _, _, number in made} == {1}
    assert (threading.get_ident() in {thread for _, thread, _ in made}) == (threads == 1)
    assert told == sorted(told) and told[-1] == pytest.approx(1)


def test_no_more_are_begun_than_wait_to_be_taken():
    begun = []

    def work(item, progress):
        begun.append(item)
        return item

    with backends.exactly(threads=2):
        results = each(work, range(10))
        for taken in range(1, 8):
            next(results)
            assert len(begun) <= taken + 2
        results.close()
    assert len(begun) < 10


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_reaches_the_caller(threads):
    def work(item, progress):
        return 1 // item

    with backends.exactly(threads=threads), pytest.raises(ZeroDivisionError):
        list(each(work, [1, 2, 0, 3]))


def test_work_in_threads_is_exact_under_any_setting():
    def work(item, progress):
        return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")

    with torch.autocast("cpu"), backends.exactly(threads=2):
        assert set(each(work, range(4))) == {(False, False)}

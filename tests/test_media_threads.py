"""Threads ahead and behind: order, errors, and an end to every thread."""

import threading
import time

import pytest

from latentsync.media.video_reader import prefetch
from latentsync.media.video_writer import BackgroundWriter


def numbers(count: int, closed: list[bool], fail_at: int | None = None):
    """0, 1, 2, ...; notes in `closed` that it was ended."""
    try:
        for k in range(count):
            if k == fail_at:
                raise ValueError("five is bad")
            yield k
    finally:
        closed.append(True)


def test_items_and_errors_arrive_at_their_place():
    closed: list[bool] = []
    assert list(prefetch(numbers(100, closed), depth=3)) == list(range(100)) and closed
    assert list(prefetch([None, 1, None])) == [None, 1, None]
    got = []
    with pytest.raises(ValueError, match="five"):
        for k in prefetch(numbers(9, [], fail_at=5), depth=2):
            got.append(k)
    assert got == [0, 1, 2, 3, 4]


def test_closing_early_ends_the_thread_and_the_source():
    closed: list[bool] = []
    before = threading.active_count()
    ahead = prefetch(numbers(10**9, closed), depth=2)
    assert next(ahead) == 0
    ahead.close()
    assert closed
    assert threading.active_count() == before


def test_it_works_ahead_but_not_too_far():
    made = []
    ahead = prefetch((made.append(k) or k for k in range(50)), depth=4)
    next(ahead)
    time.sleep(0.2)
    assert 4 <= len(made) <= 6
    ahead.close()


def test_writer_keeps_order_and_reports_errors():
    seen: list[int] = []
    writer = BackgroundWriter(seen.append, depth=2)
    for k in range(50):
        writer.put(k)
    writer.finish()
    assert seen == list(range(50))

    def refuse(item: int) -> None:
        raise OSError(f"no room for {item}")

    writer = BackgroundWriter(refuse, depth=1)
    with pytest.raises(OSError, match="no room for 0"):
        for k in range(50):
            writer.put(k)
        writer.finish()
    before = threading.active_count()
    writer.abandon()
    assert threading.active_count() < before

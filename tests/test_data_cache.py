"""The disk cache: computed once, never torn, never mixed up."""

import os
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from latentsync.data.cache import ClipCache
from latentsync.errors import InputError, OutputError

VALUES = np.arange(12, dtype=np.float16).reshape(3, 4)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clips" / "a.mp4"
    path.parent.mkdir()
    path.write_bytes(b"a clip")
    return path


def counted(values=VALUES):
    """A computation and the list of its calls."""
    calls = []
    return (lambda: calls.append(1) or values), calls


def test_computed_once_and_mapped(clip, tmp_path):
    cache, (compute, calls) = ClipCache(tmp_path / "cache", "things"), counted()
    first, second = cache.get(clip, compute), cache.get(clip, compute)
    assert len(calls) == 1
    assert isinstance(second, np.memmap)
    assert second.dtype == VALUES.dtype
    second[0, 0] = 99
    assert np.array_equal(first, VALUES) and np.array_equal(cache.get(clip, compute), VALUES)  # what is changed stays private


def test_every_part_of_the_key_counts(clip, tmp_path):
    cache, places = ClipCache(tmp_path, "things"), []
    copy = tmp_path / "other" / clip.name
    copy.parent.mkdir()
    copy.write_bytes(clip.read_bytes())
    os.utime(copy, ns=(clip.stat().st_atime_ns, clip.stat().st_mtime_ns))
    places += [cache.place(clip), cache.place(copy), ClipCache(tmp_path, "others").place(clip)]
    os.utime(clip, ns=(5, 5))
    places.append(cache.place(clip))
    clip.write_bytes(b"a longer clip")
    os.utime(clip, ns=(5, 5))
    places.append(cache.place(clip))
    assert len(set(places)) == 5


def test_what_is_no_finite_number_is_not_kept_and_a_clip_that_is_gone_is_told(clip, tmp_path):
    values = VALUES.copy()
    values[1, 2] = np.inf
    cache, (compute, _) = ClipCache(tmp_path / "cache", "things"), counted(values)
    with pytest.raises(InputError, match=r"a\.mp4 gives numbers that are not finite \(things\)"):
        cache.get(clip, compute)
    assert not cache.place(clip).exists()
    with pytest.raises(InputError, match=r"gone\.mp4 cannot be read"):
        cache.get(tmp_path / "gone.mp4", compute)


@pytest.mark.parametrize("damage", [b"", b"text", None])
def test_damaged_entries_are_computed_again(clip, tmp_path, damage):
    cache, (compute, calls) = ClipCache(tmp_path / "cache", "things"), counted()
    cache.get(clip, compute)
    place = cache.place(clip)
    place.write_bytes(place.read_bytes()[:-5] if damage is None else damage)
    assert np.array_equal(cache.get(clip, compute), VALUES)
    assert len(calls) == 2


def _write_past_the_limit(clip, folder):
    """In a process of its own: no file may grow past 100 bytes, as on a full disk."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    try:
        ClipCache(folder, "things").get(clip, lambda: np.zeros(10_000))
    except OutputError as error:
        return str(error)
    return None


def test_a_full_disk_is_told_and_leaves_nothing(clip, tmp_path):
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        told = pool.submit(_write_past_the_limit, clip, tmp_path / "cache").result()
    assert told is not None and "give data.cache_dir another disk" in told
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def _get(job):
    clip, folder, number = job
    values = ClipCache(folder, "things").get(clip, lambda: np.full((64, 64), number % 1, np.float32))
    return values.shape == (64, 64) and bool((values == 0).all())


def test_many_processes_at_once(clip, tmp_path):
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        assert all(pool.map(_get, [(clip, tmp_path / "cache", number) for number in range(40)]))
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 1

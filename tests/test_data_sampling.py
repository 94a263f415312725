"""Which windows, which samples, which batches, on any number of processes; and the processes that read ahead."""

import itertools
import os
import signal
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from data_fixtures import SIDE, catalog_of, make_folder, same

from latentsync.data.features import Mels
from latentsync.data.sampling import EPOCHS, IndexSampler, choose_syncnet, choose_unet, fixed_batches, generator, make_loader
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.errors import InputError


def take(batches, count):
    return list(itertools.islice(batches, count))


def samples(count, **how):
    return [index for batch in take(IndexSampler(7, seed=3, **how), count) for index in batch]


def test_every_clip_once_an_epoch_in_an_order_of_its_own():
    walked = samples(35, batch_size=1)
    assert [index.position for index in walked] == list(range(35))
    epochs = [[index.clip for index in walked[start : start + 7]] for start in range(0, 35, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    assert [index.clip for index in take(IndexSampler(7, seed=4, batch_size=35), 1)[0]] != [index.clip for index in walked]


@pytest.mark.parametrize(("batch_size", "world"), [(1, 1), (4, 1), (2, 2), (1, 4), (20, 2)])
def test_the_sequence_is_shared_without_gap_or_overlap(batch_size, world):
    everything = samples(batch_size * world * 3, batch_size=1)
    shares = [take(IndexSampler(7, seed=3, batch_size=batch_size, rank=rank, world=world), 3) for rank in range(world)]
    assert [index for batches in zip(*shares, strict=True) for batch in batches for index in batch] == everything
    assert {len(batch) for share in shares for batch in share} == {batch_size}


def test_it_can_be_entered_anywhere_and_walked_twice():
    sampler = IndexSampler(7, seed=3, batch_size=4, start=5)
    assert take(sampler, 3) == take(IndexSampler(7, seed=3, batch_size=4), 8)[5:]
    assert take(sampler, 3) == take(sampler, 3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("data") / "clips", 3)
    return SyncNetDataset(catalog_of(folder, folder.parent), Mels(folder.parent), num_frames=5, resolution=SIDE, seed=2)


def test_batches_are_the_same_with_any_number_of_processes(dataset):
    state = torch.get_rng_state()
    walks = [take(make_loader(dataset, IndexSampler(3, seed=2, batch_size=2), workers), 4) for workers in (0, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)  # and the global generator is left alone
    for batches in zip(*walks, strict=True):
        assert all(same(batches[0], batch) for batch in batches[1:])
    assert [batch.position.tolist() for batch in walks[0]] == [[0, 1], [2, 3], [4, 5], [6, 7]]


class ProcessFacts(torch.utils.data.Dataset):
    """Tells how its process is set up; its first clip cannot be read."""

    def __getitem__(self, index):
        if index.clip == 0:
            raise InputError("the first clip is broken")
        return torch.get_num_threads(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN, os.getpid()

    def __len__(self):
        return 2


def test_processes_have_one_thread_and_are_left_alone_by_interruptions(monkeypatch):
    monkeypatch.setattr("latentsync.data.sampling.collate", lambda samples: samples)
    sampler = [[index] for index in samples(8, batch_size=1) if index.clip]
    for ((threads, ignores, process),) in make_loader(ProcessFacts(), sampler, 1):
        assert threads == 1 and ignores and process != os.getpid()


def test_what_a_process_raises_arrives_as_what_it_is():
    loader = make_loader(ProcessFacts(), IndexSampler(1, seed=0, batch_size=1), 1)
    with pytest.raises(InputError, match="the first clip is broken"):
        next(iter(loader))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_fixed_samples_are_the_same_at_every_look_and_shared_fairly(dataset, world):
    shares = [fixed_batches(dataset, 5, 2, rank, world) for rank in range(world)]
    positions = [[batch.position.tolist() for batch in share] for share in shares]
    assert sorted(np.concatenate([np.concatenate(share) for share in positions])) == [0, 1, 2, 3, 4]
    for share in shares:
        assert all(same(one, other) for one, other in zip(share, share, strict=True))
        assert all(batch.clip.tolist() == [position % 3 for position in batch.position.tolist()] for batch in share)
    assert [len(share) for share in shares] == {1: [3], 2: [2, 1], 3: [1, 1, 1]}[world]
    assert list(fixed_batches(dataset, 1, 2, rank=1, world=2)) == []


@pytest.mark.parametrize("frames", [12, 14])
def test_references_never_touch_the_target_all_pairs_occur_and_all_of_a_target_are_equally_likely(frames):
    length, draws, rng = 4, 66_000, np.random.default_rng(1)
    counts = Counter(choose_unet(rng, frames, length) for _ in range(draws))
    starts = range(frames - length + 1)
    assert set(counts) == {(start, other) for start, other in product(starts, starts) if abs(start - other) >= length}
    for start in starts:
        beside = [count for (first, _), count in counts.items() if first == start]
        assert sum(beside) == pytest.approx(draws / len(starts), rel=0.08)
        assert max(beside) < 1.3 * min(beside)


@pytest.mark.parametrize("frames", [8, 9, 17])
def test_wrong_pictures_are_never_the_right_ones_and_all_pairs_occur(frames):
    length, draws, rng = 4, 20_000, np.random.default_rng(2)
    choices = [choose_syncnet(rng, frames, length) for _ in range(draws)]
    assert all((choice.sound == choice.pictures) == bool(choice.label) for choice in choices)
    assert {choice[:2] for choice in choices} == set(product(range(frames - length + 1), repeat=2))
    assert sum(choice.label for choice in choices) == pytest.approx(draws / 2, rel=0.05)
    sounds = Counter(choice.sound for choice in choices)
    assert min(sounds.values()) > 0.85 * draws / (frames - length + 1)


def test_chance_hangs_on_seed_position_and_purpose_alone():
    def numbers(*key):
        return tuple(generator(*key).integers(1 << 30, size=4))

    assert numbers(5, 9) == numbers(5, 9)
    assert len({numbers(5, 9), numbers(5, 10), numbers(6, 9), numbers(9, 5), numbers(5, 9, EPOCHS)}) == 5

"""The sequence of samples on any number of processes, and the processes that read ahead."""

import itertools
import os
import signal

import numpy as np
import pytest
import torch
from data_fixtures import SIDE, catalog_of, make_folder

from latentsync.data.features import Mels
from latentsync.data.sampling import IndexSampler, fixed_batches, make_loader
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


def equal(one, other):
    return all(torch.equal(value, vars(other)[name]) for name, value in vars(one).items() if isinstance(value, torch.Tensor))


def test_batches_are_the_same_with_any_number_of_processes(dataset):
    state = torch.get_rng_state()
    walks = [take(make_loader(dataset, IndexSampler(3, seed=2, batch_size=2), workers), 4) for workers in (0, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)  # and the global generator is left alone
    for batches in zip(*walks, strict=True):
        assert all(equal(batches[0], batch) for batch in batches[1:])
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
        assert all(equal(one, other) for one, other in zip(share, share, strict=True))
        assert all(batch.clip.tolist() == [position % 3 for position in batch.position.tolist()] for batch in share)
    assert [len(share) for share in shares] == {1: [3], 2: [2, 1], 3: [1, 1, 1]}[world]


def test_fewer_fixed_samples_than_processes(dataset):
    assert list(fixed_batches(dataset, 1, 2, rank=1, world=2)) == []

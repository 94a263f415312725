"""Samples of both data sets: what belongs together is together, randomness depends on the position, a broken clip costs one sentence."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_fixtures import CHANNELS, FRAMES, SIDE, catalog_of, make_folder, make_training_clip, same, write_truth
from golden_recipe import GOLDEN
from refusals import refused
from tiny_pipeline import seeded_codec

from latentsync.data.cache import read_frames
from latentsync.data.clip_index import Catalog, ClipInfo, read_mouth
from latentsync.data.features import Features, LatentStore, Mels
from latentsync.data.sampling import FAILURES_IN_A_ROW, SampleIndex, choose_syncnet, choose_unet, collate, generator
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.data.unet_dataset import UNetDataset
from latentsync.errors import InputError
from latentsync.faces.mask import fixed_mask, masked_pixels, to_pixels
from latentsync.mel import mel_window, window_length

LENGTH, SEED = 5, 7
OTHER_FACE = f"smptebars=size={SIDE}x{SIDE}:rate=25:duration={{seconds}}"
SIZES = {"num_frames": LENGTH, "resolution": SIDE, "seed": SEED}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "clips", 3)


@pytest.fixture(scope="module")
def cache(folder):
    return folder.parent / "cache"


@pytest.fixture(scope="module")
def catalog(folder, cache):
    return catalog_of(folder, cache)


@pytest.fixture(scope="module")
def features(cache):
    return Features(cache, GOLDEN / "whisper_reduced.pt")


def test_a_syncnet_sample(catalog, cache):
    mels = Mels(cache)
    dataset = SyncNetDataset(catalog, mels, **SIZES, with_mouth=True)
    assert len(dataset) == 3
    labels = []
    for position in range(12):
        sample = dataset[SampleIndex(position, 1)]
        sound, pictures, label = choose_syncnet(generator(SEED, position), FRAMES, LENGTH)
        path = catalog.clips[1].path
        assert torch.equal(sample.faces[0], read_frames(path, range(pictures, pictures + LENGTH)))
        assert torch.equal(sample.mel[0], mel_window(mels(path), sound, LENGTH))
        mouth = torch.from_numpy(read_mouth(path))
        assert torch.equal(sample.mouth[0], mouth[pictures : pictures + LENGTH])
        assert torch.equal(sample.audio_mouth[0], mouth[sound : sound + LENGTH])
        assert (sample.position.tolist(), sample.clip.tolist(), sample.label.tolist()) == ([position], [1], [float(label)])
        assert sample.problems == []
        labels.append(label)
    assert set(labels) == {0, 1}
    assert SyncNetDataset(catalog, mels, **SIZES)[2].mouth is None
    assert same(dataset[2], dataset[SampleIndex(2, 2)])
    refused(IndexError, "3 clips and this is number 3", lambda: dataset[3])


def test_a_unet_sample(catalog, cache, features):
    mels = Mels(cache)
    dataset = UNetDataset(catalog, mels, features, **SIZES)
    for position in range(4):
        sample = dataset[SampleIndex(position, 2)]
        start, reference = choose_unet(generator(SEED, position), FRAMES, LENGTH)
        path = catalog.clips[2].path
        assert torch.equal(sample.faces[0], read_frames(path, range(start, start + LENGTH)))
        assert torch.equal(sample.reference[0], read_frames(path, range(reference, reference + LENGTH)))
        assert torch.equal(sample.audio[0], features.window(path, start, start + LENGTH))
        assert torch.equal(sample.mel[0], mel_window(mels(path), start, LENGTH))
        assert sample.mel.shape == (1, 1, 80, window_length(LENGTH))
        assert sample.moments is None
    small = UNetDataset(catalog, mels, features, **{**SIZES, "resolution": 32})[0]
    assert small.faces.shape == small.reference.shape == (1, LENGTH, 32, 32, 3)


def test_dropped_audio_is_zero_and_changes_nothing_else(catalog, cache, features):
    def dataset(dropout):
        return UNetDataset(catalog, Mels(cache), features, **SIZES, audio_dropout=dropout)

    whole, half, none = dataset(0.0), dataset(0.5), dataset(1.0)
    audible = [bool(half[SampleIndex(position, 0)].audio.any()) for position in range(16)]
    assert 3 < sum(audible) < 13
    assert not none[2].audio.any() and whole[2].audio.any()
    assert torch.equal(none[2].faces, whole[2].faces)


def test_a_broken_clip_is_replaced_by_the_next_one_and_is_told_once(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "clips")
    catalog = catalog_of(tmp_path / "clips", tmp_path / "cache")
    broken = catalog.clips[1].path
    broken.write_bytes(b"overwritten")
    dataset = SyncNetDataset(catalog, Mels(tmp_path / "cache"), **SIZES)
    first, second, other = dataset[SampleIndex(10, 1)], dataset[SampleIndex(10, 1)], dataset[SampleIndex(11, 0)]
    assert (first.clip.item(), first.position.item(), len(first.problems)) == (2, 10, 1)
    assert str(broken) in first.problems[0] and "next clip" in first.problems[0]
    assert second.problems == other.problems == []
    assert same(first, second)
    assert same(first, dataset[SampleIndex(10, 2)])  # randomness depends on the position, whichever clip takes the place


def test_too_many_broken_clips_end_the_training(tmp_path):
    infos = tuple(ClipInfo(tmp_path / f"{number}.mp4", 75, 3.0) for number in range(FAILURES_IN_A_ROW + 5))
    dataset = SyncNetDataset(Catalog(infos), Mels(tmp_path), **SIZES)
    refused(InputError, rf"^{FAILURES_IN_A_ROW} clips in a row .*/22\.mp4 cannot be read", lambda: dataset[SampleIndex(0, 3)])
    alone = SyncNetDataset(Catalog(infos[:1]), Mels(tmp_path), **SIZES)
    refused(InputError, r"^1 clips in a row", lambda: alone[0])


def test_sound_that_ends_before_the_catalog_says_narrows_the_choice(folder, cache, tmp_path, features):
    path = make_training_clip(tmp_path / "clip.mp4", sound_seconds=0.8)
    catalog = Catalog((ClipInfo(path, FRAMES, 3.0),))
    dataset = UNetDataset(catalog, Mels(cache), features, **SIZES)
    assert all(dataset[SampleIndex(position, position % len(dataset))].mel.shape[-1] == window_length(LENGTH) for position in range(30))
    refused(InputError, "holds sound for", lambda: UNetDataset(catalog, Mels(cache), features, num_frames=16, resolution=SIDE, seed=1)[0])


def test_mouths_are_needed_for_every_clip(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "clips")
    write_truth(tmp_path / "clips" / "clip0.mp4", frames=3)
    catalog = catalog_of(tmp_path / "clips", tmp_path / "cache")
    dataset = SyncNetDataset(catalog, Mels(tmp_path / "cache"), **SIZES, with_mouth=True)
    sample = dataset[SampleIndex(0, 0)]
    assert "3 frames only" in sample.problems[0] and sample.mouth.shape == (1, LENGTH, CHANNELS)
    (tmp_path / "clips" / "clip1.json").unlink()
    catalog = catalog_of(tmp_path / "clips", tmp_path / "cache")
    with pytest.raises(InputError, match=r"1 of 3 clips .*clip1\.mp4: set run\.loss_weights\.mouth=0"):
        SyncNetDataset(catalog, Mels(tmp_path / "cache"), **SIZES, with_mouth=True)


def test_batches_hold_their_samples_in_order(catalog, cache):
    dataset = SyncNetDataset(catalog, Mels(cache), **SIZES, with_mouth=True)
    samples = [dataset[SampleIndex(position, position % 3)] for position in (4, 9, 2)]
    samples[1].problems.append("a sentence")
    batch = collate(samples)
    assert batch.position.tolist() == [4, 9, 2] and batch.clip.tolist() == [1, 0, 2]
    assert batch.faces.shape == (3, LENGTH, SIDE, SIDE, 3) and batch.label.shape == (3,)
    assert batch.mouth.shape == (3, LENGTH, CHANNELS)
    assert torch.equal(batch.mel[1], samples[1].mel[0])
    assert batch.problems == ["a sentence"]


@torch.no_grad()
def test_latents_are_those_the_autoencoder_would_give(catalog, cache, features, tmp_path):
    codec, mask = seeded_codec(), fixed_mask(SIDE, "mask2")
    codec.slice_size = 7
    frames = 3 * LENGTH
    catalog = Catalog(tuple(replace(clip, frames=frames) for clip in catalog.clips[:2]))
    store = LatentStore(tmp_path, SIDE, "mask2")
    for rank in range(2):
        store.fill(codec, catalog, mask, rank, 2)
    files = sorted(tmp_path.rglob("*.npy"))
    assert len(files) == 2
    values = np.load(files[0])
    assert (values.shape, values.dtype) == ((frames, 2, 8, SIDE // 8, SIDE // 8), np.float16)
    whole = UNetDataset(catalog, Mels(cache), features, **SIZES)[1]
    sample = UNetDataset(catalog, Mels(cache), features, **SIZES, latents=store)[1]
    assert torch.equal(sample.faces, whole.faces) and sample.reference is None
    assert UNetDataset(catalog, Mels(cache), features, **SIZES, latents=store, with_faces=False)[1].faces is None
    pixels, reference = to_pixels(whole.faces[0]), to_pixels(whole.reference[0])
    for place, picture in enumerate((pixels, masked_pixels(pixels, mask), reference)):
        posterior = codec.vae.encode(picture).latent_dist
        expected = torch.cat([posterior.mean, posterior.logvar], dim=1)
        torch.testing.assert_close(sample.moments[0, :, place], expected, rtol=2e-3, atol=2e-3)
    assert sample.moments.dtype == torch.float32
    stamps = [path.stat().st_mtime_ns for path in files]
    store.fill(codec, catalog, mask)
    assert [path.stat().st_mtime_ns for path in files] == stamps
    codec.vae.encoder.conv_in.bias += 1
    other = LatentStore(tmp_path, SIDE, "mask2")
    other.fill(codec, Catalog(catalog.clips[:1]), mask)
    assert len(list(tmp_path.rglob("*.npy"))) == 3  # another autoencoder, another store
    refused(InputError, "no cached latents", lambda: other.moments(*[(catalog.clips[1].path, 0)] * 3, LENGTH))
    for content in (mask, 1 - mask):  # a picture as mask counts by its content
        LatentStore(tmp_path, SIDE, str(tmp_path / "own.png")).fill(codec, Catalog(catalog.clips[:1]), content)
    assert len(list(tmp_path.rglob("*.npy"))) == 5


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A clip, its counterpart with another picture, and a clip without one."""
    folder = tmp_path_factory.mktemp("pairs")
    make_training_clip(folder / "a.mp4")
    make_training_clip(folder / "a_other.mp4", "-af", "volume=0.1", face=OTHER_FACE)
    shutil.copy(folder / "a.mp4", folder / "b.mp4")
    return catalog_of(folder, folder / "cache")


def test_the_counterpart_is_painted_over(pairs, cache, features):
    dataset = UNetDataset(pairs, Mels(cache), features, **SIZES, counterfactual_pairs=True)
    own, other, alone = (clip.path for clip in pairs.clips)
    assert (own.name, other.name, alone.name) == ("a.mp4", "a_other.mp4", "b.mp4")
    for number, (target, source) in enumerate([(own, other), (other, own)]):
        sample = dataset[SampleIndex(7, number)]
        start = choose_unet(generator(SEED, 7), FRAMES, LENGTH).start
        window = range(start, start + LENGTH)
        assert torch.equal(sample.faces[0], read_frames(target, window))
        assert torch.equal(sample.source[0], read_frames(source, window)) and torch.equal(sample.reference, sample.source)
        assert not torch.equal(sample.source, sample.faces)
        assert torch.equal(sample.audio[0], features.window(target, start, start + LENGTH))
        mels = [mel_window(Mels(cache)(path), start, LENGTH) for path in (target, source)]
        assert torch.equal(sample.mel[0], mels[0]) and torch.equal(sample.source_mel[0], mels[1]) and not torch.equal(*mels)
    sample = dataset[SampleIndex(7, 2)]
    assert sample.source_mel.shape == sample.mel.shape and not sample.source_mel.any()
    published = UNetDataset(pairs, Mels(cache), features, **SIZES)[SampleIndex(7, 2)]
    assert torch.equal(sample.source, sample.faces) and torch.equal(sample.reference, published.reference)
    assert published.source is None and published.source_mel is None and collate([dataset[SampleIndex(7, 0)], sample]).source.shape[0] == 2


def test_one_frame_is_the_reference_of_all(pairs, cache, features):
    dataset = UNetDataset(pairs, Mels(cache), features, **SIZES, counterfactual_pairs=True, single_reference=True)
    windows = UNetDataset(pairs, Mels(cache), features, **SIZES, counterfactual_pairs=True)
    choice = choose_unet(generator(SEED, 7), FRAMES, LENGTH)
    for number, source in ((0, 1), (2, 2)):  # of a pair the other clip, of a clip alone itself
        sample, other = dataset[SampleIndex(7, number)], windows[SampleIndex(7, number)]
        assert torch.equal(sample.faces, other.faces) and torch.equal(sample.source, other.source)
        frame = read_frames(pairs.clips[source].path, range(choice.reference, choice.reference + 1))
        assert torch.equal(sample.reference[0], frame.expand_as(sample.reference[0]))


@torch.no_grad()
def test_latents_of_counterfactual_pairs(pairs, cache, features, tmp_path):
    codec, mask = seeded_codec(), fixed_mask(SIDE)
    store = LatentStore(tmp_path, SIDE, "mask")
    store.fill(codec, pairs, mask)
    fresh = UNetDataset(pairs, Mels(cache), features, **SIZES, counterfactual_pairs=True, single_reference=True)
    kept = UNetDataset(pairs, Mels(cache), features, **SIZES, counterfactual_pairs=True, single_reference=True, latents=store)
    for number in range(3):
        whole, sample = fresh[SampleIndex(5, number)], kept[SampleIndex(5, number)]
        pictures = to_pixels(whole.faces[0]), masked_pixels(to_pixels(whole.source[0]), mask), to_pixels(whole.reference[0])
        expected = torch.stack([codec.moments(picture) for picture in pictures], dim=1)
        torch.testing.assert_close(sample.moments[0], expected, rtol=2e-3, atol=2e-3)
        assert torch.equal(sample.faces, whole.faces) and sample.source is None

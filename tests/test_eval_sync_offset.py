"""Offset, confidence and accuracy of pairs: vectors whose shift is known, and a network that tells moments by brightness and loudness."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latentsync.errors import InputError
from latentsync.mel import BANDS, log_mel, window_length, window_start
from latentsync.models.syncnet import SyncNet
from latentsync.sync_meter import SUMS_SHAPE, LineSync, SyncMeter, SyncReading, compare, line_reading
from latentsync.third_party.sync_search import MAX_SHIFT

ROOT = Path(__file__).parents[1]
FRAMES, SIDE = 3, 8  # of a window; pixels of a face
CENTRES = torch.linspace(-1, 1, 21)


def directions(count: int, seed: int = 0) -> Tensor:
    """Unit vectors without a negative number, count 16."""
    values = torch.rand(count, 16, generator=torch.Generator().manual_seed(seed)) ** 6
    return nn.functional.normalize(values, dim=1)


@pytest.mark.parametrize("offset", [0, 3, -7, MAX_SHIFT])
def test_a_known_shift_is_found(offset: int) -> None:
    shown = directions(80)
    pictures, audio = shown[20:60], shown[20 + offset : 60 + offset]  # the sound of frame i belongs to the picture of frame i + offset
    reading = compare(pictures, audio)
    assert reading.offset == offset
    assert reading.cosines[MAX_SHIFT - offset] == pytest.approx(1, abs=1e-5)
    assert reading.confidence == pytest.approx(1 - np.median(reading.cosines), abs=1e-5)
    assert len(reading.cosines) == 2 * MAX_SHIFT + 1


def test_unrelated_sound_is_at_no_particular_place() -> None:
    """The ends of short clips favour no shift: neither 0, where most windows have a partner, nor the far ones."""
    offsets = [compare(directions(100, 2 * seed), directions(100, 2 * seed + 1)).offset for seed in range(60)]
    assert np.mean(np.array(offsets) == 0) < 0.12
    assert np.std(offsets) > 5


class Reads(nn.Module):
    """Numbers of b n in [-1, 1] as vectors b (n 21) 1 1, alike where the numbers are."""

    def __init__(self, numbers) -> None:
        super().__init__()
        self.numbers, self.weight = numbers, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-((self.numbers(x)[..., None] - CENTRES) ** 2) / 0.02).flatten(1)[..., None, None]


def brightness(frames: Tensor) -> Tensor:
    """Frames b (f c) h w -> the brightness of each, b f."""
    return frames.unflatten(1, (FRAMES, 3)).mean((2, 3, 4))


def loudness(mel: Tensor) -> Tensor:
    """Mel b 1 80 t -> the loudness shortly after each frame has begun, b f."""
    return mel[:, 0, 0, [window_start(frame) + 1 for frame in range(FRAMES)]]


def moments(count: int) -> np.ndarray:
    """A grey level for each frame."""
    return np.random.default_rng(0).integers(20, 236, count)


def faces_of(levels: np.ndarray) -> Tensor:
    """Faces whose lower halves show the moment and whose upper halves show noise: uint8 f h w 3."""
    faces = np.random.default_rng(1).integers(0, 256, (len(levels), SIDE, SIDE, 3))
    faces[:, SIDE // 2 :] = levels[:, None, None, None]
    return torch.from_numpy(faces.astype(np.uint8))


def mel_of(levels: np.ndarray) -> Tensor:
    """Sound as loud as the moments are bright: 80 t."""
    starts = {window_start(frame): frame for frame in range(len(levels))}
    frame_of = np.maximum.accumulate([starts.get(column, 0) for column in range(window_length(len(levels)))])
    return torch.from_numpy(np.tile(levels[frame_of] / 127.5 - 1, (BANDS, 1)))


@pytest.fixture
def meter() -> SyncMeter:
    width = FRAMES * len(CENTRES)
    network = SyncNet(width, Reads(loudness), Reads(brightness))
    return SyncMeter(network, resolution=SIDE, num_frames=FRAMES, lower_half=True)


@pytest.mark.parametrize("offset", [4, -5])
def test_windows_of_a_clip_meet_those_of_its_sound(meter: SyncMeter, offset: int) -> None:
    levels = moments(100)
    pictures, audio = meter.embed_faces(faces_of(levels[20:70])), meter.embed_audio(mel_of(levels[20 + offset : 70 + offset]))
    assert pictures.shape == audio.shape == (50 - FRAMES + 1, meter.network.width)
    reading = compare(pictures, audio)
    assert reading.offset == offset
    assert max(reading.cosines) > 0.95 and reading.confidence > 0.5


def test_faces_of_another_size_are_brought_to_the_networks(meter: SyncMeter) -> None:
    levels = moments(40)
    large = faces_of(levels).repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert compare(meter.embed_faces(large), meter.embed_audio(mel_of(levels))).offset == 0


def test_clips_without_a_window_are_refused(meter: SyncMeter) -> None:
    with pytest.raises(InputError, match="pictures for 2 frames"):
        meter.embed_faces(faces_of(moments(2)))
    with pytest.raises(InputError, match="sound for 2 frames"):
        meter.embed_audio(mel_of(moments(2)))


def read_pieces(meter: SyncMeter, faces: Tensor, samples: np.ndarray, fps: int, ends: list[int]) -> SyncReading | None:
    sync = LineSync(meter, samples, torch.zeros(SUMS_SHAPE, dtype=torch.float64), Fraction(fps))
    for first, last in zip([0, *ends], ends, strict=False):
        sync.add(faces[first:last], first)
    return line_reading(sync.sums)


def test_a_line_piece_by_piece_reads_like_a_whole_clip(meter: SyncMeter) -> None:
    levels = moments(60)
    noise = np.random.default_rng(2).normal(0, 0.1, 64 * 640)
    samples = (noise * np.repeat(moments(64) / 255, 640)).astype(np.float32)
    whole = compare(meter.embed_faces(faces_of(levels)), meter.embed_audio(log_mel(samples).float()))
    for fps, faces in ((25, faces_of(levels)), (50, faces_of(levels).repeat_interleave(2, 0))):
        ends = [part * fps // 25 for part in (1, 2, 20, 53, 60)]
        found = read_pieces(meter, faces, samples, fps, ends)
        assert found.offset == whole.offset and found.cosines == pytest.approx(whole.cosines, abs=1e-3)
    assert read_pieces(meter, faces_of(levels)[:17], samples, 25, [17]) is None

"""Offset and confidence of files: a stand-in for the networks reads numbers off picture and sound, everything else is real."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from media_fixtures import run_ffmpeg
from steps_fixtures import encode, levels, number_of, striped
from torch import Tensor

from eval.metrics.base import Case
from eval.metrics.sync import Excerpt, SyncConfidence, find_tracks, open_sound
from latentsync.errors import InputError
from latentsync.media.audio import read_audio
from latentsync.media.video_reader import VideoReader
from latentsync.third_party.face_tracks import SyncNetDetector, track_crops
from latentsync.third_party.s3fd import S3FD
from latentsync.third_party.syncnet_mfcc import mfcc
from latentsync.third_party.syncnet_v2 import SyncNetEval, SyncNetV2

HEIGHT, WIDTH, COUNT, FIRST = 96, 160, 70, 20
SPACE = torch.from_numpy(np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32))  # where a number lies: 256 d
ONE = mfcc(levels([1] * 3))[0, 5]  # how loud the number 1 is


class Numbers(SyncNetEval):
    """What perfect networks would find: pictures and sound of one number lie at one place."""

    def __init__(self, batch_size: int = 20) -> None:
        self.batch_size = batch_size

    def embed_lips(self, pictures: list[np.ndarray]) -> Tensor:
        return SPACE[[number_of(picture, 0.4) for picture in pictures[: len(pictures) - 4]]]

    def embed_sound(self, columns: np.ndarray, start: int, count: int) -> Tensor:
        loudness = columns[0, 4 * np.arange(start, start + count) + 1]  # inside the first frame of the window
        return SPACE[np.exp((loudness - ONE) / 2).round().astype(int)]


class Boxes:
    """Finds the same faces in every frame."""

    def __init__(self, *boxes: tuple[float, ...]) -> None:
        self._boxes = np.array(boxes).reshape(-1, 4)

    def boxes(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return (self._boxes for _ in frames)


HALF = WIDTH / 2.8
WHOLE = Boxes((WIDTH / 2 - HALF, HEIGHT / 2 - HALF, WIDTH / 2 + HALF, HEIGHT / 2 + HALF))  # its crop is as wide as the frame


def numbered(path: Path, early: int = 0, count: int = COUNT, sound: int = COUNT) -> Path:
    """A clip whose sound comes `early` frames before its picture."""
    said = [FIRST + k + early for k in range(sound)]
    return encode(path, [striped(FIRST + k, HEIGHT, WIDTH) for k in range(count)], levels(said))


@pytest.mark.parametrize("early", [0, 5, -3])
def test_a_known_shift_comes_out(tmp_path: Path, early: int) -> None:
    found = SyncConfidence(WHOLE, Numbers()).measure(numbered(tmp_path / "a.mp4", early))
    assert (found.offset, found.tracks, found.frames) == (early, 1, COUNT)
    assert found.confidence > 5 and 0 < found.best < 5


@pytest.mark.parametrize("published", [False, True])
def test_the_result_of_two_faces_is_their_mean(tmp_path: Path, published: bool) -> None:
    path, faces = numbered(tmp_path / "a.mp4", 2, sound=COUNT - 3), Boxes((-30, -20, 80, 90), (40, -10, 190, 140))
    source, samples = VideoReader(path), read_audio(path)
    tracks = find_tracks(source.frames(), faces)
    each = [Numbers()(track_crops(source.frames(t.start, t.stop), t), samples[t.samples], published) for t in tracks]
    found = SyncConfidence(faces, Numbers(7), published=published).measure(path)
    assert found.tracks == len(tracks) == 2 and found.frames == 2 * COUNT and found.offset == int(np.mean([one.offset for one in each]))
    assert found.confidence == pytest.approx(np.mean([result.confidence for result in each]), abs=1e-6)
    assert found.best == pytest.approx(np.mean([result.distance for result in each]), abs=1e-6)


def test_no_face_is_followed_across_a_cut() -> None:
    frames = [np.full((HEIGHT, WIDTH, 3), colour, np.uint8) for colour in [(200, 40, 40)] * 55 + [(30, 60, 220)] * 52]
    assert [(track.start, track.stop) for track in find_tracks(frames, WHOLE)] == [(0, 55), (55, 107)]


def test_sound_is_placed_by_the_clock_of_the_file(tmp_path: Path) -> None:
    path, late = numbered(tmp_path / "a.mkv"), tmp_path / "late.mkv"
    run_ffmpeg("-i", path, "-itsoffset", "0.2", "-i", path, "-map", "0:v", "-map", "1:a", "-c", "copy", late)
    assert SyncConfidence(WHOLE, Numbers()).measure(late).offset == -5
    with open_sound(late) as samples:
        assert len(samples) == pytest.approx(COUNT * 640 + 3200, abs=20) and not samples[:3000].any() and samples[3400:].all()


def test_excerpts_reach_beyond_their_recording() -> None:
    samples = np.arange(1, 11, dtype=np.float32)
    padded = np.concatenate([np.zeros(3, np.float32), samples, np.zeros(4, np.float32)])
    part = Excerpt(samples, -3, 14)
    assert len(part) == 17
    for piece in (slice(None), slice(0, 2), slice(1, 5), slice(5, 8), slice(11, 30), slice(14, 17), slice(6, 2)):
        assert part[piece].tolist() == padded[piece].tolist()


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    short, brief = numbered(tmp_path / "a.mp4", count=40, sound=40), numbered(tmp_path / "brief.mp4", sound=3)
    mute, silent = tmp_path / "mute.mp4", encode(tmp_path / "silent.mp4", [striped(1, HEIGHT, WIDTH)] * 60, levels([0] * 60))
    run_ffmpeg("-i", short, "-c", "copy", "-an", mute)
    words = {short: "no face that S3FD follows", mute: "no audio track", silent: "silence only", brief: "too little sound"}
    for path, sentence in words.items():
        with pytest.raises(InputError, match=sentence):
            SyncConfidence(WHOLE, Numbers()).measure(path)


def test_real_networks_fit_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = numbered(tmp_path / "a.mp4", count=52, sound=9)
    found = SyncConfidence(WHOLE, SyncNetEval(SyncNetV2().eval())).measure(path)
    assert abs(found.offset) <= 15 and found.best > 0 and found.frames == 52
    path = numbered(tmp_path / "b.mp4", count=9, sound=9)
    with pytest.raises(InputError, match="no face"):
        SyncConfidence(SyncNetDetector(S3FD().eval()), SyncNetEval(SyncNetV2().eval())).measure(path)


def test_the_measure_reads_the_file_of_its_case(tmp_path: Path) -> None:
    video, sound, mute = numbered(tmp_path / "a.mp4", 5), numbered(tmp_path / "b.mp4", -4), tmp_path / "mute.mp4"
    run_ffmpeg("-i", video, "-c", "copy", "-an", mute)
    measure = SyncConfidence(WHOLE, Numbers())
    assert [column.name for column in measure.columns] == ["sync_conf", "sync_offset", "sync_d"]
    assert measure.of_video(Case("a", video, video, sound, "cross"), np.empty((0, 0)))["sync_offset"] == 5
    assert measure.of_video(Case("a", mute, video, sound, "cross"), np.empty((0, 0)))["sync_offset"] == -4

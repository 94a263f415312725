"""Steps 7 and 8, and the order of all: offsets that are known come out at 0, the rest is rejected with its numbers."""

import pickle
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from steps_fixtures import BLOCK, STEP, clip, encode, levels, number_of, numbered, numbers_of, sound_numbers, striped

from latentsync.errors import InputError
from latentsync.media.audio import Samples
from latentsync.media.video_reader import VideoReader
from latentsync.third_party.face_tracks import FaceTrack, SyncNetDetector
from latentsync.third_party.hyperiqa import HyperNet
from latentsync.third_party.s3fd import S3FD
from latentsync.third_party.sync_search import Offset, OffsetSearch
from latentsync.third_party.syncnet_v2 import SyncNetEval, SyncNetV2
from preprocess.data_processing_pipeline import FILTERS, steps_without
from preprocess.step import Kept, Rejected, Step, plan_steps
from preprocess.steps.av_sync import AvSync
from preprocess.steps.visual_quality import VisualQuality

COUNT = 40
SPACE = torch.from_numpy(np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32))  # where a number lies: 256 d


def whole_picture(frames: Iterable[np.ndarray]) -> list[FaceTrack]:
    """A track whose crops are as wide as the frames."""
    pictures = list(frames)
    height, width = pictures[0].shape[:2]
    half = width / 2.8
    box = np.array([width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half])
    return [FaceTrack(0, np.tile(box, (len(pictures), 1)))]


def compare_numbers(frames: Iterable[np.ndarray], samples: Samples, published: bool = False) -> Offset:
    """What a perfect network would find: pictures and sound of one number lie at one place."""
    seen = [number_of(frame, 0.4) for frame in frames]
    sound = samples[0 : len(samples)] * 32768 / STEP
    audio = [round(float(sound[place * BLOCK : (place + 1) * BLOCK].mean())) for place in range(len(sound) // BLOCK)]
    inner = slice(8, min(len(seen), len(audio)) - 8)  # the filter of tracks knows no frames beyond the ends
    search = OffsetSearch()
    search.add(SPACE[seen[inner]], SPACE[audio[inner]])
    return search.finish()


SYNC = AvSync(whole_picture, compare_numbers, min_confidence=3, max_offset=6)


@pytest.mark.parametrize("late", (-6, 0, 3))
def test_a_known_offset_comes_out_at_zero(tmp_path: Path, late: int) -> None:
    frames, said = [striped(max(k, 0)) for k in range(10, 10 + COUNT)], levels([10 + k - late for k in range(COUNT)])
    (outcome,) = SYNC(clip(encode(tmp_path / "a.mp4", frames, said)), tmp_path / "synced")
    assert isinstance(outcome, Kept) and outcome.facts["offset"] == -late and float(outcome.facts["confidence"] or 0) > 3
    seen = numbers_of(outcome.path)
    assert seen == sound_numbers(outcome.path) and len(seen) == COUNT - abs(late) == outcome.facts["frames"]
    (again,) = SYNC(clip(outcome.path), tmp_path / "again")
    assert isinstance(again, Kept) and again.facts["offset"] == 0 and again.path.samefile(outcome.path)


def test_moving_the_sound_leaves_every_pixel_alone(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mp4", COUNT, late=4)  # such an offset drops frames at the end, where anything may be cut
    (outcome,) = SYNC(clip(path), tmp_path / "synced")
    assert isinstance(outcome, Kept) and np.array_equal(
        list(VideoReader(outcome.path).frames()), list(VideoReader(path).frames(0, COUNT - 4))
    )


def test_what_is_too_far_apart_or_unsure_is_rejected(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mp4", COUNT, late=8)
    (outcome,) = SYNC(clip(path), tmp_path / "synced")
    assert isinstance(outcome, Rejected) and (outcome.reason, outcome.facts["offset"]) == ("out of sync", -8)
    assert outcome.why == "a.mp4 is -8 frames apart, over 6"
    (outcome,) = replace(SYNC, min_confidence=99)(clip(path), tmp_path / "synced")
    assert isinstance(outcome, Rejected) and outcome.reason == "low sync confidence" and "under 99" in outcome.why
    assert not (tmp_path / "synced").exists()


def test_real_networks_fit_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = numbered(tmp_path / "a.mp4", 14)
    (outcome,) = AvSync(SyncNetDetector(S3FD().eval()), compare_numbers, 3, 6)(clip(path), tmp_path / "synced")
    assert isinstance(outcome, Rejected) and outcome.reason == "no face track"
    (outcome,) = AvSync(whole_picture, SyncNetEval(SyncNetV2().eval()), 1e9, 6)(clip(path), tmp_path / "synced")
    assert isinstance(outcome, Rejected) and outcome.reason == "low sync confidence" and set(outcome.facts) == {"offset", "confidence"}
    path = encode(tmp_path / "b.mp4", [striped(k, 224, 256) for k in range(3)], levels(range(3)))
    (outcome,) = VisualQuality(HyperNet().eval().score, -1e9)(clip(path), tmp_path / "good")
    assert isinstance(outcome, Kept) and isinstance(outcome.facts["hyperiqa"], float)


def test_quality_is_measured_in_three_frames(tmp_path: Path) -> None:
    path, scored = numbered(tmp_path / "a.mp4", 30), []

    def score(frames: list[np.ndarray]) -> float:
        scored.extend(number_of(frame) for frame in frames)
        return 41.234

    (outcome,) = VisualQuality(score, 40)(clip(path), tmp_path / "good")
    assert isinstance(outcome, Kept) and outcome.path.samefile(path) and outcome.facts == {"hyperiqa": 41.23}
    assert scored == [0, 15, 29]
    (outcome,) = VisualQuality(score, 42)(clip(path), tmp_path / "better")
    assert outcome == Rejected("low visual quality", "a.mp4 has a score of 41.2, under 42", {"hyperiqa": 41.23})
    assert not (tmp_path / "better").exists()


def planned(skip: str = "", **options: float) -> list[Step]:
    return plan_steps(steps_without(skip), Path("/output"), options, Path("/no weights"))


def test_the_order_and_its_folders() -> None:
    steps = planned(sync_conf_threshold=3.5)
    assert [step.folder_name for step in steps] == [
        *("", "resampled", "shot", "segmented", "high_resolution", "affine_transformed", "av_synced_3.5", "high_visual_quality")
    ]
    assert [step.name for step in steps if step.definition.weights] == ["av_sync", "visual_quality"]
    assert [step.device for step in steps] == ["cpu"] * 4 + ["gpu"] * 4
    assert pickle.loads(pickle.dumps(steps)) == steps
    left = planned("av_sync, visual_quality")
    assert left[-1].name == "affine" and len(left) == 6


def test_results_of_earlier_versions_stay_valid() -> None:
    digests = "5c7ef400 a36e20e4 f4f40115 ed57356e fb2850f8 65494c40 f8edf962 8f0e8c29"
    assert " ".join(step.digest[:8] for step in planned()) == digests


def test_media_steps_open_and_settings_follow_options() -> None:
    before, after = planned(), planned(max_seconds=12, quality_threshold=50)
    assert {old.name for old, new in zip(before, after, strict=True) if old.settings != new.settings} == {"segments", "visual_quality"}
    assert all(callable(step.open("cpu")) for step in before[:4])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"skip": "affine"}, "'affine' cannot be left out: name some of " + ", ".join(FILTERS)),
        ({"resolution": 250}, "multiple of 8"),
        ({"resolution": 128}, "skip visual_quality"),
        ({"max_seconds": 9}, "at least twice the shortest"),
        ({"max_offset": 16}, "15 frames either way"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        planned(**options)

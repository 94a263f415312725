"""Live use: the clips, features and frames of a run over files from what arrives piece by piece, with a delay that is kept."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from golden_recipe import GOLDEN
from tiny_pipeline import CASE, KnownFaces, reference_frames, reference_pipeline

from latentsync.errors import InputError
from latentsync.faces.detector import Face
from latentsync.faces.selection import FaceChoice
from latentsync.pipelines import streaming
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.streaming import SOUND_AHEAD, LiveFaces, LiveSamples, LiveWindows, live_delay
from latentsync.whisper.audio2feature import Audio2Feature, load_whisper_encoder

ANCHORS = CASE["inputs"]["anchors (x,y) per source frame"]
PICTURES = reference_frames()


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(int(16000 * seconds), dtype=np.float32) * 0.1


def pieces(sound: np.ndarray, count: int) -> Iterator[np.ndarray]:
    yield from np.array_split(sound, count)


def numbered(k: int) -> np.ndarray:
    """A picture that says its number, upright alone, to `Sometimes`."""
    picture = PICTURES[0].copy()
    picture[0, 0] = (200, k, 77)
    return picture


class Sometimes(KnownFaces):
    """A detector that sees nobody in some frames, and a second person at the right from frame 20 on."""

    def __init__(self, hidden: range) -> None:
        self.hidden = hidden

    def detect(self, picture: np.ndarray) -> list[Face]:
        (mark, number, other), anchors = picture[0, 0].tolist(), np.array(ANCHORS[0], dtype=np.float32)
        if (mark, other) != (200, 77) or number in self.hidden:
            return []
        faces = [Face(np.array([40, 20, 110, 110], np.float32), 1.0, anchors)]
        return faces + ([Face(np.array([112, 0, 159, 119], np.float32), 1.0, anchors)] if number >= 20 else [])


@pytest.mark.parametrize(
    ("hidden", "clips"),
    [(range(0), [(0, 16, 1), (16, 32, 1), (32, 40, 1)]), (range(18, 34), [(0, 16, 1), (16, 18, 1), (18, 34, None), (34, 40, 2)])],
)
def test_clips_of_frames_that_arrive_one_by_one(hidden: range, clips: list[tuple[int, int, int]]) -> None:
    came = []
    live = LiveFaces(Sometimes(hidden), FaceChoice(index=0), Fraction(25), 64, 16, torch.Generator().manual_seed(1))

    def arriving() -> Iterator[np.ndarray]:
        for k in range(40):
            came.append(k)
            yield numbered(k)

    found = []
    for clip in live.clips(arriving()):
        assert len(came) - 1 - clip.start <= live_delay(16, Sometimes(range(0)))
        found.append((clip.start, clip.stop, clip.span))
        assert (clip.matrices is None) == (clip.span is None)
        assert clip.span is None or (len(clip.matrices) == len(clip.frames) == clip.noise.shape[1])
    assert found == clips


def test_windows_of_sound_that_arrives_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "USUAL_PEAK", -10.0)
    extractor = Audio2Feature(load_whisper_encoder(GOLDEN / "whisper_reduced.pt"))
    sound = noise(2.0)
    sound[4000:4400] *= 5  # the loudest moment is among the first
    whole = extractor.windows(sound).frames(0, 32)
    made = []
    for count in (1, 23):
        live = LiveWindows(extractor, pieces(sound, count), Fraction(25))
        made.append(torch.cat([live.frames(start, start + 16) for start in (0, 16)]))
    assert torch.equal(*made)
    assert torch.nn.functional.cosine_similarity(made[0].flatten(1), whole.flatten(1)).min() > 0.9
    known = LiveWindows(extractor, pieces(sound, 3), Fraction(25), ahead=Fraction(2) - Fraction(16, 25)).frames(0, 16)
    assert torch.allclose(known, whole[:16], atol=1e-4)  # of all sound: nothing is missing


def test_sound_far_back_is_forgotten_and_silence_follows_the_end() -> None:
    samples = LiveSamples(pieces(noise(0.1), 3))
    samples.extend(2000)
    assert len(samples) == 2000 and np.count_nonzero(samples[1500:2000]) == 100
    samples.forget(1900)
    assert len(samples[1900:2000]) == 100
    with pytest.raises(AssertionError, match="forgotten"):
        samples[0:10]


def test_a_live_run_gives_every_frame_back_within_its_delay() -> None:
    frames = [PICTURES[k % 12] for k in range(26)]
    pipeline = reference_pipeline([ANCHORS[k % 12] for k in range(26)])
    came, heard = [], []

    def arriving() -> Iterator[np.ndarray]:
        for k, frame in enumerate(frames):
            came.append(k)
            yield frame

    def sound() -> Iterator[np.ndarray]:
        for piece in pieces(noise(3.0), 30):
            heard.append(len(piece))
            yield piece

    made = []
    for k, frame in enumerate(pipeline.generate(arriving(), sound(), 25, LipsyncOptions(inference_steps=1))):
        assert len(came) - 1 - k <= live_delay(16, pipeline.face_detector)
        assert sum(heard) / 16000 <= (k + 16) / 25 + SOUND_AHEAD + 0.1
        made.append(frame)
    assert len(made) == 26 and all(frame.shape == frames[0].shape and frame.dtype == np.uint8 for frame in made)
    assert sum(bool((a != b).any()) for a, b in zip(frames, made, strict=True)) == 26


@pytest.mark.parametrize(
    ("frames", "sound", "sentence"),
    [
        ([np.zeros((8, 8, 3), np.float32)], [], "Frame 0 is float32"),
        ([PICTURES[0], PICTURES[0][:50]], [], "all of one size"),
        ([PICTURES[0]] * 3, [np.zeros(5)], "float32"),
    ],
)
def test_other_frames_and_sounds_are_refused(frames: list, sound: list, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        list(reference_pipeline().generate(frames, sound, 25, LipsyncOptions(inference_steps=1)))

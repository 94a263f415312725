"""Long results in segments: one encode, one file, and the same frames after an interruption."""

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latentsync.media.probe import probe
from latentsync.media.segments import SegmentedWriter, work_folder
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import GENERATED, AudioTrack, VideoWriter

FPS = Fraction(30000, 1001)
FRAMES = 20
STOPS = (8, 14)


class Killed(Exception):
    """Stands in for the end of a process."""


def picture(k: int) -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 4, y * 5, (x + y + 9 * k) % 256], axis=-1).astype(np.uint8)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((np.sin(np.arange(10667) / 9) * 9000).astype("<i2").tobytes())
    return tmp_path / "sound.wav"


def write(path: Path, sound: Path, *, stop: int = FRAMES, key: str = "key", keep: bool = False, **quality: object) -> int:
    """Write the pictures up to one; the number of the first that was written in this run."""
    size = {"width": 64, "height": 48, "fps": FPS, "is_generated": True, **quality}
    whole = VideoWriter(path, audio=AudioTrack(sound, float(FRAMES / FPS)), **size)
    with SegmentedWriter(path, key, lambda segment: VideoWriter(segment, **size), whole, keep=keep) as writer:
        first = writer.frames_written
        assert first == 0 or writer.state["number"] == first
        for k in range(first, FRAMES):
            if k == stop:
                raise Killed
            writer.write(picture(k))
            if k + 1 in STOPS:
                writer.checkpoint({"number": np.array(k + 1)})
    return first


@pytest.mark.parametrize(("name", "quality"), [("a.mp4", {}), ("a.mkv", {"lossless": True}), ("a.webm", {"codec": "vp9"})])
def test_a_run_goes_on_from_the_last_whole_segment(tmp_path: Path, sound: Path, name: str, quality: dict) -> None:
    whole, path = tmp_path / "whole" / name, tmp_path / name
    assert write(whole, sound, **quality) == 0
    for stop in (5, 17):
        with pytest.raises(Killed):
            write(path, sound, stop=stop, keep=True, **quality)
        assert not path.exists()
    assert write(path, sound, **quality) == 14
    ours, theirs = (list(VideoReader(file, None).frames()) for file in (path, whole))
    assert len(ours) == FRAMES and np.array_equal(ours, theirs)
    assert probe(path).video.average_fps == FPS and probe(path).audio is not None
    assert probe(path).tags["comment"] == GENERATED
    if quality.get("lossless"):
        assert np.array_equal(ours, [picture(k) for k in range(FRAMES)])
    assert not work_folder(path).exists()


def test_what_belongs_to_another_job_is_never_used(tmp_path: Path, sound: Path) -> None:
    path = tmp_path / "a.mp4"
    for key, keep in (("other", True), ("key", False)):
        with pytest.raises(Killed):
            write(path, sound, stop=17, key=key, keep=keep)
        assert work_folder(path).exists() == keep  # an error or Ctrl-C leaves nothing unless it is asked for
    assert write(path, sound) == 0

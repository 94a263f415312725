"""Speech without pictures: recordings that repeat, go on, keep apart, and tell the truth."""

import ctypes
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.media.audio import read_audio
from preprocess.talking_heads.speech import corpus
from preprocess.talking_heads.speech.phones import SILENCE, SYMBOLS, from_json
from preprocess.talking_heads.speech.recordings import Recordings, mouth_of_nobody
from preprocess.talking_heads.speech.splits import split_of_speaker
from preprocess.talking_heads.speech.synthesis import ESPEAK_LIBRARIES
from preprocess.talking_heads.speech.viseme_table import CHANNELS
from preprocess.talking_heads.truth import read_speech


def has_voices() -> bool:
    try:
        return shutil.which("flite") is not None and bool(ctypes.CDLL(ESPEAK_LIBRARIES[0]))
    except OSError:
        return False


needs_voices = pytest.mark.skipif(not has_voices(), reason="flite and espeak-ng are not installed")
SECONDS = 1.6


def record(folder: Path, *more: str) -> int:
    return corpus.main(["--output_dir", str(folder), "--clips", "3", "--seconds", str(SECONDS), "--quiet", *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "validation"
    assert record(folder, "--split", "validation") == 0
    return folder


@needs_voices
def test_a_recording_tells_the_truth(made: Path) -> None:
    names = [f"clip_{index:06d}{end}" for index in range(3) for end in (".json", ".wav")]
    assert sorted(contents(made)) == [*names, "speech.json"]
    for path in made.glob("clip_*.json"):
        truth, samples = json.loads(path.read_text()), read_audio(path.with_suffix(".wav"))
        phones = from_json(truth["said"]["phones"])
        values = np.array(truth["mouth"]["values"])
        assert len(samples) == round(SECONDS * AUDIO_SAMPLE_RATE) and np.abs(samples).max() > 0.01
        assert phones[0].start == 0 and phones[0].symbol == SILENCE and phones[-1].end == pytest.approx(SECONDS, abs=1e-4)
        assert values.shape == (round(SECONDS * VIDEO_FPS), len(CHANNELS)) and values[:, 0].max() > 0.1
        assert truth["symbols"] == list(SYMBOLS) and truth["mouth"]["channels"] == list(CHANNELS)
        assert truth["mouth"]["rest"][CHANNELS.index("closure")] == 1
        assert split_of_speaker("{engine}/{name}".format(**truth["said"]["voice"])) == "validation"
        assert read_speech(path.with_suffix(".wav")).phones[:-1] == phones[:-1]  # a rendered head can be made to say it


@needs_voices
def test_the_mouth_is_that_of_the_whole_speech_and_of_nobody(made: Path) -> None:
    recordings = Recordings(made, seed=1, split="validation", count=3, seconds=SECONDS)
    from preprocess.talking_heads.clip import speech_of

    plan = recordings.plan(1)
    expected = mouth_of_nobody(speech_of(plan, SECONDS), recordings.frames)
    truth = json.loads((made / "clip_000001.json").read_text())
    assert np.allclose(truth["mouth"]["values"], expected, atol=1e-4)


@needs_voices
def test_the_same_command_makes_the_same_and_goes_on(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(made, again)
    whole = contents(made)
    (again / "clip_000001.json").unlink()  # as if stopped between sound and truth
    (again / "clip_000002.wav").unlink()
    untouched = (again / "clip_000000.wav").stat().st_mtime_ns
    assert record(again, "--split", "validation", "--workers", "1") == 0
    assert contents(again) == whole
    assert (again / "clip_000000.wav").stat().st_mtime_ns == untouched


@needs_voices
def test_clean_sound_is_the_same_speech_without_a_room(made: Path, tmp_path: Path) -> None:
    assert record(tmp_path / "clean", "--split", "validation", "--clean_sound") == 0
    for name in ("clip_000000", "clip_000001"):
        clean, noisy = (json.loads((folder / f"{name}.json").read_text()) for folder in (tmp_path / "clean", made))
        assert clean["said"] == noisy["said"] and clean["mouth"] == noisy["mouth"]
        assert (tmp_path / "clean" / f"{name}.wav").read_bytes() != (made / f"{name}.wav").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--clips", "0"], "--clips 0"),
        (["--seconds", "0.1"], "--seconds 0.1"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_numbers_that_make_no_recording(tmp_path: Path, arguments: list[str], word: str, caplog: pytest.LogCaptureFixture) -> None:
    assert corpus.main(["--output_dir", str(tmp_path / "new"), *arguments]) == 2
    assert word in caplog.records[-1].getMessage() and not (tmp_path / "new").exists()


@needs_voices
def test_other_recordings_and_foreign_files_are_left_alone(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = contents(made)
    assert record(made, "--split", "train") == 2
    assert "another --output_dir" in caplog.records[-1].getMessage() and contents(made) == before
    (tmp_path / "holiday.txt").write_text("mine")
    assert record(tmp_path) == 2
    assert "were not made by this command" in caplog.records[-1].getMessage() and list(contents(tmp_path)) == ["holiday.txt"]


def test_a_missing_synthesiser_is_one_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.talking_heads.speech.synthesis.shutil.which", lambda _: None)
    monkeypatch.setattr("preprocess.talking_heads.speech.synthesis.ESPEAK_LIBRARIES", ("libnone.so",))
    assert record(tmp_path / "new") == 2
    assert "setup_env.sh --with-speech" in caplog.records[-1].getMessage()

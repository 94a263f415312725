"""Files of rendered people: the same seed gives the same frames, labels fit the pictures, runs resume, faces are aligned."""

import hashlib
import itertools
import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embedded.talking_heads import batch, clip
from embedded.talking_heads.__main__ import DEMOS, main
from embedded.talking_heads.aligned import as_tracked
from embedded.talking_heads.batch import HeadCollection, write_all
from embedded.talking_heads.clip import RenderedScene
from embedded.talking_heads.expression import MouthShape
from embedded.talking_heads.motion import Pose
from embedded.talking_heads.speech.phones import Phone, tile
from embedded.talking_heads.speech.synthesis import Speech
from embedded.talking_heads.speech.visemes import CHANNELS
from embedded.talking_heads.speech.voices import SPEAKERS, Voice, split_of_identity, split_of_speaker
from embedded.talking_heads.traits import draw_traits
from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.data.clip_index import read_properties
from latentsync.errors import InputError
from latentsync.faces.alignment import anchors_from_landmarks, template
from latentsync.media.audio import read_audio
from latentsync.media.video_reader import VideoReader

IDENTITY, SCENE, SIZE = 11, 4, 64
SPOKEN = Pose(mouth=MouthShape(jaw=0.5, spread=0.2, upper_lip=0.2, lower_lip=0.3), turn=(0.1, -0.05, 0.02), gaze=(0.1, 0.0))


@pytest.fixture
def voices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A synthesiser that needs no program: a vowel and a consonant for every word, as tones."""

    def speak(text: str, voice: Voice, lead: float = 0.3, tail: float = 0.3) -> Speech:
        symbols = [symbol for word in text.split() for symbol in (("aa", "m") if len(word) % 2 else ("iy", "s"))]
        phones = [Phone(symbol, lead + 0.1 * index, lead + 0.1 * (index + 1)) for index, symbol in enumerate(symbols)]
        seconds = lead + 0.1 * len(symbols) + tail
        times = np.arange(round(seconds * AUDIO_SAMPLE_RATE)) / AUDIO_SAMPLE_RATE
        samples = 0.3 * np.sin(2 * np.pi * 200 * times) * ((times > lead) & (times < seconds - tail))
        return Speech(samples.astype(np.float32), tile(phones, seconds), text, voice)

    monkeypatch.setattr(clip, "speak", speak)
    monkeypatch.setattr(batch, "speak", speak)


@pytest.fixture(scope="module")
def scene() -> RenderedScene:
    return RenderedScene(IDENTITY, SCENE, SIZE, SIZE)


def run(kind: str, folder: Path, *more: str) -> int:
    return main([kind, "--output_dir", str(folder), "--number", "1", "--workers", "1", "--quiet", *more])


def labels_of(path: Path) -> dict:
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def test_a_fresh_process_renders_the_same_bytes(scene: RenderedScene) -> None:
    code = (
        "import hashlib; from embedded.talking_heads.clip import RenderedScene; from embedded.talking_heads.motion import MouthShape, Pose;"
        f"print(hashlib.sha256(RenderedScene({IDENTITY}, {SCENE}, {SIZE}, {SIZE}).frame({SPOKEN}, 3).picture.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    scene.frame(Pose(), 0)  # what was rendered before must not matter
    assert other.stdout.strip() == hashlib.sha256(scene.frame(SPOKEN, 3).picture.tobytes()).hexdigest()


def test_person_scene_and_frame_number_change_the_picture(scene: RenderedScene) -> None:
    frame = scene.frame(SPOKEN, 3)
    somebody, elsewhere = (RenderedScene(*seeds, SIZE, SIZE).frame(SPOKEN, 3) for seeds in ((IDENTITY + 1, SCENE), (IDENTITY, SCENE + 1)))
    assert np.abs(somebody.landmarks - frame.landmarks).max() > 0.5 and np.mean(elsewhere.picture != frame.picture) > 0.5
    later = scene.frame(SPOKEN, 4)
    assert np.array_equal(later.landmarks, frame.landmarks) and not np.array_equal(later.picture, frame.picture)


@pytest.mark.usefixtures("voices")
def test_a_pair_of_clips_is_whole_resumes_and_keeps_its_motion(tmp_path: Path) -> None:
    folder = tmp_path / "some clips"
    options = ("--seconds", "0.4", "--size", str(SIZE), "--pairs")
    assert run("clips", folder, *options) == 0
    one, other = folder / "clip_000000.mp4", folder / "clip_000000_other.mp4"
    found = read_properties(one)
    assert (found.frames, found.fps, found.width, found.height, found.has_mouth) == (10, 25.0, SIZE, SIZE, True)
    assert found.seconds == pytest.approx(0.4, abs=0.05) and np.abs(read_audio(one)).max() > 0.01
    both = [labels_of(path) for path in (one, other)]
    for labels in both:
        assert labels["frames"] == len(labels["landmarks"]) == len(labels["lip_gap_cm"]) == len(labels["mouth"]["values"]) == 10
        assert labels["mouth"]["channels"] == list(CHANNELS) and labels["settings"] == {"width": SIZE, "height": SIZE, "crf": 16}
        phones = labels["said"]["phones"]
        assert phones[0][1] == 0 and phones[-1][2] == pytest.approx(0.4) and all(a[2] == b[1] for a, b in itertools.pairwise(phones))
    assert both[0]["said"]["text"] != both[1]["said"]["text"] and both[0]["plan"]["identity"] == both[1]["plan"]["identity"]
    eyes = [np.array(labels["landmarks"])[:, 36:48] for labels in both]
    assert np.abs(eyes[0] - eyes[1]).max() < 0.02
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert run("clips", folder, *options) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    before = (one.read_bytes(), one.with_suffix(".json").read_bytes())
    one.with_suffix(".json").unlink()  # as if stopped between video and labels
    assert run("clips", folder, *options) == 0
    assert (one.read_bytes(), one.with_suffix(".json").read_bytes()) == before


@pytest.mark.usefixtures("voices")
def test_aligned_clips_show_faces_where_inference_puts_them(tmp_path: Path) -> None:
    options = ("--seconds", "0.2", "--resolution", "128")
    assert run("aligned", tmp_path, *options, "--pairs") == 0
    assert run("aligned", tmp_path, *options, "--seed", "2") == 0
    names = {"heads-s1-train-128-000000", "heads-s1-train-128-000000_other", "heads-s2-train-128-000000"}
    assert {path.stem for path in tmp_path.glob("*.mp4")} == names
    for name in ("heads-s1-train-128-000000", "heads-s2-train-128-000000"):
        labels = labels_of(tmp_path / f"{name}.mp4")
        landmarks = np.array(labels["landmarks"])
        expected = template(128).numpy() * [128 / 105, 128 / 140]  # the crop of 105 x 140 pixels is stretched to the square face
        found = np.stack([anchors_from_landmarks(points) for points in landmarks]) - 0.5
        assert np.abs(found - expected).max() < 12 and np.abs((found - expected).mean(1)).max() < 5
        frames = np.stack(list(VideoReader(tmp_path / f"{name}.mp4").frames()))
        assert frames.shape == (5, 128, 128, 3) and frames.std() > 20
    one, other = (labels_of(tmp_path / f"heads-s1-train-128-000000{end}.mp4") for end in ("", "_other"))
    eyes = np.array(one["landmarks"])[:, 36:48] - np.array(other["landmarks"])[:, 36:48]
    assert np.abs(eyes).max() < 0.05  # both are cut by the same transforms


def test_errors_of_crops_have_their_measured_size() -> None:
    matrices = torch.tensor([[0.5, 0.0, -20.0], [0.0, 0.5, -10.0]]).repeat(40, 1, 1)
    moved = np.stack([as_tracked(matrices, 256, seed).numpy() for seed in range(60)])
    scale = np.hypot(moved[..., 0, 0], moved[..., 1, 0]) / 0.5
    assert scale.mean() == pytest.approx(1, abs=0.01) and 0.012 < scale.mean(1).std() < 0.03
    assert np.abs(np.diff(moved, axis=1)).max() < 3
    assert torch.equal(as_tracked(matrices, 256, 3), as_tracked(matrices, 256, 3))


@pytest.mark.usefixtures("voices")
def test_files_of_other_settings_and_of_others_are_kept_apart(tmp_path: Path) -> None:
    collection = HeadCollection("clips", seconds=0.2, size=32)
    foreign = tmp_path / "clip_000000.mp4"
    foreign.write_bytes(b"somebody's")
    with pytest.raises(InputError, match="not written by this command"):
        write_all(collection, tmp_path, range(1), 1, show_progress=False)
    assert foreign.read_bytes() == b"somebody's"
    foreign.unlink()
    assert write_all(collection, tmp_path, range(2), 1, show_progress=False) == 2
    assert write_all(collection, tmp_path, range(3), 1, show_progress=False) == 1
    with pytest.raises(InputError, match="other settings"):
        write_all(replace(collection, seconds=0.4), tmp_path, range(1), 1, show_progress=False)
    record = tmp_path / "clip.settings.json"
    record.write_text(record.read_text().replace('"landmarks"', '"truth"'))  # the old spelling
    assert write_all(collection, tmp_path, range(3), 1, show_progress=False) == 0


@pytest.mark.parametrize(
    ("kind", "arguments", "named"),
    [
        ("clips", ["--number", "0"], "at least one"),
        ("clips", ["--seconds", "0.01"], "--seconds 0.01"),
        ("clips", ["--size", "33"], "33 pixels"),
        ("clips", ["--crf", "60"], "--crf 60"),
        ("aligned", ["--resolution", "130"], "130 pixels"),
        ("clips", ["--seed", "-1"], "numbers from 0"),
    ],
)
def test_numbers_that_make_nothing_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, arguments: list[str], named: str
) -> None:
    with caplog.at_level(logging.ERROR):
        assert main([kind, "--output_dir", str(tmp_path / "new"), *arguments]) == 2
    assert named in caplog.text and len(caplog.records) == 1 and not (tmp_path / "new").exists()


def test_demo_people_and_voices_are_of_the_test_split() -> None:
    for identity, _, voice, _, other_voice, _ in DEMOS:
        assert split_of_identity(identity) == "test"
        for spoken in (voice, other_voice):
            assert split_of_speaker(spoken.key) == "test" and SPEAKERS[spoken.key] == (draw_traits(identity).femininity > 0.5)


def test_a_sheet_shows_people(tmp_path: Path) -> None:
    assert main(["sheet", str(tmp_path / "sheet.png"), "--people", "2", "--size", "64", "--quiet"]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 3000
    assert main(["sheet", str(tmp_path / "sheet.txt")]) == 2


def test_an_interrupted_process_takes_no_further_clip() -> None:
    code = "from embedded.talking_heads.batch import _work\nclass C:\n  def write(self, *_): raise KeyboardInterrupt\n_work(C(), None, 0)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 130

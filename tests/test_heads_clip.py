"""Clips of talking heads: the same seed gives the same frames, the truth is where the picture says, and the command makes whole files."""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.audio import read_audio
from latentsync.media.ffmpeg import probe
from latentsync.media.video import VideoSource
from preprocess.talking_heads import gallery
from preprocess.talking_heads.__main__ import main
from preprocess.talking_heads.anatomy.expression import Mouth
from preprocess.talking_heads.anatomy.landmarks import MOUTH_LEFT, MOUTH_RIGHT
from preprocess.talking_heads.anatomy.lips import red_height
from preprocess.talking_heads.batch import Batch, render_batch
from preprocess.talking_heads.clip import Clip, ClipSettings, write_wave
from preprocess.talking_heads.demo import DEMOS
from preprocess.talking_heads.head import Head, Pose
from preprocess.talking_heads.performance import mouth_of, poses
from preprocess.talking_heads.render.picture import prepare, render
from preprocess.talking_heads.scene.camera import frame_camera
from preprocess.talking_heads.scene.motion import Motion
from preprocess.talking_heads.solids import Light, Material, Mesh
from preprocess.talking_heads.speech.phones import Phone
from preprocess.talking_heads.speech.splits import ClipPlan, split_of_speaker
from preprocess.talking_heads.speech.splits import test_identities as identities_for_testing
from preprocess.talking_heads.speech.synthesis import Speech
from preprocess.talking_heads.speech.voices import SPEAKERS, Voice
from preprocess.talking_heads.studio import Studio
from preprocess.talking_heads.template import MOUTH_CORNER, plane
from preprocess.talking_heads.traits import draw_traits
from preprocess.talking_heads.truth import read_speech

IDENTITY, SCENE, SIZE = 11, 4, 96
PEOPLE = (11, 23, 58)
CONTACTS = ("p", "b", "m")
SPOKEN = Pose(mouth=Mouth(jaw=0.5, spread=0.2, upper_lip=0.2, lower_lip=0.3), turn=(0.1, -0.05, 0.02), gaze=(0.1, 0.0))

needs_voice = pytest.mark.skipif(shutil.which("flite") is None or shutil.which("espeak-ng") is None, reason="flite or espeak-ng is missing")


def speech(*spoken: str, length: float = 0.12) -> Speech:
    """A silent speech of given phones between two pauses."""
    symbols = ("sil", *spoken, "sil")
    phones = tuple(Phone(symbol, index * length, (index + 1) * length) for index, symbol in enumerate(symbols))
    return Speech(np.zeros(round(len(symbols) * length * 16000), np.float32), phones, " ".join(spoken), Voice("flite", "slt"))


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio(IDENTITY, SCENE, SIZE, SIZE)


@pytest.fixture(scope="module")
def heads() -> dict[int, Head]:
    return {identity: Head(draw_traits(identity), texture_size=64) for identity in PEOPLE}


def test_a_fresh_process_renders_the_same_bytes(studio: Studio) -> None:
    code = (
        "import hashlib, sys; from tests.test_heads_clip import *;"
        "print(hashlib.sha256(Studio(IDENTITY, SCENE, SIZE, SIZE).frame(SPOKEN, 3).picture.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    studio.frame(Pose(), 0)  # what was rendered before must not matter
    assert other.stdout.strip() == hashlib.sha256(studio.frame(SPOKEN, 3).picture.tobytes()).hexdigest()


def test_person_scene_and_frame_number_change_the_picture(studio: Studio) -> None:
    frame = studio.frame(SPOKEN, 3)
    somebody = Studio(IDENTITY + 1, SCENE, SIZE, SIZE).frame(SPOKEN, 3)
    elsewhere = Studio(IDENTITY, SCENE + 1, SIZE, SIZE).frame(SPOKEN, 3)
    assert np.abs(somebody.landmarks - frame.landmarks).max() > 0.5
    assert np.mean(elsewhere.picture != frame.picture) > 0.5
    later = studio.frame(SPOKEN, 4)
    assert np.array_equal(later.landmarks, frame.landmarks) and not np.array_equal(later.picture, frame.picture)


@pytest.mark.parametrize("identity", PEOPLE)
@pytest.mark.parametrize("smile", [0.0, 0.3])
def test_lips_meet_in_the_skin_and_vowels_part_them(heads: dict[int, Head], identity: int, smile: float) -> None:
    said = speech("aa", "p", "aa", "b", "ae", "m", "ow", "m", "iy", "b", "uw", "p", "ah")
    frames = int(said.duration * VIDEO_FPS)
    mouths = [pose.mouth for pose in Clip(plan(identity), said, ClipSettings()).poses]
    gaps = [heads[identity].pose(Pose(mouth=replace(mouth, smile=smile))).lip_gap for mouth in mouths]
    assert len(gaps) == frames
    for phone in said.phones:
        middle = min(int((phone.start + phone.end) / 2 * VIDEO_FPS), frames - 1)
        if phone.symbol in CONTACTS:
            assert gaps[middle] <= 0.02, phone
        if phone.symbol in ("aa", "ae"):
            assert gaps[middle] > 0.25, phone


def test_silence_keeps_the_mouth_shut(heads: dict[int, Head]) -> None:
    said = speech("aa", "sil", "sil", "sil", "aa")
    frames = int(said.duration * VIDEO_FPS)
    gaps = [heads[IDENTITY].pose(pose).lip_gap for pose in poses(mouth_of(said, frames, IDENTITY), still(frames))]
    pause = int(0.42 * VIDEO_FPS)
    assert max(gaps[pause - 1 : pause + 2]) <= 0.02 and gaps[0] <= 0.02 < 0.2 < max(gaps)


def plan(identity: int) -> ClipPlan:
    return ClipPlan("train", identity, Voice("flite", "slt"), "", SCENE)


def still(frames: int) -> Motion:
    """The motion of a person who does nothing."""
    moves = Clip(plan(IDENTITY), speech("aa", length=frames / 3 / VIDEO_FPS), ClipSettings()).motion
    return replace(moves, **{name: np.zeros((frames, *value.shape[1:]), np.float32) for name, value in vars(moves).items()})


def green_lips(head: Head) -> Mesh:
    """The mesh of `head` in materials that are black but for the red of the lips, which is green."""
    s, t = plane(1024)
    above = t > MOUTH_CORNER[1]
    red = (np.abs(s) <= MOUTH_CORNER[0]) & (np.abs(t - MOUTH_CORNER[1]) <= red_height(s, above))
    lips = Material((red[..., None] * np.array([0, 1, 0])).astype(np.float32), specular=0.0)
    black = Material(np.zeros((1, 1, 3), np.float32), specular=0.0)
    return replace(head.mesh, materials=(lips, *(black for _ in head.mesh.materials[1:])))


EVEN_LIGHT = Light(
    np.array([0, 0, 1], np.float32),
    np.zeros(3, np.float32),
    0.1,
    np.concatenate([np.full((1, 3), 3.5), np.zeros((8, 3))]).astype(np.float32),
)
SHAPES = (
    Pose(),
    Pose(mouth=Mouth(jaw=0.8, lower_lip=0.3), turn=(0.2, 0.05, 0.05), translation=(0.5, 0.2, 0.0)),
    Pose(mouth=Mouth(spread=0.9, upper_lip=0.3, lower_lip=0.3, smile=0.3), turn=(-0.2, -0.08, 0.0)),
    Pose(mouth=Mouth(jaw=0.2, pucker=0.9, funnel=0.4), turn=(0.05, 0.1, -0.06)),
)


@pytest.mark.parametrize("identity", PEOPLE)
def test_landmarks_lie_on_the_corners_of_the_painted_mouth(heads: dict[int, Head], identity: int) -> None:
    size, unit = 512, 2  # pixels of the picture; of it a pixel of a picture of 256
    head, camera, dark = heads[identity], frame_camera(identity), np.zeros((512, 512, 3), np.float32)
    mesh = green_lips(head)
    prepared = prepare(mesh)
    for pose in SHAPES:
        posed = head.pose(pose)
        moved = replace(mesh, vertices=posed.vertices, occlusion=np.ones_like(posed.occlusion))
        green = render(moved, [], EVEN_LIGHT, camera, dark, size, size, prepared)[..., 1] > 0.25
        rows, columns = np.nonzero(green)
        landmarks = camera.project(posed.landmarks, size, size)[:, :2]
        for number, end in ((MOUTH_LEFT, columns.min()), (MOUTH_RIGHT, columns.max() + 1)):
            x, y = landmarks[number]
            assert abs(x - end) <= 2 * unit, (identity, pose, number)
            assert np.hypot(columns + 0.5 - x, rows + 0.5 - y).min() <= 2 * unit, (identity, pose, number)


def test_other_words_change_the_mouth_alone(studio: Studio) -> None:
    one, other = speech("aa", "m", "iy", "aa", length=0.25), speech("uw", "s", "ow", "m", length=0.25)
    settings = ClipSettings(SIZE, SIZE, gestures=True)
    first, second = Clip(plan(IDENTITY), one, settings), Clip(plan(IDENTITY), other, settings, beats=one)
    for name, value in vars(first.motion).items():
        assert np.array_equal(value, getattr(second.motion, name)), name
    assert not np.array_equal(first.mouth, second.mouth)
    index = 10  # in the first vowel
    frames = [studio.frame(clip.poses[index], index) for clip in (first, second)]
    eyes = [frame.landmarks[36:48] for frame in frames]
    assert np.abs(eyes[0] - eyes[1]).max() < 0.01
    assert np.abs(frames[0].landmarks[48:] - frames[1].landmarks[48:]).max() > 0.5
    brow, apart = frames[0].landmarks[17:27, 1].min(), eyes[0][6:, 0].mean() - eyes[0][:6, 0].mean()
    forehead = int(brow - apart) - 8  # the camera's compression carries changes 8 pixels far
    assert forehead > 8 and np.array_equal(frames[0].picture[:forehead], frames[1].picture[:forehead])
    assert not np.array_equal(frames[0].picture, frames[1].picture)


@needs_voice
def test_the_command_renders_resumes_and_redrives(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    order = ["--output_dir", str(folder), "--clips", "1", "--seconds", "0.6", "--size", "64", "--workers", "1", "--quiet"]
    assert main([*order, "--pairs"]) == 0
    clip, other = folder / "clip_000000.mp4", folder / "clip_000000_other.mp4"
    info = probe(clip)
    assert info.video.native_fps == VIDEO_FPS and (info.video.width, info.video.height) == (64, 64)
    assert len(list(VideoSource(clip).frames())) == 15
    assert info.video.duration == pytest.approx(0.6, abs=1e-3) and info.audio.duration == pytest.approx(0.6, abs=1e-3)
    assert info.audio.sample_rate == 16000 and np.abs(read_audio(clip)).max() > 0.01
    truth, another = (json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in (clip, other))
    assert truth["frames"] == len(truth["landmarks"]) == len(truth["lip_gap_cm"]) == 15
    assert truth["motion"] == another["motion"] and truth["plan"] == another["plan"]
    assert truth["said"]["text"] != another["said"]["text"] and truth["mouth"] != another["mouth"]
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert main([*order, "--pairs"]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    assert main([*order, "--redrive", str(other)]) == 0
    driven = json.loads((folder / "clip_000000_redriven.json").read_text(encoding="utf-8"))
    for name, values in truth["motion"].items():
        assert driven["motion"][name][:15] == values, name  # the sound of a file may end a frame later than its pictures
    values = [np.array(content["mouth"]["values"][:14]) for content in (driven, another, truth)]  # loudness is heard in the file's sound
    assert np.abs(values[0] - values[1]).max() < 0.1 < np.abs(values[0] - values[2]).max()
    heard = [[phone for phone in content["said"]["phones"] if phone[2] <= 0.6] for content in (driven, another)]
    assert heard[0] == heard[1] and driven["said"]["text"] == another["said"]["text"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--clips", "0"], "--clips 0"),
        (["--seconds", "0.01"], "--seconds 0.01"),
        (["--size", "33"], "--size 33"),
        (["--width", "40"], "--width 40"),
        (["--crf", "60"], "--crf 60"),
        (["--redrive", "a.mp4", "--pairs"], "--redrive and --pairs"),
    ],
)
def test_numbers_that_make_no_clip_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, arguments: list[str], named: str) -> None:
    with caplog.at_level(logging.ERROR):
        assert main(["--output_dir", str(tmp_path / "clips"), *arguments]) == 2
    assert named in caplog.text and len(caplog.records) == 1
    assert not (tmp_path / "clips").exists()


def test_sound_without_the_times_of_its_phones_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sound = tmp_path / "voice.wav"
    write_wave(sound, np.zeros(1600, np.float32))
    with caplog.at_level(logging.ERROR):
        assert main(["--output_dir", str(tmp_path / "clips"), "--clips", "1", "--redrive", str(sound)]) == 2
    assert "voice.json" in caplog.text and len(caplog.records) == 1


def test_clips_of_other_settings_and_of_others_are_kept_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batch = Batch(tmp_path, 1, "train", range(1), 0.2, "en", ClipSettings(64, 64))
    foreign = tmp_path / "clip_000000.mp4"
    foreign.write_bytes(b"somebody's")
    with pytest.raises(InputError, match="not made by this command"):
        render_batch(batch, 1, show_progress=False)
    assert foreign.read_bytes() == b"somebody's"
    foreign.unlink()
    (tmp_path / "heads.json").write_text(json.dumps({"seed": 1, "split": "test"}))
    with pytest.raises(InputError, match="split test, not train"):
        render_batch(batch, 1, show_progress=False)
    (tmp_path / "heads.json").write_text("{")
    with pytest.raises(InputError, match="no description"):
        render_batch(batch, 1, show_progress=False)


def test_frames_are_not_kept_in_memory(tmp_path: Path) -> None:
    clip = Clip(plan(PEOPLE[0]), speech("sil", "aa", "sil"), ClipSettings(64, 64, clean_sound=True))
    seen = clip.write_video(tmp_path / "clip.mp4")
    assert len(seen) == clip.frames > 3
    assert all(frame.picture.base is None and frame.picture.size == 0 for frame in seen)


@pytest.mark.parametrize(
    "said", [{}, {"phones": [], "text": "", "voice": {}}, {"phones": [["sil", 0.0, 1.0]], "text": "", "voice": {"x": 1}}]
)
def test_a_sidecar_without_phones_or_voice_is_refused(tmp_path: Path, said: dict[str, object]) -> None:
    (tmp_path / "clip.json").write_text(json.dumps({"version": 1, "said": said}))
    with pytest.raises(InputError, match=r"clip\.json"):
        read_speech(tmp_path / "clip.wav")


def test_demo_people_and_voices_are_of_the_test_split() -> None:
    for demo in DEMOS:
        feminine = draw_traits(identities_for_testing()[demo.identity]).femininity > 0.5
        for voice in (demo.voice, demo.other_voice):
            assert split_of_speaker(voice.key) == "test"
            assert next(speaker for speaker in SPEAKERS if speaker.key == voice.key).feminine == feminine


@pytest.mark.parametrize("arguments", [["--identities", "0"], ["--size", "0"], ["--clip", "a.mp4", "--step", "0"], ["--seed", "-1"]])
def test_a_gallery_of_nothing_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture, arguments: list[str]) -> None:
    assert gallery.main([str(tmp_path / "sheet.png"), *arguments]) == 2
    assert len(caplog.records) == 1 and not (tmp_path / "sheet.png").exists()


def test_a_gallery_shows_people(tmp_path: Path) -> None:
    assert gallery.main([str(tmp_path / "sheet.png"), "--identities", "2", "--size", "64", "--columns", "2"]) == 0
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (64, 128, 3) and sheet.std() > 10


def test_an_interrupted_process_takes_no_further_clip() -> None:
    code = "from preprocess.talking_heads.batch import _work\nclass Task:\n  def run(self): raise KeyboardInterrupt\n_work(Task())"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 130

"""The checks of training data: sound data passes, each fault is named, and wrong input is refused in one sentence."""

import json
import re
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from media_fixtures import make_clip, run_ffmpeg

from latentsync.config import Config
from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.data.clip_index import Catalog, ClipInfo
from latentsync.data.sampling import SyncNetBatch
from latentsync.media.video_writer import AudioTrack, VideoWriter
from latentsync.training.data_check import (
    GRID,
    LAGS,
    ClipOrigin,
    ExaminedSplit,
    LagCorrelation,
    findings,
    overfit,
    read_origins,
    source_name,
)
from scripts import check_training_data

SIDE, FRAMES = 64, 50
CONFIG = """
data: {resolution: 64, num_frames: 16, batch_size: 4}
model:
  audio_encoder:
    in_channels: 1
    block_out_channels: [32, 32, 32, 32, 32, 32, 64]
    downsample_factors: [[2, 1], 2, 2, 1, 2, 2, [2, 3]]
    attn_blocks: [0, 0, 0, 0, 0, 0, 0]
  visual_encoder:
    in_channels: 48
    block_out_channels: [32, 32, 32, 32, 32, 64]
    downsample_factors: [[1, 2], 2, 2, 2, 2, 2]
    attn_blocks: [0, 0, 0, 0, 0, 0]
"""


def talking_clip(path: Path, seed: int, late: int = 0, mouth_row: int = 44, moves: bool = True, loud: bool = True) -> Path:
    """A square face whose mouth trembles as loudly as its sound is, which comes `late` frames after it."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    level = np.abs(np.convolve(rng.standard_normal(FRAMES + 20), np.ones(4) / 2, "same"))[:FRAMES]
    face = np.kron(rng.integers(60, 180, (8, 8, 3)), np.ones((8, 8, 1)))  # h w c
    sound = np.repeat(np.roll(level, late), 640) * (0.1 if loud else 0)
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setparams((1, 2, AUDIO_SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((np.clip(sound * rng.standard_normal(FRAMES * 640), -1, 1) * 32767).round().astype("<i2").tobytes())
    track = AudioTrack(path.with_suffix(".wav"), FRAMES / 25)
    with VideoWriter(path, SIDE, SIDE, 25, audio=track, crf=12) as sink:
        for frame in range(FRAMES):
            picture = face.copy()
            if moves:
                picture[mouth_row : mouth_row + 8, 22:42] += (-1) ** frame * 30 * level[frame]
            sink.write(np.clip(picture, 0, 255).astype(np.uint8))
    path.with_suffix(".wav").unlink()
    return path


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips of ten people, and two held out, in a folder with spaces."""
    root = tmp_path_factory.mktemp("the clips")
    for person in range(12):
        talking_clip(root / ("val" if person > 9 else "train") / f"person{person}_0001.mp4", person)
    return root


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small networks wait for each other's threads where a machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "syncnet.yaml"
    path.write_text(CONFIG)
    return path


def examine(config: Path, clips: Path, held_out: Path | None, *options: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and the words of all findings by gravity."""
    told = config.with_name("told.json")
    places = [f"data.train_data_dir={clips}", f"data.cache_dir={config.parent / 'cache'}"]
    places += [f"data.val_data_dir={held_out}"] if held_out else []
    code = check_training_data.main([str(config), *places, "--quiet", "--json", str(told), "--device", "cpu", *options])
    found: dict[str, list[str]] = {"serious": [], "warning": [], "note": [], "good": []}
    for finding in json.loads(told.read_text())["findings"]:
        found[finding["gravity"]].append(f"{finding['topic']}: {finding['text']}")
    return code, found


@pytest.mark.usefixtures("one_thread")
def test_sound_data_passes(people: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = examine(config, people / "train", people / "val", "--seconds", "2")
    assert (code, found["serious"]) == (0, [])
    shown = capsys.readouterr().out
    assert "training:\n  clips: 10\n  hours: 0.006\n  frames: 500\n" in shown and "64x64: 10\n" in shown
    assert any("mouths move with the sound in the training clips" in line for line in found["good"])
    assert any("batches of 4 may stay at 0.69" in line for line in found["warning"])
    assert any("10 clips are few" in line for line in found["warning"])
    told = json.loads(config.with_name("told.json").read_text())
    assert told["clips"]["training"]["frames"] == 500
    assert told["overfit"]["samples"] == 16


def test_every_fault_is_named(people: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, held_out = tmp_path / "train", tmp_path / "val"
    shutil.copytree(people / "train", train)
    shutil.copytree(people / "val", held_out)
    first = train / "person0_0001.mp4"
    shutil.copy(first, held_out / "person0_0002.mp4")
    shutil.copy(train / "person1_0001.mp4", train / "person1_0002.mp4")
    run_ffmpeg("-i", train / "person2_0001.mp4", "-crf", "30", "-c:a", "aac", "-b:a", "48k", train / "person2_0002.mp4")
    talking_clip(train / "quiet_0001.mp4", 30, loud=False)
    talking_clip(train / "photo_0001.mp4", 31, moves=False)
    (train / "broken.mp4").write_text("no video")
    make_clip(train / "wide.mp4", sound="sine=duration=3")
    code, found = examine(config, train, held_out, "--no_overfit")
    assert code == 1
    serious = "\n".join(found["serious"])
    assert re.search(r"leak: 1 clips are both trained on and held out, under two names \(.*person0_0001.*person0_0002", serious)
    warnings = "\n".join(found["warning"])
    assert re.search(r"leak: going by the names of files, 1 of 3 held-out sources are trained on, too \(person0\)", warnings)
    assert "duplicates: 2 clips are exact copies" in warnings
    assert re.search(r"duplicates: 1 clips are the same clip .*person2_000[12]", warnings)
    assert re.search(r"silence: 1 of 14 training clips .*quiet_0001", warnings)
    assert re.search(r"still: 1 of 14 training clips .*photo_0001", warnings)
    assert "rejected: 2 training files (12%)" in warnings
    shown = capsys.readouterr().out
    assert re.search(r"not square:\n +clips: 1\n +example: .*wide.mp4\n", shown)


@pytest.mark.parametrize(
    ("how", "gravity", "words"),
    [
        ({"late": 5}, "note", r"in 10 training clips of 10 sources goes best with their sound [456] frames late: that may be chance"),
        ({"mouth_row": 8}, "serious", r"lies at \d+% of the width and (16|22)% of the height, where an aligned face has no mouth"),
    ],
)
def test_sound_out_of_step_and_faces_out_of_place_are_measured(
    tmp_path: Path, config: Path, how: dict[str, int], gravity: str, words: str
) -> None:
    for person in range(10):
        talking_clip(tmp_path / "clips" / f"person{person}_0001.mp4", person, **how)
    code, found = examine(config, tmp_path / "clips", None, "--no_overfit")
    assert code == (gravity == "serious")
    assert re.search(words, "\n".join(found[gravity]))
    assert not any("shift" in line for lines in found.values() for line in lines)
    assert any("no held-out clips" in line for line in found["warning"])


@pytest.mark.parametrize(("clips", "sources", "gravity"), [(200, 20, "serious"), (99, 99, "note"), (200, 9, "note")])
def test_advice_to_shift_wants_many_clips_of_many_sources(tmp_path: Path, clips: int, sources: int, gravity: str) -> None:
    rng, correlation = np.random.default_rng(0), LagCorrelation()
    for _ in range(clips):
        mouth = 0.1 * rng.standard_normal(2 * LAGS + 1)
        mouth[LAGS + 3] += 0.5
        correlation.add(np.zeros((2 * LAGS + 1, GRID, GRID)), mouth)
    for number in range(clips):
        (tmp_path / f"{number}.mp4").write_text(number * "x")
    infos = tuple(ClipInfo(tmp_path / f"{number}.mp4", 75, 3.0) for number in range(clips))
    origins = [ClipOrigin(f"person {number % sources}") for number in range(clips)]
    split = ExaminedSplit("training", Catalog(infos), origins, correlation=correlation)
    (lag,) = (finding for finding in findings(Config(), split, None, None) if finding.topic == "lag")
    assert lag.gravity == gravity
    assert ("3 frames late: shift it" in lag.text) == (gravity == "serious")


def test_a_denoisers_configuration_is_taken_too(people: Path, tmp_path: Path) -> None:
    config = tmp_path / "unet.yaml"
    config.write_text("data: {resolution: 128, num_frames: 16}\n")
    code, found = examine(config, people / "train", people / "val", "--no_overfit", "--clips", "4")
    assert code == 0
    assert any("size: 4 of 4 training clips are smaller than data.resolution 128" in line for line in found["warning"])
    assert not any("batches of" in line for line in found["warning"])


def test_the_same_folder_on_both_sides_is_a_leak(people: Path, config: Path) -> None:
    code, found = examine(config, people / "val", people / "val", "--no_overfit")
    assert code == 1
    assert any("leak: 2 clips are both trained on and held out (" in line for line in found["serious"])
    assert not any("duplicates" in line for lines in found.values() for line in lines)


def test_wrong_input_is_refused(config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ([f"data.train_data_dir={tmp_path / 'missing'}"], "missing is not a folder"),
        ([f"data.train_data_dir={tmp_path / 'empty'}"], "empty holds no clip"),
        ([], "there is nothing to train on"),
        (["data.train_data_dri=x"], "data.train_data_dri"),
        (["--looks", "0"], "--clips 0"),
        (["--json", str(config)], "one of the inputs"),
    ):
        caplog.clear()
        assert check_training_data.main([str(config), *arguments]) == 2
        assert words in caplog.text
        assert len(caplog.records) == 1
    assert check_training_data.main([str(tmp_path / "none.yaml")]) == 2


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("id10001/video/00001.mp4", "id10001"),
        ("RD_Radio1_000.mp4", "RD_Radio1"),
        ("WDA_Woman3_shot_001_seg_02.mp4", "WDA_Woman3"),
        ("interview-part12-3.mp4", "interview"),
        ("00017.mp4", "00017"),
        ("clip_000017.mp4", "clip_000017"),  # that is no name of anybody
        ("person_12_clip_3.mp4", "person_12"),
        ("take_2_of_3.mp4", "take_2_of"),
    ],
)
def test_sources_are_told_by_name(name: str, source: str) -> None:
    assert source_name(Path("clips") / name, Path("clips")) == (source, "/" not in name)


def test_sidecars_are_read(tmp_path: Path) -> None:
    clips = [tmp_path / f"clip_{number}.mp4" for number in range(3)]
    plan = {"identity": 7, "voice": {"engine": "flite", "name": "slt"}}
    clips[0].with_suffix(".json").write_text(json.dumps({"version": 1, "plan": plan, "mouth": {"values": [[1]]}}, indent=2))
    clips[1].with_suffix(".json").write_text('{"plan": null}')
    origins = read_origins(clips, tmp_path)
    assert [origin.source for origin in origins] == ["identity 7", "clip_1", "clip_2"]
    assert [origin.voice for origin in origins] == ["flite/slt", None, None]


@pytest.mark.usefixtures("one_thread")
def test_a_batch_without_difference_is_not_learnt() -> None:
    torch.manual_seed(0)
    label = torch.tensor([0.0, 1.0] * 2)
    position = torch.arange(4)
    faces, mel = torch.randint(0, 255, (4, 16, SIDE, SIDE, 3), dtype=torch.uint8), torch.randn(4, 1, 80, 52)
    good = SyncNetBatch(position, position, [], faces, mel, label)
    same = SyncNetBatch(position, position, [], faces[:1].expand_as(faces), mel[:1].expand_as(mel), label)
    assert overfit(good, lower_half=True, seconds=20, device=torch.device("cpu")).learnt
    tried = overfit(same, lower_half=True, seconds=1, device=torch.device("cpu"))
    assert not tried.learnt
    assert tried.last == pytest.approx(np.log(2), abs=0.2)

"""Shards as ordinary clips: pictures close, frames exact, sound in place, truth readable; resumed, refused and interrupted politely."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from media_fixtures import smooth_frames

from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.media.audio import read_audio
from latentsync.media.ffmpeg import probe
from latentsync.media.video import VideoSource
from preprocess.talking_heads.shards import export
from preprocess.talking_heads.shards.crops import Order
from preprocess.talking_heads.shards.format import Collection, StoredClip, Take, encode_face, shard_bytes, write_collection, write_shard
from preprocess.talking_heads.speech.phones import SYMBOLS
from preprocess.talking_heads.truth import read_speech, read_truth

SIZE, FRAMES = 64, 10
COLLECTION = Order(seed=3, resolution=SIZE, clips=2, seconds=FRAMES / 25, pairs=True).collection()
SKIN = (1.0, 0.75, 0.65)  # red, green, blue: the colours of a face lie close together
VOICES = [{"voice": {"engine": "flite", "name": "slt", "language": "en"}, "text": text} for text in ("ah", "mm")]


def smooth_take(seed: int, frames: int = FRAMES) -> Take:
    """Soft pictures of skin and a sweep, with numbers that tell which take it is."""
    rng = np.random.default_rng(seed)
    skin = [np.roll(face[..., :1] * SKIN, seed, 1).astype(np.uint8) for face in smooth_frames(frames, SIZE, SIZE)]
    jpegs = [encode_face(face) for face in skin]
    time_axis = np.arange(640 * frames) / AUDIO_SAMPLE_RATE
    return Take(
        jpegs=np.frombuffer(b"".join(jpegs), np.uint8),
        ends=np.cumsum([len(jpeg) for jpeg in jpegs]),
        landmarks=rng.random((frames, 68, 2), np.float32),
        mouth=rng.random((frames, len(COLLECTION.channels)), np.float32),
        lip_gap=np.arange(frames, dtype=np.float32),
        lip_width=np.ones(frames, np.float32),
        samples=np.round(9000 * np.sin(2 * np.pi * time_axis * (200 + 900 * time_axis + 20 * seed))).astype(np.int16),
        mel=np.zeros((80, 4 * frames), np.float32),
        phones=np.array([0, 3, 0], np.int16),
        phone_ends=np.array([0.1, 0.2, frames / 25]),
    )


def make_shards(folder: Path, count: int, collection: Collection = COLLECTION) -> Path:
    """A folder of shards as a renderer would leave it."""
    write_collection(folder, collection, np.ones((SIZE, SIZE), np.float32))
    for shard in range(count):
        clips = []
        for number in range(collection.clips):
            about = {"identity": 10 * shard + number, "split": "train", "seed": 7, "frames": FRAMES, "said": VOICES[: collection.takes]}
            takes = tuple(smooth_take(100 * shard + 10 * number + kind) for kind in range(collection.takes))
            clips.append(StoredClip(about, np.zeros((FRAMES, 2, 3), np.float32), takes))
        write_shard(collection.shard_path(folder, shard), shard_bytes(clips))
    return folder


def run_export(shards: Path, output: Path, *options: str) -> int:
    return export.main(["--shards", str(shards), "--output_dir", str(output), "--workers", "2", "--quiet", *options])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two shards of two clips with twins, and their clips, in folders with spaces."""
    root = tmp_path_factory.mktemp("heads export")
    shards = make_shards(root / "some shards", 2)
    assert run_export(shards, root / "the clips") == 0
    return shards, root / "the clips"


def test_every_clip_and_twin_is_there(exported: tuple[Path, Path]) -> None:
    names = {f"heads-s3-train-64-{shard:06d}_{clip:02d}{twin}" for shard in range(2) for clip in range(2) for twin in ("", "_other")}
    assert {path.stem for path in exported[1].glob("*.mp4")} == names
    assert {path.stem for path in exported[1].glob("*.json")} == names | {"heads-s3-train-64.export"}
    assert not [path for path in exported[1].iterdir() if path.name.startswith(".")]


def test_faces_are_close_and_frames_exact(exported: tuple[Path, Path]) -> None:
    path = exported[1] / "heads-s3-train-64-000001_01_other.mp4"
    seen = np.stack(list(VideoSource(path, fps=None).frames()))
    wanted = smooth_take(111).faces(range(FRAMES))
    assert seen.shape == wanted.shape
    assert probe(path).video.average_fps == 25
    errors = ((seen.astype(float) - wanted) ** 2).mean(axis=(1, 2, 3))  # n
    assert (10 * np.log10(255**2 / errors)).min() > 35


def test_sound_is_in_place(exported: tuple[Path, Path]) -> None:
    heard, said = read_audio(exported[1] / "heads-s3-train-64-000000_01.mp4"), smooth_take(10).samples / 32768
    assert len(said) <= len(heard) <= len(said) + 1024
    match = np.correlate(heard[1000:5000], said[600:5400], "valid")
    assert match.argmax() == 400
    assert np.corrcoef(heard[: len(said)], said)[0, 1] > 0.99


def test_truth_is_that_of_the_take(exported: tuple[Path, Path]) -> None:
    path = exported[1] / "heads-s3-train-64-000001_01_other.mp4"
    truth, take = read_truth(path.with_suffix(".json")), smooth_take(111)
    assert (truth["fps"], truth["frames"]) == (25, FRAMES)
    assert truth["mouth"]["channels"] == list(COLLECTION.channels)
    np.testing.assert_allclose(truth["mouth"]["values"], take.mouth, atol=1e-4)
    np.testing.assert_allclose(truth["landmarks"], take.landmarks + 0.5, atol=0.01)
    assert truth["plan"]["identity"] == 11
    assert (truth["plan"]["text"], truth["said"]["text"]) == ("ah", "mm")
    phones = read_speech(path).phones
    assert [(phone.symbol, phone.end) for phone in phones] == [(SYMBOLS[0], 0.1), (SYMBOLS[3], 0.2), (SYMBOLS[0], 0.4)]


def test_finished_clips_are_left_and_new_shards_taken_up(tmp_path: Path) -> None:
    plain = Order(seed=3, resolution=SIZE, clips=2, seconds=FRAMES / 25).collection()
    shards, clips = make_shards(tmp_path / "shards", 1, plain), tmp_path / "clips"
    assert run_export(shards, clips) == 0
    kept, broken = (clips / f"heads-s3-train-64-000000_0{number}.mp4" for number in range(2))
    before = kept.stat().st_mtime_ns
    broken.with_suffix(".json").unlink()
    broken.write_bytes(b"half")
    make_shards(shards, 2, plain)
    assert run_export(shards, clips, "--split", "train") == 0
    assert kept.stat().st_mtime_ns == before
    assert broken.stat().st_size > 1000
    assert len(list(clips.glob("*.mp4"))) == len(list(clips.glob("*_0?.json"))) == 4
    assert run_export(shards, clips, "--crf", "30") == 2


def test_refusals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards = make_shards(tmp_path / "shards", 1)
    make_shards(tmp_path / "two", 1)
    make_shards(tmp_path / "two", 0, Order(seed=4, resolution=SIZE).collection())
    make_shards(tmp_path / "empty", 0)
    cases: list[tuple[Path, tuple[str, ...], str]] = [
        (tmp_path / "missing", (), "holds no shards"),
        (tmp_path / "empty", (), "no shard of heads-s3-train-64 yet"),
        (tmp_path / "two", (), "several collections"),
        (tmp_path / "two", ("--split", "train"), "several collections for --split train"),
        (shards, ("--split", "test"), "no collection for --split test"),
        (shards, ("--collection", "heads-s9-train-64"), "holds no shards"),
        (shards, ("--collection", "heads-s3-train-64", "--split", "test"), "leave --split out"),
        (shards, ("--crf", "60"), "--crf 60"),
    ]
    for folder, options, words in cases:
        caplog.clear()
        assert run_export(folder, tmp_path / "clips", *options) == 2
        assert words in caplog.text
    assert not (tmp_path / "clips").exists()


def test_a_damaged_shard_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards = make_shards(tmp_path / "shards", 1)
    path = COLLECTION.shard_path(shards, 0)
    path.write_bytes(path.read_bytes()[:-4000])
    assert run_export(shards, tmp_path / "clips") == 2
    assert str(path) in caplog.text
    assert not list((tmp_path / "clips").glob("*.mp4"))


def test_an_interrupted_export_leaves_whole_clips_and_goes_on(tmp_path: Path) -> None:
    order = Order(seed=3, resolution=SIZE, clips=8, seconds=FRAMES / 25)
    shards, clips = make_shards(tmp_path / "shards", 3, order.collection()), tmp_path / "clips"
    command = [sys.executable, "-m", "preprocess.talking_heads.shards.export", "--shards", shards, "--output_dir", clips, "--workers", "1"]
    started = subprocess.Popen(
        [str(word) for word in command], stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 60
    while not list(clips.glob("*_00.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130, errors
    assert "Traceback" not in errors
    written = list(clips.glob("*.mp4"))
    assert 0 < len(written) < 24
    assert all(path.with_suffix(".json").is_file() for path in written)
    assert not [path for path in clips.iterdir() if path.name.startswith(".")]
    assert run_export(shards, clips) == 0
    assert len(list(clips.glob("*.mp4"))) == 24

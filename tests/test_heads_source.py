"""Talking heads as a training source: aligned clips, shards that many fill at once, and a reader that streams and resumes."""

import ast
import itertools
import json
import os
import shutil
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from heads_fakes import SIZE, deaf_clip, failing_clip, fake_clip, slow_clip
from torch.utils.data import DataLoader

from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.errors import InputError
from latentsync.faces.align import face_size, on_face
from latentsync.faces.choice import FaceChoice
from latentsync.faces.detector import Face
from latentsync.faces.mask import fixed_mask
from latentsync.faces.plan import PlanBuilder
from latentsync.faces.warp import warp_faces
from latentsync.whisper.log_mel import LogMel
from preprocess.talking_heads.clip import Clip, ClipSettings
from preprocess.talking_heads.shards import __main__ as shards
from preprocess.talking_heads.shards import source
from preprocess.talking_heads.shards.claims import Claim, claim_path, claimed
from preprocess.talking_heads.shards.closeup import close_up
from preprocess.talking_heads.shards.crops import Order, record
from preprocess.talking_heads.shards.fill import Make, Renderer, fill, render_shard
from preprocess.talking_heads.shards.format import (
    Collection,
    Shard,
    StoredClip,
    read_collection,
    shard_bytes,
    write_collection,
    write_shard,
)
from preprocess.talking_heads.shards.order import Schedule
from preprocess.talking_heads.shards.placement import as_detected
from preprocess.talking_heads.shards.reader import Sample, ShardSource, Window, open_folder
from preprocess.talking_heads.shards.source import TalkingHeadSource
from preprocess.talking_heads.speech.phones import SILENCE, SYMBOLS, Phone
from preprocess.talking_heads.speech.splits import ClipPlan
from preprocess.talking_heads.speech.synthesis import Speech
from preprocess.talking_heads.speech.voices import Voice
from preprocess.talking_heads.studio import Frame

FRAMES, SECONDS = 10, 0.4
VOICE = Voice("flite", "slt")
PLAN = ClipPlan("train", 11, VOICE, "ah", 7)
ORDER = Order(seed=3, resolution=SIZE, clips=2, seconds=SECONDS, pairs=True)


# Clips


def say(symbol: str, seed: int) -> Speech:
    """A long phone between two short silences, as noise."""
    rng = np.random.default_rng(seed)
    samples = (0.05 * rng.standard_normal(round(SECONDS * AUDIO_SAMPLE_RATE))).astype(np.float32)
    return Speech(samples, (Phone(SILENCE, 0.0, 0.05), Phone(symbol, 0.05, 0.35), Phone(SILENCE, 0.35, SECONDS)), symbol, VOICE)


SPEECHES = (say("aa", 0), say("m", 1))


@pytest.fixture(scope="module")
def clip() -> StoredClip:
    """A person who says ah, with a twin who keeps the lips shut."""
    return record(PLAN, SPEECHES, FRAMES, SIZE)


@pytest.fixture(scope="module")
def shown() -> list[Frame]:
    """The pictures that the faces of `clip` were cut from, rendered by a studio of their own."""
    made = Clip(PLAN, SPEECHES[0], ClipSettings())
    studio = close_up(PLAN.identity, PLAN.seed, made.motion, SIZE, 0.02)
    return [studio.frame(pose, index) for index, pose in enumerate(made.poses)]


def test_faces_are_those_that_inference_would_cut(clip: StoredClip, shown: list[Frame]) -> None:
    builder = PlanBuilder(SIZE, 25.0, FaceChoice(), "laplacian")
    for frame in shown:
        points = frame.landmarks.astype(np.float64) - 0.5
        builder.add([Face(np.concatenate([points.min(0), points.max(0)]).astype(np.float32), 1.0, points[[19, 24, 30]], points)])
    (span,) = builder.finish().spans
    assert np.allclose(span.matrices, clip.matrices, atol=1e-4)
    faces = warp_faces([frame.picture for frame in shown], torch.from_numpy(span.matrices), SIZE).numpy()
    stored = clip.takes[0].faces(range(FRAMES))
    assert stored.shape == (FRAMES, SIZE, SIZE, 3)
    assert np.abs(stored.astype(int) - faces).mean() < 2.5, "more than what the compression loses"


def test_the_picture_is_just_large_enough(clip: StoredClip, shown: list[Frame]) -> None:
    height, width = shown[0].picture.shape[:2]
    corners = np.array([[0, 0], [52, 0], [0, 69], [51, 69]])  # of a crop of 52 x 70 pixels
    for matrix in clip.matrices:
        there = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        assert (there > -0.5).all() and (there < (width - 0.5, height - 0.5)).all()
    scale = np.sqrt(np.linalg.det(clip.matrices[:, :, :2])).mean()
    assert 0.8 < scale < 1.25, "pixels of the crop per pixel of the picture"
    assert width * height < 2 * 52 * 70


def test_faces_can_lie_where_the_detector_would_put_them(clip: StoredClip) -> None:
    """Cut a little wider, otherwise in each clip, with a tremor; the picture shows all of it, and the truth goes along."""
    moved = record(PLAN, SPEECHES, FRAMES, SIZE, placement="detector")
    size, picture = np.array(face_size(SIZE)), np.array(moved.about["picture"])
    for matrix in moved.matrices:
        corners = (np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * (size - 1) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        assert (corners > -0.5).all() and (corners < picture - 0.5).all()
    eyes = [take.landmarks[:, 36:48].mean((0, 1)) for take in (clip.takes[0], moved.takes[0])]
    assert 0.005 * SIZE < np.abs(eyes[1] - eyes[0]).max() < 0.15 * SIZE
    assert np.abs(moved.takes[0].landmarks[:, 36:48] - moved.takes[1].landmarks[:, 36:48]).max() < 0.1, "twins are cut alike"


def test_the_errors_of_the_detector_are_drawn_as_measured() -> None:
    matrices = torch.tensor([[1.2, 0.1, 5.0], [-0.1, 1.2, 3.0]]).expand(200, 2, 3)
    truth = np.eye(3)
    truth[:2] = matrices[0].numpy()
    found = np.concatenate([as_detected(matrices, 128, seed).numpy() for seed in range(100)])
    errors = found @ np.linalg.inv(truth)
    scale, turn = np.hypot(errors[:, 0, 0], errors[:, 1, 0]), np.degrees(np.arctan2(errors[:, 1, 0], errors[:, 0, 0]))
    shift = (errors[:, :, :2] @ (52.5, 105.0) + errors[:, :, 2] - (52.5, 105.0)) / (105, 140)
    assert [scale.mean(), *shift.mean(0)] == pytest.approx([0.942, -0.0134, -0.022], abs=0.008)
    assert turn.mean() == pytest.approx(0.85, abs=0.4)
    assert scale.std() == pytest.approx(np.hypot(0.027, 0.011), rel=0.25)
    within = scale.reshape(100, 200)
    assert within.std(1).mean() == pytest.approx(0.011, rel=0.25)
    assert np.abs(np.diff(within)).mean() < 0.003, "it is a slow wobble"
    assert torch.equal(as_detected(matrices, 128, 3), as_detected(matrices, 128, 3))


def test_landmarks_lie_where_their_dots_are_seen(clip: StoredClip) -> None:
    matrix = clip.matrices[:1]
    dot = np.array([33, 47])  # x, y
    picture = np.zeros((110, 100, 3), np.uint8)
    picture[dot[1] - 1 : dot[1] + 2, dot[0] - 1 : dot[0] + 2] = 255
    face = warp_faces([picture], torch.from_numpy(matrix), SIZE)[0].numpy()[..., 0].astype(float)
    y, x = np.mgrid[:SIZE, :SIZE]
    seen = np.array([(face * x).sum(), (face * y).sum()]) / face.sum()
    assert np.abs(on_face(dot[None, None] + 0.5, matrix, SIZE)[0, 0] - seen).max() < 0.35


def test_a_twin_moves_alike_and_speaks_otherwise(clip: StoredClip) -> None:
    own, other = clip.takes
    assert np.abs(own.landmarks[:, 36:48] - other.landmarks[:, 36:48]).max() < 0.1, "eyes"
    assert own.lip_gap[5] > 0.4 and other.lip_gap[5] < 0.03
    difference = np.abs(own.faces([5])[0].astype(int) - other.faces([5])[0]).mean(-1)
    mouth = own.landmarks[5, 48:].mean(0).round().astype(int)
    at_mouth = difference[mouth[1] - 3 : mouth[1] + 6, mouth[0] - 5 : mouth[0] + 6].mean()
    assert at_mouth > 12 and at_mouth > 6 * difference[: SIZE // 4].mean(), "brows and eyes differ by the camera's compression alone"


def test_the_sound_goes_with_the_frames(clip: StoredClip) -> None:
    take = clip.takes[0]
    assert len(take.samples) == FRAMES * 640 and take.mel.shape == (80, 4 * FRAMES)
    heard = LogMel(take.samples.astype(np.float32) / 32768)
    assert np.array_equal(heard.columns(0, heard.num_columns).numpy(), take.mel)
    assert [SYMBOLS[phone] for phone in take.phones] == [SILENCE, "aa", SILENCE]
    assert np.allclose(take.phone_ends, [0.05, 0.35, SECONDS])


def test_the_same_clip_makes_the_same_bytes(clip: StoredClip) -> None:
    again = record(PLAN, SPEECHES, FRAMES, SIZE)
    assert shard_bytes([again]) == shard_bytes([clip])
    assert shard_bytes([replace(clip, matrices=clip.matrices + 1)]) != shard_bytes([clip])


# Shards


def fill_with_fakes(folder: Path, count: int, order: Order = ORDER) -> Collection:
    collection = order.collection()
    write_collection(folder, collection, fixed_mask(SIZE).numpy())
    assert list(fill(folder, collection, range(count), fake_clip)) == list(range(count))
    return collection


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_shards_can_be_read_by_numpy_and_in_part(tmp_path: Path, clip: StoredClip) -> None:
    path = tmp_path / "shard.npz"
    write_shard(path, shard_bytes([clip, clip]))
    with np.load(path) as archive:
        assert np.array_equal(archive["0001/1/mel"], clip.takes[1].mel)
    with Shard(path) as shard:
        assert len(shard) == 2 and shard.manifest[0]["identity"] == PLAN.identity
        assert np.array_equal(shard.clip(1).takes[1].faces([3]), clip.takes[1].faces([3]))


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    collection = fill_with_fakes(tmp_path, 1)
    path = collection.shard_path(tmp_path, 0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"000000\.npz is damaged"):
        list(open_folder(tmp_path, epochs=1))
    path.write_bytes(content[:100])
    with pytest.raises(InputError, match="no shard"):
        Shard(path)


def test_a_folder_holds_one_kind_of_shards(tmp_path: Path) -> None:
    collection = fill_with_fakes(tmp_path, 1)
    assert read_collection(tmp_path) == collection
    with pytest.raises(InputError, match="pairs True, not False"):
        write_collection(tmp_path, replace(ORDER, pairs=False).collection(), fixed_mask(SIZE).numpy())
    assert np.array_equal(open_folder(tmp_path).mask, fixed_mask(SIZE))
    with pytest.raises(InputError, match="holds no shards"):
        read_collection(tmp_path / "elsewhere")


def test_two_writers_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces, folder, collection = tmp_path / "traces", tmp_path / "shards", ORDER.collection()
    traces.mkdir()
    monkeypatch.setenv("TRACES", str(traces))
    renderers = [Renderer(folder, collection, range(8), slow_clip) for _ in range(2)]
    written: list[list[int]] = [[], []]
    while any(renderer.is_running() for renderer in renderers):
        time.sleep(0.05)
    for renderer, mine in zip(renderers, written, strict=True):
        mine += renderer.written()
        renderer.stop()
    assert sorted(written[0] + written[1]) == list(range(8))
    rendered = sorted(tuple(path.name.split("-")[:2]) for path in traces.iterdir())
    assert rendered == [(str(shard), str(number)) for shard in range(8) for number in range(2)], "something was rendered twice"
    assert len(list(folder.glob("*.npz"))) == 8 and hidden(folder) == []


@pytest.mark.parametrize("make", [slow_clip, deaf_clip])
def test_an_ended_renderer_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    traces, folder, collection = tmp_path / "traces", tmp_path / "shards", replace(ORDER, clips=400).collection()
    traces.mkdir()
    monkeypatch.setenv("TRACES", str(traces))
    renderer = Renderer(folder, collection, [0], make)
    while not any(traces.iterdir()):
        time.sleep(0.02)
    assert hidden(folder) == [claim_path(collection.shard_path(folder, 0)).name]
    renderer.stop()
    assert list(folder.iterdir()) == []


def test_an_interrupted_shard_is_rendered_again(tmp_path: Path) -> None:
    collection = ORDER.collection()

    def interrupted(collection: Collection, shard: int, number: int) -> StoredClip:
        if number == 1:
            raise KeyboardInterrupt
        return fake_clip(collection, shard, number)

    with pytest.raises(KeyboardInterrupt):
        render_shard(tmp_path, collection, 0, interrupted)
    assert list(tmp_path.iterdir()) == []
    assert render_shard(tmp_path, collection, 0, fake_clip)
    assert not render_shard(tmp_path, collection, 0, fake_clip), "rendered although it is there"


@pytest.mark.parametrize(
    ("host", "process", "age", "is_void"),
    [("elsewhere", 1, 0, False), ("elsewhere", 1, 1000, True), (None, 2**22 + 1, 0, True), (None, os.getpid(), 0, False)],
)
def test_only_a_void_claim_is_taken_over(tmp_path: Path, host: str | None, process: int, age: float, is_void: bool) -> None:
    collection = ORDER.collection()
    path = claim_path(collection.shard_path(tmp_path, 0))
    path.write_text(json.dumps({"host": host or socket.gethostname(), "process": process, "token": "theirs"}))
    os.utime(path, (time.time() - age,) * 2)
    assert render_shard(tmp_path, collection, 0, fake_clip) is is_void
    assert path.is_file() is not is_void


def test_a_claim_is_kept_alive_and_one_that_was_lost_writes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "x.npz"
    with claimed(target, expiry=0.4) as claim:
        assert claim is not None
        time.sleep(0.9)
        assert not Claim(target, expiry=0.4).acquire(), "a living claim was taken over"

    def robbed(collection: Collection, shard: int, number: int) -> StoredClip:
        claim_path(collection.shard_path(tmp_path, 0)).write_text(json.dumps({"token": "theirs"}))
        return fake_clip(collection, shard, number)

    assert not render_shard(tmp_path, ORDER.collection(), 0, robbed)
    assert hidden(tmp_path) == [claim_path(ORDER.collection().shard_path(tmp_path, 0)).name] and not list(tmp_path.glob("*.npz"))


# Reading


def names(samples: list[Sample]) -> list[int]:
    return [int(sample.identity) for sample in samples]


def take(source: ShardSource, count: int) -> list[Sample]:
    return list(itertools.islice(source, count))


def test_a_sample_is_what_the_clip_holds(tmp_path: Path) -> None:
    collection = fill_with_fakes(tmp_path, 1)
    sample = next(iter(open_folder(tmp_path, choose=Window(4))))
    first = int(sample.frames[0])
    assert sample.frames.tolist() == list(range(first, first + 4))
    assert sample.faces.shape == (2, 4, SIZE, SIZE, 3) and sample.faces[0, :, 5, 5, 0].tolist() == [5 * k for k in sample.frames.tolist()]
    assert sample.lip_gap[1].tolist() == sample.frames.tolist() and sample.mouth.shape == (2, 4, len(collection.channels))
    assert sample.phones[0].tolist() == [0] * 10 + [3] * 10 + [0] * 20
    assert sample.mel.shape == (2, 80, 40) and sample.samples.shape == (2, 6400)
    with pytest.raises(InputError, match="hold no 11 neighbouring"):
        next(iter(open_folder(tmp_path, choose=Window(11))))


@pytest.mark.parametrize("mix", [1, 3, 16])
def test_ranks_and_epochs_share_the_clips(mix: int) -> None:
    schedules = [Schedule(5, 10, 4, mix, rank, 3) for rank in range(3)]
    for epoch in (0, 1):
        read = np.concatenate([schedule.order(epoch) for schedule in schedules])
        assert len(read) == 36 and len(np.unique(read, axis=0)) == 36
        assert len({len(schedule.order(epoch)) for schedule in schedules}) == 1
        for schedule in schedules:
            order, start = schedule.order(epoch), 0
            for block in schedule.blocks(epoch):
                assert len(block) <= mix and set(order[start : start + 4 * len(block), 0]) == set(block)
                start += 4 * len(block)
    assert not np.array_equal(schedules[0].order(0), schedules[0].order(1))
    fresh = replace(schedules[0], fresh=True)
    assert fresh.order(2)[:, 0].min() >= 20 and fresh.order(2)[:, 0].max() < 30


def test_workers_share_a_rank_and_resume_exactly(tmp_path: Path) -> None:
    fill_with_fakes(tmp_path, 6)
    whole = names(take(open_folder(tmp_path), 24))
    assert sorted(whole[:12]) == sorted(1000 * shard + number for shard in range(6) for number in range(2)) == sorted(whole[12:])
    reading = open_folder(tmp_path)
    seen: list[int] = []
    for batch in DataLoader(reading, batch_size=3, num_workers=2):
        seen += batch.identity.tolist()
        reading.consumed(batch)
        if len(seen) == 9:
            break
    state = json.loads(json.dumps(reading.state_dict()))
    resumed = open_folder(tmp_path)
    resumed.load_state_dict(state)
    rest = names(take(resumed, 24 - 9))
    assert sorted(seen + rest) == sorted(whole), "a clip was lost or came twice"
    inside = open_folder(tmp_path)
    assert names(take(inside, 7)) == whole[:7]
    follower = open_folder(tmp_path)
    follower.load_state_dict(inside.state_dict())
    assert names(take(follower, 17)) == whole[7:]
    with pytest.raises(InputError, match="taken with seed 0, not 1"):
        open_folder(tmp_path, seed=1).load_state_dict(state)


def test_epochs_end_and_begin_anew(tmp_path: Path) -> None:
    fill_with_fakes(tmp_path, 2)
    reading = open_folder(tmp_path, epochs=2)
    assert len(names(list(reading))) == 8 and len(names(list(reading))) == 8


def test_a_missing_shard_is_waited_for(tmp_path: Path) -> None:
    collection = fill_with_fakes(tmp_path, 1)
    reading = open_folder(tmp_path, shards=2, epochs=1, patience=0.5)
    with pytest.raises(InputError, match="nobody renders it"):
        list(reading)
    late = threading.Timer(1.0, render_shard, (tmp_path, collection, 1, fake_clip))
    late.start()
    assert len(list(open_folder(tmp_path, shards=2, epochs=1, patience=20))) == 4


# Rendering while reading


class QuickRenderer:
    """Stands for a process: renders fake clips at once."""

    def __init__(self, folder: Path, collection: Collection, indices: list[int], make: object) -> None:
        self.indices = tuple(indices)
        self._written = list(fill(folder, collection, indices, fake_clip))

    def written(self) -> list[int]:
        written, self._written = self._written, []
        return written

    def is_running(self) -> bool:
        return False

    def stop(self) -> None:
        pass


def test_what_is_read_is_rendered_and_what_was_read_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "Renderer", QuickRenderer)
    collection = ORDER.collection()
    foreign = [collection.shard_path(tmp_path, 1), collection.shard_path(tmp_path, 900)]
    for index in (1, 900):
        render_shard(tmp_path, collection, index, fake_clip)
    most = 0
    with TalkingHeadSource(tmp_path, ORDER, 4, render_ahead=True, keep=3, mix=2) as reading:
        seen = []
        for sample in itertools.islice(reading, 24):
            seen.append(int(sample.identity))
            own = [path for path in tmp_path.glob("*.npz") if path not in foreign]
            most = max(most, len(own))
            time.sleep(0.02)
    assert sorted(seen) == [1000 * shard + number for shard in range(12) for number in range(2)], "each epoch has shards of its own"
    assert most == 3 and all(path.is_file() for path in foreign)
    assert foreign[0].read_bytes() == shard_bytes([fake_clip(collection, 1, number) for number in range(2)])


def test_shards_of_an_earlier_run_stay_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "Renderer", QuickRenderer)
    with TalkingHeadSource(tmp_path, ORDER, 4, render_ahead=True, keep=3, mix=2) as reading:
        take(reading, 5)
    state = reading.state_dict()
    again = TalkingHeadSource(tmp_path, ORDER, 4, render_ahead=True, keep=3, mix=2)
    again.load_state_dict(json.loads(json.dumps(state)))
    with again:
        for _ in itertools.islice(again, 12):
            assert len(list(tmp_path.glob("*.npz"))) <= 3


def test_a_failing_renderer_ends_the_training_with_its_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="the voice slt was not found"),
        TalkingHeadSource(tmp_path, ORDER, 2, render_ahead=True, make=failing_clip) as reading,
    ):
        next(iter(reading))


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keep=4"):
        TalkingHeadSource(tmp_path, ORDER, 8, render_ahead=True, keep=4)
    with pytest.raises(InputError, match="2 shards for 3 ranks"):
        TalkingHeadSource(tmp_path, ORDER, 2, ranks=3)


def test_the_reader_knows_nothing_of_the_renderer() -> None:
    room, seen, waiting = Path(shards.__file__).parent, set(), ["reader"]
    while waiting:
        seen.add(name := waiting.pop())
        for node in ast.walk(ast.parse((room / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("preprocess"):
                waiting += {node.module.split(".")[-1]} - seen
    assert seen == {"reader", "format", "order"}


# The command


@pytest.mark.parametrize(
    ("option", "value"), [("--shards", "0"), ("--resolution", "100"), ("--seconds", "100"), ("--clips_per_shard", "0"), ("--seed", "-1")]
)
def test_numbers_that_make_no_shard_are_refused(tmp_path: Path, option: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    assert shards.main(["--output_dir", str(tmp_path / "out"), option, value]) == 2
    assert option in caplog.text and not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("flite") is None or shutil.which("espeak-ng") is None, reason="flite or espeak-ng is not installed")
def test_the_command_fills_a_folder_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = ["--output_dir", str(tmp_path), "--clips_per_shard", "1", "--seconds", "0.2", "--resolution", "32", "--quiet"]
    assert shards.main([*wanted, "--shards", "1", "--workers", "1"]) == 0
    path = next(tmp_path.glob("*.npz"))
    assert path.name == "heads-s1-train-32-000000.npz" and hidden(tmp_path) == []
    written = path.stat().st_mtime_ns
    assert shards.main([*wanted, "--shards", "1"]) == 0 and path.stat().st_mtime_ns == written
    (sample,) = list(open_folder(tmp_path, epochs=1))
    assert sample.faces.shape == (1, 5, 32, 32, 3) and sample.faces.float().std() > 10
    assert shards.main([*wanted, "--pairs"]) == 2
    assert "pairs False, not True" in caplog.text

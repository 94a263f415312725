"""Steps 1 to 4 with real ffmpeg: broken files, plain files, and cuts at exactly the frame, sound in step."""

import os
import random
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from media_fixtures import make_clip, make_sound, run_ffmpeg
from steps_fixtures import BLOCK, RATE, clip, encode, levels, numbered, numbers_of, remux, sound_numbers, striped

import latentsync.media.probe as ffmpeg_module
from latentsync.errors import LatentSyncError
from latentsync.media.audio import read_audio
from latentsync.media.probe import DISK_FAILS, probe
from preprocess.clip_writer import clip_path, cut, open_recording, place
from preprocess.step import Kept, Rejected
from preprocess.steps.decode_check import DecodeCheck
from preprocess.steps.resample import resample
from preprocess.steps.segments import Segments, boundaries
from preprocess.steps.shots import split_shots

SOUND = "sine=frequency=500:duration=3"
CHECK = DecodeCheck(min_seconds=1.0)


def checked(path: Path) -> Kept | Rejected:
    (outcome,) = CHECK(clip(path), path.parent)
    return outcome


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered(tmp_path_factory.mktemp("numbered") / "clip.mp4", 120)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    return make_clip(folder / "clip.mp4", "-c:v", "libx264", "-g", "10", "-movflags", "+faststart", sound=SOUND)


def test_a_healthy_file_stays_where_it_is(healthy: Path) -> None:
    outcome = checked(healthy)
    assert isinstance(outcome, Kept) and outcome.path == healthy
    wanted = {"width": 96, "height": 64, "fps": 25, "codec": "h264", "damaged_end": False, "duration": pytest.approx(3, abs=0.1)}
    assert outcome.facts == wanted


def damaged(source: Path, target: Path, first: float, last: float) -> Path:
    """A copy with noise over the bytes of all packets between two times."""
    content = bytearray(source.read_bytes())
    entries = ["-select_streams", "v", "-show_entries", "packet=pts_time,pos,size", "-of", "csv=p=0"]
    packets = subprocess.run(["ffprobe", "-v", "error", *entries, str(source)], capture_output=True, text=True, check=True).stdout
    for time, size, position in (line.split(",")[:3] for line in packets.split()):
        if first <= float(time) < last:
            start, end = int(position), int(position) + int(size)
            content[start + 4 : end] = random.Random(start).randbytes(end - start - 4)
    target.write_bytes(content)
    return target


def test_damage_inside_is_found_and_damage_at_the_end_forgiven(healthy: Path, tmp_path: Path) -> None:
    inside = checked(damaged(healthy, tmp_path / "inside.mp4", 1.4, 1.6))
    assert isinstance(inside, Rejected) and inside.reason == "broken"
    long = DecodeCheck(min_seconds=0.5)
    (end,) = long(clip(damaged(healthy, tmp_path / "end.mp4", 2.9, 3.1)), tmp_path)
    assert isinstance(end, Kept) and end.facts["damaged_end"] is True


def test_what_is_not_the_files_fault_is_never_called_broken(healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.mp4").touch()
    for path in (tmp_path / "empty.mp4", tmp_path / "gone.mp4"):
        outcome = checked(path)
        assert isinstance(outcome, Rejected) and outcome.reason == "unreadable", path
    monkeypatch.setattr(ffmpeg_module, "PROBE_SECONDS", 1e-6)
    with pytest.raises(LatentSyncError, match="could not be read within"):
        checked(healthy)
    monkeypatch.undo()
    for script, words in (("kill -9 $$", "ended by signal 9"), (f"echo '{DISK_FAILS}' >&2; exit 1", DISK_FAILS)):
        program = tmp_path / "ffmpeg"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(LatentSyncError, match=words):
            checked(healthy)
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_file_that_was_cut_off_is_broken(healthy: Path, tmp_path: Path, name: str) -> None:
    content = remux(healthy, tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 3])
    outcome = checked(tmp_path / name)
    assert isinstance(outcome, Rejected) and outcome.reason == "broken"


def test_what_lacks_something_says_what(healthy: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    cases = {
        "broken": tmp_path / "text.mp4",
        "no sound": make_clip(tmp_path / "silent.mp4"),
        "no picture": make_sound(tmp_path / "sound.mp4", "-c:a", "aac"),
        "shorter than 1 s": make_clip(tmp_path / "short.mp4", "-t", "0.5", sound=SOUND),
    }
    for reason, path in cases.items():
        outcome = checked(path)
        assert isinstance(outcome, Rejected) and outcome.reason == reason and "\n" not in outcome.why, path


@pytest.mark.parametrize(
    ("name", "options", "picture", "size"),
    [
        ("odd.mkv", ("-pix_fmt", "yuv444p"), "testsrc2=size=97x65:rate=25:duration=2", (96, 64)),
        ("ten bit.mkv", ("-pix_fmt", "yuv420p10le"), "testsrc2=size=96x64:rate=30000/1001:duration=2", (96, 64)),
        ("-wide.mov", ("-vf", "setsar=4/3", "-pix_fmt", "yuv420p"), "testsrc2=size=96x64:rate=60:duration=2", (128, 64)),
        ("täll 'x'.avi", ("-vf", "setsar=10/11", "-c:v", "mpeg4"), "testsrc2=size=96x64:rate=24:duration=2", (96, 70)),
    ],
)
def test_odd_files_come_out_plain(tmp_path: Path, name: str, options: tuple[str, ...], picture: str, size: tuple[int, int]) -> None:
    video = options if "-c:v" in options else ("-c:v", "libx264", *options)
    raw = make_clip(tmp_path / name, *video, picture=picture, sound="sine=frequency=500:sample_rate=44100:duration=2")
    before = raw.read_bytes()
    (made,) = resample(clip(raw), tmp_path / "resampled")
    assert isinstance(made, Kept) and raw.read_bytes() == before
    info = probe(made.path)
    assert info.video is not None and info.audio is not None
    assert (info.video.width, info.video.height) == size and info.video.sample_aspect == 1 and info.video.pixel_format == "yuv420p"
    assert info.video.average_fps == 25 and (info.audio.sample_rate, info.audio.channels) == (RATE, 1)
    assert abs(int(made.facts["frames"] or 0) - 50) <= 1 and made.facts["duration"] == int(made.facts["frames"] or 0) / 25


def test_of_sound_out_of_phase_one_channel_is_kept(tmp_path: Path) -> None:
    sound = "aevalsrc=0.4*sin(2*PI*500*t)|-0.4*sin(2*PI*500*t):sample_rate=48000:duration=2"
    raw = make_clip(tmp_path / "raw.mkv", "-c:a", "flac", picture="testsrc2=size=96x64:rate=25:duration=2", sound=sound)
    (made,) = resample(clip(raw), tmp_path / "resampled")
    assert isinstance(made, Kept) and np.abs(read_audio(made.path)).max() == pytest.approx(0.4, abs=0.02)


def test_a_rotated_file_comes_out_upright(tmp_path: Path) -> None:
    make_clip(tmp_path / "flat.mp4", sound=SOUND)
    raw = remux(tmp_path / "flat.mp4", tmp_path / "turned.mp4", "-metadata:s:v:0", "rotate=90")
    (made,) = resample(clip(raw), tmp_path)
    video = probe(made.path).require_video()
    assert (video.width, video.height, video.rotation) == (64, 96, 0)


def test_variable_rate_is_honoured_by_time(tmp_path: Path) -> None:
    frames = [striped(number) for number in range(100)]
    thinned = ("-vf", "select='not(mod(n,3))+lt(n,50)'", "-fps_mode", "vfr", "-c:v", "libx264", "-crf", "5", "-c:a", "pcm_s16le")
    raw = encode(tmp_path / "vfr.mkv", frames, levels(range(100)), *thinned)
    (made,) = resample(clip(raw), tmp_path)
    seen = numbers_of(made.path)
    assert seen[:50] == list(range(50)) and all(0 <= place - number <= 2 for place, number in enumerate(seen))
    assert sound_numbers(made.path)[:90] == list(range(90))


@pytest.mark.parametrize(("late", "stream"), [(0.28, 0), (0.28, 1)])
def test_streams_that_begin_apart_stay_in_step(tmp_path: Path, late: float, stream: int) -> None:
    whole = encode(tmp_path / "whole.mkv", [striped(k) for k in range(60)], levels(range(60)), "-c:v", "libx264", "-c:a", "pcm_s16le")
    early = ["-i", str(whole), "-itsoffset", str(late), "-i", str(whole)]
    maps = ["-map", "1:v", "-map", "0:a"] if stream == 0 else ["-map", "0:v", "-map", "1:a"]
    run_ffmpeg(*early, *maps, "-c", "copy", tmp_path / "apart.mkv")
    (made,) = resample(clip(tmp_path / "apart.mkv"), tmp_path / "out")
    shift = round(late * 25) * (1 if stream == 0 else -1)  # a sound of number n + shift belongs to picture n
    seen, audio = numbers_of(made.path), sound_numbers(made.path)
    together = [(number, said) for number, said in zip(seen, audio, strict=False) if 10 < number < 45]
    assert len(together) > 30 and all(said == number + shift for number, said in together)


def test_cuts_are_exact_to_the_frame_and_the_sample(recording: Path, tmp_path: Path) -> None:
    source = open_recording(recording)
    assert (source.frames, source.samples) == (120, 120 * BLOCK) and 0 in source.keys
    key = max(source.keys - {0})
    other = next(frame for frame in range(1, 120) if frame not in source.keys)
    for start, stop in ((key, key + 5), (other, 90), (0, 7), (other, 120)):
        cut(source, start, stop, tmp_path / "piece.mp4")
        assert numbers_of(tmp_path / "piece.mp4") == list(range(start, stop))
        assert np.array_equal(read_audio(tmp_path / "piece.mp4") * 32768, levels(range(start, stop)))


def test_missing_sound_at_the_end_is_silence(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", [striped(k) for k in range(20)], levels(range(1, 11)))
    source = open_recording(path)
    assert source.frames_with_sound == 10
    cut(source, 0, 15, tmp_path / "b.mp4")
    assert sound_numbers(tmp_path / "b.mp4") == [*range(1, 11), *[0] * 5] and len(numbers_of(tmp_path / "b.mp4")) == 15


def test_shots_begin_exactly_where_the_scene_changes(tmp_path: Path) -> None:
    frames = [striped(number, ground=(40, 120, 60)[(number >= 37) + (number >= 62)], rows=8) for number in range(90)]
    raw = encode(tmp_path / "talk.mp4", frames, levels(range(85)))
    outcome = split_shots(clip(raw), tmp_path / "shot")
    pieces = [kept for kept in outcome if isinstance(kept, Kept)]
    assert [kept.path.name for kept in pieces] == ["talk_000.mp4", "talk_001.mp4", "talk_002.mp4"]
    shots = [list(range(37)), list(range(37, 62)), list(range(62, 85))]  # the sound ends five frames early
    assert [numbers_of(kept.path, 0.05) for kept in pieces] == shots
    assert [sound_numbers(kept.path) for kept in pieces] == shots
    assert [(kept.facts["start"], kept.facts["frames"]) for kept in pieces] == [(0, 37), (37 / 25, 25), (62 / 25, 23)]
    why = "the sound of talk.mp4 ends at 3.40 s, 0.20 s before its picture"
    assert outcome[3:] == [Rejected("sound ends before the picture", why, {"start": 3.4, "frames": 5, "duration": 0.2})]


def test_sound_that_ends_a_few_frames_early_needs_no_word(tmp_path: Path) -> None:
    (kept,) = split_shots(
        clip(encode(tmp_path / "talk.mp4", [striped(k, rows=8) for k in range(20)], levels(range(16)))), tmp_path / "shot"
    )
    assert isinstance(kept, Kept) and kept.facts["frames"] == 16


def test_segments_follow_each_other_without_a_gap(recording: Path, tmp_path: Path) -> None:
    outcome = Segments(0.8, 1.8)(clip(recording, start=2.0), tmp_path / "segmented")
    pieces = [kept for kept in outcome if isinstance(kept, Kept)]
    assert len(pieces) == 3 and [number for kept in pieces for number in numbers_of(kept.path)] == list(range(120))
    assert [number for kept in pieces for number in sound_numbers(kept.path)] == list(range(120))
    assert all(0.8 <= float(kept.facts["duration"] or 0) <= 1.8 for kept in pieces)
    assert pieces[1].facts["start"] == 2.0 + float(pieces[0].facts["duration"] or 0)
    assert Segments(5, 10)(clip(recording), tmp_path) == [Rejected("shorter than 5 s", "clip.mp4 lasts 4.80 s")]


def test_boundaries_keep_every_piece_in_its_limits() -> None:
    chance = random.Random(0)
    for _ in range(2000):
        length = chance.randint(125, 3000)
        keys = {0, *chance.sample(range(length), length // chance.choice((10, 25, 60)))}
        edges = boundaries(length, 125, 250, keys)
        assert edges[0] == 0 and edges[-1] == length and all(125 <= after - before <= 250 for before, after in pairwise(edges))
    assert boundaries(500, 125, 250, {240, 260}) == [0, 250, 500]  # equal shares leave no choice
    assert boundaries(480, 125, 250, {231, 245, 300}) == [0, 245, 480]


def test_names_stay_apart(tmp_path: Path) -> None:
    names = ["talk.mp4", "talk.mkv", "talk.mkv.mp4", "talk", "a/talk.mp4", "b/talk.mp4", "-x.mp4", "TALK.MP4"]
    paths = [clip_path(tmp_path, name) for name in names]
    assert len(set(paths)) == len(names) and all(path.suffix == ".mp4" for path in paths)
    assert all(path.relative_to(tmp_path).as_posix().startswith(name.removesuffix(".mp4")) for path, name in zip(paths, names, strict=True))
    assert clip_path(tmp_path, "a/talk.mp4", 7) == tmp_path / "a" / "talk_007.mp4"


def test_placing_falls_back_to_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    place(tmp_path / "a", tmp_path / "sub" / "b")
    assert (tmp_path / "sub" / "b").samefile(tmp_path / "a")

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("preprocess.clip_writer.os.link", refuse)
    place(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "x" and not (tmp_path / "c").samefile(tmp_path / "a")

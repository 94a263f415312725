"""Frames out of a video: exact from anywhere, forwards and back, by time, in the right colours, and no process left over."""

import json
import logging
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from media_fixtures import TAGS, children, encode_frames, encode_tagged, make_clip, run_ffmpeg, smooth_frames

from latentsync.errors import InputError
from latentsync.media.video_reader import VideoReader, source_index

H264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "20", "-pix_fmt", "yuv420p")
NOISY = "testsrc2=size=96x64:rate=25:duration=3,noise=alls=40:allf=t"  # no packet is too small to be hit
CLIPS = {  # name -> encoder options, rate of the frames asked for
    "plain.mp4": (H264, 25),
    "late.mkv": ((*H264, "-bf", "3", "-output_ts_offset", "0.7"), 30),
    "late.mp4": ((*H264, "-output_ts_offset", "0.7"), 25),
    "uneven.mkv": ((*H264, "-vf", "select='lt(mod(n,25),9)+eq(mod(n,25),20)'", "-fps_mode", "vfr"), 25),
    "uneven.mp4": ((*H264, "-vf", "select='lt(mod(n,25),9)+eq(mod(n,25),20)'", "-fps_mode", "vfr"), None),
    "gap.mp4": ((*H264, "-vf", "select='lt(n,20)+gt(n,72)'", "-fps_mode", "vfr"), 25),  # one picture stands for two seconds
    "a.webm": (("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "16", "-g", "30"), 25),
    "a.mpg": (("-c:v", "mpeg2video", "-g", "12"), 25),
    "a.ts": (H264, 25),
    "a.gif": (("-c:v", "gif", "-r", "10"), 25),
    "a.avi": (("-c:v", "mpeg4"), None),
}


@pytest.mark.parametrize("name", CLIPS)
def test_any_part_equals_the_slice(tmp_path, name):
    options, fps = CLIPS[name]
    source = VideoReader(make_clip(tmp_path / name, *options), fps and Fraction(fps))
    whole = list(source.frames())
    last_shown = 71 if name.startswith("uneven") else 75  # at 25 fps; what comes after it in an uneven file is not known
    assert abs(len(whole) - last_shown * source.fps / 25) <= (3 if name.endswith((".gif", ".ts", ".mpg")) else 1)
    for start, stop in ((40, 47), (61, 63), (len(whole) - 2, None), (len(whole), None)):
        part = list(source.frames(start, stop))
        assert len(part) == len(whole[start:stop])
        assert all(np.array_equal(a, b) for a, b in zip(part, whole[start:stop], strict=True)), (start, stop)
    entered = source._open_near(40, 47)
    assert (entered is not None) == name.endswith((".mp4", ".mkv", ".webm"))
    if entered:
        entered.kill()


def test_a_rate_is_changed_by_time(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", picture="testsrc2=size=96x64:rate=50:duration=2")
    native = list(VideoReader(clip, None).frames())
    assert len(native) == 100
    half = list(VideoReader(clip, Fraction(25)).frames())
    assert len(half) == 50
    for k in (0, 10, 30, 49):  # frame k is one of the two that are shown around k / 25 s
        assert any(np.array_equal(half[k], native[n]) for n in (2 * k - 1, 2 * k, 2 * k + 1) if 0 <= n < 100)


@pytest.mark.parametrize("held", [1, 7, 1000])
def test_ping_pong(tmp_path, held):
    assert [source_index(i, 3) for i in range(13)] == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]
    source = VideoReader(make_clip(tmp_path / "a.mp4", picture="testsrc2=size=32x32:rate=25:duration=0.8"))
    whole = list(source.frames())
    assert len(whole) == 20
    count = 67 if held > 1 else 25
    played = list(source.ping_pong(count, 20, segment_bytes=held * 32 * 32 * 3))
    assert len(played) == count
    assert all(np.array_equal(frame, whole[source_index(i, 20)]) for i, frame in enumerate(played))


@pytest.mark.parametrize(("matrix", "pixels"), [*((matrix, "yuv420p") for matrix in TAGS), ("bt709", "yuv444p10le")])
def test_colours_follow_the_tags(tmp_path, matrix, pixels):
    frames = smooth_frames(3)
    read = list(VideoReader(encode_tagged(tmp_path / "a.mkv", frames, matrix, pixels)).frames())
    difference = np.stack(read).astype(float) - np.stack(frames)  # f h w c
    assert np.abs(difference).mean() < 2
    assert np.abs(difference.mean((0, 1, 2))).max() < 0.7


def test_a_cut_off_file_gives_what_it_has(tmp_path, caplog):
    make_clip(tmp_path / "whole.mp4", "-movflags", "+faststart")
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) * 6 // 10])
    source = VideoReader(tmp_path / "a.mp4")
    with caplog.at_level(logging.WARNING):
        count = sum(1 for _ in source.frames())
    assert 20 < count < 70
    assert f"only {count} of about 75 frames" in source.problem
    assert len(caplog.records) == 1


def test_damage_is_found_where_it_is(tmp_path):
    for options, end in ((("-g", "20", "-bf", "2"), 40), (("-g", "250", "-bf", "0"), 75)):
        clip = make_clip(tmp_path / "a.mp4", "-preset", "ultrafast", "-c:v", "libx264", *options, "-pix_fmt", "yuv420p", picture=NOISY)
        source = VideoReader(clip)
        assert sum(1 for _ in source.frames()) == 75 and source.damaged_runs(75) == []
        frames = json.loads(ask("-select_streams", "v", "-show_entries", "packet=pts_time,pos,size", "-of", "json", clip))["packets"]
        hit = next(packet for packet in frames if float(packet["pts_time"]) == 1.2)  # frame 30
        data = bytearray(clip.read_bytes())
        middle = int(hit["pos"]) + int(hit["size"]) // 2
        data[middle : middle + 40] = b"\xff" * 40
        clip.write_bytes(data)
        source = VideoReader(clip)
        assert sum(1 for _ in source.frames()) == 75
        ((start, stop),) = source.damaged_runs(75)
        assert 26 <= start <= 30 and stop == end
        assert source.damaged_runs(32)[0][1] == 32


def test_nothing_to_decode_is_refused(tmp_path):
    data = bytearray(make_clip(tmp_path / "whole.mp4", "-movflags", "+faststart").read_bytes())
    data[data.index(b"mdat") + 4 :] = b""
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(InputError, match="cannot be decoded"):
        list(VideoReader(tmp_path / "a.mp4").frames())


def test_a_change_of_size_inside_the_stream_keeps_the_frames_whole(tmp_path):
    make_clip(tmp_path / "a.ts", picture="testsrc2=size=96x64:rate=25:duration=1")
    make_clip(tmp_path / "b.ts", "-output_ts_offset", "1", picture="testsrc2=size=64x48:rate=25:duration=1")
    (tmp_path / "c.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    frames = list(VideoReader(tmp_path / "c.ts").frames())
    assert {frame.shape for frame in frames} == {(64, 96, 3)}
    assert len(frames) == 50


def test_an_iterator_closed_early_leaves_no_process(tmp_path):
    source = VideoReader(make_clip(tmp_path / "a.mp4", picture="testsrc2=size=640x480:rate=25:duration=2"))
    frames = source.frames()
    next(frames)
    assert "ffmpeg" in children()
    frames.close()
    assert "ffmpeg" not in children()
    backwards = source.ping_pong(90, 50, segment_bytes=4 * 640 * 480 * 3)
    for _ in range(60):
        next(backwards)
    backwards.close()
    assert "ffmpeg" not in children()


def test_interlaced_video_is_deinterlaced(tmp_path):
    bars = [np.zeros((64, 96, 3), np.uint8) for _ in range(20)]
    for k, bar in enumerate(bars):
        bar[:, 4 * k : 4 * k + 12] = 255
    flags = ("-flags", "+ilme+ildct", "-c:v", "mpeg2video", "-qscale:v", "2")
    clip = encode_frames(tmp_path / "a.mkv", bars, "tinterlace=interleave_top,fieldorder=tff", "-r", "25", *flags)
    source = VideoReader(clip)
    assert source.video.interlaced
    plain = tmp_path / "plain.mkv"
    run_ffmpeg("-i", clip, "-vf", "setfield=prog", "-c:v", "ffv1", "-field_order", "progressive", plain)
    combed = _combing(np.stack(list(VideoReader(plain).frames())))
    assert _combing(np.stack(list(source.frames()))) < 0.5 * combed


def _combing(frames: np.ndarray) -> float:
    """How much every second line differs from its neighbours (f h w c)."""
    lines = frames.astype(float)
    return float(np.abs(lines[:, 1:-1] - (lines[:, :-2] + lines[:, 2:]) / 2).mean())


def ask(*arguments) -> bytes:
    return subprocess.run(["ffprobe", "-v", "error", *map(str, arguments)], capture_output=True, check=True).stdout

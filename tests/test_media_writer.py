"""Frames and sound into a file: colours, sizes, lengths, sync; whole or not at all, whatever goes wrong."""

import subprocess
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_fixtures import BURSTS, HOLE, TAGS, TEST_SOUND, children, encode_tagged, make_clip, make_sound, onsets, run_ffmpeg, smooth_frames
from refusals import refused
from scipy.signal import correlate

from latentsync.errors import InputError, LatentSyncError, OutputError
from latentsync.media.audio import AudioSamples, read_audio
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import (
    CODECS,
    CONTAINERS,
    GENERATED,
    AudioTrack,
    VideoWriter,
    check_output,
    choose_encoding,
    require_encoder,
)

RATE = 16_000


def write(path: Path, frames: list[np.ndarray], **options: object) -> VideoReader:
    """All frames through a writer, and the file that came of it."""
    height, width, _ = frames[0].shape
    with VideoWriter(path, width, height, 25, preset="ultrafast", **options) as writer:
        for frame in frames:
            writer.write(frame)
    return VideoReader(path)


@pytest.mark.parametrize("matrix", TAGS)
def test_untouched_frames_stay_what_they_were(tmp_path, matrix):
    source = VideoReader(encode_tagged(tmp_path / "in.mp4", smooth_frames(4), matrix))
    assert source.video.colour.space == TAGS[matrix][0]
    before = np.stack(list(source.frames()))  # f h w c
    result = write(tmp_path / "out.mp4", list(before), like=source.info, crf=1)
    assert result.video.colour == source.video.colour
    after = np.stack(list(result.frames())).astype(float)
    assert np.abs(after - before).mean() < 1
    assert np.abs((after - before).mean((0, 1, 2))).max() < 0.3  # no drift of brightness or hue


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_generated_file_says_so_and_keeps_the_tags_of_its_source(tmp_path, container):
    tags = ["-metadata", "title=Speech; part 1", "-metadata", "copyright=A = B", "-metadata", "comment=A talk"]
    source = VideoReader(make_clip(tmp_path / "in.mkv", *tags))
    result = write(tmp_path / f"a{container}", smooth_frames(2), like=source.info, is_generated=True).info
    again = write(tmp_path / f"b{container}", smooth_frames(2), like=result, is_generated=True).info.tags
    for kept in (result.tags, again):
        assert (kept["title"], kept["copyright"], kept["comment"]) == ("Speech; part 1", "A = B", f"{GENERATED}. A talk")
    assert "comment" not in write(tmp_path / "plain.mp4", smooth_frames(2), like=source.info).info.tags


def test_a_picture_from_nowhere_is_tagged(tmp_path):
    frames = smooth_frames(3)
    result = write(tmp_path / "a.mp4", frames, crf=1)
    assert (result.video.colour.space, result.video.colour.range) == ("bt709", "tv")
    assert np.abs(np.stack(list(result.frames())).astype(float) - np.stack(frames)).mean() < 1.5


def test_pixel_shape_and_odd_sizes(tmp_path):
    source = VideoReader(make_clip(tmp_path / "in.mp4", "-vf", "setsar=16/15"))
    result = write(tmp_path / "out.mp4", list(source.frames(0, 3)), like=source.info)
    assert result.video.sample_aspect == Fraction(16, 15)
    frames = smooth_frames(3, 37, 51)
    result = write(tmp_path / "a.mp4", frames, crf=1)
    read = np.stack(list(result.frames()))
    assert read.shape == (3, 38, 52, 3)
    assert np.abs(read[:, :37, :51].astype(float) - np.stack(frames)).mean() < 2
    assert np.abs(read[:, :, 51].astype(float) - read[:, :, 50]).mean() < 4


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_lossless_keeps_every_value(tmp_path, name):
    frames = [np.random.default_rng(k).integers(0, 256, (37, 51, 3), np.uint8) for k in range(3)]
    assert np.array_equal(np.stack(list(write(tmp_path / name, frames, lossless=True).frames())), np.stack(frames))


@pytest.mark.parametrize(("ending", "codec"), [(ending, codec) for ending in CONTAINERS for codec in CONTAINERS[ending].codecs])
def test_every_codec_in_every_container(tmp_path, ending, codec):
    try:
        require_encoder(CODECS[codec].encoder)
    except LatentSyncError:
        pytest.skip(f"this ffmpeg has no {CODECS[codec].encoder}")
    frames = smooth_frames(4, 64, 64)
    result = write(tmp_path / f"a{ending}", frames, codec=codec)
    read = np.stack(list(result.frames()))
    assert (result.video.codec, len(read)) == (codec, 4)
    assert np.abs(read.astype(float) - np.stack(frames)).mean() < 4


SOUNDS = {  # the user's file -> the sound in .mp4, .mkv when nothing must be added
    "a.wav": ("aac", "pcm_s16le"),
    "a.mp3": ("mp3", "mp3"),
    "a.m4a": ("aac", "aac"),
    "a.flac": ("aac", "flac"),
    "a.opus": ("aac", "opus"),
}
CASES = [(name, ending, None) for name in SOUNDS for ending in (".mp4", ".mkv")]  # as long as the sound
CASES += [("a.wav", ".mp4", 90), ("a.mp3", ".mp4", 50)]
CASES += [(*case, count) for case in (("a.m4a", ".mp4"), ("a.flac", ".mkv")) for count in (50, 90)]


@pytest.mark.parametrize(("name", "ending", "count"), CASES)
def test_sound_is_in_sync_and_as_long_as_asked(tmp_path, name, ending, count):
    track = make_sound(tmp_path / name)
    original = read_audio(track)
    count = count or round(len(original) / RATE * 25)
    out = tmp_path / f"out{ending}"
    sound = AudioTrack(track, count / 25, len(original) / RATE)
    result = write(out, smooth_frames(2, 32, 32) * (count // 2) + smooth_frames(count % 2, 32, 32), audio=sound)
    copied = count <= 75
    if copied:
        assert result.info.audio.codec == SOUNDS[name][ending == ".mkv"]
    assert sum(1 for _ in result.frames()) == count
    assert result.info.duration == pytest.approx(count / 25, abs=0.045 if ending == ".mp4" else 0.07)  # .mkv counts the lead-in
    clock = (result.info.audio.start_time or 0) - (result.video.start_time or 0)
    played = read_audio(out)
    shared = min(len(played), len(original), round(count / 25 * RATE))
    if not (name == "a.opus" and ending == ".mkv" and copied):  # there the clock holds a lead-in that the decoder takes off
        assert abs(_lag(played[:shared], original[:shared]) / RATE + clock) < 0.002
    rest = played[round(3.2 * RATE) :]
    assert count < 80 or (len(rest) and np.abs(rest).max() < 0.01)


def _lag(later: np.ndarray, earlier: np.ndarray) -> int:
    """By how many samples `later` must be moved forward to match `earlier`."""
    return int(correlate(later, earlier, method="fft").argmax()) - len(earlier) + 1


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_track_that_starts_late_in_its_file_starts_with_frame_0(tmp_path, ending):
    make_clip(tmp_path / "plain.mp4", picture="testsrc2=size=32x32:rate=25:duration=3")
    make_sound(tmp_path / "a.m4a", sound=TEST_SOUND.replace("duration=3", "duration=2"))
    late = ["-i", tmp_path / "plain.mp4", "-itsoffset", "0.8", "-i", tmp_path / "a.m4a", "-map", "0:v", "-map", "1:a", "-c", "copy"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *map(str, late), str(tmp_path / "late.mp4")], check=True)
    assert probe(tmp_path / "late.mp4").audio.start_time == pytest.approx(0.8, abs=0.05)
    original = read_audio(tmp_path / "late.mp4")
    count = round(len(original) / RATE * 25)
    track = AudioTrack(tmp_path / "late.mp4", count / 25, len(original) / RATE)
    result = write(tmp_path / f"out{ending}", smooth_frames(1, 32, 32) * count, audio=track)
    assert result.info.audio.codec == "aac"
    clock = (result.info.audio.start_time or 0) - (result.video.start_time or 0)
    assert abs(_lag(read_audio(tmp_path / f"out{ending}")[: len(original)], original) / RATE + clock) < 0.03
    assert result.info.duration == pytest.approx(count / 25, abs=0.07)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("name", ["hole.mka", "hole.mp4", "hole.ts", "back.nut", "plain.wav"])
def test_the_written_sound_keeps_its_place(tmp_path, name, ending):
    back = ("-af", "asetpts=PTS-if(gte(T\\,1)\\,0.3/TB\\,0)", "-c:a", "pcm_s16le")
    options = {"hole": (*HOLE, "-c:a", "aac"), "back": back, "plain": ()}[name.partition(".")[0]]
    with AudioSamples(make_sound(tmp_path / name, *options, sound=BURSTS)) as samples:
        original, seconds, can_be_copied = samples[:], samples.duration, samples.can_be_copied
    count = round(seconds * 25)
    track = AudioTrack(tmp_path / name, count / 25, seconds, can_be_copied=can_be_copied)
    out = tmp_path / f"out{ending}"
    result = write(out, smooth_frames(1, 32, 32) * count, audio=track)
    start = result.video.start_time or 0
    on_clock = f"asetpts=PTS-{start}/TB,aresample=16000:async=1:first_pts=0:min_hard_comp=0.005"  # as a player would
    run_ffmpeg("-copyts", "-i", out, "-map", "0:a", "-af", on_clock, "-ac", "1", tmp_path / "played.wav")
    assert len(onsets(original)) == 6
    assert onsets(read_audio(tmp_path / "played.wav")) == pytest.approx(onsets(original), abs=0.01)


def test_the_written_track_is_the_one_that_is_named(tmp_path):
    make_sound(tmp_path / "a.wav", sound=TEST_SOUND)
    two = ["-f", "lavfi", "-i", "anullsrc=duration=3", "-i", tmp_path / "a.wav", "-map", "0", "-map", "1", "-disposition:a:0", "default"]
    run_ffmpeg(*two, "-metadata:s:a:1", "language=eng", "-c:a", "aac", tmp_path / "two.mka")
    for track, silent in ((None, True), ("1", False), ("eng", False), ("0", True)):
        write(tmp_path / "out.mkv", smooth_frames(1, 32, 32) * 75, audio=AudioTrack(tmp_path / "two.mka", 3.0, 3.0, track=track))
        assert (np.abs(read_audio(tmp_path / "out.mkv")).max() < 0.01) == silent


def test_choices_that_do_not_fit_are_refused():
    for options, words in {
        ("a.xyz",): "use .mp4, .mov, .mkv or .webm",
        ("noending",): r"\(none\)",
        ("a.webm", "h264"): "does not hold h264",
        ("a.mp4", "h265"): "not known, use h264",
        ("a.mp4", "h264", 60): "crf 60 is out of range",
        ("a.mp4", "h264", 18, "quick"): "preset 'quick' is not known",
    }.items():
        refused(InputError, words, choose_encoding, *options)
    refused(InputError, "lossless av1", choose_encoding, "a.mkv", "av1", lossless=True)
    assert choose_encoding("a.webm").codec_name == "vp9"
    refused(LatentSyncError, "no encoder", require_encoder, "libnothing")


def test_outputs_are_checked_before_the_work(tmp_path):
    video = make_clip(tmp_path / "in.mp4")
    (tmp_path / "link.mp4").symlink_to(video)
    (tmp_path / "file").write_text("x")
    check_output(tmp_path / "new" / "deep" / "a.mp4", [video])
    check_output(tmp_path / "a.mp4", [video, tmp_path / "absent.wav"])
    for path, words in {
        tmp_path: "ending",
        video: "one of the inputs",
        tmp_path / "link.mp4": "one of the inputs",
        tmp_path / "file" / "a.mp4": "is a file|not a directory",
        tmp_path / "file" / "deep" / "a.mp4": "is a file|not a directory",
        tmp_path / ("x" * 300 + ".mp4"): "cannot be written",
    }.items():
        refused(InputError, words, check_output, path, [video])
    (tmp_path / "folder.mp4").mkdir()
    refused(InputError, "is a folder", check_output, tmp_path / "folder.mp4")
    refused(OutputError, "cannot write into", check_output, "/proc/a.mp4")
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"an older result")
    for failure in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(failure), VideoWriter(target, 64, 48, 25) as writer:
            writer.write(smooth_frames(1)[0])
            assert len(list(tmp_path.iterdir())) == 2
            raise failure
    with pytest.raises(OutputError, match="no frame"), VideoWriter(target, 64, 48, 25):
        pass
    with pytest.raises(InputError, match="no audio track"):
        VideoWriter(target, 64, 48, 25, audio=AudioTrack(make_clip(tmp_path / "mute.mp4"), 1)).__enter__()
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "mute.mp4"}
    assert target.read_bytes() == b"an older result"
    assert "ffmpeg" not in children()
    write(target, smooth_frames(2))
    assert VideoReader(target).video.frame_count == 2
    target = tmp_path / "new folder" / "dëv 目录" / "-it's %03d [1]:,b.mp4"  # folders are made, and any name will do
    assert sum(1 for _ in write(target, smooth_frames(3)).frames()) == 3
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_two_runs_in_one_folder(tmp_path):
    names = ["a.mp4", "a.mkv", "a.mp4"]
    threads = [threading.Thread(target=write, args=(tmp_path / name, smooth_frames(20))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "a.mkv"}
    assert all(VideoReader(path).expected_frames == 20 for path in (tmp_path / "a.mp4", tmp_path / "a.mkv"))


def test_the_encoder_dies(tmp_path):
    with pytest.raises(OutputError, match="ffmpeg stopped"), VideoWriter(tmp_path / "a.mp4", 640, 480, 25) as writer:
        frame = np.zeros((480, 640, 3), np.uint8)
        writer.write(frame)
        writer._child._process.kill()
        for _ in range(200):
            writer.write(frame)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(folder)], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_full_disk(small_disk, ending):
    noise = np.random.default_rng(0)
    with pytest.raises(OutputError, match="No space left"), VideoWriter(small_disk / f"a{ending}", 128, 96, 25) as writer:
        for _ in range(200):
            writer.write(noise.integers(0, 256, (96, 128, 3), np.uint8))
    assert not list(small_disk.iterdir())
    assert "ffmpeg" not in children()

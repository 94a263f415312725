"""What a file is found to be, and the sentence for each kind of bad file."""

import logging
import os
import re
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from media_fixtures import TEST_SOUND, make_clip, make_sound, run_ffmpeg
from refusals import refused

from latentsync.errors import InputError, LatentSyncError
from latentsync.media.audio import AudioSamples
from latentsync.media.files import check_target
from latentsync.media.probe import _orientation, probe
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import check_output


def test_picture_and_sound(tmp_path):
    info = probe(make_clip(tmp_path / "a.mp4", "-colorspace", "bt709", "-color_range", "tv", sound=TEST_SOUND))
    assert (info.video.width, info.video.height, info.video.average_fps, info.video.frame_count) == (96, 64, Fraction(25), 75)
    assert (info.video.colour.space, info.video.colour.range, info.video.rotation) == ("bt709", "tv", 0)
    assert (info.audio.codec, info.audio.sample_rate, info.audio.channels) == ("aac", 44100, 1)
    assert info.duration == pytest.approx(3, abs=0.05)


def test_rotation_swaps_the_sides(tmp_path):
    make_clip(tmp_path / "flat.mp4")
    source = ("-i", tmp_path / "flat.mp4", "-c", "copy")
    by_input_option = b"display_rotation" in subprocess.run(["ffmpeg", "-h", "full"], capture_output=True, check=True).stdout  # ffmpeg 6
    run_ffmpeg(
        *(("-display_rotation", "90", *source) if by_input_option else (*source, "-metadata:s:v:0", "rotate=270")), tmp_path / "a.mp4"
    )
    video = probe(tmp_path / "a.mp4").video
    assert (video.width, video.height, video.rotation % 180) == (64, 96, 90)
    assert next(VideoReader(tmp_path / "a.mp4").frames()).shape == (96, 64, 3)


def rotated(corners, number):
    """The corners of a picture (2 2: numbers) as EXIF orientation `number` asks to show them."""
    turned = {1: corners, 2: corners[:, ::-1], 3: corners[::-1, ::-1], 4: corners[::-1], 5: corners.T, 6: np.rot90(corners, -1)}
    return (turned | {7: corners[::-1, ::-1].T, 8: np.rot90(corners)})[number]


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_a_photo_is_upright_whatever_its_exif_orientation(tmp_path, ending, number):
    gray = np.kron(np.array([[20, 90], [160, 230]], np.uint8), np.ones((32, 48), np.uint8))  # h w, each quarter of its own
    exif = np.frombuffer(b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, number, 0, 0), np.uint8)  # a TIFF header and one tag
    _, photo = cv2.imencodeWithMetadata(f".{ending}", gray, [cv2.IMAGE_METADATA_EXIF], [exif])
    (tmp_path / f"a.{ending}").write_bytes(photo.tobytes())
    source = VideoReader(tmp_path / f"a.{ending}")
    (frame,) = source.frames()
    assert frame.shape == ((64, 96, 3) if number < 5 else (96, 64, 3)) == (source.height, source.width, 3)
    height, width, _ = frame.shape
    seen = frame[height // 4 :: height // 2, width // 4 :: width // 2, 1].astype(int)  # the middle of each quarter
    assert np.abs(seen - rotated(np.array([[20, 90], [160, 230]]), number)).max() < 8


def test_orientation_from_the_display_matrix():
    def matrix(a, b, c, d):
        rows = "".join(f"{k:08d}: {x:12d} {y:12d} {z:12d}\n" for k, (x, y, z) in enumerate([(a, b, 0), (c, d, 0), (0, 0, 1 << 30)]))
        return {"side_data_list": [{"side_data_type": "3x3 displaymatrix", "displaymatrix": "\n" + rows}]}

    one = 1 << 16
    known = {(0, one, -one, 0): (90, False), (-one, 0, 0, one): (0, True), (one, 0, 0, -one): (180, True), (0, -one, -one, 0): (270, True)}
    for numbers, turn in (known | {(65000, -8000, 8000, 65000): (0, False)}).items():  # the last: 7 degrees, nearest to upright
        assert _orientation(matrix(*numbers)) == turn


@pytest.mark.parametrize(("ending", "seconds"), [("ts", 2.0), ("mpg", 2.0), ("ogg", 2.0)])
def test_the_length_of_a_file_whose_clock_jumps_is_that_of_its_packets(tmp_path, ending, seconds):
    for name, offset in (("1", "0"), ("2", "9000")):
        path, late = tmp_path / f"{name}.{ending}", ("-output_ts_offset", offset)
        if ending == "ogg":
            make_sound(path, "-c:a", "libvorbis", sound="sine=sample_rate=48000:duration=1")
        else:
            codecs = ("-c:v", "mpeg2video", "-c:a", "mp2", "-muxdelay", "0")
            make_clip(path, *codecs, *late, picture="testsrc2=size=96x64:rate=25:duration=1", sound="sine=duration=1")
    (tmp_path / f"a.{ending}").write_bytes(b"".join((tmp_path / f"{name}.{ending}").read_bytes() for name in "12"))
    info = probe(tmp_path / f"a.{ending}")
    assert (info.duration, info.audio.duration) == (pytest.approx(seconds, abs=0.15), pytest.approx(seconds, abs=0.15))
    if info.video:
        assert info.video.duration == pytest.approx(seconds, abs=0.15)
        source = VideoReader(tmp_path / f"a.{ending}")
        assert abs(source.expected_frames - sum(1 for _ in source.frames())) <= 2


def test_deep_colour_and_transparency_are_known(tmp_path, caplog):
    def reader(name, *options):
        return VideoReader(make_clip(tmp_path / name, *options, picture="color=red:size=32x32:rate=25:duration=0.2"))

    source = reader("deep.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv422p12le")
    assert (source.video.bits, source.deep.pixel_format) == (12, "yuv422p10le")
    with caplog.at_level(logging.INFO):
        assert reader("rgb.mkv", "-c:v", "ffv1", "-pix_fmt", "gbrp10le").deep is None
    assert "10 bits a colour: they are rounded to 8" in caplog.text
    (sentence,) = reader("pq.mkv", "-c:v", "ffv1", "-pix_fmt", "gbrp10le", "-color_trc", "smpte2084").losses
    assert "HDR that is not kept (PQ, 10 bits RGB)" in sentence
    for name, kept, options in (
        ("animation.mov", "gbrap", ("-c:v", "qtrle", "-pix_fmt", "argb")),
        ("plain.mp4", None, ()),
        ("a.gif", None, ("-c:v", "gif")),
        ("b.png", None, ("-c:v", "png", "-pix_fmt", "rgb24", "-frames:v", "1")),
    ):
        source = reader(name, *options)
        assert (source.deep and source.deep.pixel_format) == kept and source.losses == ()


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "https://example.com/a.mp4": "https://example.com/a.mp4 is an address, only local files",
        "s3://bucket/a.wav": "s3://bucket/a.wav is an address, only local files",
        "file:///home/me/a.mp4": "give the path alone, /home/me/a.mp4",
        "-": "standard input and output are not supported",
    }.items(),
)
def test_addresses_and_standard_streams_are_refused(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    for refuse in (probe, lambda path: probe(tmp_path / path), check_target, check_output):
        refused(InputError, re.escape(words), refuse, Path(name))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "disk:").mkdir()
    refused(InputError, "does not exist", probe, Path("disk:/a.mp4"))


@pytest.mark.parametrize(("shape", "expected"), [("16/15", (96, 64, Fraction(16, 15), False)), ("2/1", (192, 64, Fraction(1), True))])
def test_pixel_shape(tmp_path, shape, expected):
    source = VideoReader(make_clip(tmp_path / "a.mp4", "-vf", f"setsar={shape}"))
    assert (source.width, source.height, source.video.sample_aspect, source.video.stretched) == expected
    assert next(source.frames()).shape == (source.height, source.width, 3)


def test_cover_art_is_no_video(tmp_path):
    make_sound(tmp_path / "plain.mp3")
    run_ffmpeg("-f", "lavfi", "-i", "color=red:size=32x32:duration=0.04", "-frames:v", "1", tmp_path / "cover.png")
    picture = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v", "attached_pic")
    run_ffmpeg("-i", tmp_path / "plain.mp3", "-i", tmp_path / "cover.png", *picture, tmp_path / "a.mp3")
    info = probe(tmp_path / "a.mp3")
    assert info.has_audio and info.video is None
    refused(InputError, "only sound", VideoReader, tmp_path / "a.mp3")


def test_bad_files_get_one_sentence(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 40)
    (tmp_path / "notes.txt").write_text("ffmpeg would play this as a terminal recording\n" * 40)
    whole = make_clip(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for name, words in {
        "absent.mp4": "does not exist",
        ".": "is a folder",
        "empty.mp4": "is empty",
        "text.mp4": "not a media file",
        "notes.txt": "not a media file",
        "cut.mp4": "its index is missing",
        "x" * 300 + ".mp4": "cannot be opened",
        "nul\0.mp4": "cannot be opened",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            probe(tmp_path / name)
        assert "\n" not in str(caught.value)
    if os.geteuid():  # root may read everything
        (tmp_path / "whole.mp4").chmod(0)
        refused(InputError, "may not be read", probe, tmp_path / "whole.mp4")


def test_of_several_audio_tracks_the_default_one_is_taken(tmp_path):
    silence = ["-f", "lavfi", "-i", "anullsrc=duration=1"]
    names = ["-metadata:s:a:0", "language=ger", "-metadata:s:a:0", "title=Music", "-metadata:s:a:1", "language=eng"]
    for name, marks, expected in (("a.mka", (0, 0), 0), ("b.mka", (0, "default"), 1), ("c.mov", ("default", "default"), 0)):
        both = [*silence, *silence, "-map", "0", "-map", "1", "-c:a", "aac", "-ac:a:0", "2"]
        marked = [word for k, mark in enumerate(marks) for word in (f"-disposition:a:{k}", str(mark))]
        run_ffmpeg(*both, *names, *marked, tmp_path / name)
        info = probe(tmp_path / name)
        assert info.audio.index == expected and info.require_audio() is info.audio
        assert info.audio_tracks[0].layout == "stereo" and [track.language for track in info.audio_tracks] == ["ger", "eng"]
    info = probe(tmp_path / "b.mka")
    for track, index in (("0", 0), ("1", 1), ("ENG", 1), ("ger", 0)):
        assert info.require_audio(track).index == index
    for track in ("2", "fre", "-1", ""):
        refused(InputError, r'no audio track .*0 \(aac, ger, "Music"\), 1 \(aac, eng, default\)', info.require_audio, track)


def test_missing_ffmpeg(tmp_path, monkeypatch):
    path = make_sound(tmp_path / "a.wav")
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(LatentSyncError, "install ffmpeg", probe, path)


@pytest.mark.parametrize("name", ["-leading dash.mp4", 'it\'s "quoted".mp4', "dëv 目录 é.mp4", "a%03d[1]:b;$(x)&.mp4", "http:x.mp4"])
def test_any_name_is_safe(tmp_path, monkeypatch, name):
    make_clip(tmp_path / "plain.mp4", picture="testsrc2=size=32x32:rate=25:duration=0.2", sound="sine=duration=0.2").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    source = VideoReader(name)
    assert sum(1 for _ in source.frames()) == 5
    with AudioSamples(name) as samples:
        assert samples.duration == pytest.approx(0.2, abs=0.03)

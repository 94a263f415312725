"""What a file is found to be, and the sentence for each kind of bad file."""

import os
import subprocess
from fractions import Fraction

import pytest
from media_fixtures import TEST_SOUND, make_clip, make_sound, run_ffmpeg

from latentsync.errors import InputError, LatentSyncError
from latentsync.media.audio import AudioSamples
from latentsync.media.ffmpeg import probe
from latentsync.media.video import VideoSource


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
    assert next(VideoSource(tmp_path / "a.mp4").frames()).shape == (96, 64, 3)


def test_pixel_shape(tmp_path):
    nearly = probe(make_clip(tmp_path / "nearly.mp4", "-vf", "setsar=16/15")).video
    assert (nearly.width, nearly.height, nearly.sample_aspect, nearly.stretched) == (96, 64, Fraction(16, 15), False)
    wide = probe(make_clip(tmp_path / "wide.mp4", "-vf", "setsar=2/1")).video
    assert (wide.width, wide.height, wide.sample_aspect, wide.stretched) == (192, 64, Fraction(1), True)
    assert next(VideoSource(tmp_path / "wide.mp4").frames()).shape == (64, 192, 3)


def test_cover_art_is_no_video(tmp_path):
    make_sound(tmp_path / "plain.mp3")
    run_ffmpeg("-f", "lavfi", "-i", "color=red:size=32x32:duration=0.04", "-frames:v", "1", tmp_path / "cover.png")
    picture = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v", "attached_pic")
    run_ffmpeg("-i", tmp_path / "plain.mp3", "-i", tmp_path / "cover.png", *picture, tmp_path / "a.mp3")
    info = probe(tmp_path / "a.mp3")
    assert info.has_audio and not info.has_video
    with pytest.raises(InputError, match="only sound"):
        VideoSource(tmp_path / "a.mp3")


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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = make_sound(tmp_path / "a.wav")
    path.chmod(0)
    with pytest.raises(InputError, match="may not be read"):
        probe(path)


def test_missing_streams(tmp_path):
    with pytest.raises(InputError, match="no audio track"):
        AudioSamples(make_clip(tmp_path / "mute.mp4"))


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
        with pytest.raises(InputError, match=r'no audio track .*0 \(aac, ger, "Music"\), 1 \(aac, eng, default\)'):
            info.require_audio(track)


def test_missing_ffmpeg(tmp_path, monkeypatch):
    path = make_sound(tmp_path / "a.wav")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LatentSyncError, match="install ffmpeg"):
        probe(path)


@pytest.mark.parametrize("name", ["-leading dash.mp4", 'it\'s "quoted".mp4', "dëv 目录 é.mp4", "a%03d[1]:b;$(x)&.mp4", "http:x.mp4"])
def test_any_name_is_safe(tmp_path, monkeypatch, name):
    make_clip(tmp_path / "plain.mp4", picture="testsrc2=size=32x32:rate=25:duration=0.2", sound="sine=duration=0.2").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    source = VideoSource(name)
    assert sum(1 for _ in source.frames()) == 5
    with AudioSamples(name) as samples:
        assert samples.duration == pytest.approx(0.2, abs=0.03)

"""Ten bits, HDR, alpha and folders of frames: what is stored stays, what changed comes back, and what cannot be kept is refused."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from media_fixtures import encode_frames, make_clip, smooth_frames
from refusals import refused

from latentsync.errors import InputError
from latentsync.media.deep import DeepFormat, changed_planes, deep_frame, seen_of, signal_of
from latentsync.media.probe import Colour, probe
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import VideoWriter, choose_encoding

HLG, PQ = (Colour("tv", "bt2020nc", "bt2020", transfer) for transfer in ("arib-std-b67", "smpte2084"))
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
RGBA = DeepFormat(None, 8, True, Colour())
BOX = np.s_[16:32, 20:44]  # what changes in a frame


def hdr_clip(path: Path, transfer: str) -> Path:
    """Three frames of 64x48 in 10 bits, of BT.2020."""
    frames = [frame // 3 + 60 for frame in smooth_frames(3)]
    light = f"log-level=none:lossless=1:master-display={DISPLAY}:max-cll=1000,400"
    tags = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc", "-color_range", "tv")
    return encode_frames(path, frames, "scale=out_color_matrix=bt2020,format=yuv420p10le", "-c:v", "libx265", "-x265-params", light, *tags)


def rewritten(source: VideoReader, path: Path, **options: object) -> tuple[list[np.ndarray], VideoReader]:
    """Three frames of a video, of which the second gets other pixels in a box, as they went through a writer."""
    frames = list(source.ping_pong(3, 3))
    frames[1] = frames[1].copy()
    frames[1][BOX] = 235 - np.asarray(frames[1][BOX]) // 2
    with VideoWriter(path, source.width, source.height, source.fps, like=source.info, deep=source.deep, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return frames, VideoReader(path)


@pytest.mark.parametrize("colour", [HLG, PQ], ids=["HLG", "PQ"])
def test_the_tone_curve_has_an_inverse(colour):
    grey = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    signal = signal_of(grey, colour)
    assert (np.diff(signal, axis=0) > 0).all() and signal.max() < 1.001
    assert np.abs(seen_of(signal.astype(np.float64), colour) * 255 - grey).max() < 0.1
    white = seen_of(np.full(3, {"smpte2084": 0.5807, "arib-std-b67": 0.75}[colour.transfer]), colour)  # 203 cd/m2
    assert np.ptp(white) < 0.01 and 0.85 < white.mean() < 0.92
    dim = seen_of(signal_of(np.array([180, 120, 90], np.uint8), colour).astype(np.float64), colour)
    assert np.abs(dim * 255 - [180, 120, 90]).max() < 0.5


@pytest.mark.parametrize("size", [(48, 64), (37, 51)])
@pytest.mark.parametrize(
    "layout", [DeepFormat("420", 10, False, HLG), DeepFormat("422", 10, False, PQ), DeepFormat(None, 8, True, Colour())]
)
def test_only_what_changed_changes_in_the_planes(layout, size):
    height, width = size
    stored = layout.new(width, height)
    stored[:] = np.random.default_rng(0).integers(100, 200, stored.shape)
    frame = deep_frame(smooth_frames(1, height, width)[0], stored, layout)
    assert changed_planes(frame) is changed_planes(frame.copy()) is stored
    changed = frame.copy()
    changed[-5:, -7:] += 9
    before, after = (layout.planes(planes, width, height) for planes in (stored, changed_planes(changed)))
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        assert (old != new).any() == (place < 3) or layout.chroma is not None  # where all colours grow alike, chroma need not
        rows, columns = np.nonzero(old != new)
        shrunk = -(-height // old.shape[0]), -(-width // old.shape[1])
        assert not len(rows) or (rows.min() * shrunk[0] >= height - 6 and columns.min() * shrunk[1] >= width - 8)


@pytest.mark.parametrize(("transfer", "ending", "codec"), [(PQ.transfer, ".mp4", "hevc"), (HLG.transfer, ".mkv", "h264")])
def test_hdr_stays_as_it_is_stored(tmp_path, transfer, ending, codec):
    source = VideoReader(hdr_clip(tmp_path / "in.mp4", transfer))
    assert source.losses == () and source.deep.pixel_format == "yuv420p10le"
    frames, result = rewritten(source, tmp_path / f"out{ending}", lossless=True, codec=codec if codec == "h264" else None)
    assert (result.video.codec, result.video.bits, result.video.colour) == (codec, 10, Colour("tv", "bt2020nc", "bt2020", transfer))
    if (codec, transfer) == ("hevc", PQ.transfer):
        assert (result.video.mastering_display, result.video.content_light) == (DISPLAY, "1000,400")
    back = list(result.ping_pong(3, 3))
    for k in (0, 2):
        assert np.array_equal(back[k].picture.stored, frames[k].picture.stored)
    difference = np.asarray(back[1]).astype(float) - np.asarray(frames[1])
    assert np.abs(difference[20:28, 24:40]).mean() < 1.5  # inside the box: at its edge chroma, of half the size, spreads
    assert np.abs(difference[:14]).max() == 0
    plain = VideoWriter(tmp_path / "plain.mp4", 64, 48, 25, like=source.info)  # of what is seen alone
    with plain:
        plain.write(np.asarray(frames[0]))
    assert VideoReader(tmp_path / "plain.mp4").video.colour == Colour("tv", "bt709", "bt709", "bt709")
    with pytest.raises(ValueError, match="stored picture"), VideoWriter(tmp_path / "a.mp4", 64, 48, 25, deep=source.deep) as writer:
        writer.write(smooth_frames(1)[0])


ALPHA = ("-vf", "format=yuva444p,geq=lum='lum(X,Y)':cb='cb(X,Y)':cr='cr(X,Y)':a='4*X'")
ALPHA_CLIPS = {
    "a.mov": (*ALPHA, "-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"),
    "a.webm": (*ALPHA, "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "0"),
    "%04d.png": (*ALPHA, "-c:v", "png", "-pix_fmt", "rgba"),
}


@pytest.mark.parametrize(("name", "ending"), [("a.mov", ".mov"), ("a.webm", ".webm"), ("a.webm", ".mov"), ("%04d.png", ".mov")])
def test_alpha_is_kept(tmp_path, name, ending):
    (tmp_path / "in").mkdir()
    clip = make_clip(tmp_path / "in" / name, *ALPHA_CLIPS[name], picture="testsrc2=size=64x48:rate=25:duration=0.12")
    source = VideoReader(clip.parent if "%" in name else clip)
    frames, result = rewritten(source, tmp_path / f"out{ending}")
    assert result.video.has_alpha and result.losses == ()
    back = list(result.ping_pong(3, 3))
    for old, new in zip(frames, back, strict=True):
        was, now = (
            frame.picture.format.planes(frame.picture.stored, 64, 48)[3] / (255 if frame.picture.format.bits == 8 else 1023)
            for frame in (old, new)
        )
        assert np.ptp(was) > 0.9 and np.abs(was - now).max() < 0.03
        assert np.abs(np.asarray(old).astype(int) - np.asarray(new)).mean() < 8


def test_what_cannot_be_kept_is_refused():
    clear, deep = DeepFormat("420", 8, True, Colour()), DeepFormat("420", 10, False, PQ)
    for options, layout, words in (
        (("a.mp4",), clear, "name a .mov (prores) or a .webm (vp9) file"),
        (("a.mov", "hevc"), clear, "hevc in a .mov file does not keep"),
        (("a.mov", "prores", 10), deep, "prores has no crf"),
    ):
        refused(InputError, re.escape(words), choose_encoding, *options, deep=layout)
    refused(InputError, "vp9 does not keep yuv420p10le without any loss: use hevc", choose_encoding, "a.webm", lossless=True, deep=deep)
    refused(InputError, "leave lossless out", choose_encoding, "a.webm", lossless=True, deep=RGBA)
    assert choose_encoding("a.webm", lossless=True, deep=clear).pixel_format == "yuva420p"
    names = {
        (".mp4", None): "yuv420p10le",
        (".webm", None): "yuv420p10le",
        (".mov", "prores"): "yuv422p10le",
        (".mkv", "av1"): "yuv420p10le",
    }
    assert {key: choose_encoding(f"a{key[0]}", key[1], deep=deep).pixel_format for key in names} == names


def write_pictures(folder: Path, *names: str, size: tuple[int, int] = (24, 32)) -> Path:
    """Pictures whose grey level is 10 times their place."""
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((*size, 3), 10 * place + 10, np.uint8))
    return folder


@pytest.mark.parametrize("names", [[f"{k}.png" for k in range(7, 14)], [f"a%2 {k:03d}.JPG" for k in range(99, 106)]])
def test_a_folder_of_numbered_frames_is_a_video(tmp_path, names):
    folder = write_pictures(tmp_path / "fol%x der", *names)
    (folder / "notes.txt").write_text("no picture")
    source = VideoReader(folder)
    assert (source.expected_frames, source.width, source.height, source.video.native_fps, source.deep) == (7, 32, 24, 25, None)
    assert [round(frame.mean() / 10) for frame in source.frames()] == [1, 2, 3, 4, 5, 6, 7]
    assert [round(frame.mean() / 10) for frame in source.ping_pong(16, 7)] == [1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4, 3, 2, 1, 1, 2]
    assert source.problem is None and source.damaged_runs(7) == []


def test_a_folder_that_is_no_video_is_refused(tmp_path):
    for number, (names, words) in enumerate(
        (
            ((), "is a folder: give a file"),
            (("1.png", "2.png", "4.png"), "lacks 3.png, 4.png is there"),
            (("a1.png", "b2.png"), "lacks a2.png, b2.png is there"),
            (("1.png", "02.png"), "lacks 2.png, 02.png is there"),
            (("1.png", "2.jpg"), "lacks 2.png, 2.jpg is there"),
            (("1.png", "cover.png"), "cover.png has no number"),
        )
    ):
        refused(InputError, re.escape(words), probe, write_pictures(tmp_path / str(number), *names))
    folder = write_pictures(tmp_path / "sizes", "1.png", "2.png")
    write_pictures(folder, "3.png", size=(32, 24))
    refused(InputError, "3.png is 24x32, but 1.png 32x24", probe, folder)
    (folder / "3.png").write_text("no picture")
    refused(InputError, "3.png is not a picture", probe, folder)


def test_a_photo_that_hides_nothing_has_no_alpha(tmp_path):
    for name, least in (("opaque.png", 255), ("clear.png", 200)):
        cv2.imwrite(str(tmp_path / name), np.dstack([smooth_frames(1)[0], np.full((48, 64), least, np.uint8)]))
    videos = [probe(tmp_path / name).video for name in ("opaque.png", "clear.png")]
    assert [(video.has_alpha, video.colour.space) for video in videos] == [(False, "gbr"), (True, "gbr")]

"""Frames, sound and mouths of a clip: exactly those that were asked for."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_fixtures import FRAMES, make_training_clip, write_truth
from golden_recipe import GOLDEN, load_case
from media_fixtures import encode_frames, make_clip, smooth_frames
from refusals import refused

from latentsync.data.cache import open_video, read_frames, read_pieces
from latentsync.data.clip_index import read_mouth
from latentsync.data.features import Features, Mels
from latentsync.errors import InputError, WeightsError
from latentsync.faces.alignment import resize_faces
from latentsync.faces.mask import to_pixels
from latentsync.media.audio import read_audio
from latentsync.media.video_reader import VideoReader
from latentsync.mel import audio_frames, log_mel
from latentsync.whisper.audio2feature import Audio2Feature, load_whisper_encoder

WHISPER = GOLDEN / "whisper_reduced.pt"
B_FRAMES = ("-c:v", "libx264", "-bf", "3", "-g", "12", "-pix_fmt", "yuv420p", "-crf", "8")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_training_clip(tmp_path_factory.mktemp("clip") / "a.mp4")


def test_frames_are_those_of_the_video_with_b_frames(tmp_path):
    path = encode_frames(tmp_path / "b.mp4", smooth_frames(60, 64, 64), "format=yuv420p", *B_FRAMES)
    real = torch.from_numpy(np.stack(list(VideoReader(path).frames()))).int()
    indices = [59, 58, 0, 1, 23, 24, 25, 11, 12, 13, 40, 40]
    for wanted in (range(60), range(17, 33), indices):
        frames = read_frames(path, wanted)
        assert frames.dtype == torch.uint8
        assert (frames.int() - real[list(wanted)]).abs().float().mean() < 3  # decord rounds down: up to two grey levels
        nearest = [int((real - frame.int()).abs().flatten(1).sum(1).argmin()) for frame in frames]
        assert nearest == list(wanted)
    pieces = list(read_pieces(path, 50))
    assert max(len(piece) for piece in pieces) < 50
    assert torch.equal(torch.cat(pieces), read_frames(path, range(50)))


def test_what_cannot_be_decoded_is_told(clip, tmp_path):
    refused(InputError, r"gone\.mp4 cannot be decoded", read_frames, tmp_path / "gone.mp4", [0])
    refused(InputError, "cannot be decoded", read_frames, clip, [FRAMES])
    content = bytearray(clip.read_bytes())
    begin, size = content.index(b"mdat") + 4, content.index(b"moov") - content.index(b"mdat") - 8
    content[begin + size // 2 : begin + size // 2 + size // 4] = bytes(size // 4)
    (tmp_path / "broken.mp4").write_bytes(content)
    with open_video(tmp_path / "broken.mp4") as reader:
        assert len(reader) == FRAMES  # its index is whole
    with pytest.raises(InputError, match=r"broken\.mp4 cannot be decoded \([\w :]*Error sending packet\): make this clip again"):
        read_frames(tmp_path / "broken.mp4", range(30, 55))


def test_faces_are_resized_as_published():
    case, numbers = load_case("image_preproc")
    resolution = case["config"]["resolution"]
    faces = resize_faces(numbers["input_u8_hwc"], resolution)
    assert faces.dtype == torch.uint8 and faces.shape[1:] == (resolution, resolution, 3)
    torch.testing.assert_close(to_pixels(faces), numbers["pixel_values_v16_bicubic"], rtol=0, atol=case["tolerance"]["atol"])
    assert resize_faces(faces, resolution) is faces


def test_mels(clip, tmp_path):
    mels = Mels(tmp_path)
    expected = log_mel(read_audio(clip)).float()
    for _ in range(2):
        assert torch.equal(mels(clip), expected)
    assert audio_frames(expected) in range(FRAMES, FRAMES + 3)
    assert audio_frames(torch.zeros(80, 16)) == 5
    assert audio_frames(torch.zeros(80, 15)) == 4


@pytest.mark.parametrize(("feat_length", "limit"), [((2, 2), 0.0), ((0, 1), 0.5)])
def test_features_are_those_of_inference(clip, tmp_path, feat_length, limit):
    features = Features(tmp_path, WHISPER, feat_length, limit)
    encoder = Audio2Feature(load_whisper_encoder(WHISPER), feat_length, limit)
    windows = encoder.windows(read_audio(clip))
    assert features.width == encoder.width
    for start, stop in ((0, 16), (FRAMES - 16, FRAMES), (30, 31), (70, 90)):
        expected = windows.frames(start, stop)
        found = features.window(clip, start, stop)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected.half().float())
        assert (float(found.abs().max()) == limit) == bool(limit)


def test_features_travel_without_their_encoder(clip, tmp_path):
    features = Features(tmp_path, WHISPER)
    expected = features.window(clip, 3, 7)
    sent = pickle.dumps(features)
    assert len(sent) < 2000
    there = pickle.loads(sent)
    assert torch.equal(there.window(clip, 3, 7), expected)
    assert there._extractor is None  # everything was kept: no encoder was needed
    refused(WeightsError, r"weights\.whisper", Features, tmp_path, tmp_path / "missing.pt")


def test_other_encoders_have_other_features(clip, tmp_path):
    other = tmp_path / "other.pt"
    checkpoint = torch.load(WHISPER, weights_only=True)
    checkpoint["model_state_dict"]["encoder.conv1.bias"] += 1
    torch.save(checkpoint, other)
    first, second = (Features(tmp_path, path).window(clip, 0, 4) for path in (WHISPER, other))
    assert not torch.equal(first, second)


def test_sound_that_is_missing_is_told(tmp_path):
    mute = make_clip(tmp_path / "mute.mp4")
    refused(InputError, "no audio track", lambda: Mels(tmp_path)(mute))
    refused(InputError, "no audio track", lambda: Features(tmp_path, WHISPER).window(mute, 0, 4))


def test_mouths(tmp_path):
    clip = tmp_path / "a.mp4"
    values = write_truth(clip)
    assert np.array_equal(read_mouth(clip), values)
    for content in ("{", "[]", json.dumps({"mouth": {}}), json.dumps({"mouth": {"values": [1, 2]}}), '{"mouth": {"values": [[NaN]]}}'):
        clip.with_suffix(".json").write_text(content)
        refused(InputError, r"a\.json holds", read_mouth, clip)


def test_png_can_be_read_after_this_reader_was_imported(tmp_path):
    """The library that decodes videos brings an old zlib, to which OpenCV's PNG code must not be bound."""
    program = (
        "import sys, latentsync.data.cache, cv2, numpy as np\n"
        "picture = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)\n"
        "assert cv2.imwrite(sys.argv[1], picture) and (cv2.imread(sys.argv[1]) == picture).all()\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.png")], check=True, cwd=Path(__file__).parents[1])

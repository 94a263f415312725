"""Sound as samples: exact, on disk, from any file with sound."""

import wave

import numpy as np
import pytest
from media_fixtures import TEST_SOUND, make_clip, make_sound

from latentsync.errors import InputError
from latentsync.media.audio import AudioSamples, read_audio


def test_16_bit_samples_come_through_exactly(tmp_path):
    path = make_sound(tmp_path / "a.wav", "-ar", "16000", "-ac", "1", "-c:a", "pcm_s16le")
    stored = np.frombuffer(path.read_bytes()[-3 * 32000 :], "<i2")
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert np.array_equal(samples, stored.astype(np.float32) / 32768)


def test_parts_length_and_rate(tmp_path):
    path = make_sound(tmp_path / "a.flac", "-ac", "2")
    whole = read_audio(path)
    with AudioSamples(path) as samples:
        assert isinstance(samples._samples, np.memmap)
        assert (len(samples), samples.duration) == (len(whole), len(whole) / 16000)
        assert samples.duration == pytest.approx(3, abs=1e-3)
        assert np.array_equal(samples[100:-7], whole[100:-7])
        assert not samples.is_silent
    assert len(read_audio(path, sample_rate=8000)) == pytest.approx(24000, abs=8)


def test_silence(tmp_path):
    for sound, silent in (("anullsrc=sample_rate=16000:duration=0.5", True), ("sine=duration=0.5", False)):
        with AudioSamples(make_sound(tmp_path / "a.wav", "-t", "0.5", sound=sound)) as samples:
            assert samples.is_silent is silent
            assert samples.duration == pytest.approx(0.5, abs=1e-3)


def test_the_sound_of_a_video(tmp_path):
    path = make_clip(tmp_path / "a.mkv", "-c:a", "flac", picture="testsrc2=size=32x32:rate=25:duration=1", sound=TEST_SOUND)
    assert len(read_audio(path)) == pytest.approx(48000, abs=2)


def test_a_track_without_sound_is_refused(tmp_path):
    path = make_sound(tmp_path / "a.wav")
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    with pytest.raises(InputError, match="it has 0 samples"):
        AudioSamples(tmp_path / "empty.wav")
    path.write_bytes(path.read_bytes()[:78])  # the header alone
    with pytest.raises(InputError, match=r"no sound that can be decoded|not a media file|neither"):
        AudioSamples(path)

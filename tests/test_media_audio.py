"""Sound as samples: exact, on disk, from any file with sound."""

import wave

import numpy as np
import pytest
from media_fixtures import BURSTS, HOLE, TEST_SOUND, make_sound, onsets, run_ffmpeg

from latentsync.errors import InputError
from latentsync.media.audio import AudioSamples, read_audio
from latentsync.media.probe import _ask_ffprobe


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


def test_no_more_is_decoded_than_is_needed(tmp_path):
    path = make_sound(tmp_path / "a.flac", "-ac", "2")
    whole = read_audio(path)
    for longest, seconds in ((1.0, 1.0), (9.0, 3.0)):
        with AudioSamples(path, longest=longest) as samples:
            assert samples.duration == pytest.approx(seconds, abs=1e-3)
            assert samples.is_cut == (longest < 3)
            assert np.array_equal(samples[:15000], whole[:15000])
            assert not samples.notes  # the rest is not missed


def test_looking_into_a_file_decodes_no_frames(tmp_path):
    assert set(_ask_ffprobe(make_sound(tmp_path / "a.flac"))) == {"format", "streams", "pixel_formats", "estimated"}


def test_silence(tmp_path):
    for sound, silent in (("anullsrc=sample_rate=16000:duration=0.5", True), ("sine=duration=0.5", False)):
        with AudioSamples(make_sound(tmp_path / "a.wav", "-t", "0.5", sound=sound)) as samples:
            assert samples.is_silent is silent
            assert samples.duration == pytest.approx(0.5, abs=1e-3)


def test_a_track_without_sound_is_refused(tmp_path):
    path = make_sound(tmp_path / "a.wav")
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    with pytest.raises(InputError, match="it has 0 samples"):
        AudioSamples(tmp_path / "empty.wav")
    path.write_bytes(path.read_bytes()[:78])  # the header alone
    with pytest.raises(InputError, match=r"no sound that can be decoded|not a media file|neither"):
        AudioSamples(path)


PLAIN = [0.15, 0.65, 1.15, 1.65, 2.15, 2.65]


def decoded(path):
    """All that the file is found to be, with its samples."""
    with AudioSamples(path) as samples:
        return samples, samples[:]


@pytest.mark.parametrize("name", ["a.mka", "a.mp4", "a.ts", "opus.mka", "opus.ogg", "flac.mka"])
def test_a_hole_in_the_time_stamps_is_silence(tmp_path, name):
    codec = {"a": "aac", "opus": "libopus", "flac": "flac"}[name.partition(".")[0]]
    file, samples = decoded(make_sound(tmp_path / name, *HOLE, "-c:a", codec, sound=BURSTS))
    lead = 1024 / 48000 if name in ("a.mka", "a.ts") else 0  # what the encoder puts before the sound; these files do not tell
    assert onsets(samples) == pytest.approx([place + lead + (place > 1) for place in PLAIN], abs=0.003)
    assert not file.can_be_copied
    ((start, duration),) = file.holes
    assert duration == pytest.approx(1, abs=0.002) and start == pytest.approx(1, abs=0.06)
    assert len(file.notes) == 1 and "a hole in its sound, 1.00 s in all" in file.notes[0]


def test_damage_inside_is_a_hole(tmp_path):
    whole = make_sound(tmp_path / "a.m4a", sound=BURSTS)
    run_ffmpeg("-i", whole, "-c", "copy", "-bsf:a", "noise=amount=0:drop=between(n\\,40\\,59)", tmp_path / "lost.mka")
    file, samples = decoded(tmp_path / "lost.mka")
    assert sum(duration for _, duration in file.holes) == pytest.approx(20 * 1024 / 48000, abs=0.003)
    assert onsets(samples)[-2:] == pytest.approx(PLAIN[-2:], abs=0.03)


@pytest.mark.parametrize("name", ["a.m4a", "a.mka", "a.mp3", "a.opus", "a.ogg", "a.webm", "a.ts", "a.aac", "a.mpg", "a.flv", "a.wav"])
def test_a_lead_in_and_a_coarse_clock_are_no_holes(tmp_path, name):
    path = make_sound(tmp_path / name, sound=BURSTS)
    file, samples = decoded(path)
    assert (file.holes, file.can_be_copied, file.notes, file.mix) == ((), True, (), "")
    assert onsets(samples) == pytest.approx(PLAIN, abs=0.03)
    run_ffmpeg("-i", path, "-ac", "1", "-ar", "16000", tmp_path / "plain.raw.wav")
    assert np.array_equal(samples, read_audio(tmp_path / "plain.raw.wav"))  # sample for sample what ffmpeg makes of it


def test_a_clock_that_goes_back_or_starts_anew_loses_no_sound(tmp_path):
    back = ("-af", "asetpts=PTS-if(gte(T\\,1)\\,0.3/TB\\,0)", "-c:a", "pcm_s16le", "-f", "nut")
    make_sound(tmp_path / "link.opus", sound=BURSTS)
    (tmp_path / "chained.ogg").write_bytes((tmp_path / "link.opus").read_bytes() * 2)
    ahead = ("-af", "asetpts=PTS+if(gte(T\\,1)\\,5000/TB\\,0)", "-c:a", "pcm_s16le")
    sounds = {
        make_sound(tmp_path / "back.nut", *back, sound=BURSTS): PLAIN,
        make_sound(tmp_path / "ahead.mka", *ahead, sound=BURSTS): PLAIN,
        tmp_path / "chained.ogg": PLAIN + [place + 3 for place in PLAIN],
    }
    for path, expected in sounds.items():
        file, samples = decoded(path)
        assert (file.holes, file.can_be_copied) == ((), False)
        assert onsets(samples) == pytest.approx(expected, abs=0.01)
        assert len(file.notes) == 1 and "time stamps that do not fit" in file.notes[0]


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a", "a.flac", "a.mka", "a.aiff"])
def test_a_sound_that_was_cut_short_is_told(tmp_path, caplog, name):
    path = make_sound(tmp_path / name, *(("-movflags", "+faststart") if name == "a.m4a" else ()), sound=BURSTS.replace("=3", "=4"))
    assert decoded(path)[0].notes == ()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    file, samples = decoded(path)
    assert 0.1 < len(samples) / 16000 < 3
    (note,) = file.notes
    assert f"only {len(samples) / 16000:.1f} s of about 4.0 s of sound could be decoded" in note
    assert note in caplog.text


def test_a_length_that_nobody_wrote_down_is_no_promise(tmp_path):
    streamed = bytearray(make_sound(tmp_path / "a.wav", "-bitexact", sound=BURSTS).read_bytes())
    for place in (4, 40):  # a program that writes into a pipe knows no size
        streamed[place : place + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(streamed)
    make_sound(tmp_path / "a.mp3", "-write_xing", "0", sound=BURSTS)
    make_sound(tmp_path / "a.aac", sound=BURSTS)
    assert [decoded(tmp_path / name)[0].notes for name in ("a.wav", "a.mp3", "a.aac")] == [(), (), ()]


MONO = "aevalsrc=0.5*sin(2*PI*t*(300+500*t)):sample_rate=16000:duration=1"


@pytest.mark.parametrize(
    ("right", "taken"),
    [
        ("-1*c0", 0),
        ("-0.8*c0", 0),
        ("-1.2*c0", 1),
        ("-0.9*c0+0.3*c1", 0),  # strongly, not wholly, out of phase
        ("0.7*c1", None),
        ("c0", None),
        ("0.5*c0-0.4*c1", None),
        ("0*c0", None),
    ],
)
def test_of_channels_out_of_phase_one_is_taken(tmp_path, right, taken):
    other = MONO.replace("300+500", "2900-400")
    sources = ["-f", "lavfi", "-i", MONO, "-f", "lavfi", "-i", other, "-filter_complex", f"amerge,pan=stereo|c0=c0|c1={right}"]
    run_ffmpeg(*sources, tmp_path / "a.wav")
    run_ffmpeg("-i", tmp_path / "a.wav", "-af", f"pan=mono|c0={'0.5*c0+0.5*c1' if taken is None else f'c{taken}'}", tmp_path / "b.wav")
    file, samples = decoded(tmp_path / "a.wav")
    assert samples == pytest.approx(read_audio(tmp_path / "b.wav"), abs=2e-4)
    assert [("left", "right")[taken] in note and "out of phase" in note for note in file.notes] == ([] if taken is None else [True])


@pytest.mark.parametrize("name", ["a.ac3", "a.wav", "a.m4a"])
def test_the_centre_channel_is_taken_unless_it_is_silent(tmp_path, name):
    channels = "c0=0.6*c1|c1=0.6*c1|c2=c0|c3=0*c0|c4=0.5*c1|c5=0.5*c1"
    noise = "anoisesrc=color=white:sample_rate=48000:duration=1:amplitude=0.5:seed=1"
    words = TEST_SOUND.replace("44100", "48000").replace("=3", "=1")
    sources = ["-f", "lavfi", "-i", words, "-f", "lavfi", "-i", noise, "-filter_complex"]
    run_ffmpeg(*sources, f"amerge,pan=5.1|{channels}", "-b:a", "600k", tmp_path / name)
    run_ffmpeg(*sources, f"amerge,pan=5.1|{channels.replace('c2=c0', 'c2=0*c0')}", "-b:a", "600k", tmp_path / f"empty.{name}")
    make_sound(tmp_path / "words.wav", sound=words)
    file, samples = decoded(tmp_path / name)
    clean = read_audio(tmp_path / "words.wav")
    assert max(np.corrcoef(samples[lag : lag + 8000], clean[:8000])[0, 1] for lag in range(1200)) > 0.99
    assert len(file.notes) == 1 and "centre channel" in file.notes[0]
    empty, rest = decoded(tmp_path / f"empty.{name}")
    assert (empty.mix, empty.notes) == ("", ()) and np.abs(rest).max() > 0.05

"""Where somebody speaks: by loudness, and by Silero VAD where it is installed."""

import sys
import wave
from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest
import torch
from golden_recipe import GOLDEN

from latentsync import voice_activity
from latentsync.voice_activity import SpeechOnly, block_levels, loud_runs, silero_runs, speech_shares

FPS = Fraction(25)


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    """White noise of a level in dB of full scale."""
    return (np.random.default_rng(seed).standard_normal(int(16000 * seconds)) * 10 ** (level / 20)).astype(np.float32)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with wave.open(str(GOLDEN / "speech_3p2s_16k.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32768


@pytest.fixture
def by_loudness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)


@pytest.mark.usefixtures("by_loudness")
def test_a_voice_in_a_room_is_told_from_the_room() -> None:
    sound = noise(4, -55)
    sound[16000:32000] += noise(1, -20, seed=1)
    sound[40000:40160] += 0.3  # a click
    shares = speech_shares(sound, FPS, 100)
    assert shares.dtype == np.float32 and len(shares) == 100
    assert shares[23:52].tolist() == [1] * 29 and not shares[:18].any() and not shares[58:].any()
    rising, falling = shares[np.flatnonzero(shares)[0] :], shares[: np.flatnonzero(shares)[-1] + 1][::-1]
    for edge in (rising, falling):
        assert edge[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert np.array_equal(speech_shares(sound * 0.1 + 0.2, FPS, 100), shares)  # neither volume nor an offset matters
    assert len(list(loud_runs(sound))) == 1


@pytest.mark.usefixtures("by_loudness")
@pytest.mark.parametrize(("sound", "share"), [(np.zeros(16000, np.float32), 0), (noise(1, -20), 1), (noise(0.01, -20), 1)])
def test_where_nothing_can_be_told_there_is_silence_or_speech_throughout(sound: np.ndarray, share: int) -> None:
    assert (speech_shares(sound, FPS, max(1, len(sound) // 640)) == share).all()


@pytest.mark.usefixtures("by_loudness")
def test_a_recorded_voice_and_the_room_after_it(speech: np.ndarray) -> None:
    sound = np.concatenate([speech, noise(1.5, -55)])
    shares = speech_shares(sound, FPS, 118)
    assert shares[:75].mean() > 0.7 and not shares[90:].any()


@pytest.mark.usefixtures("by_loudness")
def test_pauses_are_silent_and_speech_stays(speech: np.ndarray) -> None:
    sound = np.concatenate([speech, noise(1.5, -55)])
    shares, only = speech_shares(sound, FPS, 118), SpeechOnly(sound, FPS, 118)
    heard = only[:]
    assert len(only) == len(sound) and heard.dtype == np.float32 and not heard[90 * 640 :].any()
    inside = np.convolve(shares, np.ones(3), "same") == 3  # frames between frames with speech
    first = int(np.flatnonzero(inside)[0]) * 640
    assert np.array_equal(heard[first : first + 640], sound[first : first + 640])
    assert np.array_equal(only[1000:3000], heard[1000:3000]) and len(only[5:2]) == 0


def test_levels_of_long_sound_come_in_pieces(monkeypatch: pytest.MonkeyPatch, speech: np.ndarray) -> None:
    whole = block_levels(speech)
    monkeypatch.setattr(voice_activity, "BLOCKS_AT_ONCE", 7)
    assert np.array_equal(block_levels(speech), whole) and len(whole) == -(-len(speech) // 320)


def test_silero_is_asked_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Iterator:
        """Speech from chunk 2 to chunk 3, and from 6 on."""

        def __init__(self, model: str, **settings: int) -> None:
            assert (model, settings["sampling_rate"]) == ("model", 16000)
            self.chunks = -1

        def __call__(self, chunk: torch.Tensor) -> dict[str, int] | None:
            assert chunk.shape == (512,) and chunk.dtype == torch.float32
            self.chunks += 1
            return {2: {"start": 1024}, 4: {"end": 2048}, 6: {"start": 3072}}.get(self.chunks)

    module = ModuleType("silero_vad")
    module.VADIterator, module.load_silero_vad = Iterator, lambda: "model"
    monkeypatch.setitem(sys.modules, "silero_vad", module)
    assert list(silero_runs(np.zeros(4000, np.float32))) == [(1024, 2048), (3072, 4000)]


def test_silero_hears_a_recorded_voice_and_not_noise(speech: np.ndarray) -> None:
    pytest.importorskip("silero_vad")
    threads = torch.get_num_threads()
    shares = speech_shares(np.concatenate([speech, noise(1.5, -35)]), FPS, 118)
    assert shares[:75].mean() > 0.7 and not shares[90:].any() and torch.get_num_threads() == threads

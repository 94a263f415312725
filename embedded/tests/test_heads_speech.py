"""Speech of rendered people: phone times, mouth movement, acoustics that keep times, and splits that share nothing."""

import ctypes
import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedded.talking_heads.speech import synthesis
from embedded.talking_heads.speech.phones import SILENCE, SYMBOLS, Phone, from_arpabet, from_ipa, tile
from embedded.talking_heads.speech.sentences import draw_text
from embedded.talking_heads.speech.synthesis import Speech, augment, excerpt, loudness, speak
from embedded.talking_heads.speech.visemes import CHANNELS, MouthStyle, draw_style, mouth_channels
from embedded.talking_heads.speech.voices import (
    SPEAKERS,
    SPLITS,
    Split,
    Voice,
    other_text,
    plan_clip,
    split_of_identity,
    split_of_speaker,
)
from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import InputError


def has_espeak() -> bool:
    try:
        return bool(ctypes.CDLL(synthesis.ESPEAK_LIBRARIES[0]))
    except OSError:
        return False


FLITE = pytest.param(Voice("flite", "slt"), marks=pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed"))
ESPEAK = pytest.param(Voice("espeak", "m3"), marks=pytest.mark.skipif(not has_espeak(), reason="the library of espeak-ng is not installed"))


def random_phones(seed: int, count: int = 40) -> tuple[Phone, ...]:
    """Any phones in any order, 45 to 160 ms each, with silences of 0.2 to 0.6 s at both ends and now and then between."""
    rng = np.random.default_rng(seed)
    found, clock = [Phone(SILENCE, 0.0, 0.3)], 0.3
    for _ in range(count):
        symbol = SYMBOLS[rng.integers(len(SYMBOLS))]
        length = rng.uniform(0.2, 0.6) if symbol == SILENCE else rng.uniform(0.045, 0.16)
        found.append(Phone(symbol, clock, clock + length))
        clock += length
    return tile(found, clock + 0.5)


def movement(spoken: tuple[Phone, ...], style: MouthStyle | None = None) -> dict[str, np.ndarray]:
    channels = mouth_channels(spoken, int(spoken[-1].end * VIDEO_FPS), style)
    return dict(zip(CHANNELS, channels.T, strict=True))


def test_phone_sets_meet() -> None:
    assert from_arpabet("AH0") == ("ah",) and from_arpabet("pau") == (SILENCE,) and from_arpabet("en") == ("ax", "n")
    assert from_ipa("aɪɚ") == ("ay", "er") and from_ipa("ɑːɹ") == ("aa", "r") and from_ipa("ɔ̃") == ("ao",)
    assert from_ipa("ç") == ("hy",) and from_ipa("") == (SILENCE,)
    with pytest.raises(InputError, match="no counterpart"):
        from_ipa("ǂ")


def test_tiles_fill_gaps_and_join_silences() -> None:
    spoken = tile([Phone("a", 0.1, 0.2), Phone(SILENCE, 0.2, 0.3), Phone("b", 0.4, 0.5)], 1.0)
    expected = [(SILENCE, 0.0, 0.1), ("a", 0.1, 0.2), (SILENCE, 0.2, 0.4), ("b", 0.4, 0.5), (SILENCE, 0.5, 1.0)]
    assert [(phone.symbol, phone.start, phone.end) for phone in spoken] == expected


@pytest.mark.parametrize("seed", range(6))
def test_contacts_hold_in_the_frame_of_the_middle_and_channels_never_jump(seed: int) -> None:
    spoken = random_phones(seed)
    mouth = movement(spoken, draw_style(seed))
    for phone in spoken:
        frame = int(0.5 * (phone.start + phone.end) * VIDEO_FPS)
        if phone.symbol in ("p", "b", "m"):
            assert mouth["closure"][frame] >= 0.95
        if phone.symbol in ("f", "v"):
            assert mouth["tuck"][frame] >= 0.8
    channels = np.stack(list(mouth.values()), 1)
    assert channels.dtype == np.float32 and channels.max() <= 1 and channels.min() >= -0.3
    assert np.delete(channels, CHANNELS.index("spread"), 1).min() >= 0
    steps = np.abs(np.diff(channels, axis=0)).max(0)
    assert steps.max() < 0.8 and steps[CHANNELS.index("jaw")] < 0.35


@pytest.mark.parametrize("length", [0.2, 0.3, 1.2])
@pytest.mark.parametrize("offset", [0.0, 0.029])
def test_silence_closes_the_mouth(length: float, offset: float) -> None:
    start = 0.5 + offset
    spoken = (Phone("aa", 0.0, start), Phone(SILENCE, start, start + length), Phone("aa", start + length, start + length + 0.5))
    mouth = movement(spoken)
    inside = np.flatnonzero((mouth["closure"] >= 0.95) & (mouth["jaw"] < 0.06)) / VIDEO_FPS
    assert len(inside) and start < inside.min() < start + 0.2
    assert mouth["jaw"][int((start - 0.1) * VIDEO_FPS)] > 0.4, "closed before the vowel ended"
    assert mouth["jaw"][int((start + length + 0.16) * VIDEO_FPS)] > 0.4, "still closed in the next vowel"


def test_vowels_have_their_shapes_and_rounding_is_anticipated() -> None:
    def middle(symbol: str) -> dict[str, float]:
        spoken = tile([Phone("hh", 0.3, 0.4), Phone(symbol, 0.4, 0.6), Phone("hh", 0.6, 0.7)], 1.0)
        return {name: float(channel[12]) for name, channel in movement(spoken).items()}

    open_vowel, smile, kiss, shout = middle("aa"), middle("iy"), middle("uw"), middle("sh")
    assert 0.5 < open_vowel["jaw"] < 0.75 and smile["spread"] > 0.5 > 0.1 > kiss["spread"]
    assert kiss["pucker"] > 0.7 and shout["funnel"] > 0.6 and max(vowel["closure"] for vowel in (open_vowel, smile, kiss)) < 0.1
    spoken = tile([Phone("s", 0.3, 0.4), Phone("t", 0.4, 0.48), Phone("uw", 0.48, 0.7), Phone("t", 0.7, 0.8), Phone("iy", 0.8, 1.0)], 1.4)
    pucker = movement(spoken)["pucker"]
    assert pucker[11] > 0.3 and pucker[11] > pucker[19]
    spread = movement(tile([Phone("ay", 0.3, 0.7)], 1.0))["spread"]
    assert spread[16] > spread[9] + 0.15


def test_style_and_loudness_matter_but_not_for_contact() -> None:
    spoken = tile([Phone("b", 0.3, 0.4), Phone("aa", 0.4, 0.6)], 1.0)
    weak, strong = (movement(spoken, MouthStyle(strength=strength)) for strength in (0.75, 1.15))
    assert strong["jaw"].max() > 1.3 * weak["jaw"].max() and weak["closure"][8] >= 0.95
    quiet, loud = (mouth_channels(spoken, 25, None, [0.0, factor, factor, 0.0])[:, 0].max() for factor in (0.4, 2.0))
    assert loud > 1.2 * quiet and draw_style(3) == draw_style(3) != draw_style(4)


@pytest.mark.parametrize("seed", range(16))
def test_acoustics_keep_times(seed: int) -> None:
    rng = np.random.default_rng(5)
    samples = np.zeros(AUDIO_SAMPLE_RATE, np.float32)
    for start in rng.integers(0, AUDIO_SAMPLE_RATE - 2000, 12):
        samples[start : start + 1500] += 0.1 * rng.normal(size=1500) * np.exp(-np.arange(1500) / 300)
    taken = augment(samples, np.random.default_rng(seed))
    assert taken.dtype == np.float32 and taken.shape == samples.shape and np.abs(taken).max() <= 1
    assert np.array_equal(taken, augment(samples, np.random.default_rng(seed)))
    match = np.fft.irfft(np.fft.rfft(taken, 2 * len(samples)) * np.conj(np.fft.rfft(samples, 2 * len(samples))))
    lag = int(np.argmax(match))
    assert min(lag, 2 * len(samples) - lag) <= 1
    for silence in (np.zeros(4000, np.float32), np.zeros(0, np.float32)):
        assert np.isfinite(augment(silence, np.random.default_rng(seed))).all()


def test_sentences_are_many_repeatable_and_keep_to_what_is_allowed() -> None:
    texts = [draw_text(np.random.default_rng(seed), 1) for seed in range(300)]
    assert texts[:9] == [draw_text(np.random.default_rng(seed), 1) for seed in range(9)] and len(set(texts)) > 260
    assert all(text[0].isupper() and text[-1] in ".!?" and "  " not in text and "{" not in text for text in texts)
    with pytest.raises(InputError, match="allowed"):
        draw_text(np.random.default_rng(0), 1, lambda topic: False)


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_say_other_sentences(split: Split) -> None:
    for index in range(20):
        plan = plan_clip(4, index, split, 20)
        other = other_text(plan, 20)
        assert len(other.split()) >= 20 and other == other_text(plan, 20)
        first, second = ({part.strip() for part in re.split(r"[.!?]", text)} - {""} for text in (plan.text, other))
        assert not first & second


def test_splits_share_nothing_and_plans_are_pure() -> None:
    plans = {split: [plan_clip(11, index, split) for index in range(40)] for split in SPLITS}
    assert plans["train"][5] == plan_clip(11, 5, "train") != plan_clip(12, 5, "train")
    for split, drawn in plans.items():
        assert {split_of_identity(plan.identity) for plan in drawn} == {split_of_speaker(plan.voice.key) for plan in drawn} == {split}
        assert {plan.voice.engine for plan in drawn} == {"flite", "espeak"}
        assert {SPEAKERS[plan.voice.key] for plan in drawn} == {True, False}
        assert len({plan.identity for plan in drawn}) == len({plan.text for plan in drawn}) == 40
    for one, other in itertools.combinations(SPLITS, 2):
        for name in ("identity", "text", "seed"):
            assert not {getattr(plan, name) for plan in plans[one]} & {getattr(plan, name) for plan in plans[other]}
    for names in ("max RicishayMax RicishayMax2", "Hugo Henrique michel", "f2 f5", "aunty belinda f4"):  # who sound alike stay together
        assert {split_of_speaker(f"espeak/{name}") for name in names.split()} == {"test"}


def test_speeches_are_cut_and_loudness_is_beside_the_vowels() -> None:
    samples = np.repeat(np.array([1.0, 0.5], np.float32), (1600, 800))
    both = Speech(samples, (Phone("aa", 0.0, 0.1), Phone("b", 0.1, 0.15)), "One.", Voice("flite", "slt"))
    part = excerpt(both, 0.05, 0.2)
    cut = [(phone.symbol, round(phone.start, 4), round(phone.end, 4)) for phone in part.phones]
    assert cut == [("aa", 0.0, 0.05), ("b", 0.05, 0.1), (SILENCE, 0.1, 0.2)]
    assert part.samples[[0, 799, 800, 1599, 1600]].tolist() == [1.0, 1.0, 0.5, 0.5, 0.0]
    assert loudness(both).tolist() == [1.0, 0.5]


@pytest.mark.parametrize("voice", [FLITE, ESPEAK])
def test_phones_span_the_speech_and_resampling_scales_times(voice: Voice) -> None:
    spoken, again = (speak("Maybe five people saw it. Why not?", voice, lead=0.25, tail=0.4) for _ in range(2))
    assert np.array_equal(spoken.samples, again.samples) and spoken.phones == again.phones
    assert spoken.phones[0] == Phone(SILENCE, 0.0, pytest.approx(0.25, abs=1e-4)) and spoken.phones[-1].symbol == SILENCE
    assert spoken.phones[-1].end == pytest.approx(spoken.duration)
    assert all(before.end == after.start for before, after in itertools.pairwise(spoken.phones))
    assert [phone.symbol for phone in spoken.phones if phone.symbol in "mbfvps"][:6] == ["m", "b", "f", "v", "p", "p"]
    plain = speak("A happy puppy.", voice, 0.0, 0.0)
    scaled = speak("A happy puppy.", replace(voice, resample=1.2), 0.0, 0.0)
    ratios = [phone.end / other.end for phone, other in zip(plain.phones, scaled.phones, strict=True)]
    assert ratios == pytest.approx([1.2] * len(ratios), rel=2e-3)
    for phone in plain.phones:
        if phone.symbol == "p" and voice.engine == "espeak":  # a stop begins with its closure
            first = int(phone.start * AUDIO_SAMPLE_RATE)
            assert np.abs(plain.samples[first + 16 : first + 240]).max() < 0.02


def test_missing_and_hanging_synthesisers_are_input_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(synthesis, "ESPEAK_LIBRARIES", ("libnosuchthing.so.7",))
    for voice in (Voice("flite", "slt"), Voice("espeak", "m3")):
        with pytest.raises(InputError, match=r"\./setup_env\.sh --with-speech"):
            speak("Hello.", voice)
    program = tmp_path / "flite"
    program.write_text("#!/bin/sh\nexec /bin/sleep 9\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(synthesis, "_TIMEOUT", 0.05)
    with pytest.raises(InputError, match=r"flite was still at work after 0\.05 s"):
        speak("Hello.", Voice("flite", "slt"))

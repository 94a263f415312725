"""The speech of the talking heads: phone times, mouth movement, sound in rooms, and splits that share nothing."""

import ctypes
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import InputError
from preprocess.talking_heads.speech import acoustics, phones, words
from preprocess.talking_heads.speech import synthesis as speech
from preprocess.talking_heads.speech.measure import accuracy
from preprocess.talking_heads.speech.phones import SILENCE, SYMBOLS, Phone, from_arpabet, from_ipa, tile
from preprocess.talking_heads.speech.sentences import LANGUAGES, draw_sentence, draw_text
from preprocess.talking_heads.speech.splits import (
    SPLITS,
    Split,
    other_text,
    plan_clip,
    speakers_of,
    split_of_identity,
    split_of_speaker,
    split_of_topic,
)
from preprocess.talking_heads.speech.splits import test_identities as identities_for_test
from preprocess.talking_heads.speech.synthesis import Speech, excerpt, loudness, speak
from preprocess.talking_heads.speech.visemes import CHANNELS, MouthStyle, draw_style, mouth_channels
from preprocess.talking_heads.speech.voices import SPEAKERS, Voice, draw_voice, family_of


def has_espeak() -> bool:
    try:
        return bool(ctypes.CDLL(speech.ESPEAK_LIBRARIES[0]))
    except OSError:
        return False


FLITE = pytest.param(Voice("flite", "slt"), marks=pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed"))
ESPEAK = pytest.param(Voice("espeak", "m3"), marks=pytest.mark.skipif(not has_espeak(), reason="the library of espeak-ng is not installed"))
needs_flite = FLITE.marks[0]
needs_espeak = ESPEAK.marks[0]


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


# Phones


def test_phone_sets_meet() -> None:
    assert from_arpabet("AH0") == ("ah",)
    assert from_arpabet("pau") == (SILENCE,)
    assert from_arpabet("en") == ("ax", "n")
    assert from_ipa("aɪɚ") == ("ay", "er")
    assert from_ipa("ɑːɹ") == ("aa", "r")
    assert from_ipa("ɔ̃") == ("ao",)
    assert from_ipa("ç") == ("hy",)
    assert from_ipa("") == (SILENCE,)
    with pytest.raises(InputError, match="no counterpart"):
        from_ipa("ǂ")


def test_tiles_fill_gaps_and_join_silences() -> None:
    spoken = tile([Phone("a", 0.1, 0.2), Phone(SILENCE, 0.2, 0.3), Phone("b", 0.4, 0.5)], 1.0)
    assert [(phone.symbol, phone.start, phone.end) for phone in spoken] == [
        (SILENCE, 0.0, 0.1),
        ("a", 0.1, 0.2),
        (SILENCE, 0.2, 0.4),
        ("b", 0.4, 0.5),
        (SILENCE, 0.5, 1.0),
    ]


def test_phones_survive_json() -> None:
    spoken = random_phones(0)
    again = phones.from_json(json.loads(json.dumps(phones.to_json(spoken))))
    assert [phone.symbol for phone in again] == [phone.symbol for phone in spoken]
    assert np.allclose([phone.end for phone in again], [phone.end for phone in spoken], atol=1e-6)


@pytest.mark.parametrize("entries", [{}, [["a", 0.0]], [["?", 0.0, 1.0]], [["a", 1.0, 0.0]], [["a", 0.0, 1.0], ["a", 0.5, 2.0]]])
def test_broken_phones_are_refused(entries: object) -> None:
    with pytest.raises(InputError):
        phones.from_json(entries)


# Mouth


@pytest.mark.parametrize("seed", range(12))
def test_lips_meet_and_tuck_in_the_frame_of_the_middle(seed: int) -> None:
    spoken = random_phones(seed)
    mouth = movement(spoken, draw_style(seed))
    for phone in spoken:
        frame = int(0.5 * (phone.start + phone.end) * VIDEO_FPS)
        if phone.symbol in ("p", "b", "m"):
            assert mouth["closure"][frame] >= 0.95
        if phone.symbol in ("f", "v"):
            assert mouth["tuck"][frame] >= 0.8


@pytest.mark.parametrize("length", [0.2, 0.23, 0.3, 0.5, 1.2])
@pytest.mark.parametrize("offset", [0.0, 0.013, 0.029])
def test_silence_closes_the_mouth(length: float, offset: float) -> None:
    start = 0.5 + offset
    spoken = (Phone("aa", 0.0, start), Phone(SILENCE, start, start + length), Phone("aa", start + length, start + length + 0.5))
    mouth = movement(spoken)
    shut = (mouth["closure"] >= 0.95) & (mouth["jaw"] < 0.06)
    inside = np.flatnonzero(shut) / VIDEO_FPS
    assert len(inside) and start < inside.min() < start + 0.2
    assert mouth["jaw"][int((start - 0.1) * VIDEO_FPS)] > 0.4, "closed before the vowel ended"
    assert mouth["jaw"][int((start + length + 0.16) * VIDEO_FPS)] > 0.4, "still closed in the next vowel"
    if length >= 0.5:
        assert shut[int((start + 0.2) * VIDEO_FPS) + 1 : int((start + length - 0.25) * VIDEO_FPS)].all()


@pytest.mark.parametrize("seed", range(8))
def test_channels_stay_in_range_and_never_jump(seed: int) -> None:
    spoken = random_phones(seed)
    slow = tuple(Phone(phone.symbol, 2 * phone.start, 2 * phone.end) for phone in spoken)
    for take, largest in ((spoken, 0.8), (slow, 0.7)):
        channels = mouth_channels(take, int(take[-1].end * VIDEO_FPS), draw_style(seed))
        assert channels.dtype == np.float32
        assert channels.shape == (int(take[-1].end * VIDEO_FPS), len(CHANNELS))
        spread = CHANNELS.index("spread")
        assert channels.max() <= 1
        assert channels[:, spread].min() >= -0.3
        assert np.delete(channels, spread, 1).min() >= 0
        steps = np.abs(np.diff(channels, axis=0)).max(0)
        assert steps.max() < largest
        assert steps[CHANNELS.index("jaw")] < 0.35


def test_vowels_look_like_themselves() -> None:
    def middle(symbol: str) -> dict[str, float]:
        spoken = tile([Phone("hh", 0.3, 0.4), Phone(symbol, 0.4, 0.6), Phone("hh", 0.6, 0.7)], 1.0)
        return {name: float(channel[12]) for name, channel in movement(spoken).items()}

    open_vowel, smile, kiss, shout = middle("aa"), middle("iy"), middle("uw"), middle("sh")
    assert 0.5 < open_vowel["jaw"] < 0.75
    assert smile["spread"] > 0.5 > 0.1 > kiss["spread"]
    assert kiss["pucker"] > 0.7
    assert shout["funnel"] > 0.6
    assert max(vowel["closure"] for vowel in (open_vowel, smile, kiss)) < 0.1


def test_rounding_is_anticipated_and_diphthongs_move() -> None:
    spoken = tile([Phone("s", 0.3, 0.4), Phone("t", 0.4, 0.48), Phone("uw", 0.48, 0.7), Phone("t", 0.7, 0.8), Phone("iy", 0.8, 1.0)], 1.4)
    pucker = movement(spoken)["pucker"]
    assert pucker[11] > 0.3, "no rounding in the t of stew"
    assert pucker[11] > pucker[19], "rounding lingers longer than it is anticipated"
    spread = movement(tile([Phone("ay", 0.3, 0.7)], 1.0))["spread"]
    assert spread[16] > spread[9] + 0.15


def test_style_and_loudness_matter_but_not_for_contact() -> None:
    spoken = tile([Phone("b", 0.3, 0.4), Phone("aa", 0.4, 0.6)], 1.0)
    weak, strong = (movement(spoken, MouthStyle(strength=strength)) for strength in (0.75, 1.15))
    assert strong["jaw"].max() > 1.3 * weak["jaw"].max()
    assert weak["closure"][8] >= 0.95
    quiet, loud = (mouth_channels(spoken, 25, None, [0.0, factor, factor, 0.0])[:, 0].max() for factor in (0.4, 2.0))
    assert loud > 1.2 * quiet
    with pytest.raises(ValueError, match="loudness"):
        mouth_channels(spoken, 25, None, [1.0])


def test_styles_are_drawn_from_the_seed() -> None:
    assert draw_style(3) == draw_style(3) != draw_style(4)


# Sound in rooms


def taps(length: int = AUDIO_SAMPLE_RATE) -> np.ndarray:
    """A voice-like sound with sharp onsets."""
    rng = np.random.default_rng(5)
    samples = np.zeros(length, np.float32)
    for start in rng.integers(0, length - 2000, 12):
        samples[start : start + 1500] += rng.normal(size=1500) * np.exp(-np.arange(1500) / 300)
    return 0.1 * samples


def lag(samples: np.ndarray, changed: np.ndarray) -> int:
    """By how many samples `changed` comes later, by the peak of the cross-correlation."""
    spectrum = np.fft.rfft(changed, 2 * len(samples)) * np.conj(np.fft.rfft(samples, 2 * len(samples)))
    peak = int(np.argmax(np.fft.irfft(spectrum)))
    return peak if peak < len(samples) else peak - 2 * len(samples)


@pytest.mark.parametrize("seed", range(25))
def test_acoustics_keeps_times(seed: int) -> None:
    samples = taps()
    taken = acoustics.augment(samples, np.random.default_rng(seed))
    assert taken.dtype == np.float32
    assert taken.shape == samples.shape
    assert np.abs(taken).max() <= 1
    assert abs(lag(samples, taken)) <= 1
    assert np.array_equal(taken, acoustics.augment(samples, np.random.default_rng(seed)))


def test_rooms_keep_the_direct_sound_first() -> None:
    for seed in range(10):
        response = acoustics.room_response(np.random.default_rng(seed))
        assert response[0] == 1 == np.abs(response).max()
        assert 1.02 < np.sum(response**2) < 4, "reflections are missing, or louder than the voice"
        assert abs(lag(taps(), acoustics.reverberate(taps(), response))) == 0


def test_noise_has_the_asked_ratio_and_colour() -> None:
    rng = np.random.default_rng(0)
    samples = taps()
    for kind in ("white", "pink", "brown", "hum"):
        sound = acoustics.noise(rng, len(samples), kind)
        behind = acoustics.mixed(samples, sound, 12.0) - samples
        assert 20 * np.log10(np.std(samples) / np.std(behind)) == pytest.approx(12.0, abs=0.2)
    low, high = slice(100, 400), slice(4000, 7000)
    share = {}
    for kind in ("white", "pink", "brown"):
        power = np.abs(np.fft.rfft(acoustics.noise(rng, AUDIO_SAMPLE_RATE, kind))) ** 2
        share[kind] = power[high].mean() / power[low].mean()
    assert share["white"] > 5 * share["pink"] > 25 * share["brown"]


def test_a_telephone_passes_the_middle_only() -> None:
    response = acoustics.band_passed(np.eye(1, AUDIO_SAMPLE_RATE, 8000, dtype=np.float32)[0], 300, 3400)
    gain = np.abs(np.fft.rfft(response))
    assert gain[1000] == pytest.approx(1, abs=0.05)
    assert max(gain[60], gain[7000]) < 0.1
    assert np.argmax(np.abs(response)) == 8000


def test_silence_and_nothing_can_be_augmented() -> None:
    for samples in (np.zeros(4000, np.float32), np.zeros(0, np.float32)):
        for seed in range(8):
            taken = acoustics.augment(samples, np.random.default_rng(seed))
            assert taken.shape == samples.shape
            assert np.isfinite(taken).all()


# Sentences and splits


def test_sentences_are_many_and_repeatable() -> None:
    texts = [draw_sentence(np.random.default_rng(seed)).text for seed in range(400)]
    assert texts[:9] == [draw_sentence(np.random.default_rng(seed)).text for seed in range(9)]
    assert len(set(texts)) > 370
    assert {text[-1] for text in texts} == set(".!?")
    assert all(text[0].isupper() and "  " not in text and "{" not in text for text in texts)
    assert any("," in text for text in texts)
    assert len(draw_text(np.random.default_rng(0), 30).split()) >= 30


def test_sentences_keep_to_what_is_allowed() -> None:
    rng = np.random.default_rng(0)
    for split in SPLITS:
        drawn = [draw_sentence(rng, lambda topic, split=split: split_of_topic(topic) == split) for _ in range(60)]
        assert {split_of_topic(topic) for sentence in drawn for topic in sentence.topics} == {split}
    with pytest.raises(InputError, match="allowed"):
        draw_sentence(rng, lambda topic: False)
    with pytest.raises(InputError, match="choose one of"):
        draw_text(rng, language="xx")


def test_every_split_has_all_it_needs() -> None:
    for split in SPLITS:
        assert {speaker.engine for speaker in speakers_of(split)} == {"flite", "espeak"}
        assert {speaker.feminine for speaker in speakers_of(split)} == {True, False}
        for texts in (words.PHRASES, *words.FOREIGN.values()):
            assert sum(split_of_topic(text) == split for text in texts) >= 4, (split, texts[0])


def sentences(text: str) -> set[str]:
    return {found.strip() for found in re.findall(r"[^.!?]+[.!?]", text)}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_twins_say_other_sentences(split: Split, language: str) -> None:
    for index in range(30):
        count = 12 if index < 25 else 60
        plan = plan_clip(4, index, split, count, language)
        twin = other_text(plan, count, language)
        assert len(twin.split()) >= count
        assert sentences(twin) and not sentences(twin) & sentences(plan.text)
        assert twin == other_text(plan, count, language)
        if language != "en":
            assert {split_of_topic(text) for text in sentences(twin)} == {split}


def test_a_twin_without_words_of_its_own_is_refused() -> None:
    plan = plan_clip(4, 0, "validation", 12, "fr")
    everything = " ".join(text for text in words.FOREIGN["fr"] if split_of_topic(text) == "validation")
    with pytest.raises(InputError, match="fewer words"):
        other_text(replace(plan, text=everything), 12, "fr")


def test_families_of_speakers_share_a_split() -> None:
    keys = {speaker.key for speaker in SPEAKERS}
    assert {family_of(speaker.key) for speaker in SPEAKERS} <= keys
    for speaker in SPEAKERS:
        assert split_of_speaker(speaker.key) == split_of_speaker(family_of(speaker.key))
    for names in ("max RicishayMax RicishayMax2 RicishayMax3", "Hugo Henrique michel miguel Diogo", "f2 f5", "aunty belinda f4"):
        assert {split_of_speaker(f"espeak/{name}") for name in names.split()} == {"test"}, names
    assert split_of_speaker("flite/rms") == split_of_speaker("espeak/Andrea") == "test"


def variant(folder: Path, name: str) -> set[str]:
    """What an espeak-ng variant sets, a line each, without its name and comments."""
    lines = (re.sub(r"(#|//).*", "", line).split() for line in (folder / name).read_text("utf-8", "replace").splitlines())
    return {" ".join(line) for line in lines if line and line[0] not in ("name", "language", "gender")}


def test_variants_of_two_splits_differ_in_most_lines() -> None:
    folder = next(iter(Path("/usr").glob("*/*/espeak-ng-data/voices/!v")), None) or Path("/usr/share/espeak-ng-data/voices/!v")
    if not folder.is_dir():
        pytest.skip("the variants of espeak-ng are not installed")
    lines = {speaker: variant(folder, speaker.name) for speaker in SPEAKERS if (folder / speaker.name).is_file()}
    assert len(lines) > 50
    for (one, own), (other, theirs) in itertools.combinations(lines.items(), 2):
        if split_of_speaker(one.key) != split_of_speaker(other.key):
            assert len(own & theirs) <= 0.5 * len(own | theirs), (one.name, other.name)


def test_splits_share_nothing() -> None:
    plans = {split: [plan_clip(11, index, split) for index in range(60)] for split in SPLITS}
    for split, drawn in plans.items():
        assert {split_of_identity(plan.identity) for plan in drawn} == {split}
        assert {split_of_speaker(plan.voice.key) for plan in drawn} == {split}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not {plan.identity for plan in plans[one]} & {plan.identity for plan in plans[other]}
        assert not {plan.voice.key for plan in plans[one]} & {plan.voice.key for plan in plans[other]}
        assert not {plan.text for plan in plans[one]} & {plan.text for plan in plans[other]}
    assert {plan.identity for plan in plans["test"]} <= set(identities_for_test())


def test_test_identities_are_fixed_and_never_trained_on() -> None:
    seeds = identities_for_test()
    assert len(seeds) == len(set(seeds)) == 64
    assert (seeds[0], sum(seeds) % 1_000_003) == (22959839, 495498)
    assert {split_of_identity(seed) for seed in seeds} == {"test"}


def test_a_resampled_voice_stays_in_its_split() -> None:
    rng = np.random.default_rng(0)
    for speaker in SPEAKERS:
        voice = draw_voice(rng, (speaker,))
        assert replace(voice, resample=0.86).key == speaker.key == voice.key


def test_plans_are_pure_and_varied() -> None:
    plans = [plan_clip(2, index, "train") for index in range(40)]
    assert plans[5] == plan_clip(2, 5, "train")
    assert plans[5] != plan_clip(3, 5, "train")
    assert len({plan.identity for plan in plans}) == len({plan.text for plan in plans}) == 40
    assert {plan.voice.engine for plan in plans} == {"flite", "espeak"}
    assert plan_clip(2, 0, "test", 6, "de").voice.language == "de"
    assert set(LANGUAGES) == {"en", "de", "es", "fr"}


# Speech


@pytest.mark.parametrize("voice", [FLITE, ESPEAK])
def test_phones_span_the_speech(voice: Voice) -> None:
    spoken = speak("Maybe five people saw it. Why not?", voice, lead=0.25, tail=0.4)
    again = speak("Maybe five people saw it. Why not?", voice, lead=0.25, tail=0.4)
    assert np.array_equal(spoken.samples, again.samples)
    assert spoken.phones == again.phones
    assert spoken.phones[0] == Phone(SILENCE, 0.0, pytest.approx(0.25, abs=1e-4))
    assert spoken.phones[-1].symbol == SILENCE
    assert spoken.phones[-1].end - spoken.phones[-1].start == pytest.approx(0.4, abs=2e-3)
    assert spoken.phones[-1].end == pytest.approx(spoken.duration)
    assert all(before.end == after.start for before, after in itertools.pairwise(spoken.phones))
    assert any(phone.symbol == SILENCE and phone.end - phone.start > 0.08 for phone in spoken.phones[1:-1]), "no pause between sentences"
    consonants = [phone.symbol for phone in spoken.phones if phone.symbol in ("m", "b", "f", "v", "p", "s")]
    assert consonants[:6] == ["m", "b", "f", "v", "p", "p"]
    assert np.abs(spoken.samples).max() < 1
    loud = loudness(spoken)
    assert loud[0] == 0
    assert 0.5 < np.median([share for share, phone in zip(loud, spoken.phones, strict=True) if phone.symbol != SILENCE]) < 1.5


@pytest.mark.parametrize("voice", [FLITE, ESPEAK])
def test_resampling_scales_times_exactly(voice: Voice) -> None:
    plain = speak("A happy puppy.", voice, 0.0, 0.0)
    for factor in (0.86, 1.2):
        scaled = speak("A happy puppy.", replace(voice, resample=factor), 0.0, 0.0)
        ratios = [phone.end / other.end for phone, other in zip(plain.phones, scaled.phones, strict=True)]
        assert ratios == pytest.approx([factor] * len(ratios), rel=2e-3)


@pytest.mark.parametrize("voice", [FLITE, ESPEAK])
def test_times_are_true(voice: Voice) -> None:
    """A classifier of single spectra is best with labels that are not shifted."""
    rng = np.random.default_rng(1)
    speeches = [speak(draw_text(rng), replace(voice, resample=(1.0, 1.1)[index % 2])) for index in range(8)]
    shares = {shift: accuracy(speeches, shift) for shift in (-40, -20, 0, 20, 40)}
    assert max(shares, key=shares.__getitem__) == 0
    assert shares[0] > 0.6


@needs_espeak
def test_voiceless_stops_hold_their_closure() -> None:
    spoken = speak("A happy puppy.", Voice("espeak", "m3"))
    for phone in spoken.phones:
        if phone.symbol == "p":
            first = int(phone.start * AUDIO_SAMPLE_RATE)
            assert np.abs(spoken.samples[first + 16 : first + 240]).max() < 0.02


@needs_espeak
def test_other_languages_are_spoken() -> None:
    spoken = speak("Schöne Grüße aus München.", Voice("espeak", "f2", "de"))
    assert {"sh", "oe", "ue", "hy"} <= {phone.symbol for phone in spoken.phones}


@needs_espeak
def test_a_voice_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="en-us\\+nobody"):
        speak("Hello.", Voice("espeak", "nobody"))


@needs_flite
def test_nothing_to_say_is_an_input_error() -> None:
    with pytest.raises(InputError):
        speak("...", Voice("flite", "slt"))


def test_missing_programs_name_the_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(speech, "ESPEAK_LIBRARIES", ("libnosuchthing.so.7",))
    for voice in (Voice("flite", "slt"), Voice("espeak", "m3")):
        with pytest.raises(InputError, match=r"\./setup_env\.sh --with-speech"):
            speak("Hello.", voice)


def test_a_synthesiser_that_hangs_is_an_input_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "flite"
    program.write_text("#!/bin/sh\nexec /bin/sleep 9\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(speech, "_TIMEOUT", 0.05)
    with pytest.raises(InputError, match=r"flite was still at work after 0\.05 s"):
        speak("Hello.", Voice("flite", "slt"))


def test_speeches_are_cut() -> None:
    voice = Voice("flite", "slt")
    samples = np.repeat(np.array([1.0, 0.5], np.float32), (1600, 800))
    both = Speech(samples, (Phone("aa", 0.0, 0.1), Phone("b", 0.1, 0.15)), "One. Two.", voice)
    part = excerpt(both, 0.05, 0.2)
    assert [(phone.symbol, round(phone.start, 4), round(phone.end, 4)) for phone in part.phones] == [
        ("aa", 0.0, 0.05),
        ("b", 0.05, 0.1),
        (SILENCE, 0.1, 0.2),
    ]
    assert part.samples[[0, 799, 800, 1599, 1600]].tolist() == [1.0, 1.0, 0.5, 0.5, 0.0]

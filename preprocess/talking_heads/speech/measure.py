"""Measures whether phone times are true: python -m preprocess.talking_heads.speech.measure

A linear classifier hears one short-time spectrum (25 ms) and names the class of the phone that is spoken at its middle. It is trained and
tested with labels that are shifted by -100 to +100 ms. Where the times are true, the best shift is 0.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from scipy.fft import rfft

from latentsync.constants import AUDIO_SAMPLE_RATE
from preprocess.talking_heads.speech.phones import SILENCE, VOWELS, Phone
from preprocess.talking_heads.speech.sentences import draw_text
from preprocess.talking_heads.speech.synthesis import Speech, speak
from preprocess.talking_heads.speech.voices import SPEAKERS, Speaker, Voice
from preprocess.talking_heads.traits import stream

SHIFTS = tuple(range(-100, 101, 10))  # ms
_CLASSES = (("m", "n", "ng"), ("p", "t", "k", "b", "d", "g", "dx"), ("s", "z", "sh", "zh", "ch", "jh"), ("f", "v", "th", "dh", "hh"))
_HOP, _WINDOW = 160, 400  # samples: 10 ms and 25 ms
_BANDS = 40
_RIDGE = 1e-2


def phone_class(symbol: str) -> int:
    """0 silence, 1 vowel, 2 approximant, then nasals, stops, sibilants and weak fricatives."""
    if symbol == SILENCE:
        return 0
    if symbol in VOWELS:
        return 1
    return next((3 + place for place, group in enumerate(_CLASSES) if symbol in group), 2)


def spectra(samples: np.ndarray) -> np.ndarray:
    """Log energies of 40 mel bands (float64 n 41, a one at the end) of windows whose middles lie 10 ms apart, the first at 0 s."""
    padded = np.pad(samples.astype(np.float64), _WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]  # n w
    power = np.abs(rfft(windows * np.hanning(_WINDOW), 512)) ** 2
    energy = np.log(power @ _mel_bands(power.shape[1]) + 1e-6)
    return np.concatenate([energy, np.ones((len(energy), 1))], 1)


def _mel_bands(bins: int) -> np.ndarray:
    """Triangles that are evenly spaced on the mel scale (bins, bands)."""
    mel = 2595 * np.log10(1 + np.linspace(0, AUDIO_SAMPLE_RATE / 2, bins) / 700)
    edges = np.linspace(0, mel[-1], _BANDS + 2)
    rise = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    return np.minimum(rise, fall).clip(0)


def labels(phones: Sequence[Phone], frames: int, shift: int) -> np.ndarray:
    """Class (int n) of the phone that is spoken `shift` ms after each 10 ms."""
    times = np.arange(frames) * _HOP / AUDIO_SAMPLE_RATE + shift / 1000
    place = np.searchsorted([phone.end for phone in phones], times, side="right").clip(0, len(phones) - 1)
    return np.array([phone_class(phone.symbol) for phone in phones])[place]


def accuracy(speeches: Sequence[Speech], shift: int) -> float:
    """Share of the second half's frames whose shifted class is named right after training on the first half."""
    features = [spectra(speech.samples) for speech in speeches]
    truths = [labels(speech.phones, len(part), shift) for speech, part in zip(speeches, features, strict=True)]
    half = len(speeches) // 2
    known, answers = np.concatenate(features[:half]), np.eye(3 + len(_CLASSES))[np.concatenate(truths[:half])]
    weights = np.linalg.solve(known.T @ known + _RIDGE * np.eye(known.shape[1]), known.T @ answers)
    named = np.argmax(np.concatenate(features[half:]) @ weights, 1)
    return float(np.mean(named == np.concatenate(truths[half:])))


def collect(speaker: Speaker, resample: float, sentences: int, seed: int) -> list[Speech]:
    """Sentences of one speaker."""
    rng = stream(seed, f"measure {speaker.key}")
    voice = Voice(speaker.engine, speaker.name, resample=resample)
    return [speak(draw_text(rng), voice) for _ in range(sentences)]


def main() -> None:
    """Print the accuracy at every shift for all flite voices and some of espeak-ng's, as they are and resampled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=30, help="texts a voice speaks; half of them train (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chosen = [speaker for speaker in SPEAKERS if speaker.engine == "flite" or speaker.name in ("f2", "m3", "Annie")]
    print("shift of the labels in ms".ljust(24), *(f"{shift:5d}" for shift in SHIFTS), "  best")
    for speaker in chosen:
        for resample in (1.0, 0.88, 1.16):
            speeches = collect(speaker, resample, arguments.sentences, arguments.seed)
            shares = [accuracy(speeches, shift) for shift in SHIFTS]
            best = SHIFTS[int(np.argmax(shares))]
            print(f"{speaker.key} x {resample:.2f}".ljust(24), *(f"{share:5.3f}" for share in shares), f"{best:+5d}")


if __name__ == "__main__":
    main()

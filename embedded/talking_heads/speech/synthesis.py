"""Text to speech with exact phone times, by the programs flite and espeak-ng; and the acoustics of rooms and microphones."""

import json
import math
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import resample_poly

from embedded.talking_heads.speech import espeak_child
from embedded.talking_heads.speech.phones import SILENCE, VOICELESS_STOPS, VOWELS, Phone, from_arpabet, from_ipa, spread, tile
from embedded.talking_heads.speech.voices import Voice
from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.errors import InputError

ESPEAK_LIBRARIES = ("libespeak-ng.so.1", "libespeak-ng.so", "libespeak-ng.1.dylib", "libespeak-ng.dylib")
LEVEL = 0.07  # root mean square of the samples while somebody speaks
_MISSING = "{} was not found, and the voice {} needs it: run ./setup_env.sh --with-speech, or install {} yourself"
_FLITE_PITCH = {"awb": 130.0, "kal16": 95.0, "slt": 172.0}  # Hz, the mean of each voice; rms takes no pitch
_ESPEAK_RATE = 165  # words a minute at rate 1
_CLOSURE = 0.06  # s: at most this much of the silence before a voiceless stop is the stop's own closure
_ATTACK = 0.02  # s of sound before the first phone that are kept: onsets are a little soft
_TIMEOUT = 60.0  # s a synthesiser may take for one text: some hundred times what it does


@dataclass(frozen=True)
class Speech:
    """Spoken text: mono samples and the phones in them."""

    samples: np.ndarray  # float32 t, in [-1, 1], AUDIO_SAMPLE_RATE
    phones: tuple[Phone, ...]  # without gaps from 0 to the end
    text: str
    voice: Voice

    @property
    def duration(self) -> float:
        """Seconds, exact to a sample."""
        return len(self.samples) / AUDIO_SAMPLE_RATE


def speak(text: str, voice: Voice, lead: float = 0.3, tail: float = 0.3) -> Speech:
    """Speak a text of one or more sentences; `lead` and `tail` are the seconds of silence around it.

    The same call gives the same samples. Raises InputError when the synthesiser is missing, knows no such voice makes no sound of it, or
    does not come to an end.
    """
    raw, rate, phones = _flite(text, voice) if voice.engine == "flite" else _espeak(text, voice)
    samples, stretch = _resampled(raw, rate, voice.resample)
    phones = [Phone(phone.symbol, phone.start * stretch, phone.end * stretch) for phone in phones]
    loud = [phone for phone in phones if phone.symbol != SILENCE]
    if not loud:
        raise InputError(f"the voice {voice.key} finds nothing to say in {text!r}: give it words")
    samples, first = _framed(_levelled(samples, loud), loud[0].start, loud[-1].end, lead, tail)
    shifted = [Phone(phone.symbol, phone.start + first, phone.end + first) for phone in loud]
    return Speech(samples, tile(shifted, len(samples) / AUDIO_SAMPLE_RATE), text, voice)


def excerpt(speech: Speech, start: float, duration: float) -> Speech:
    """The part of a speech from `start` on, exactly `duration` long (s, rounded to samples); silence where the speech has ended."""
    first, count = round(start * AUDIO_SAMPLE_RATE), round(duration * AUDIO_SAMPLE_RATE)
    samples = np.zeros(count, np.float32)
    taken = speech.samples[first : first + count]
    samples[: len(taken)] = taken
    offset = first / AUDIO_SAMPLE_RATE
    shifted = [Phone(phone.symbol, phone.start - offset, phone.end - offset) for phone in speech.phones]
    return Speech(samples, tile(shifted, count / AUDIO_SAMPLE_RATE), speech.text, speech.voice)


def loudness(speech: Speech) -> np.ndarray:
    """How loud each phone is beside the speech's vowels: float32, one a phone, 1 for the median vowel, about 0 .. 2, 0 for silences."""
    rates = np.array([_rms(speech.samples, phone) for phone in speech.phones])
    vowels = [rate for rate, phone in zip(rates, speech.phones, strict=True) if phone.symbol in VOWELS]
    silent = np.array([phone.symbol == SILENCE for phone in speech.phones])
    reference = float(np.median(vowels)) if vowels else float(rates.max(initial=0.0))
    return np.where(silent, 0.0, rates / max(reference, 1e-6)).astype(np.float32)


def _rms(samples: np.ndarray, phone: Phone) -> float:
    part = samples[int(phone.start * AUDIO_SAMPLE_RATE) : max(int(phone.end * AUDIO_SAMPLE_RATE), int(phone.start * AUDIO_SAMPLE_RATE) + 1)]
    return math.sqrt(float(np.mean(part.astype(np.float64) ** 2))) if len(part) else 0.0


def _resampled(samples: np.ndarray, rate: int, factor: float) -> tuple[np.ndarray, float]:
    """Samples at AUDIO_SAMPLE_RATE with frequencies scaled by `factor`, and the exact factor by which times grow."""
    ratio = Fraction(AUDIO_SAMPLE_RATE / (rate * factor)).limit_denominator(1000)
    if ratio != 1:
        samples = resample_poly(samples, ratio.numerator, ratio.denominator)
    return samples.astype(np.float32), float(ratio) * rate / AUDIO_SAMPLE_RATE


def _levelled(samples: np.ndarray, loud: Sequence[Phone]) -> np.ndarray:
    """The samples at LEVEL where phones are, less where that would clip."""
    power = np.mean([_rms(samples, phone) ** 2 for phone in loud])
    peak = float(np.abs(samples).max(initial=1e-6))
    return samples * np.float32(min(LEVEL / max(math.sqrt(power), 1e-6), 0.98 / peak))


def _framed(samples: np.ndarray, start: float, end: float, lead: float, tail: float) -> tuple[np.ndarray, float]:
    """The sound from `start` to `end` (s) between `lead` and `tail` of silence, and by how many seconds it moved."""
    move = round((lead - start) * AUDIO_SAMPLE_RATE)  # samples
    length = round(end * AUDIO_SAMPLE_RATE) + move + round(tail * AUDIO_SAMPLE_RATE)
    first = max(round((start - _ATTACK) * AUDIO_SAMPLE_RATE), 0, -move)
    kept = samples[first : first + length - (first + move)]
    framed = np.zeros(length, np.float32)
    framed[first + move : first + move + len(kept)] = kept
    return framed, move / AUDIO_SAMPLE_RATE


def _run(program: str, arguments: Sequence[str], request: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A finished call of a synthesiser; errors call it `program`."""
    try:
        return subprocess.run(list(arguments), input=request, capture_output=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{program} was still at work after {_TIMEOUT:g} s: give it less text, or try again later") from error


def _flite(text: str, voice: Voice) -> tuple[np.ndarray, int, list[Phone]]:
    """Samples in [-1, 1], their rate and the phones, by the command flite."""
    if shutil.which("flite") is None:
        raise InputError(_MISSING.format("flite", voice.key, "flite"))
    arguments = ["flite", "-voice", voice.name, "-psdur", "--setf", f"duration_stretch={1 / voice.rate:.4f}"]
    if voice.name in _FLITE_PITCH:
        arguments += ["--setf", f"int_f0_target_mean={_FLITE_PITCH[voice.name] * voice.pitch:.2f}"]
    with tempfile.TemporaryDirectory(prefix="latentsync-") as folder:
        path = Path(folder) / "speech.wav"
        done = _run("flite", [*arguments, "-t", text, "-o", str(path)])
        if done.returncode or not path.is_file():
            raise InputError(f"flite did not speak {text!r} with the voice {voice.name}: it ended with status {done.returncode}")
        with wave.open(str(path)) as file:
            samples, rate = np.frombuffer(file.readframes(file.getnframes()), "<i2"), file.getframerate()
    phones: list[Phone] = []
    clock = 0.0
    for symbol, _, end in (entry.partition(":") for entry in done.stdout.decode().split()):
        phones += spread(from_arpabet(symbol), clock, float(end))
        clock = float(end)
    return samples.astype(np.float32) / 32768, rate, phones


def _espeak(text: str, voice: Voice) -> tuple[np.ndarray, int, list[Phone]]:
    """Samples in [-1, 1], their rate and the phones, by the library of espeak-ng in a process of its own."""
    request = {
        "text": text,
        "voice": f"{voice.language}+{voice.name}",
        "rate": round(_ESPEAK_RATE * voice.rate),
        "pitch": round(min(max(50 + 50 * math.log2(voice.pitch), 0), 99)),
        "libraries": ESPEAK_LIBRARIES,
    }
    done = _run("espeak-ng", [sys.executable, "-I", "-S", espeak_child.__file__], json.dumps(request).encode())
    if done.returncode == espeak_child.NO_LIBRARY:
        raise InputError(_MISSING.format("the library of espeak-ng", voice.key, "espeak-ng"))
    if done.returncode == espeak_child.NO_VOICE:
        raise InputError(f"espeak-ng has no voice {request['voice']}: choose another, or install a newer espeak-ng")
    if done.returncode:
        raise InputError(f"espeak-ng did not speak {text!r} with the voice {request['voice']}: it ended with status {done.returncode}")
    header, _, data = done.stdout.partition(b"\n")
    fields = json.loads(header)
    samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
    return samples, fields["rate"], _espeak_phones(fields["events"], samples, fields["rate"])


def _espeak_phones(events: Sequence[tuple[str, int]], samples: np.ndarray, rate: int) -> list[Phone]:
    """Phones of espeak-ng's events. It puts a voiceless stop at its burst: the closure before it, which is silent, is added here."""
    symbols = [from_ipa(name) if not name.startswith("(") else (SILENCE,) for name, _ in events]
    starts = [first for _, first in events]
    for place, (names, first) in enumerate(zip(symbols, starts, strict=True)):
        if names[0] in VOICELESS_STOPS:
            earliest = max(first - round(_CLOSURE * rate), 0)
            sounding = np.flatnonzero(samples[earliest:first])
            starts[place] = earliest + (int(sounding[-1]) + 1 if len(sounding) else 0)
    phones: list[Phone] = []
    for names, first, end in zip(symbols, starts, [*starts[1:], len(samples)], strict=True):
        phones += spread(names, first / rate, max(end, first) / rate)
    return phones


def augment(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same samples (mono float32) as recorded in a random room through a random microphone, as many, never moved in time.

    Filters have no phase and rooms keep the direct sound where it was, so that the times of phones stay true.
    """
    if not len(samples):
        return samples.copy()
    taken = samples
    if rng.random() < 0.5:
        taken = reverberate(taken, rng)
    if rng.random() < 0.75:
        taken = with_noise(taken, rng, float(rng.uniform(8, 40)))
    if rng.random() < 0.6:  # an equaliser: shelves of bass and treble, and a peak
        (bass, treble, peak), (low, high, middle) = rng.uniform(-8, 8, 3), np.log2(rng.uniform([120, 2000, 300], [400, 5500, 5000]))

        def gain_of(octave: np.ndarray) -> np.ndarray:
            shelves = bass / (1 + np.exp(3 * (octave - low))) + treble / (1 + np.exp(3 * (high - octave)))
            return 10 ** ((shelves + peak * np.exp(-2 * (octave - middle) ** 2)) / 20)

        taken = _filtered(taken, gain_of)
    if rng.random() < 0.12:  # a telephone
        low, high = np.log2(rng.uniform([200, 3000], [350, 3800]))
        taken = _filtered(taken, lambda octave: 1 / np.sqrt((1 + 2 ** (8 * (low - octave))) * (1 + 2 ** (8 * (octave - high)))))
    level = float(np.sqrt(np.mean(np.square(taken, dtype=np.float64))))
    gain = min(10 ** (rng.uniform(-34, -16) / 20) / max(level, 1e-9), 0.98 / max(float(np.abs(taken).max()), 1e-9))
    return (taken * gain).astype(np.float32)


def reverberate(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The samples in a random small room: the direct sound first and unchanged, early reflections, then noise that decays by 60 dB in
    0.12 to 0.5 s; what would outlast them is cut off."""
    decay = float(rng.uniform(0.12, 0.5))
    times = np.arange(int(0.9 * decay * AUDIO_SAMPLE_RATE)) / AUDIO_SAMPLE_RATE
    response = rng.normal(size=len(times)) * 10 ** (-3 * times / decay) * rng.uniform(0.01, 0.06) * np.clip(times / 0.03, 0, 1)
    early = rng.integers(0.002 * AUDIO_SAMPLE_RATE, 0.05 * AUDIO_SAMPLE_RATE, 12)
    response[early] += rng.choice([-1, 1], 12) * rng.uniform(0.1, 0.5) * np.exp(-early / (0.02 * AUDIO_SAMPLE_RATE))
    response[0] = 1.0
    length = next_fast_len(len(samples) + len(response))
    return irfft(rfft(samples, length) * rfft(response, length), length)[: len(samples)].astype(np.float32)


def with_noise(samples: np.ndarray, rng: np.random.Generator, ratio: float) -> np.ndarray:
    """Samples with steady noise `ratio` dB below them: white to brown (-6 dB an octave), or the hum of mains with its overtones."""
    if rng.random() < 0.25:
        times, mains = np.arange(len(samples)) / AUDIO_SAMPLE_RATE, (50.0, 60.0)[rng.integers(2)]
        sound = sum(np.sin(2 * np.pi * (mains * order * times + rng.random())) * rng.random() / order for order in range(1, 9))
        sound = sound + 0.05 * rng.normal(size=len(samples))
    else:
        slope = rng.uniform(0, 1)
        sound = _filtered(rng.normal(size=len(samples)), lambda octave: 2 ** (-slope * np.maximum(octave, 5)))
    power, noise_power = (float(np.mean(np.square(part, dtype=np.float64))) for part in (samples, sound))
    return (samples + sound * (np.sqrt(power / max(noise_power, 1e-12)) * 10 ** (-ratio / 20))).astype(np.float32)


def _filtered(samples: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The samples with each frequency, given as log2 of Hz, scaled by its gain and no phase shifted."""
    length = next_fast_len(len(samples) + AUDIO_SAMPLE_RATE // 4)  # padded so that nothing wraps around
    octave = np.log2(np.maximum(rfftfreq(length, 1 / AUDIO_SAMPLE_RATE), 20.0))
    return irfft(rfft(samples, length) * gain(octave), length)[: len(samples)].astype(np.float32)

"""Text to speech with exact phone times, by the programs flite and espeak-ng."""

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
    """Samples at AUDIO_SAMPLE_RATE with frequencies scaled by `factor`, and the factor by which times grow: exact, not just asked for."""
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


_SOUND_SPEED = 343.0  # m/s
_NOISES = ("white", "pink", "brown", "hum")
_REFLECTION_ORDER = 3  # walls that an early reflection has met at most
_HEADROOM = 0.98


def augment(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A take of the same speech in a random place through a random microphone."""
    if not len(samples):
        return samples.copy()
    taken = samples
    if rng.random() < 0.5:
        taken = reverberate(taken, room_response(rng))
    if rng.random() < 0.75:
        sound = noise(rng, len(samples), _NOISES[rng.integers(len(_NOISES))])
        taken = mixed(taken, sound, float(rng.uniform(8, 40)))
    if rng.random() < 0.6:
        taken = equalised(taken, rng)
    if rng.random() < 0.12:
        taken = band_passed(taken, float(rng.uniform(200, 350)), float(rng.uniform(3000, 3800)))
    taken = levelled(taken, float(rng.uniform(-34, -16)))
    if rng.random() < 0.08:
        taken = clipped_softly(taken, float(rng.uniform(1.5, 5.0)))
    return taken


def levelled(samples: np.ndarray, decibels: float) -> np.ndarray:
    """The samples at this level (root mean square in dB of full scale), or lower where that would clip; silence stays silence."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    if level == 0.0:
        return samples.copy()
    return (samples * min(10 ** (decibels / 20) / level, _HEADROOM / float(np.abs(samples).max()))).astype(np.float32)


def clipped_softly(samples: np.ndarray, drive: float) -> np.ndarray:
    """An overdriven input: tanh of the samples times `drive`, at the old peak."""
    peak = float(np.abs(samples).max(initial=1e-6))
    return (np.tanh(samples * (drive / peak)) * (peak / np.tanh(drive))).astype(np.float32)


def mixed(samples: np.ndarray, sound: np.ndarray, ratio: float) -> np.ndarray:
    """Samples with a background sound of equal length, `ratio` dB below them on the average."""
    power, behind = (float(np.mean(np.square(part, dtype=np.float64))) for part in (samples, sound))
    if power == 0.0 or behind == 0.0:
        return samples.copy()
    return (samples + sound * np.sqrt(power / behind) * 10 ** (-ratio / 20)).astype(np.float32)


def noise(rng: np.random.Generator, length: int, kind: str) -> np.ndarray:
    """Steady noise of unit power: white, pink (-3 dB an octave), brown (-6 dB), or the hum of mains with its overtones."""
    if kind == "hum":
        times = np.arange(length) / AUDIO_SAMPLE_RATE
        mains = (50.0, 60.0)[rng.integers(2)]
        tones = [np.sin(2 * np.pi * (mains * order * times + rng.random())) * rng.random() / order for order in range(1, 9)]
        sound = np.sum(tones, axis=0) + 0.05 * rng.normal(size=length)
    else:
        slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
        white = rng.normal(size=length)
        sound = _filtered(white, lambda frequencies: (np.maximum(frequencies, 30.0) / 1000) ** -slope)
    return (sound / max(float(np.std(sound)), 1e-9)).astype(np.float32)


def equalised(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The samples through a random low shelf, a high shelf and two peaks, each of up to 8 dB."""
    low, high = rng.uniform(120, 400), rng.uniform(2000, 5500)
    bass, treble = rng.uniform(-8, 8, 2)
    peaks = [(rng.uniform(300, 5000), rng.uniform(-8, 8), rng.uniform(0.3, 1.0)) for _ in range(2)]

    def gain(frequencies: np.ndarray) -> np.ndarray:
        octave = np.log2(np.maximum(frequencies, 20.0))
        decibels = bass / (1 + np.exp(3 * (octave - np.log2(low)))) + treble / (1 + np.exp(-3 * (octave - np.log2(high))))
        for centre, height, width in peaks:
            decibels = decibels + height * np.exp(-0.5 * ((octave - np.log2(centre)) / width) ** 2)
        return 10 ** (decibels / 20)

    return _filtered(samples, gain)


def band_passed(samples: np.ndarray, low: float, high: float) -> np.ndarray:
    """The samples as a telephone passes them on, from `low` to `high` Hz with edges of about 24 dB an octave."""
    return _filtered(
        samples, lambda frequencies: 1 / np.sqrt((1 + (low / np.maximum(frequencies, 1.0)) ** 8) * (1 + (frequencies / high) ** 8))
    )


def room_response(rng: np.random.Generator) -> np.ndarray:
    """The impulse response of a random small room (float32, under half a second): the direct sound is sample 0 and has height 1.

    Early reflections come from image sources of a box (Allen and Berkley 1979), then comes noise that decays by 60 dB in 0.12 to 0.5 s.
    """
    size = rng.uniform((2.2, 2.5, 2.3), (6.0, 7.0, 3.4))  # m
    source, microphone = (size * rng.uniform(0.2, 0.8, 3) for _ in range(2))
    microphone = source + (microphone - source) * min(
        1.0, float(rng.uniform(0.3, 1.6)) / max(float(np.linalg.norm(microphone - source)), 0.1)
    )
    decay, absorbed = float(rng.uniform(0.12, 0.5)), float(rng.uniform(0.35, 0.75))
    response = np.zeros(int(0.9 * decay * AUDIO_SAMPLE_RATE))
    direct = float(np.linalg.norm(microphone - source))
    last = 0
    for image, bounces in _images(source, size):
        distance = float(np.linalg.norm(image - microphone))
        place = round((distance - direct) / _SOUND_SPEED * AUDIO_SAMPLE_RATE)
        if bounces and 0 < place < len(response):
            response[place] += (1 - absorbed) ** (bounces / 2) * direct / distance * (-1) ** bounces * 0.7
            last = max(last, place)
    tail = rng.normal(size=len(response)) * 10 ** (-3 * np.arange(len(response)) / (decay * AUDIO_SAMPLE_RATE))
    tail *= np.clip(np.arange(len(response)) / max(last, 1), 0, 1)
    response += tail * float(rng.uniform(0.01, 0.06))
    response[0] = 1.0
    return response.astype(np.float32)


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The samples in a room of this impulse response; the sound that would outlast them is cut off."""
    length = next_fast_len(len(samples) + len(response))
    return irfft(rfft(samples, length) * rfft(response, length), length)[: len(samples)].astype(np.float32)


def _images(source: np.ndarray, size: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Mirror images of a source in a box (m), each with the number of walls its sound has met."""
    orders = range(-_REFLECTION_ORDER, _REFLECTION_ORDER + 1)
    found = []
    for order in ((a, b, c) for a in orders for b in orders for c in orders):
        bounces = sum(map(abs, order))
        if bounces <= _REFLECTION_ORDER:
            step = np.array(order)
            found.append((np.where(step % 2 == 0, step * size + source, (step + 1) * size - source), bounces))
    return found


def _filtered(samples: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The samples with each frequency scaled by its gain and no phase shifted; padded so that nothing wraps around."""
    length = next_fast_len(len(samples) + AUDIO_SAMPLE_RATE // 4)
    spectrum = rfft(samples, length) * gain(rfftfreq(length, 1 / AUDIO_SAMPLE_RATE))
    return irfft(spectrum, length)[: len(samples)].astype(np.float32)

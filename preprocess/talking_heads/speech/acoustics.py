"""What rooms, microphones and lines do to a voice: random augmentation of samples that never moves them in time.

Every function takes mono float32 samples at AUDIO_SAMPLE_RATE and returns as many. Filters have no phase and rooms keep the direct sound
where it was, so phone times stay true.
"""

from collections.abc import Callable

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from latentsync.constants import AUDIO_SAMPLE_RATE

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

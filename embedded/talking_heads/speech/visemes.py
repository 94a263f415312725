"""Phones to mouth movement: eleven channels at 25 frames a second, with coarticulation.

Each phone is one viseme, or two for a diphthong. A viseme has a target and a dominance for every channel; the movement is the mean of the
targets weighted by dominance functions that decay away from the phone (Cohen and Massaro, Modeling coarticulation in synthetic visual
speech, 1993), further ahead of it than behind for rounding. Contacts are then held: lips meet in p b m, the lower lip touches the teeth in
f v, and a silence closes the mouth.

Channels, each in [0, 1] (spread from -0.3):
jaw 1 is the widest opening of speech, about 2.6 cm between the incisors' edges; spread: corners outwards; pucker: corners inwards, lips
forwards; funnel: lips forwards and round open; closure 1: the lips touch however far the jaw is open; upper_lip, lower_lip: the lip moves
away from the other; tuck: lower lip under the upper teeth; press: lips pressed thin; tongue_up: tip at the ridge; tongue_out: tip between
the teeth.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import convolve1d

from embedded.talking_heads.speech.phones import BILABIALS, LABIODENTALS, SILENCE, Phone
from embedded.talking_heads.traits import stream
from latentsync.constants import VIDEO_FPS

CHANNELS = ("jaw", "spread", "pucker", "funnel", "closure", "upper_lip", "lower_lip", "tuck", "press", "tongue_up", "tongue_out")

# viseme: its targets (what is not named is 0) | dominance: one number for all channels, then those that differ
_TABLE = """
silence     jaw .02 closure 1                                                      | 0.9 closure .7 tongue_up .3
bilabial    jaw .10 closure 1 press .6                                             | 0.25 jaw 1.1 closure 1.6 upper_lip 2 lower_lip 2
labial      jaw .14 closure .55 pucker .10                                         | 0.4 jaw .9 closure 2.5
labiodental jaw .10 upper_lip .22 tuck .92                                         | 0.3 jaw 1.2 closure 2 upper_lip 1.6 lower_lip 3 tuck 4
dental      jaw .15 upper_lip .08 lower_lip .25 tongue_out .85 tongue_up .3        | 0.4 jaw 1 closure 1.5 tongue_out 5 tongue_up 3
stop        jaw .13 spread .08 upper_lip .10 lower_lip .28 tongue_up 1             | 0.35 jaw .9 closure 1.5 tongue_up 5
nasal       jaw .15 spread .06 upper_lip .08 lower_lip .24 tongue_up .95           | 0.3 jaw .7 closure 1.5 tongue_up 5
lateral     jaw .24 spread .04 upper_lip .10 lower_lip .25 tongue_up 1             | 0.35 jaw .8 closure 1.5 tongue_up 5
trill       jaw .22 upper_lip .08 lower_lip .22 tongue_up .8                       | 0.35 jaw .8 closure 1.5 tongue_up 4
sibilant    jaw .05 spread .26 upper_lip .18 lower_lip .40 tongue_up .6            | 0.5 jaw 1.8 closure 2 lower_lip 1 tongue_up 3
hush        jaw .08 funnel .75 upper_lip .3 lower_lip .34 tongue_up .45            | 1 jaw 1.7 spread 1.5 funnel 2.6 closure 2 tongue_up 2
velar       jaw .20 upper_lip .06 lower_lip .20                                    | 0.25 jaw .5 closure 1.2 tongue_up 1
palatal     jaw .11 spread .50 upper_lip .15 lower_lip .26                         | 0.8 jaw 1.1 closure 1.5
breath      jaw .26 lower_lip .10                                                  | 0.12 closure .8
rhotic      jaw .13 pucker .18 funnel .48 upper_lip .08 lower_lip .14 tongue_up .2 | 0.6 funnel 1.7 pucker 1.3 closure 1.5
glide       jaw .06 pucker .95 funnel .18 closure .14                              | 0.9 jaw 1.3 pucker 3 funnel 1.6 spread 2
ee          jaw .14 spread .72 upper_lip .22 lower_lip .30                         | 1 closure 1.6
ih          jaw .24 spread .42 upper_lip .16 lower_lip .26                         | 0.9 closure 1.6
e           jaw .28 spread .56 upper_lip .20 lower_lip .28                         | 1 closure 1.6
eh          jaw .43 spread .34 upper_lip .20 lower_lip .30                         | 1 jaw 1.2 closure 1.6
ae          jaw .60 spread .32 upper_lip .26 lower_lip .34                         | 1.05 jaw 1.4 closure 1.6
a           jaw .64 spread .10 upper_lip .20 lower_lip .28                         | 1.05 jaw 1.4 closure 1.6
aa          jaw .68 spread -.06 upper_lip .16 lower_lip .26                        | 1.05 jaw 1.4 closure 1.6
ah          jaw .45 upper_lip .12 lower_lip .22                                    | 0.9 jaw 1.2 closure 1.6
schwa       jaw .26 upper_lip .08 lower_lip .16                                    | 0.5
er          jaw .22 pucker .10 funnel .42 upper_lip .10 lower_lip .18              | 0.8 closure 1.6 funnel 1.2
aw          jaw .54 pucker .14 funnel .46 spread -.10 upper_lip .12 lower_lip .16  | 1 jaw 1.3 closure 1.6 funnel 1.4
o           jaw .32 pucker .48 funnel .46 spread -.06 upper_lip .08 lower_lip .10  | 1 closure 1.6 pucker 1.4 funnel 1.3
oo          jaw .23 pucker .38 funnel .36 upper_lip .08 lower_lip .10              | 0.9 closure 1.6 pucker 1.2 funnel 1.2
u           jaw .13 pucker .90 funnel .30                                          | 1 closure 1.6 pucker 2 funnel 1.3
ue          jaw .12 pucker .85 funnel .26                                          | 1 closure 1.6 pucker 2 funnel 1.3
oe          jaw .28 pucker .52 funnel .48 upper_lip .08 lower_lip .10              | 1 closure 1.6 pucker 1.5 funnel 1.4
"""

_PHONES = """
silence sil | bilabial p b m | labial bh | labiodental f v | dental th dh | stop t d dx | nasal n | lateral l | trill rr | sibilant s z
hush sh zh ch jh | velar k g ng x q | palatal y hy | breath hh | rhotic r | glide w | ee iy | ih ih | e e | eh eh | ae ae | a a | aa aa
ah ah | schwa ax | er er | aw ao | o o | oo uh | u uw | ue ue | oe oe
"""

_DIPHTHONGS = {"aw": ("a", "oo"), "ay": ("a", "ih"), "ey": ("e", "ee"), "ow": ("o", "u"), "oy": ("aw", "ih")}


def _row(words: list[str], fill: float) -> np.ndarray:
    """Channels (float64 11) from a list name, value, name, value."""
    row = np.full(len(CHANNELS), fill)
    for name, value in zip(words[::2], words[1::2], strict=True):
        row[CHANNELS.index(name)] = float(value)
    return row


def _read_table() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    targets, dominance = {}, {}
    for line in _TABLE.strip().splitlines():
        aim, _, strength = line.partition("|")
        name, *words = aim.split()
        general, *special = strength.split()
        targets[name], dominance[name] = _row(words, 0.0), _row(special, float(general))
    return targets, dominance


TARGETS, DOMINANCE = _read_table()  # viseme -> float64 11
_ENTRIES = (entry.split() for line in _PHONES.strip().splitlines() for entry in line.split("|"))
PHONE_VISEMES = {phone: (viseme,) for viseme, *phones in _ENTRIES for phone in phones} | _DIPHTHONGS  # phone -> its visemes in turn

_OVERSAMPLING = 8  # steps of computation in a frame; a frame is their mean, as an exposed picture is
_RATE = VIDEO_FPS * _OVERSAMPLING  # steps a second
_PLATEAU = 0.6  # share of a phone during which its dominance is full
_GLIDE = 0.55  # share of a diphthong that its first vowel takes
_REACH = 10.0  # time constants after which a dominance function has no say
_SMOOTHING = 0.05  # s: width of the raised cosine that rounds corners off
_LONG_SILENCE = 0.2  # s: a silence from here on closes the mouth
_FULL_TUCK = 0.92
_CONTACT_RISE, _CONTACT_FALL = 0.05, 0.045  # s in which lips close before a p and part after it
_JAW, _SPREAD, _PUCKER, _FUNNEL, _CLOSURE, _UPPER, _LOWER, _TUCK, _PRESS = range(9)

# Time constants of the dominance functions relative to MouthStyle.reach, ahead of the phone and behind it
_AHEAD = np.array([1.0, 1.1, 1.7, 1.6, 0.6, 0.9, 0.9, 0.6, 0.6, 0.6, 0.6])
_BEHIND = np.array([1.05, 1.0, 1.1, 1.1, 0.6, 0.9, 0.9, 0.6, 0.6, 0.6, 0.6])


@dataclass(frozen=True)
class MouthStyle:
    """How somebody articulates."""

    strength: float = 1.0  # 0.75 (mumbles) .. 1.15 (declaims)
    jaw_share: float = 1.0  # 0.85 (works with the lips) .. 1.15 (works with the jaw)
    parting: float = 0.0  # 0 .. 0.04: how much less than shut the resting lips are
    reach: float = 0.045  # 0.035 .. 0.058 s: time constant of coarticulation
    smile: float = 0.0  # -0.08 .. 0.15: spread at rest and underneath all speech


def draw_style(seed: int) -> MouthStyle:
    """The style of an identity."""
    rng = stream(seed, "mouth style")
    return MouthStyle(
        strength=float(rng.uniform(0.75, 1.15)),
        jaw_share=float(rng.uniform(0.85, 1.15)),
        parting=float(max(rng.uniform(-0.03, 0.04), 0.0)),
        reach=float(rng.uniform(0.035, 0.058)),
        smile=float(rng.uniform(-0.08, 0.15)),
    )


def mouth_channels(
    phones: Sequence[Phone], frames: int, style: MouthStyle | None = None, loudness: Sequence[float] | np.ndarray | None = None
) -> np.ndarray:
    """The mouth at every frame: float32 n 11 in the order of CHANNELS, in [0, 1] (spread from -0.3).

    Frame k is the mean over [k/25, (k+1)/25) s. `phones` tile the time from 0 on; past their end the mouth rests. `loudness` holds one
    number a phone, 1 for an average vowel: loud ones open the jaw further.
    """
    style = style or MouthStyle()
    steps = frames * _OVERSAMPLING
    times = (np.arange(steps) + 0.5) / _RATE  # t
    end = phones[-1].end if phones else 0.0
    filled = [*phones, Phone(SILENCE, end, max(end, frames / VIDEO_FPS) + 1.0)]
    factors = np.ones(len(filled)) if loudness is None else np.append(np.clip(np.power(np.maximum(loudness, 0.05), 0.3), 0.75, 1.2), 1.0)
    movement = _rounded_off(_blended(filled, factors, times, style))
    _rest(movement, filled, times, style)
    _tuck_lips(movement, filled, times)
    _close_lips(movement, filled, times)
    mean = movement.reshape(frames, _OVERSAMPLING, len(CHANNELS)).mean(1)
    lowest = np.where(np.arange(len(CHANNELS)) == _SPREAD, -0.3, 0.0)
    return np.clip(mean, lowest, 1.0).astype(np.float32)


def _segments(phones: Sequence[Phone], factors: np.ndarray) -> list[tuple[str, float, float, float]]:
    """(viseme, start, end, loudness factor) of all phones: diphthongs are two."""
    found = []
    for phone, factor in zip(phones, factors.tolist(), strict=True):
        visemes = PHONE_VISEMES[phone.symbol]
        middle = phone.start + _GLIDE * (phone.end - phone.start)
        edges = (phone.start, phone.end) if len(visemes) == 1 else (phone.start, middle, phone.end)
        found += [(viseme, *edge, factor) for viseme, edge in zip(visemes, itertools.pairwise(edges), strict=True)]
    return found


def _target(viseme: str, factor: float, style: MouthStyle) -> np.ndarray:
    """Channels (11) that a viseme aims at in this style and loudness."""
    scale = np.full(len(CHANNELS), style.strength)
    scale[_JAW] *= style.jaw_share * factor
    scale[[_SPREAD, _PUCKER, _FUNNEL, _UPPER, _LOWER]] *= 2 - style.jaw_share
    scale[[_CLOSURE, _TUCK]] = 1.0
    target = TARGETS[viseme] * scale
    target[_SPREAD] += style.smile
    return target


def _blended(phones: Sequence[Phone], factors: np.ndarray, times: np.ndarray, style: MouthStyle) -> np.ndarray:
    """Targets blended by dominance (t 11)."""
    total = np.zeros((len(times), len(CHANNELS)))
    weight = np.full((len(times), len(CHANNELS)), 1e-9)
    reach = _REACH * style.reach * _AHEAD.max()
    for viseme, start, end, factor in _segments(phones, factors):
        first, last = np.searchsorted(times, (start - reach, end + reach))
        half = 0.5 * (end - start)
        offset = times[first:last] - (start + half)
        distance = np.maximum(np.abs(offset) - _PLATEAU * half, 0.0)[:, None]  # t 1
        constants = style.reach * np.where(offset[:, None] < 0, _AHEAD, _BEHIND)  # t 11
        dominance = DOMINANCE[viseme] * np.exp(-distance / constants)
        total[first:last] += dominance * _target(viseme, factor, style)
        weight[first:last] += dominance
    return total / weight


def _rounded_off(movement: np.ndarray) -> np.ndarray:
    """The movement without corners (t 11); its ends stay where they are."""
    window = np.hanning(2 * round(0.5 * _SMOOTHING * _RATE) + 3)[1:-1]
    return convolve1d(movement, window / window.sum(), axis=0, mode="nearest")


def _hold(times: np.ndarray, start: float, end: float, rise: float, fall: float) -> tuple[slice, np.ndarray]:
    """Where and how strongly (0 .. 1) something is held: fully from `start` to `end`, in and out along raised cosines."""
    first, last = np.searchsorted(times, (start - rise, end + fall))
    there = times[first:last]
    away = np.maximum((start - there) / rise, (there - end) / fall).clip(0.0, 1.0)
    return slice(first, last), 0.5 + 0.5 * np.cos(np.pi * away)


def _frame_around(time: float) -> tuple[float, float]:
    """Start and end of the frame whose exposure covers a time."""
    frame = int(time * VIDEO_FPS + 1e-9)
    return frame / VIDEO_FPS, (frame + 1) / VIDEO_FPS


def _contacts(
    movement: np.ndarray, phones: Sequence[Phone], times: np.ndarray, symbols: Sequence[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The part (t 11) of the movement around each of these consonants, and how strongly (t) its contact is held there.

    It is held for most of the phone, and for all of the frame that covers its middle.
    """
    for phone in phones:
        if phone.symbol in symbols:
            length = phone.end - phone.start
            start, end = _frame_around(0.5 * (phone.start + phone.end))
            held = min(start, phone.start + 0.25 * length), max(end, phone.end - 0.3 * length)
            where, hold = _hold(times, *held, _CONTACT_RISE, _CONTACT_FALL)
            yield movement[where], hold


def _close_lips(movement: np.ndarray, phones: Sequence[Phone], times: np.ndarray) -> None:
    """Lips meet in every p b m; the rest of the mouth gives way."""
    for part, hold in _contacts(movement, phones, times, BILABIALS):
        part[:, _CLOSURE] = np.maximum(part[:, _CLOSURE], hold)
        part[:, _JAW] *= 1 - 0.35 * hold
        part[:, [_UPPER, _LOWER]] *= 1 - 0.8 * hold[:, None]
        part[:, _PRESS] = np.maximum(part[:, _PRESS], hold * TARGETS["bilabial"][_PRESS])


def _tuck_lips(movement: np.ndarray, phones: Sequence[Phone], times: np.ndarray) -> None:
    """The lower lip meets the upper teeth in every f v, and the upper lip stays off it."""
    for part, hold in _contacts(movement, phones, times, LABIODENTALS):
        part[:, _TUCK] = np.maximum(part[:, _TUCK], _FULL_TUCK * hold)
        part[:, _CLOSURE] *= 1 - hold
        part[:, _JAW] = np.minimum(part[:, _JAW], 1 - 0.75 * hold)
        part[:, _LOWER] *= 1 - hold


def _rest(movement: np.ndarray, phones: Sequence[Phone], times: np.ndarray, style: MouthStyle) -> None:
    """Every long silence closes the mouth, slower where there is time, and ends a little before the next sound."""
    rest = np.zeros(len(CHANNELS))
    rest[[_JAW, _SPREAD, _CLOSURE]] = TARGETS["silence"][_JAW], style.smile, 1 - style.parting
    for phone in phones:
        length = phone.end - phone.start
        if phone.symbol != SILENCE or length < _LONG_SILENCE:
            continue
        rise = float(np.clip(0.55 * length, 0.11, 0.18))
        fall = float(np.clip(0.5 * length, 0.09, 0.2))
        start = phone.start + rise - 0.02 if phone.start > 0 else 0.0
        end = phone.end - 0.7 * fall
        middle = _frame_around(0.5 * (start + max(start, end)))
        where, hold = _hold(times, min(start, middle[0]), max(end, middle[1]), rise, fall)
        movement[where] += hold[:, None] * (rest - movement[where])

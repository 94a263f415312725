"""The voices: which there are, who they sound like, and how one is drawn.

A speaker is one voice of an engine (a flite voice, an espeak-ng variant); a Voice is a speaker in one mood: accent, rate, pitch, and a
resampling factor that scales vocal tract and pitch alike. All moods of a speaker have the same key.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Engine = Literal["flite", "espeak"]

ACCENTS = ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland")  # of espeak-ng: American twice as often; "en" is British
FEMININE_RESAMPLE = (0.94, 1.2)  # range of the resampling factor; above 1 is a shorter vocal tract
MASCULINE_RESAMPLE = (0.86, 1.12)


@dataclass(frozen=True)
class Speaker:
    """One voice of an engine."""

    engine: Engine
    name: str
    feminine: bool

    @property
    def key(self) -> str:
        """A stable name: what the splits go by."""
        return f"{self.engine}/{self.name}"


@dataclass(frozen=True)
class Voice:
    """A speaker in one mood."""

    engine: Engine
    name: str
    language: str = "en-us"  # flite speaks en-us alone
    rate: float = 1.0  # speaking rate, 1 is the engine's own
    pitch: float = 1.0  # factor on the speaker's own pitch; flite's rms has one pitch only
    resample: float = 1.0  # 0.86 .. 1.2: frequencies are scaled by it, times divided by it

    @property
    def key(self) -> str:
        """The key of its speaker."""
        return f"{self.engine}/{self.name}"


def _speakers(engine: Engine, feminine: str, masculine: str) -> tuple[Speaker, ...]:
    return (
        *(Speaker(engine, name, True) for name in feminine.split()),
        *(Speaker(engine, name, False) for name in masculine.split()),
    )


# Variants of espeak-ng that whisper, croak, chirp or hum like machines are left out.
SPEAKERS = (
    *_speakers("flite", "slt", "awb kal16 rms"),
    *_speakers(
        "espeak",
        "Alicia Andrea Annie anika aunty belinda f1 f2 f3 f4 f5 grandma linda shelby",
        "adam Alex Andy antonio AnxiousAndy benjamin boris caleb david Denis Diogo ed edward edward2 Gene Gene2 gustave Henrique Hugo"
        " iven2 iven3 iven4 Jacky john kaukovalta klatt2 klatt3 klatt4 klatt5 Lee m1 m2 m3 m4 m5 m6 m7 m8 marcelo Marco Mario max Michael"
        " michel miguel Mike Nguyen norbert pablo paul pedro quincy RicishayMax RicishayMax2 RicishayMax3 rob robert sandro travis Tweaky"
        " victor",
    ),
)

# Variants of espeak-ng that are one throat under several names: they differ in pitch, tone, echo or a formant or two.
_FAMILIES = (
    "adam benjamin caleb",
    "aunty belinda f4 linda",
    "edward edward2 klatt5",
    "f2 f5",
    "Gene Gene2",
    "Hugo Diogo Henrique michel miguel",
    "iven2 iven3 iven4",
    "john norbert pedro Tweaky",
    "klatt2 klatt3 klatt4",
    "max RicishayMax RicishayMax2 RicishayMax3",
    "Michael Mario gustave",
    "Nguyen m8",
    "quincy rob robert",
)
_FAMILY_OF = {f"espeak/{name}": f"espeak/{names.split()[0]}" for names in _FAMILIES for name in names.split()}


def family_of(key: str) -> str:
    """The key of the speaker who stands for all that sound like this one, often the speaker itself."""
    return _FAMILY_OF.get(key, key)


def draw_voice(rng: np.random.Generator, speakers: tuple[Speaker, ...], language: str = "en") -> Voice:
    """A voice of one of `speakers`: engines alike often, then speakers; languages other than "en" are espeak-ng's (de, es, fr, ...).

    Raises ValueError when no speaker of the language is among them.
    """
    english = language == "en"
    engines = sorted({speaker.engine for speaker in speakers if english or speaker.engine == "espeak"})
    if not engines:
        raise ValueError(f"no speaker of {language} among {len(speakers)}")
    engine = engines[rng.integers(len(engines))]
    choice = [speaker for speaker in speakers if speaker.engine == engine]
    speaker = choice[rng.integers(len(choice))]
    accent = ACCENTS[rng.integers(len(ACCENTS))]
    lowest, highest = FEMININE_RESAMPLE if speaker.feminine else MASCULINE_RESAMPLE
    return Voice(
        engine=speaker.engine,
        name=speaker.name,
        language=("en-us" if speaker.engine == "flite" else accent) if english else language,
        rate=round(float(rng.uniform(0.84, 1.2)), 3),
        pitch=round(float(np.exp(rng.uniform(-0.14, 0.14))), 3),
        resample=round(float(rng.uniform(lowest, highest)), 3),
    )

"""The voices, and who says what: train, validation and test are three sets of people, speakers and sentences that share nothing.

A speaker is one voice of an engine (a flite voice, an espeak-ng variant); a Voice is a speaker with accent, rate, pitch and a resampling
factor that scales vocal tract and pitch alike. Whether an identity, a speaker or a topic of speech belongs to a split is decided
by itself alone: the speakers of validation and test stand in a table, the rest goes by checksums. So clips can be drawn one by one, in any
number of processes, from (seed, split, index).
"""

import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from embedded.talking_heads.speech.sentences import draw_text
from embedded.talking_heads.traits import draw_traits, stream

Engine = Literal["flite", "espeak"]

ACCENTS = ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland")  # of espeak-ng: American twice as often; "en" is British
FEMININE_RESAMPLE = (0.94, 1.2)  # range of the resampling factor; above 1 is a shorter vocal tract
MASCULINE_RESAMPLE = (0.86, 1.12)


@dataclass(frozen=True)
class Voice:
    """A speaker with accent, rate, pitch and size of the vocal tract."""

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


# Engine, sex and names of the speakers; variants of espeak-ng that whisper, croak, chirp or hum like machines are left out
_FEMININE = {"flite": "slt", "espeak": "Alicia Andrea Annie anika aunty belinda f1 f2 f3 f4 f5 grandma linda shelby"}
_MASCULINE = {
    "flite": "awb kal16 rms",
    "espeak": "adam Alex Andy antonio AnxiousAndy benjamin boris caleb david Denis Diogo ed edward edward2 Gene Gene2 gustave Henrique Hugo"
    " iven2 iven3 iven4 Jacky john kaukovalta klatt2 klatt3 klatt4 klatt5 Lee m1 m2 m3 m4 m5 m6 m7 m8 marcelo Marco Mario max Michael"
    " michel miguel Mike Nguyen norbert pablo paul pedro quincy RicishayMax RicishayMax2 RicishayMax3 rob robert sandro travis Tweaky"
    " victor",
}
# Key of a speaker -> whether it is feminine
SPEAKERS = {
    f"{engine}/{name}": table is _FEMININE for table in (_FEMININE, _MASCULINE) for engine, names in table.items() for name in names.split()
}

# Variants of espeak-ng that are one voice under several names: they differ in pitch, tone, echo or a formant or two.
_FAMILIES = (
    "adam benjamin caleb", "aunty belinda f4 linda", "edward edward2 klatt5", "f2 f5", "Gene Gene2", "Hugo Diogo Henrique michel miguel",
    "iven2 iven3 iven4", "john norbert pedro Tweaky", "klatt2 klatt3 klatt4", "max RicishayMax RicishayMax2 RicishayMax3",
    "Michael Mario gustave", "Nguyen m8", "quincy rob robert",
)  # fmt: skip
_FAMILY_OF = {f"espeak/{name}": f"espeak/{names.split()[0]}" for names in _FAMILIES for name in names.split()}
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
# Of each family of speakers, the one who stands for it
_TEST_VARIANTS = ("f2", "Andrea", "aunty", "m3", "Alex", "Denis", "Hugo", "quincy", "david", "Nguyen", "max")
_VALIDATION_VARIANTS = ("Annie", "f3", "m7", "adam", "Michael", "Lee")
_TEST_SPEAKERS = frozenset({"flite/rms", *(f"espeak/{name}" for name in _TEST_VARIANTS)})
_VALIDATION_SPEAKERS = frozenset({"flite/awb", *(f"espeak/{name}" for name in _VALIDATION_VARIANTS)})
_LARGEST_SEED = 2**31


def split_of_speaker(key: str) -> Split:
    """The one split that a speaker (its key) belongs to, with all who sound like it and however it is resampled."""
    family = _FAMILY_OF.get(key, key)
    return "test" if family in _TEST_SPEAKERS else "validation" if family in _VALIDATION_SPEAKERS else "train"


def split_of_identity(seed: int) -> Split:
    """The one split that a person belongs to: one in 16 is for testing, one for validation."""
    return _by_checksum(f"identity {seed}", 16)


def split_of_topic(topic: str) -> Split:
    """The one split that a topic of speech belongs to: one in ten is for testing, one for validation."""
    return _by_checksum(f"speech {topic}", 10)


def _by_checksum(text: str, buckets: int) -> Split:
    bucket = zlib.crc32(text.encode()) % buckets
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def draw_voice(rng: np.random.Generator, split: Split, feminine: bool) -> Voice:
    """A voice of a split and sex: engines alike often, then speakers."""
    speakers = [key.split("/") for key, is_feminine in SPEAKERS.items() if is_feminine == feminine and split_of_speaker(key) == split]
    engines = sorted({engine for engine, _ in speakers})
    engine = engines[rng.integers(len(engines))]
    names = [name for kind, name in speakers if kind == engine]
    name, accent = names[rng.integers(len(names))], ACCENTS[rng.integers(len(ACCENTS))]
    return Voice(
        engine=engine,
        name=name,
        language="en-us" if engine == "flite" else accent,
        rate=round(float(rng.uniform(0.84, 1.2)), 3),
        pitch=round(float(np.exp(rng.uniform(-0.14, 0.14))), 3),
        resample=round(float(rng.uniform(*(FEMININE_RESAMPLE if feminine else MASCULINE_RESAMPLE))), 3),
    )


@dataclass(frozen=True)
class ClipPlan:
    """Who says what, and how: all that a clip is made of follows from it."""

    split: Split
    identity: int  # seed of the person
    voice: Voice
    text: str
    seed: int  # seed of whatever is of this clip alone: pose, gaze, camera, noise


def plan_clip(seed: int, index: int, split: Split, words: int = 12) -> ClipPlan:
    """The plan of clip `index` of the collection `seed`: a person, a voice of that person's sex and at least `words` words."""
    rng = stream(seed, f"clip {index} of {split}")
    while split_of_identity(identity := int(rng.integers(_LARGEST_SEED))) != split:
        continue
    voice = draw_voice(rng, split, draw_traits(identity).femininity > 0.5)
    text = draw_text(rng, words, lambda topic: split_of_topic(topic) == split)
    return ClipPlan(split, identity, voice, text, int(rng.integers(_LARGEST_SEED)))


def other_text(plan: ClipPlan, words: int) -> str:
    """At least `words` other words for the person of a plan: of the same split, about nothing that the plan's text is about."""

    def is_new(topic: str) -> bool:
        mentioned = topic in plan.text or any(word in plan.text for word in topic.split() if word.isalpha() and topic[-1] not in ".!?")
        return split_of_topic(topic) == plan.split and not mentioned

    return draw_text(stream(plan.seed, "other words"), words, is_new)

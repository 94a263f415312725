"""x"""

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

import numpy as np

from embedded.talking_heads.speech.sentences import FOREIGN, draw_sentence, draw_text
from embedded.talking_heads.traits import draw_traits, stream
from latentsync.errors import InputError

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


Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Of each family of speakers, the one who stands for it
_TEST_VARIANTS = ("f2", "Andrea", "aunty", "m3", "Alex", "Denis", "Hugo", "quincy", "david", "Nguyen", "max")
_VALIDATION_VARIANTS = ("Annie", "f3", "m7", "adam", "Michael", "Lee")
_TEST_SPEAKERS = frozenset({"flite/rms", *(f"espeak/{name}" for name in _TEST_VARIANTS)})
_VALIDATION_SPEAKERS = frozenset({"flite/awb", *(f"espeak/{name}" for name in _VALIDATION_VARIANTS)})
_IDENTITY_SHARE = 16  # one identity in 16 that is not for testing is for validation
_TOPIC_BUCKETS = 10  # one is for testing, one for validation
_LARGEST_SEED = 2**31
_TRIES = 10_000  # sentences that are drawn before none is held to be new


@dataclass(frozen=True)
class ClipPlan:
    """Who says what, and how: all that a clip is made of follows from it."""

    split: Split
    identity: int  # seed of the person
    voice: Voice
    text: str
    seed: int  # seed of whatever is of this clip alone: pose, gaze, camera, noise


@cache
def test_identities() -> tuple[int, ...]:
    """Seeds of the people who are kept for testing."""
    content = files("preprocess.talking_heads.speech").joinpath("test_seeds.json").read_text(encoding="utf-8")
    return tuple(json.loads(content)["identity_seeds"])


def split_of_identity(seed: int) -> Split:
    """The one split that a person belongs to."""
    if seed in test_identities():
        return "test"
    return "validation" if zlib.crc32(f"identity {seed}".encode()) % _IDENTITY_SHARE == 0 else "train"


def split_of_speaker(key: str) -> Split:
    """The one split that a speaker (the key of a Speaker or a Voice) belongs to, with all who sound like it and however it is resampled."""
    family = family_of(key)
    if family in _TEST_SPEAKERS:
        return "test"
    return "validation" if family in _VALIDATION_SPEAKERS else "train"


def split_of_topic(topic: str) -> Split:
    """The one split that a topic of speech belongs to."""
    bucket = zlib.crc32(f"speech {topic}".encode()) % _TOPIC_BUCKETS
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def speakers_of(split: Split) -> tuple[Speaker, ...]:
    """All speakers of a split."""
    return tuple(speaker for speaker in SPEAKERS if split_of_speaker(speaker.key) == split)


def plan_clip(seed: int, index: int, split: Split, words: int = 12, language: str = "en") -> ClipPlan:
    """The plan of clip `index` of the collection `seed`: a person, a voice of that person's sex and at least `words` words."""
    rng = stream(seed, f"clip {index} of {split}")
    identity = _draw_identity(rng, split)
    return ClipPlan(
        split=split,
        identity=identity,
        voice=_draw_voice(rng, identity, split, language),
        text=draw_text(rng, words, _own_topics(rng, split, language), language),
        seed=int(rng.integers(_LARGEST_SEED)),
    )


def other_text(plan: ClipPlan, words: int, language: str = "en") -> str:
    """At least `words` other words for the person of a plan: of the same split, without a sentence of the plan's text or its nouns.

    Raises InputError where the split has no other sentence, which never happens with a plan by `plan_clip` of the same language.
    """
    rng = stream(plan.seed, "other words")
    said = set(sentences_of(plan.text))
    texts: list[str] = []
    for _ in range(_TRIES):
        sentence = draw_sentence(rng, lambda topic: split_of_topic(topic) == plan.split, language)
        if sentence.text in said or any(_is_told(topic, plan.text) for topic in sentence.topics):
            continue
        texts.append(sentence.text)
        if sum(len(text.split()) for text in texts) >= words:
            return " ".join(texts)
    raise InputError(f"no more than {len(texts)} of {_TRIES} sentences were other than {plan.text[:60]!r}: ask for fewer words")


def sentences_of(text: str) -> list[str]:
    """A text cut behind each full stop, question mark and exclamation mark."""
    return re.split(r"(?<=[.!?])\s+", text)


def _is_told(topic: str, text: str) -> bool:
    """Whether a text is about a topic: it holds the sentence or the number that the topic is, or one of its nouns."""
    if topic[-1] in ".!?":
        return topic in text
    return topic in text or any(word in text for word in topic.split() if word.isalpha())


def _own_topics(rng: np.random.Generator, split: Split, language: str) -> Callable[[str], bool]:
    """Which topics a clip may speak of: its split's, but of the few sentences of a foreign language only half, so that others are left."""
    if language not in FOREIGN:
        return lambda topic: split_of_topic(topic) == split
    pool = [text for text in FOREIGN[language] if split_of_topic(text) == split]
    return set(rng.permutation(pool)[: len(pool) // 2].tolist()).__contains__


def _draw_identity(rng: np.random.Generator, split: Split) -> int:
    if split == "test":
        return test_identities()[rng.integers(len(test_identities()))]
    while split_of_identity(identity := int(rng.integers(_LARGEST_SEED))) != split:
        continue
    return identity


def _draw_voice(rng: np.random.Generator, identity: int, split: Split, language: str) -> Voice:
    feminine = draw_traits(identity).femininity > 0.5
    return draw_voice(rng, tuple(speaker for speaker in speakers_of(split) if speaker.feminine == feminine), language)

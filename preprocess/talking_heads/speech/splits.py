"""Train, validation and test: three sets of people, speakers and sentences that share nothing.

Whether an identity, a speaker or a topic of speech belongs to a split is decided by itself alone, never by who asks or in which order: the
test identities stand in test_seeds.json, the speakers of validation and test in a table, and the rest goes by checksums. So clips can be
drawn one by one, in any number of processes, from (seed, split, index).
"""

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

import numpy as np

from latentsync.errors import InputError
from preprocess.talking_heads.speech import words as vocabulary
from preprocess.talking_heads.speech.sentences import draw_sentence, draw_text
from preprocess.talking_heads.speech.voices import SPEAKERS, Speaker, Voice, draw_voice, family_of
from preprocess.talking_heads.traits import draw_traits, stream

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
    if language not in vocabulary.FOREIGN:
        return lambda topic: split_of_topic(topic) == split
    pool = [text for text in vocabulary.FOREIGN[language] if split_of_topic(text) == split]
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

"""Sentences to speak: statements, questions, lists, numbers and set phrases from a grammar of our own word lists.

Every sentence is about one or more things, its topics: a pair of verb and noun, a number, a list, a set phrase. A caller can forbid topics,
which is how two collections of sentences are kept from sharing any.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from latentsync.errors import InputError
from preprocess.talking_heads.speech import words

Allowed = Callable[[str], bool]
LANGUAGES = ("en", *words.FOREIGN)
_TRIES = 10_000  # topics that are drawn before none is held to be allowed
_SIBILANT_ENDS = ("s", "x", "z", "ch", "sh")
_PLURALS = {"fish": "fish", "sheep": "sheep", "mouse": "mice", "tooth": "teeth", "wolf": "wolves", "leaf": "leaves", "knife": "knives"}
_PLURALS |= {"potato": "potatoes", "tomato": "tomatoes", "scarf": "scarves"}
_MASS = {"cloth", "coffee", "honey", "juice", "milk", "money", "music", "soap", "water"}  # nouns that are not counted
_MASS_DETERMINERS = ("the", "my", "your", "our", "some", "this")


class Sentence(NamedTuple):
    """A sentence and what it is about."""

    text: str
    topics: tuple[str, ...]


def draw_text(rng: np.random.Generator, least: int = 12, allowed: Allowed | None = None, language: str = "en") -> str:
    """Sentences of a language (one of LANGUAGES) until they hold at least `least` words, all of their topics allowed.

    Raises InputError for a language without sentences and where nothing is allowed.
    """
    texts: list[str] = []
    while not texts or sum(len(text.split()) for text in texts) < least:
        texts.append(draw_sentence(rng, allowed, language).text)
    return " ".join(texts)


def draw_sentence(rng: np.random.Generator, allowed: Allowed | None = None, language: str = "en") -> Sentence:
    """One sentence all of whose topics are allowed (all are, by default). Raises InputError as `draw_text` does."""
    if language not in LANGUAGES:
        raise InputError(f"there are no sentences in {language!r}: choose one of {', '.join(LANGUAGES)}")
    permitted = allowed or (lambda topic: True)
    if language != "en":
        return _single(permitted, lambda: _one(rng, words.FOREIGN[language]))
    kinds = (_statement, _question, _numbered, _list, _phrase)
    return kinds[rng.choice(len(kinds), p=(0.5, 0.2, 0.1, 0.08, 0.12))](rng, permitted)


def _one(rng: np.random.Generator, choice: Sequence[str]) -> str:
    return choice[rng.integers(len(choice))]


def _until(permitted: Allowed, draw: Callable[[], str]) -> str:
    """The first topic drawn that is permitted."""
    for _ in range(_TRIES):
        topic = draw()
        if permitted(topic):
            return topic
    raise InputError(f"none of {_TRIES} topics was allowed, the last was {topic!r}: allow more of them")


def _single(permitted: Allowed, draw: Callable[[], str]) -> Sentence:
    """A sentence that is its own topic."""
    text = _until(permitted, draw)
    return Sentence(text, (text,))


def _plural(noun: str) -> str:
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(_SIBILANT_ENDS) else "s")


def _with_article(determiner: str, rest: str) -> str:
    """A determiner before its words; "a" becomes "an" where one says so."""
    vowel = rest[0] in "aeiou" and not rest.startswith(("uni", "use", "usu"))
    return f"an {rest}" if determiner == "a" and vowel else f"{determiner} {rest}"


def _noun_phrase(rng: np.random.Generator, noun: str) -> str:
    adjective = f"{_one(rng, words.ADJECTIVES)} " if rng.random() < 0.65 else ""
    if noun not in _MASS and rng.random() < 0.2:
        return f"{_one(rng, ('some', 'five', 'both', 'several', 'these', 'those', 'twelve', 'the'))} {adjective}{_plural(noun)}"
    return _with_article(_one(rng, _MASS_DETERMINERS if noun in _MASS else words.DETERMINERS), adjective + noun)


def _someone(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.35:
        return _one(rng, words.PEOPLE)
    if kind < 0.55:
        return _one(rng, words.PRONOUNS)
    return _noun_phrase(rng, _one(rng, words.NOUNS))


def _action(rng: np.random.Generator, permitted: Allowed, tense: int) -> tuple[str, str]:
    """A predicate in plain form (tense 0) or past (1), and its topic."""
    topic = _until(permitted, lambda: f"{rng.integers(len(words.VERBS))} {_one(rng, words.NOUNS)}")
    verb, noun = topic.split(" ")
    return f"{words.VERBS[int(verb)][tense]} {_noun_phrase(rng, noun)}", topic


def _finished(text: str, topics: Sequence[str], mark: str) -> Sentence:
    return Sentence(text[0].upper() + text[1:] + mark, tuple(topics))


def _statement(rng: np.random.Generator, permitted: Allowed) -> Sentence:
    action, topic = _action(rng, permitted, 1)
    text, topics = f"{_someone(rng)} {action}", [topic]
    if rng.random() < 0.5:
        text += f" {_one(rng, words.ADVERBS)}"
    if rng.random() < 0.3:
        text = f"{_one(rng, words.OPENINGS)} {text}"
    if rng.random() < 0.3:
        action, topic = _action(rng, permitted, 1)
        text += f", {_one(rng, words.LINKS)} {_someone(rng)} {action}"
        topics.append(topic)
    return _finished(text, topics, "!" if rng.random() < 0.12 else ".")


def _question(rng: np.random.Generator, permitted: Allowed) -> Sentence:
    action, topic = _action(rng, permitted, 0)
    text = f"{_one(rng, words.QUESTIONS).format(who=_someone(rng))} {action}"
    if rng.random() < 0.35:
        text += f" {_one(rng, words.ADVERBS)}"
    return _finished(text, [topic], "?")


def _numbered(rng: np.random.Generator, permitted: Allowed) -> Sentence:
    number = _until(permitted, lambda: str(int(10 ** rng.uniform(0.4, 4.0))))
    return _finished(_one(rng, words.NUMBERED).format(n=number), [number], ".")


def _list(rng: np.random.Generator, permitted: Allowed) -> Sentence:
    def draw() -> str:
        return " ".join(rng.choice([noun for noun in words.NOUNS if noun not in _MASS], size=rng.integers(3, 6), replace=False))

    topic = _until(permitted, draw)
    *most, last = (_plural(noun) for noun in topic.split(" "))
    return _finished(f"{', '.join(most)} and {last}", [topic], ".")


def _phrase(rng: np.random.Generator, permitted: Allowed) -> Sentence:
    return _single(permitted, lambda: _one(rng, words.PHRASES))

"""The set of phones that all voices share, and how other phone sets are written in it.

The symbols are ARPAbet's in lower case, with a few more for sounds that English lacks: a, e, o (pure vowels), ue and oe (front rounded
vowels), rr and q (trilled and uvular r), x and hy (German ach and ich), bh (Spanish soft b). `sil` is silence of any kind.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from latentsync.errors import InputError

SILENCE = "sil"
BILABIALS = ("p", "b", "m")
LABIODENTALS = ("f", "v")
VOICELESS_STOPS = ("p", "t", "k", "ch")
_VOWEL_TEXT = "aa ae ah ax ao a eh e er ih iy o oe uh uw ue aw ay ey ow oy"
_CONSONANT_TEXT = "p b bh m f v th dh t d dx n l r rr q s z sh zh ch jh k g ng x hy y w hh"
VOWELS, CONSONANTS = tuple(_VOWEL_TEXT.split()), tuple(_CONSONANT_TEXT.split())
SYMBOLS = (SILENCE, *CONSONANTS, *VOWELS)
_SLIVER = 1e-4  # s


@dataclass(frozen=True)
class Phone:
    """One phone of speech."""

    symbol: str  # one of SYMBOLS
    start: float  # s
    end: float  # s, at least start


# ARPAbet symbols that are not ours already
_ARPABET = dict.fromkeys(("pau", "ssil", "brth", "h#"), (SILENCE,)) | {"hv": ("hh",), "ix": ("ih",), "ux": ("uw",), "axr": ("er",)}
_ARPABET |= {"nx": ("n",), "em": ("ax", "m"), "en": ("ax", "n"), "el": ("ax", "l")}

# International Phonetic Alphabet, without marks of length, stress and nasality
_IPA_TEXT = """
p p | b b | m m | ɱ v | f f | v v | ʋ v | ɸ f | β bh | θ th | ð dh | t t | d d | ʈ t | ɖ d | n n | ɳ n | ɲ n y | l l | ɫ l | ɭ l | ʎ l y
ɾ dx | ɽ dx | r rr | ɹ r | ɻ r | ʁ q | ʀ q | s s | z z | ʃ sh | ʒ zh | ɕ sh | ʑ zh | ʂ sh | ʐ zh | tʃ ch | dʒ jh | tɕ ch | dʑ jh | ts t s
dz d z | pf p f | k k | g g | ɡ g | c k | ɟ g | q k | ŋ ng | x x | ɣ x | χ x | ç hy | ʝ y | j y | ɥ ue | w w | ʍ w | h hh | ɦ hh | ħ hh
ʔ hh | ɬ l | i iy | ɪ ih | ɨ ih | ᵻ ih | ɯ ih | y ue | ʏ ue | ʉ uw | u uw | ʊ uh | e e | ɘ ax | ø oe | œ oe | ɵ oe | ɛ eh | ɜ er | ɝ er
ɚ er | ɞ er | ə ax | ɐ ah | ʌ ah | ɤ ah | æ ae | a a | ɑ aa | ɒ ao | ɔ ao | o o | aɪ ay | aʊ aw | eɪ ey | oʊ ow | əʊ ow | ɔɪ oy | ɔø oy
"""
_CEDILLA = "\u0327"  # part of a letter here, not a mark on one
_IPA_ENTRIES = (entry.split() for line in unicodedata.normalize("NFD", _IPA_TEXT).splitlines() for entry in line.split("|"))
_IPA = {words[0]: tuple(words[1:]) for words in _IPA_ENTRIES if words}
_IPA_LONGEST = max(map(len, _IPA))
_IPA_MARKS = frozenset("ːˑˈˌ͡ʰʲʷˠˤ'-.ˀ^~:;")


def from_arpabet(symbol: str) -> tuple[str, ...]:
    """An ARPAbet symbol of any case in our set, more than one where it is short for several. Raises InputError for an unknown one."""
    lower = symbol.lower().rstrip("012")
    if lower in SYMBOLS:
        return (lower,)
    if lower not in _ARPABET:
        raise InputError(f"the phone {symbol!r} is not in ARPAbet: this voice cannot be used")
    return _ARPABET[lower]


def from_ipa(symbol: str) -> tuple[str, ...]:
    """A phone in the International Phonetic Alphabet in our set; "" is silence. Raises InputError for a sound that has no counterpart."""
    letters = (char for char in unicodedata.normalize("NFD", symbol) if char == _CEDILLA or not unicodedata.combining(char))
    rest = "".join(char for char in letters if char not in _IPA_MARKS)
    found: list[str] = []
    while rest:
        length = next((size for size in range(_IPA_LONGEST, 0, -1) if rest[:size] in _IPA), 0)
        if not length:
            raise InputError(f"the sound {symbol!r} has no counterpart among the phones here: choose a voice of another language")
        found += _IPA[rest[:length]]
        rest = rest[length:]
    return tuple(found) or (SILENCE,)


def spread(symbols: Sequence[str], start: float, end: float) -> list[Phone]:
    """Phones that share the time from `start` to `end` (s) evenly."""
    step = (end - start) / len(symbols)
    return [Phone(symbol, start + step * place, start + step * (place + 1)) for place, symbol in enumerate(symbols)]


def tile(phones: Iterable[Phone], duration: float) -> tuple[Phone, ...]:
    """The phones without gaps from 0 to `duration` (s): gaps become silence, neighbouring silences one, empty phones vanish.

    Gaps and phones below a tenth of a millisecond, which rounding to samples makes, go to the neighbour.
    """
    found: list[Phone] = []
    clock = 0.0
    for phone in (*phones, Phone(SILENCE, duration, duration)):
        start, end = (min(max(time, clock), duration) for time in (phone.start, phone.end))
        if start - clock >= _SLIVER:
            _append(found, Phone(SILENCE, clock, start))
            clock = start
        if end - clock >= _SLIVER:
            _append(found, Phone(phone.symbol, clock, end))
            clock = end
    if found:
        found[-1] = replace(found[-1], end=duration)
    return tuple(found)


def _append(phones: list[Phone], phone: Phone) -> None:
    """Add a phone; a silence after a silence makes it longer."""
    if phones and phones[-1].symbol == phone.symbol == SILENCE:
        phone = Phone(SILENCE, phones.pop().start, phone.end)
    phones.append(phone)


def to_json(phones: Sequence[Phone]) -> list[list[str | float]]:
    """Phones as plain lists [symbol, start, end] for a JSON file; times to the microsecond."""
    return [[phone.symbol, round(phone.start, 6), round(phone.end, 6)] for phone in phones]

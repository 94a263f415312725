"""Hairstyles: the numbers that tell growing hair how long it is, where it is combed to and how it curls."""

from dataclasses import dataclass, field, replace

import numpy as np

from preprocess.talking_heads.hair.regions import Hairline
from preprocess.talking_heads.traits import Traits, stream


@dataclass(frozen=True)
class Style:
    """One head of hair. Lengths in cm; a `share` or a strength lies in 0..1."""

    name: str
    strands: int
    points: int  # of a strand
    top: float  # lengths of the hair on top, at the sides and at the back
    side: float
    back: float
    line: Hairline = field(default_factory=Hairline)
    fade: float = 0.0  # share of the sides' length that is lost towards the lower edge
    part: float = 0.0  # x of the parting
    sideways: float = 0.0  # comb on top: away from the parting,
    backward: float = 0.0  # to the back (negative: to the front),
    natural: float = 0.4  # as it grows: away from the whorl
    side_back: float = 0.15  # comb of the sides to the back
    fringe: float = 0.0  # share of the front hair that falls onto the forehead
    fringe_gap: float = 0.6  # cm that the fringe ends above the brows
    lift: float = 0.35  # how steeply hair leaves the skin: 0 flat .. 1 upright
    stiffness: float = 0.5  # how slowly it turns into the direction of the comb
    weight: float = 0.5  # pull of gravity where hair hangs free
    cling: float = 0.6  # how firmly hair lies down on the head
    volume: float = 0.8  # cm that the outermost hair stands off the head
    mess: float = 0.15  # radians: spread of the directions
    clumps: int = 160
    clumping: float = 0.5  # how far the hairs of a clump meet at their tips
    curl: float = 0.0  # cm: radius of the curl,
    pitch: float = 6.0  # cm of hair for a turn
    frizz: float = 0.05  # cm: how far single hairs stray
    ragged: float = 0.12  # spread of the lengths
    radius: float = 0.045  # cm: half the drawn width
    before: float = 0.5  # long hair: share that falls before the shoulders
    knot: tuple[float, float] | None = None  # height y and size of a bun or ponytail's tie that all hair is pulled to
    tail: float = 0.0  # length of the ponytail; 0: a bun
    cover: float = 1.0  # how much the skin between the roots looks like hair


def draw_style(traits: Traits) -> Style:
    """The hairstyle of a person: a kind by sex, age and texture of the hair, its numbers by the seed."""
    rng = stream(traits.seed, "hairstyle")
    chances = {name: max(chance(traits), 0.0) for name, (chance, _) in _KINDS.items()}
    total = sum(chances.values())
    name = str(rng.choice(list(chances), p=[chance / total for chance in chances.values()]))
    style = _KINDS[name][1](rng, traits)
    return replace(style, name=name, line=_hairline(rng, traits, style))


def _hairline(rng: np.random.Generator, traits: Traits, style: Style) -> Hairline:
    male = 1 - traits.femininity
    ageing = np.clip((traits.age - 25) / 45, 0, 1) * male
    return replace(
        style.line,
        height=style.line.height + float(rng.normal(0.0, 0.35) + 0.4 * ageing),
        temples=style.line.temples + float(abs(rng.normal(0.15, 0.35)) + 1.6 * ageing * rng.random() + 0.35 * male),
        peak=float(rng.uniform(0.3, 0.8) if rng.random() < 0.25 else 0.0),
        sideburn=float(rng.uniform(0, 1.2)) * male,
        softness=style.line.softness * float(rng.uniform(0.7, 1.3)),
        phase=float(rng.uniform(0, 6.28)),
    )


def _texture(rng: np.random.Generator, traits: Traits) -> tuple[float, float]:
    """Radius (cm) and length of a turn (cm) of the natural wave; straight hair comes most often."""
    wave = rng.beta(1.1, 1.5) * (1 + 0.4 * traits.melanin)
    return float(0.85 * np.clip(wave - 0.15, 0, 1)), float(rng.uniform(7, 12) - 3.5 * np.clip(wave, 0, 1))


def _side(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _buzz(rng: np.random.Generator, traits: Traits) -> Style:
    length = float(rng.uniform(0.25, 1.0))
    return Style(
        "", 6300, 4, length, length * float(rng.uniform(0.4, 1.0)), length * 0.8, natural=1.0, lift=0.65, cling=0.0, stiffness=0.8,
        weight=0.05, volume=length, mess=0.25, clumps=1, clumping=0.0, frizz=0.01, radius=0.026, cover=0.75, line=Hairline(softness=0.5),
    )  # fmt: skip


def _crew(rng: np.random.Generator, traits: Traits) -> Style:
    top = float(rng.uniform(1.8, 3.6))
    return Style(
        "", 6200, 6, top, float(rng.uniform(0.5, 1.0)), float(rng.uniform(0.6, 1.2)), fade=float(rng.uniform(0.3, 0.8)), natural=0.5,
        sideways=0.35 * _side(rng), part=-9.0, backward=float(rng.uniform(-0.7, 0.3)), lift=0.6, cling=0.3, stiffness=0.7, weight=0.15,
        volume=0.6 * top, mess=0.22, clumps=260, clumping=0.45, frizz=0.05, radius=0.036, cover=0.85,
    )  # fmt: skip


def _side_part(rng: np.random.Generator, traits: Traits) -> Style:
    wave, pitch = _texture(rng, traits)
    return Style(
        "", 6200, 9, float(rng.uniform(6, 9.5)), float(rng.uniform(1.4, 3.0)), float(rng.uniform(1.5, 3.2)), fade=0.4,
        part=_side(rng) * float(rng.uniform(2.4, 3.8)), sideways=1.0, backward=float(rng.uniform(0.1, 0.7)), natural=0.15,
        lift=float(rng.uniform(0.4, 0.65)), stiffness=0.55, weight=0.3, side_back=0.5, volume=float(rng.uniform(0.9, 1.7)), mess=0.10,
        clumps=120, clumping=0.6, curl=0.3 * wave, pitch=pitch, frizz=0.05, radius=0.042,
    )  # fmt: skip


def _swept_back(rng: np.random.Generator, traits: Traits) -> Style:
    wave, pitch = _texture(rng, traits)
    top = float(rng.uniform(7, 12))
    return Style(
        "", 6200, 10, top, float(rng.uniform(2.0, 5.5)), float(rng.uniform(3, 6)), fade=float(rng.uniform(0, 0.5)), backward=1.0,
        natural=0.1, sideways=0.25, part=float(rng.normal(0, 1)), side_back=1.0, lift=float(rng.uniform(0.45, 0.8)), stiffness=0.6,
        weight=0.25, volume=float(rng.uniform(0.8, 2.2)), mess=0.10, clumps=110, clumping=0.65, curl=0.35 * wave, pitch=pitch, frizz=0.06,
        radius=0.043,
    )  # fmt: skip


def _messy(rng: np.random.Generator, traits: Traits) -> Style:
    top = float(rng.uniform(4, 7.5))
    return Style(
        "", 6200, 9, top, float(rng.uniform(1.6, 4.0)), float(rng.uniform(2.0, 4.0)), fade=float(rng.uniform(0, 0.5)), natural=0.7,
        sideways=0.5, part=_side(rng) * float(rng.uniform(0, 4)), backward=float(rng.uniform(-0.8, 0.5)),
        fringe=float(rng.choice([0.0, 0.5])), fringe_gap=1.2, lift=0.7, cling=0.25, stiffness=0.62, weight=0.3,
        volume=float(rng.uniform(1.2, 2.2)), mess=0.4, clumps=200, clumping=0.8, curl=float(rng.uniform(0, 0.35)), pitch=5.0, frizz=0.1,
        ragged=0.28, radius=0.042,
    )  # fmt: skip


def _fringe_short(rng: np.random.Generator, traits: Traits) -> Style:
    return Style(
        "", 6200, 9, float(rng.uniform(7, 10)), float(rng.uniform(3.5, 7)), float(rng.uniform(4, 7)), natural=1.0, backward=-0.5,
        sideways=0.0, fringe=1.0, fringe_gap=float(rng.uniform(0.1, 2.0)), lift=0.35, stiffness=0.5, weight=0.5,
        volume=float(rng.uniform(0.8, 1.5)), mess=0.16, clumps=130, clumping=0.6, frizz=0.06, ragged=0.15, radius=0.043,
    )  # fmt: skip


def _pixie(rng: np.random.Generator, traits: Traits) -> Style:
    return Style(
        "", 6200, 9, float(rng.uniform(6, 9)), float(rng.uniform(3.0, 5.0)), float(rng.uniform(3, 5)),
        part=_side(rng) * float(rng.uniform(2, 4)), natural=0.4, sideways=0.9, backward=-0.25, fringe=float(rng.uniform(0.3, 0.9)),
        fringe_gap=float(rng.uniform(0.3, 1.5)), lift=0.5, side_back=-0.15, stiffness=0.5, weight=0.45,
        volume=float(rng.uniform(1.1, 1.8)), mess=0.2, clumps=170, clumping=0.7, frizz=0.06, ragged=0.22, radius=0.042,
    )  # fmt: skip


def _bob(rng: np.random.Generator, traits: Traits) -> Style:
    wave, pitch = _texture(rng, traits)
    length = float(rng.uniform(17, 25))
    return Style(
        "", 5400, 13, length + 3, length - 4, length - 6, part=_side(rng) * float(rng.choice([0.3, 2.6])), sideways=1.0, backward=0.25,
        natural=0.2, side_back=0.1, fringe=float(rng.random() < 0.35), fringe_gap=float(rng.uniform(0.0, 0.8)), lift=0.5, stiffness=0.45,
        weight=0.8, volume=float(rng.uniform(1.5, 2.8)), mess=0.07, clumps=90, clumping=0.5, curl=wave, pitch=pitch, frizz=0.07,
        ragged=0.06, radius=0.05,
    )  # fmt: skip


def _long(rng: np.random.Generator, traits: Traits) -> Style:
    wave, pitch = _texture(rng, traits)
    length = float(rng.uniform(26, 46))
    return Style(
        "", 4700, 16, length + 4, length - 2, length - 6, part=_side(rng) * float(rng.choice([0.2, 2.2])), sideways=1.0, backward=0.3,
        natural=0.2, side_back=float(rng.uniform(0.0, 0.5)), fringe=float(rng.random() < 0.25), fringe_gap=float(rng.uniform(0, 0.6)),
        lift=0.45, stiffness=0.45, weight=0.85, volume=float(rng.uniform(1.4, 2.8)), mess=0.06, clumps=80, clumping=0.55, curl=1.2 * wave,
        pitch=pitch + 2, frizz=0.09, ragged=0.08, radius=0.056, before=float(rng.uniform(0, 1)),
    )  # fmt: skip


def _curly(rng: np.random.Generator, traits: Traits) -> Style:
    length = float(rng.uniform(9, 22)) * (0.55 + 0.45 * traits.femininity)
    return Style(
        "", 4100, 18, length, length * 0.85, length * 0.8, part=float(rng.normal(0, 2)), sideways=0.6, natural=0.6, backward=0.1,
        lift=0.75, cling=0.25, stiffness=0.6, weight=0.6, fringe=0.3, fringe_gap=1.0,
        volume=float(rng.uniform(2.0, 3.5)) * (0.6 + 0.4 * traits.femininity), mess=0.3, clumps=240, clumping=0.8,
        curl=float(rng.uniform(0.35, 0.6)), pitch=float(rng.uniform(3.5, 5.0)), frizz=0.16, ragged=0.2, radius=0.046,
    )  # fmt: skip


def _afro(rng: np.random.Generator, traits: Traits) -> Style:
    length = float(rng.uniform(0.8, 2.5) if rng.random() < 0.5 else rng.uniform(3, 7.5))
    return Style(
        "", 6200, 12 if length > 2.6 else 8, length, length * float(rng.uniform(0.5, 0.95)), length * 0.9, natural=0.15,
        fade=0.3 * (length < 2.6), lift=0.98, cling=0.0, stiffness=0.97, weight=0.04, volume=length * 1.1, mess=0.25, clumps=420,
        clumping=0.5, curl=0.10 + 0.035 * length, pitch=0.7 + 0.25 * length, frizz=0.12, ragged=0.1, radius=0.045,
        line=Hairline(softness=0.6),
    )  # fmt: skip


def _tied(rng: np.random.Generator, traits: Traits) -> Style:
    high = float(rng.uniform(-1.0, 9.5))
    tail = float(rng.uniform(18, 34)) if rng.random() < 0.55 else 0.0
    return Style(
        "", 5600, 11, 16.0, 14.0, 12.0, part=float(rng.normal(0, 1.0)), backward=1.0, side_back=1.0, lift=float(rng.uniform(0.15, 0.4)),
        stiffness=0.2, weight=0.0, volume=float(rng.uniform(0.35, 1.0)), mess=0.05, clumps=120, clumping=0.45, frizz=0.05, radius=0.045,
        knot=(high, float(rng.uniform(2.4, 3.6))), tail=tail,
    )  # fmt: skip


def _balding(rng: np.random.Generator, traits: Traits) -> Style:
    length = float(rng.uniform(0.4, 3.0))
    rim = float(rng.uniform(4.0, 8.0)) if rng.random() < 0.6 else None
    return Style(
        "", 4600, 6, length * 1.6, length, length, line=Hairline(height=1.0, temples=2.2, softness=1.4, rim=rim, thin=0.6), natural=0.6,
        backward=0.6, side_back=0.4, lift=0.45, stiffness=0.6, weight=0.3, volume=0.6 * length, mess=0.25, clumps=160, clumping=0.4,
        frizz=0.06, radius=0.034, cover=0.55,
    )  # fmt: skip


def _bald(rng: np.random.Generator, traits: Traits) -> Style:
    return replace(_buzz(rng, traits), strands=0, cover=float(rng.uniform(0.0, 0.22)))


def _male(traits: Traits) -> float:
    return 1 - traits.femininity


_KINDS = {  # name -> how likely, and its maker
    "buzz": (lambda p: 0.7 * _male(p) + 0.02, _buzz),
    "crew": (lambda p: 1.2 * _male(p) - 0.05, _crew),
    "side part": (lambda p: 1.5 * _male(p) + 0.05, _side_part),
    "swept back": (lambda p: 0.8 * _male(p) + 0.15, _swept_back),
    "messy": (lambda p: (1.2 * _male(p) + 0.05) * (1.3 - p.age / 80), _messy),
    "fringe": (lambda p: 0.3 * _male(p) + 0.05, _fringe_short),
    "pixie": (lambda p: 0.55 * p.femininity, _pixie),
    "bob": (lambda p: 1.5 * p.femininity, _bob),
    "long": (lambda p: 2.2 * p.femininity * (1.15 - p.age / 100) + 0.08, _long),
    "curly": (lambda p: 0.35 + 0.5 * p.femininity, _curly),
    "afro": (lambda p: 2.6 * max(p.melanin - 0.5, 0), _afro),
    "tied": (lambda p: 1.3 * p.femininity + 0.06, _tied),
    "balding": (lambda p: 0.05 * (p.age - 38) * _male(p) if p.femininity < 0.5 else 0.0, _balding),
    "bald": (lambda p: 0.3 * _male(p) + 0.008 * (p.age - 35) * _male(p) if p.femininity < 0.5 else 0.0, _bald),
}

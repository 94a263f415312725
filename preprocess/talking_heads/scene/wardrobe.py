"""The bust: shoulders, chest and what a person wears, down to y = -45 cm and a little below."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from preprocess.talking_heads.scene import collars
from preprocess.talking_heads.scene.collars import Neckline, Shape, fit_neckline, sheet
from preprocess.talking_heads.scene.fabrics import Cloth, cut, dye
from preprocess.talking_heads.scene.jewellery import necklace
from preprocess.talking_heads.scene.torso import Torso, build_torso
from preprocess.talking_heads.solids import Material, Mesh, join
from preprocess.talking_heads.traits import Traits, stream

_COLUMNS, _ROWS = 72, 30
_CREW = Shape(half_width=8.4, depth=-20.8, back=0.13)
_HIGH = Shape(half_width=6.6, depth=-19.4, back=0.08)
_STAND = Shape(half_width=6.7, depth=-19.8, back=0.08)  # of shirt collars


def bust(traits: Traits, neck_radius: float, skin_albedo: np.ndarray, skin_scatter: tuple[float, float, float] = (0.5, 0.2, 0.12)) -> Mesh:
    """Chest skin and clothes of a person.

    `neck_radius` (cm) is that of the lower rim of the head's skin, a ring at y = -19 about the axis z = -1.5, which lies inside of the
    bust; `skin_albedo` (float32 3, linear RGB) and `skin_scatter` are those of the neck.
    """
    torso = build_torso(traits, neck_radius)
    rng = stream(traits.seed, "wardrobe")
    names, weights = zip(*_OUTFITS.items(), strict=True)
    share = np.array([masculine + traits.femininity * (feminine - masculine) for masculine, feminine, _ in weights])
    outfit = weights[rng.choice(len(names), p=share / share.sum())][2]
    skin = Material(np.full((1, 1, 3), skin_albedo, np.float32), roughness=0.5, specular=0.028, scatter=skin_scatter)
    worn = outfit(torso, rng, skin, neck_radius)
    wearing = stream(traits.seed, "necklace")
    if outfit in (_t_shirt, _v_neck, _dress) and wearing.random() < 0.4 * traits.femininity:
        worn.append(necklace(torso, wearing))
    return join(worn)


class NeckSeat:
    """Keeps the foot of a head's neck on the chest of the same person's `bust`, at rest and while the head moves."""

    def __init__(self, traits: Traits, neck_radius: float, vertices: np.ndarray) -> None:
        """`vertices` (v 3): the skin of the head at rest. Only what lies below y = -12.5 is ever moved."""
        self.low = np.nonzero(vertices[:, 1] < -12.5)[0]
        # the lowest rim dives under the skin of the chest
        self._margin = np.interp(vertices[self.low, 1], [-18.0, -16.4], [-0.4, 0.08]).astype(np.float32)
        self._torso = build_torso(traits, neck_radius)

    def settle(self, vertices: np.ndarray) -> np.ndarray:
        """Skin (v 3, or more vertices behind it) -> float32, the same with the neck's foot spread over the chest without a seam."""
        settled = np.array(vertices, np.float32)
        settled[self.low] = self._torso.lift(settled[self.low], self._margin)
        return settled


def breathe(vertices: np.ndarray, amount: float) -> np.ndarray:
    """Vertices (float32 v 3) of a bust at rest -> with the chest lifted by a breath, `amount` 0 (out) .. 1 (in); the neck stays."""
    below = np.clip((-18.0 - vertices[:, 1]) / 10.0, 0, 1)
    lifted = below * below * (3 - 2 * below)
    chest = lifted * np.exp(-((vertices[:, 0] / 13.0) ** 2)) * np.clip(vertices[:, 2] / 8.0, 0, 1)
    moved = np.asarray(vertices, np.float32).copy()
    moved[:, 1] += np.float32(0.28 * amount) * lifted
    moved[:, 2] += np.float32(0.35 * amount) * chest
    return moved


def _angles(columns: int) -> np.ndarray:
    """Angles once around, closer together in front."""
    turn = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    return turn - 0.45 * np.sin(turn)


def skin_sheet(torso: Torso, skin: Material, neckline: Neckline) -> Mesh:
    """The skin from inside the neck to somewhat below a neckline."""
    angle = _angles(_COLUMNS)
    down = np.linspace(0, 1, 14)[:, None] * (neckline.down(angle) + 0.05)
    return sheet(torso.surface(angle, down), skin, np.zeros((14, _COLUMNS, 2), np.float32), closed=True)


def garment(torso: Torso, neckline: Neckline, material: Material, distance: float, drape: float = 0.0, edge: float = 0.35) -> Mesh:
    """Cloth from a neckline to the lower end of the bust, `distance` cm off the skin (at its upper edge `edge` times that) and up to
    `drape` cm more below the chest."""
    angle = _angles(_COLUMNS)
    start = neckline.down(angle)
    share = np.linspace(0, 1, _ROWS)[:, None]
    down = start + (1 - start) * share
    off = distance * np.clip(edge + 8 * share, 0, 1) + drape * np.clip((down - 0.4) / 0.4, 0, 1)
    down, off = np.concatenate([down[:1], down]), np.concatenate([np.minimum(off[:1], 0.2), off])  # the hem turns in
    return sheet(torso.surface(angle, down, off), material, closed=True)


def _cloth(rng: np.random.Generator, patterns: dict[str, float], weave: str, kind: str = "any") -> Cloth:
    """A cloth of one weave whose pattern is drawn by weight."""
    weights = np.array(list(patterns.values()))
    pattern = str(rng.choice(list(patterns), p=weights / weights.sum()))
    colour, second = dye(rng, kind), dye(rng, kind)
    if abs(float(second.mean() - colour.mean())) < 0.1:  # a pattern that shows
        second = colour * 0.35 if colour.mean() > 0.2 else colour + 0.35
    if pattern == "melange":
        second = 0.55 * colour + 0.12
    return Cloth(colour, np.clip(second, 0.01, 0.8).astype(np.float32), pattern, weave)


def _t_shirt(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    shape = replace(_CREW, depth=_CREW.depth - rng.uniform(0, 1.6), half_width=_CREW.half_width + rng.uniform(-0.2, 1.0))
    cloth = _cloth(rng, {"plain": 5, "melange": 2, "stripes": 1.6, "band": 0.5}, "jersey")
    return _knitted(torso, rng, skin, shape, cloth, looseness=rng.uniform(0.5, 1.0), thick=0.3)


def _v_neck(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    shape = Shape(half_width=rng.uniform(7.4, 8.6), depth=rng.uniform(-28.5, -24.0), back=0.13, point=1.0)
    wool = rng.random() < 0.5
    cloth = _cloth(rng, {"plain": 4, "melange": 1.5, "stripes": 0.6}, "knit" if wool else "jersey")
    return _knitted(torso, rng, skin, shape, cloth, looseness=rng.uniform(0.4, 0.9), thick=0.6 if wool else 0.3)


def _jumper(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    cloth = _cloth(rng, {"plain": 4, "melange": 3, "stripes": 1}, str(rng.choice(["knit", "wool"])))
    return _knitted(torso, rng, skin, _CREW, cloth, looseness=rng.uniform(0.7, 1.1), thick=0.75)


def _knitted(
    torso: Torso, rng: np.random.Generator, skin: Material, shape: Shape, cloth: Cloth, looseness: float, thick: float
) -> list[Mesh]:
    """Skin, a pulled-over garment and its ribbed neckband."""
    neckline = fit_neckline(torso, shape)
    rib = cut(rng, replace(cloth, pattern="plain", colour=cloth.colour * np.float32(rng.uniform(0.85, 1.0))), 0.1)
    body = garment(torso, neckline, cut(rng, cloth, looseness), thick, 0.6 * looseness)
    return [skin_sheet(torso, skin, neckline), body, collars.band(torso, neckline, rib, thick, 0.02 + 0.012 * thick)]


def _shirt(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    cloth = _cloth(rng, {"plain": 4, "check": 2, "pinstripes": 1.5, "dots": 0.4}, "woven", str(rng.choice(["shirt", "any"])))
    return _buttoned(torso, rng, skin, cloth, is_open=rng.random() < 0.7)


def _polo(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    return _buttoned(torso, rng, skin, _cloth(rng, {"plain": 4, "stripes": 1.5, "melange": 1}, "jersey"), is_open=True)


def _buttoned(torso: Torso, rng: np.random.Generator, skin: Material, cloth: Cloth, is_open: bool, drape: float = 0.7) -> list[Mesh]:
    """Skin, a shirt with a placket and its collar, closed or open at the throat."""
    shape = replace(_STAND, depth=rng.uniform(-26.0, -23.0), point=1.0) if is_open else _STAND
    neckline = fit_neckline(torso, shape)
    opening = rng.uniform(0.38, 0.5) if is_open else rng.uniform(0.06, 0.12)
    body = garment(torso, neckline, cut(rng, cloth, rng.uniform(0.5, 1.0), placket=True), 0.35, drape, edge=1.0)
    plain = replace(cloth, pattern="plain" if cloth.pattern != "check" else "check")
    collar = collars.flaps(torso, neckline, cut(rng, plain, 0.05, two_sided=True), 0.4, opening, rng.uniform(5.5, 7.0))
    return [skin_sheet(torso, skin, neckline), body, collar]


def _suit(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    wears_tie = rng.random() < 0.5
    under = _buttoned(torso, rng, skin, _cloth(rng, {"plain": 4, "pinstripes": 1}, "woven", "shirt"), is_open=not wears_tie, drape=0.0)
    if wears_tie:
        cloth = _cloth(rng, {"plain": 2, "stripes": 2, "dots": 1}, "woven")
        under.append(collars.tie(torso, cut(rng, cloth, 0.05), 0.6, float(fit_neckline(torso, _STAND).down(0.0))))
    return under + _jacket(torso, rng)


def _blazer(torso: Torso, rng: np.random.Generator, skin: Material, neck_radius: float) -> list[Mesh]:
    under = _t_shirt if rng.random() < 0.7 else _roll_neck
    return under(torso, rng, skin, neck_radius) + _jacket(torso, rng)


def _jacket(torso: Torso, rng: np.random.Generator) -> list[Mesh]:
    """A jacket with lapels over what has been put on before."""
    cloth = _cloth(rng, {"plain": 5, "melange": 1, "pinstripes": 0.5}, "wool", "suit")
    neckline = fit_neckline(torso, Shape(half_width=rng.uniform(7.4, 8.2), depth=rng.uniform(-50.0, -41.0), back=0.11, point=1.0))
    body = garment(torso, neckline, cut(rng, cloth, 0.45), 1.45, 0.6, edge=1.0)
    return [body, collars.lapels(torso, neckline, cut(rng, cloth, 0.05, two_sided=True), 1.45, rng.uniform(5.0, 7.0))]


def _hoodie(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    cloth = _cloth(rng, {"plain": 3, "melange": 2}, "jersey")
    neckline = fit_neckline(torso, replace(_CREW, depth=-21.5))
    body = garment(torso, neckline, cut(rng, cloth, 1.1), 0.8, 0.8)
    meshes = [skin_sheet(torso, skin, neckline), body, collars.hood(torso, neckline, cut(rng, replace(cloth, pattern="plain"), 0.5))]
    if rng.random() < 0.75:
        string = np.full(3, rng.choice([0.03, 0.6])) if rng.random() < 0.5 else cloth.colour
        cord = Material(np.full((1, 1, 3), string, np.float32), roughness=0.8, specular=0.02)
        meshes.append(collars.cords(torso, cord, float(neckline.down(0.4)) + 0.06, rng.uniform(0.22, 0.4)))
    return meshes


def _roll_neck(torso: Torso, rng: np.random.Generator, skin: Material, neck_radius: float) -> list[Mesh]:
    cloth = _cloth(rng, {"plain": 4, "melange": 1.5}, "knit")
    neckline = fit_neckline(torso, replace(_HIGH, half_width=neck_radius + 1.0))
    body = garment(torso, neckline, cut(rng, cloth, rng.uniform(0.4, 0.8)), 0.6, 0.4, edge=1.0)
    neck = collars.rolled_neck(torso, neckline, cut(rng, cloth, 0.05), neck_radius + 0.6, rng.uniform(-14.6, -13.6))
    return [skin_sheet(torso, skin, neckline), body, neck]


def _dress(torso: Torso, rng: np.random.Generator, skin: Material, _: float) -> list[Mesh]:
    shape = Shape(half_width=rng.uniform(8.5, 13.0), depth=rng.uniform(-29.0, -23.5), back=0.18, point=rng.uniform(1.6, 3.2))
    neckline = fit_neckline(torso, shape)
    cloth = _cloth(rng, {"plain": 3, "dots": 1, "stripes": 0.5}, "woven")
    hem = cut(rng, replace(cloth, pattern="plain"), 0.05)
    body = garment(torso, neckline, cut(rng, cloth, rng.uniform(0.4, 0.7)), 0.2, 0.4)
    return [skin_sheet(torso, skin, neckline), body, collars.band(torso, neckline, hem, 0.22, 0.009)]


# How often each is worn by masculine and feminine people
_OUTFITS: dict[str, tuple[float, float, Callable[[Torso, np.random.Generator, Material, float], list[Mesh]]]] = {
    "t-shirt": (4.0, 2.5, _t_shirt),
    "v-neck": (1.0, 2.2, _v_neck),
    "jumper": (1.6, 1.6, _jumper),
    "shirt": (3.0, 1.4, _shirt),
    "polo": (1.2, 0.4, _polo),
    "suit": (2.0, 0.3, _suit),
    "blazer": (0.8, 1.3, _blazer),
    "hoodie": (1.6, 0.9, _hoodie),
    "turtleneck": (0.5, 1.0, _roll_neck),
    "dress": (0.0, 2.4, _dress),
}

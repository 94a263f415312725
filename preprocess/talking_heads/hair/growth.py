"""How hair lies: strands grown step by step along the comb, around the head and down under their weight."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from preprocess.talking_heads.curves import smooth
from preprocess.talking_heads.hair.form import HeadForm, drape
from preprocess.talking_heads.hair.regions import scalp_margin
from preprocess.talking_heads.hair.roots import Roots, unit
from preprocess.talking_heads.hair.styles import Style

_DOWN, _FRONT, _RIGHT = np.array([0, -1, 0], np.float32), np.array([0, 0, 1], np.float32), np.array([1, 0, 0], np.float32)
_WHORL = unit(np.array([0.08, 0.86, -0.5], np.float32))  # where hair grows away from, as a direction from the head's middle
_CLEAR = 0.05  # cm that hair keeps from the skin


@dataclass(frozen=True)
class Locks:
    """What tells the strands of a head apart before they grow (n each)."""

    side: np.ndarray  # -1 or 1: of the parting, and of the face
    fringe: np.ndarray  # bool: falls onto the forehead
    before: np.ndarray  # bool: falls before the shoulders
    layer: np.ndarray  # 0..1: from next to the skin to the outermost
    stray: np.ndarray  # 0..1: how little a hair keeps to its clump; 1 is a flyaway
    top: np.ndarray  # cm: height at which the strand is cut where it falls before the face
    open: np.ndarray  # cm: height under which the comb keeps the strand beside the face
    clump: np.ndarray  # int: the strand that leads the clump


def draw_locks(form: HeadForm, style: Style, roots: Roots, rng: np.random.Generator) -> Locks:
    """Sort the strands into sides, layers and clumps."""
    count = len(roots)
    x, _, z = roots.points.T
    side = np.where(x + 0.15 * rng.normal(size=count) > style.part * smooth(-1.0, 2.0, z), 1.0, -1.0)
    margin = scalp_margin(style.line, roots.st[:, 0], roots.st[:, 1])
    front = smooth(5.0, 3.4, np.abs(roots.points[:, 0])) * smooth(6.5, 3.5, margin) * (z > 1.0)
    fringe = rng.random(count) < style.fringe * front
    split = np.quantile(z, 1 - 0.45 * style.before) if count else 0.0
    layer = rng.random(count)
    ragged = np.abs(rng.normal(size=count)) * 0.35
    top = np.where(fringe, form.brow + style.fringe_gap + ragged - 0.02 * x**2 * (style.fringe_gap > 0.5), form.brow - 0.1)
    open_below = np.where(fringe, top, form.brow + 2.2 + 1.2 * np.abs(rng.normal(size=count)))
    stray = np.clip(rng.beta(1.2, 5, count) + (rng.random(count) < 0.03), 0, 1)
    before = z + 0.8 * rng.normal(size=count) > split
    leaders = rng.choice(count, min(style.clumps, count), replace=False)
    keys = np.column_stack([roots.points, 4 * side, 4 * fringe, 6 * before, 1.2 * layer])
    clump = leaders[cKDTree(keys[leaders]).query(keys)[1]]
    return Locks(side, fringe, before, layer, stray, np.maximum(top, form.brow - 0.1), open_below, clump)


def lengths(form: HeadForm, style: Style, roots: Roots, rng: np.random.Generator) -> np.ndarray:
    """Length (n, cm) of each strand: by its place on the head, shorter at the edge of the scalp; to the tie if there is one."""
    if style.knot is not None:
        return 1.25 * np.linalg.norm(knot_place(form, style) - roots.points, axis=1)
    towards, _, _ = form.locate(roots.points)
    above = smooth(0.50, 0.92, towards[:, 1])
    behind = smooth(-0.2, -0.7, towards[:, 2])
    margin = scalp_margin(style.line, roots.st[:, 0], roots.st[:, 1])
    low = (style.side * (1 - behind) + style.back * behind) * (1 - style.fade * smooth(6.0, -3.0, roots.points[:, 1]))
    length = low * (1 - above) + style.top * above
    soft = 0.45 + 0.55 * smooth(0.0, 0.9, margin + 0.2 * rng.normal(size=len(roots)))
    return length * soft * np.exp(style.ragged * rng.normal(size=len(roots)))


def grow(form: HeadForm, style: Style, roots: Roots, locks: Locks, length: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strands (n k 3) of the given lengths (n) on the scalp, clumped, curled and clear of head and face."""
    points = _combed(form, style, roots, locks, length, rng)
    along = np.linspace(0, 1, style.points, dtype=np.float32)
    points = _clumped(style, points, locks, along)
    points = drape(points + _curls(style, points, locks, length, along, rng), locks.before[:, None])
    clear = np.minimum(_CLEAR, 0.6 * along)
    flat = form.push_out(points, clear[None])
    flat[:, 0] = points[:, 0]
    return flat


def _combed(form: HeadForm, style: Style, roots: Roots, locks: Locks, length: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strands (n k 3) that follow the comb and their weight, one step for each point."""
    count, steps = len(roots), style.points - 1
    strays = rng.normal(size=(count, 3))
    noise = style.mess * (0.9 * strays[locks.clump] + (0.35 + 1.2 * locks.stray[:, None]) * rng.normal(size=(count, 3)))
    heading = _comb(form, style, locks, roots.points)
    lift = style.lift * (0.7 + 0.6 * locks.layer[:, None])
    heading = unit(heading * np.sqrt(np.maximum(1 - lift**2, 0.05)) + roots.normals * lift + noise)
    points = np.empty((count, steps + 1, 3), np.float32)
    points[:, 0] = place = roots.points
    for step in range(1, steps + 1):
        pull = style.weight * (0.25 + 0.75 * smooth(7.0, -3.0, place[:, 1]))[:, None]
        inwards = np.array([-0.06, 0, 0]) * (place[:, :1] / 8) * smooth(1.0, -5.0, place[:, 1:2])
        target = unit(_comb(form, style, locks, place) * (1 - pull) + (_DOWN + inwards) * pull)
        heading = unit(style.stiffness * heading + (1 - style.stiffness) * target + 0.15 * noise)
        moved = place + heading * (length / steps)[:, None]
        raised = _CLEAR + style.volume * locks.layer * smooth(0.0, 0.4, np.full(count, step / steps))
        moved = form.hold(moved, raised, style.cling * smooth(-8.0, 0.0, place[:, 1]))
        moved = drape(form.beside_face(moved, locks.side, locks.open), locks.before)
        heading = unit(moved - place)
        place = place + heading * (length / steps)[:, None]
        points[:, step] = place
    return points


def _comb(form: HeadForm, style: Style, locks: Locks, place: np.ndarray) -> np.ndarray:
    """Directions (n 3, unit, along the head) that hair at `place` (n 3) is combed to."""
    towards, _, _ = form.locate(place)
    above = smooth(0.30, 0.75, towards[:, 1])[:, None]
    away = unit(towards - _WHORL)
    side = locks.side[:, None] * _RIGHT
    on_top = style.sideways * side + style.natural * away - style.backward * _FRONT
    below = _DOWN + 0.3 * style.natural * away - style.side_back * _FRONT
    onto = _FRONT + 0.5 * _DOWN + 0.12 * side + 0.25 * style.sideways * side
    comb = np.where(locks.fringe[:, None], onto, on_top * above + below * (1 - above))
    if style.knot is not None:
        comb = knot_place(form, style) - place
    return unit(comb - towards * (comb * towards).sum(1, keepdims=True))


def knot_place(form: HeadForm, style: Style) -> np.ndarray:
    """Where (3, cm) the hair is tied together."""
    height = style.knot[0] if style.knot else 0.0
    back = np.array([0.0, height, -10.0 + 0.05 * max(height, 0) ** 2], np.float32)
    towards, _, reach = form.locate(back)
    return (form.middle + towards * (reach + 0.3)).astype(np.float32)


def _clumped(style: Style, points: np.ndarray, locks: Locks, along: np.ndarray) -> np.ndarray:
    """Strands drawn to the leader of their clump, more so towards the tips."""
    keep = style.clumping * (1 - locks.stray)[:, None, None] * smooth(0.0, 0.9, along)[None, :, None]
    leaders = points[locks.clump]
    offset = points[:, :1] - leaders[:, :1]
    return points + keep * (leaders + 0.3 * offset - points)


def _curls(style: Style, points: np.ndarray, locks: Locks, length: np.ndarray, along: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Offsets (n k 3): a helix that the hairs of a clump share, and the straying of single hairs."""
    count, steps = len(points), len(along) - 1
    tangent = unit(np.gradient(points, axis=1))
    across = unit(np.cross(tangent, unit(points - np.array([0, -2, -1], np.float32)) + 1e-3))
    outward = np.cross(across, tangent)
    clump_phase, clump_pitch = rng.uniform(0, 2 * np.pi, count)[locks.clump], np.exp(0.2 * rng.normal(size=count))[locks.clump]
    phase = clump_phase + 0.5 * rng.normal(size=count) * (0.4 + locks.stray)
    turns = np.minimum(length / (style.pitch * clump_pitch), steps / 3.8)  # fewer points a turn would draw zigzags
    turn = phase[:, None] + 2 * np.pi * turns[:, None] * along[None]
    size = style.curl * smooth(0.02, 0.45, along)[None] * np.exp(0.25 * rng.normal(size=(count, 1)))
    offset = (size * np.cos(turn))[..., None] * across + (0.8 * size * np.sin(turn))[..., None] * outward
    knots = rng.normal(size=(count, 5, 3)).astype(np.float32)
    place = 3.999 * along
    low = place.astype(np.int32)
    blend = smooth(0, 1, place - low)[None, :, None]
    strays = knots[:, low] * (1 - blend) + knots[:, low + 1] * blend
    return offset + style.frizz * (0.6 + 5 * locks.stray[:, None, None] ** 1.5) * smooth(0.0, 0.6, along)[None, :, None] * strays


def trim(points: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strands (n k 3) cut where `room` (n k) first turns negative, and the share (n) that is left of each."""
    steps = points.shape[1] - 1
    cut = room < 0
    first = np.where(cut.any(1), cut.argmax(1), steps + 1)
    index = np.arange(len(points))
    last = np.clip(first - 1, 0, steps)
    before, after = room[index, last], room[index, np.clip(first, 0, steps)]
    part = np.where(first > steps, 0, before / np.maximum(before - after, 1e-6))
    left = np.where(first == 0, 0, (last + np.clip(part, 0, 1)) / steps)
    at = left[:, None] * np.arange(steps + 1)[None]
    low = np.minimum(at.astype(np.int32), steps - 1)
    share = (at - low)[..., None]
    rows = index[:, None]
    return (points[rows, low] * (1 - share) + points[rows, low + 1] * share).astype(np.float32), left


def tie(form: HeadForm, style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hair beyond the tie (n k 3) and the lock (int n) each strand belongs to: a ball of wound strands, or a tail that hangs down."""
    place, size = knot_place(form, style), style.knot[1] if style.knot else 0.0
    outward = unit(place - form.middle)
    count, locks = 900, 40
    lock = rng.integers(0, locks, count)
    along = np.linspace(0, 1, style.points)[None, :, None]
    if style.tail == 0:
        axis = unit(rng.normal(size=(locks, 3)) + 0.8 * outward)[lock]
        start = unit(np.cross(axis, rng.normal(size=(locks, 3))[lock] + 0.25 * rng.normal(size=(count, 3))))
        turn = along * 2.6 + rng.uniform(0, 1, (count, 1, 1))
        ring = start[:, None] * np.cos(turn) + np.cross(axis, start)[:, None] * np.sin(turn)
        tilt = 0.45 * rng.normal(size=(locks, 1, 1))[lock] * axis[:, None]
        reach = size * (0.72 + 0.28 * rng.random((count, 1, 1)))
        ball = place + outward * 0.55 * size + reach * unit(ring + tilt)
        return form.push_out(ball, _CLEAR).astype(np.float32), lock
    swing = rng.normal(size=(locks, 3))[lock] * np.array([1.0, 0.3, 0.8]) + 0.35 * rng.normal(size=(count, 3))
    rise = place + outward * 2.2 * np.sin(np.minimum(along * 6, np.pi / 2)) + outward * 1.6 * along
    fall = style.tail * np.exp(0.12 * rng.normal(size=(count, 1, 1))) * along**1.2
    width = 0.35 * size * (0.25 + 1.1 * np.sin(np.minimum(along * 2.6, 2.2)))
    points = rise + _DOWN * fall + swing[:, None] * width
    return form.push_out(drape(points, np.zeros((count, 1), bool)), _CLEAR).astype(np.float32), lock

"""Whose mouth is changed: largest, left, right, an index, or points at times."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mode
from typing import TYPE_CHECKING

import numpy as np

from latentsync.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import, which a command's --help should not
    from latentsync.faces.tracking import Person

POINT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*@\s*(\d+(?:\.\d+)?)\s*")
FORMS = "largest, left, right, a number counted from 0 at the left, or x,y@seconds (several separated by ';')"
MOST_UNLIKE = 0.7  # difference to a reference from which on it shows another person
SURELY_NEARER = 0.85  # of the difference of the second, up to which the nearest person is surely the one
REACH = 0.15  # how far outside a box, in its width and height, a point may lie


@dataclass(frozen=True)
class FacePoint:
    """A place in the picture at a time."""

    x: float
    y: float
    seconds: float
    person: int = 0  # points with the same number name one person
    is_sighting: bool = False  # one of several places of that person: where there is no face, or after the end, it does not count

    def frame(self, fps: float) -> int:
        return int(self.seconds * fps + 1e-6)

    def distance_to(self, box: np.ndarray | None) -> float | None:
        """How far from the middle of a box, in box sizes; None outside of it."""
        if box is None:
            return None
        across = abs(self.x - (box[0] + box[2]) / 2) / (box[2] - box[0])
        down = abs(self.y - (box[1] + box[3]) / 2) / (box[3] - box[1])
        return float(across + down) if max(across, down) <= 0.5 + REACH else None


@dataclass(frozen=True)
class FaceChoice:
    """A parsed `--face`: by size, by order from the left (-1 is the rightmost), or by points."""

    index: int | None = None  # None and no points: the largest
    points: tuple[FacePoint, ...] = ()
    reference: np.ndarray | None = field(default=None, compare=False)  # of `describe_face`: who looks most like it

    @classmethod
    def parse(cls, text: str) -> "FaceChoice":
        """Raises InputError for a text that is none of `FORMS`."""
        text = text.strip()
        named = {"largest": cls(), "left": cls(index=0), "right": cls(index=-1)}
        if text in named:
            return named[text]
        if text.isdecimal() and text.isascii():
            return cls(index=int(text))
        points = []
        for number, part in enumerate(text.split(";")):
            places = part.removesuffix("|").split("|")  # "x,y@seconds|x,y@seconds|": where one person was seen
            for match in map(POINT.fullmatch, places):
                if match is None:
                    raise InputError(f"'{text}' does not say which face: use {FORMS}.")
                points.append(FacePoint(*map(float, match.groups()), person=number, is_sighting="|" in part))
        return cls(points=tuple(points))

    def pick(self, people: Sequence["Person"], start: int, stop: int, fps: float) -> tuple[int | None, str]:
        """The chosen person in a shot of frames start..stop, or None; and why others are left.

        Raises InputError: a point holds no face, or two people of one shot are named.
        """
        if self.reference is not None:
            return self._most_alike(people, start, stop, fps)
        named: defaultdict[int, list[int]] = defaultdict(list)  # number of a point's person -> people of the shot
        for point in self.points:
            if not start <= (frame := point.frame(fps)) < stop:
                continue
            found = [(distance, i) for i, person in enumerate(people) if (distance := point.distance_to(person.box_at(frame))) is not None]
            if not found and point.is_sighting:
                continue
            if not found:
                raise InputError(
                    f"There is no face at {point.x:g},{point.y:g}@{point.seconds:g}: name a point inside a face of that moment."
                )
            named[point.person].append(min(found)[1])
        if self.points:
            wanted = {mode(seen) for seen in named.values()}
            if len(wanted) > 1:
                raise InputError(
                    f"{len(wanted)} people are chosen in the scene from {start / fps:.1f} to {stop / fps:.1f} s: choose one of them, "
                    "a scene has one speaker."
                )
            chosen = next(iter(wanted), None)
            return chosen, "no face was named in this shot" if chosen is None else "face of another person"
        if not people:
            return None, "no face"
        if self.index is None:
            return max(range(len(people)), key=lambda i: people[i].mean_area), "face of another person"
        order = sorted(range(len(people)), key=lambda i: people[i].mean_x)
        if self.index >= len(order):
            return None, f"no face number {self.index} in this shot"
        return order[self.index], "face of another person"

    def _most_alike(self, people: Sequence["Person"], start: int, stop: int, fps: float) -> tuple[int | None, str]:
        """Who looks like the reference. Raises InputError where two people do."""
        differences = [float(np.linalg.norm(person.appearance - self.reference)) for person in people]
        order = sorted(range(len(people)), key=differences.__getitem__)
        if not people or differences[order[0]] > MOST_UNLIKE:
            return None, "nobody who looks like the picture" if people else "no face"
        if len(order) > 1 and differences[order[0]] > SURELY_NEARER * differences[order[1]]:
            raise InputError(
                f"Two people look alike between {start / fps:.2f} and {stop / fps:.2f} s, as far as the picture tells: name one by place "
                "with face, or give a picture of the same person from the film."
            )
        return order[0], "face of another person"

    def check_times(self, num_frames: int, fps: float) -> None:
        """Raises InputError for a point after the frames that are used: the shorter of video and sound."""
        for point in self.points:
            if not point.is_sighting and point.frame(fps) >= num_frames:
                raise InputError(
                    f"{point.seconds:g} seconds is after the last frame in use, at {num_frames / fps:.2f} seconds: name an earlier moment."
                )

"""The list of videos and sounds that a run is about: found, drawn by seed, written once."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.measures.measure import Kind
from latentsync.errors import ConfigError, InputError, LatentSyncError
from latentsync.media.ffmpeg import probe
from latentsync.media.files import read_paths, walk_media, write_json
from latentsync.weights import file_sha256

KINDS: tuple[Kind, ...] = ("reconstruction", "cross")


@dataclass(frozen=True)
class Pair:
    """One video that is to be made.

    Attributes:
        name: of its own in the run, a file name without an ending.
        source, audio: whose picture, whose words.
        kind: see `eval.measures.measure.Case`.
    """

    name: str
    source: Path
    audio: Path
    kind: Kind


@dataclass(frozen=True)
class PairList:
    """All that a run is about.

    Attributes:
        pairs: the pairs of one source follow each other.
        refused: video -> why nothing, or not all, is made of it.
        drawn_by: what decided which pairs there are.
        checksums: file -> SHA-256.
    """

    pairs: tuple[Pair, ...]
    refused: dict[str, str]
    drawn_by: dict[str, Any]
    checksums: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return json.loads(json.dumps(asdict(self), default=str))

    def write(self, path: Path) -> None:
        """Write the list, or find it written. Raises ConfigError where another one is there, OutputError."""
        if not path.is_file():
            write_json(path, self.as_dict())
            return
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read ({error}): delete it, or name another folder for results") from None
        if known != self.as_dict():
            raise ConfigError(
                f"{path} lists other pairs than this configuration draws now: name another folder for results (output.folder)"
            )


def find_videos(place: Path) -> list[Path]:
    """The videos of a folder and all below it, or those that a text file names, one a line, relative to itself.

    Raises InputError where there is none.
    """
    if place.is_dir():
        videos = list(walk_media(place))
        if not videos:
            raise InputError(f"{place} holds no video: name the folder that holds the clips")
        return videos
    if not place.is_file():
        raise InputError(f"{place} is neither a folder of videos nor a text file that names some: check the path")
    videos = [path for _, path in read_paths(place)]
    if not videos:
        raise InputError(f"{place} names no video: write one path a line")
    return videos


def make_pairs(videos: Sequence[Path], kinds: Sequence[Kind], seed: int) -> PairList:
    """The pairs of some videos: each with its own sound, each with another's, or both.

    Videos stand in a ring, shuffled by the seed, and each gets the sound of the next one that has any: never its own, and no sound
    serves twice where all have one. Raises InputError where nothing is left to be made.
    """
    heard, refused = {}, {}
    for video in videos:
        try:
            info = probe(video)
            info.require_video()
            heard[video] = info.has_audio
        except LatentSyncError as error:
            refused[str(video)] = str(error)
    names = unique_names(list(heard))
    others = draw_others(heard, seed) if "cross" in kinds else {}
    pairs: list[Pair] = []
    for video, name in names.items():
        if "reconstruction" in kinds and heard[video]:
            pairs.append(Pair(name, video, video, "reconstruction"))
        if video in others:
            both = free_name(f"{name}__{names[others[video]]}", {*names.values(), *(pair.name for pair in pairs)})
            pairs.append(Pair(both, video, others[video], "cross"))
        if not pairs or pairs[-1].source != video:
            why = "there is no other video with sound" if heard[video] else "it has no sound, and no other gives it one"
            refused[str(video)] = f"{video} is left out: {why}."
        elif "reconstruction" in kinds and not heard[video]:
            refused[str(video)] = f"{video} has no sound of its own, so it has no reconstruction: it is used with another's alone."
    if not pairs:
        raise InputError(f"Not one of {len(videos)} videos can be used; {next(iter(refused.values()))}")
    digests = {str(video): file_sha256(video) for video in names}
    return PairList(tuple(pairs), refused, {"kinds": list(kinds), "seed": seed}, digests)


def draw_others(heard: dict[Path, bool], seed: int) -> dict[Path, Path]:
    """Video -> another one whose sound it gets; those for which there is no other with sound are left out."""
    ring = [list(heard)[place] for place in np.random.default_rng(seed).permutation(len(heard))]
    found = {}
    for place, video in enumerate(ring):
        after = [*ring[place + 1 :], *ring[:place]]
        other = next((one for one in after if heard[one]), None)
        if other is not None:
            found[video] = other
    return found


def unique_names(videos: Sequence[Path]) -> dict[Path, str]:
    """A file name for each, without an ending; videos of one name in several folders get a number."""
    names: dict[Path, str] = {}
    for video in videos:
        names[video] = free_name(video.stem, names.values())
    return names


def free_name(wanted: str, taken: Collection[str]) -> str:
    """A name that is not taken: the one that is wanted, or it with the first number that is free."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name

"""What is known about a clip besides its picture and sound: whom it shows, whose voice is heard, how far its sound is known to be off."""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from latentsync.errors import InputError
from latentsync.media.files import read_table, read_text, written_path

logger = logging.getLogger(__name__)

MANIFESTS = ("manifest.csv", "manifest.jsonl")
_CLIP_KEYS, _OFFSET_KEY, _CORRECTED_KEY = ("path", "clip"), "offset", "corrected"
_TRUE = frozenset({"true", "yes", "1"})
_ENTRY = re.compile(r'^"\w+": .')  # a whole entry on a line that is not indented
_SHORT = 4096  # characters
_SHOT = re.compile(r"[_\-. ]+(?:shot|seg|segment|scene|part|chunk|clip)[_\-. ]*\d+(?=[_\-. ]|$)", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"[_\-. ]+\d+$")
_NO_NAMES = frozenset({"clip", "video", "person", "speaker", "face", "recording", "sample", "file"})  # before a number they name nobody


@dataclass(frozen=True)
class Note:
    """Where a clip comes from."""

    source: str  # the person, where a sidecar names one; else the folder or the recording that the clip was cut from
    voice: str | None = None  # where a sidecar names one
    offset: float | None = None  # frames by which sound and picture are known to be apart
    guessed: bool = False  # the source is read off the file's name alone


def read_notes(clips: Sequence[Path], root: Path, show_progress: bool = False) -> list[Note]:
    """A note for each clip, from the .json beside it, a manifest in its folder or one above, and its place below `root`."""
    depth = shared_folders(clips, root)
    offsets = read_offsets(clips, root)
    notes = []
    for clip in tqdm(clips, desc="notes", unit="clip", disable=None if show_progress else True, leave=False):
        content = _sidecar(clip)
        plan = content.get("plan") if isinstance(content.get("plan"), dict) else {}
        source, guessed = (f"identity {plan['identity']}", False) if "identity" in plan else source_name(clip, root, depth)
        offset = _offset(content)
        offset = offsets.get(clip.absolute()) if offset is None else offset
        notes.append(Note(source, _voice(plan.get("voice")), offset, guessed))
    return notes


def source_name(clip: Path, root: Path, depth: int = 0) -> tuple[str, bool]:
    """What a clip was cut from, and whether that is a guess.

    It is its folder below `root` (the `depth` folders that all clips share left out). Without one it is guessed: the name before the first
    number of a shot or segment, or else before a last number, if that leaves a name.
    """
    folders = _folders(clip, root)[depth:]
    if folders:
        return folders[0], False
    before_shot = _SHOT.split(clip.stem)[0]
    name = before_shot if before_shot != clip.stem else _LAST_NUMBER.sub("", clip.stem)
    return (clip.stem if not name or name.lower() in _NO_NAMES else name), True


def shared_folders(clips: Sequence[Path], root: Path) -> int:
    """How many folders below `root` all clips have in common."""
    depth = 0
    below = [_folders(clip, root) for clip in clips]
    while len(below) > 1 and all(len(folders) > depth for folders in below) and len({folders[depth] for folders in below}) == 1:
        depth += 1
    return depth


def read_offsets(clips: Sequence[Path], root: Path) -> dict[Path, float]:
    """Offsets in frames from manifest.csv or manifest.jsonl, in a clip's folder or in one above it up to the one around `root`.

    A row names a clip ("path" or "clip", relative to the manifest) and its "offset"; "corrected" says that the sound was shifted since.
    """
    whole = {clip.absolute() for clip in clips}
    names = Counter(clip.name for clip in whole)
    by_name = {clip.name: clip for clip in whole if names[clip.name] == 1}
    offsets: dict[Path, float] = {}
    for manifest in _manifests(whole, root.absolute()):
        for row in _rows(manifest):
            entry = next((str(row[key]) for key in _CLIP_KEYS if row.get(key)), None)
            offset = _offset(row)
            if entry is None or offset is None:
                continue
            place = written_path(manifest.parent, entry).absolute()
            clip = place if place in whole else by_name.get(place.name)
            if clip is not None:
                offsets[clip] = offset
    return offsets


def _manifests(clips: Iterable[Path], root: Path) -> list[Path]:
    """Manifests that may speak of these clips, those further up first: the nearest one has the last word."""
    folders = {root, root.parent}
    for clip in clips:
        for folder in clip.parents:
            if folder in folders:
                break
            folders.add(folder)
            if not folder.is_relative_to(root):
                break
    found = [folder / name for folder in folders for name in MANIFESTS if (folder / name).is_file()]
    return sorted(found, key=lambda path: (len(path.parts), path))


def _rows(manifest: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a manifest; those that cannot be read are passed over with a warning."""
    try:
        if manifest.suffix == ".csv":
            yield from read_table(manifest)
            return
        for line in read_text(manifest).split("\n"):
            row = json.loads(line) if line.strip() else None
            if isinstance(row, dict):
                yield row
    except (InputError, ValueError):
        logger.warning("%s cannot be read to its end: the offsets in the rest of it are not known", manifest)


def _sidecar(clip: Path) -> Mapping[str, Any]:
    """What the .json beside a clip says; of one with a line a key, as rendered heads have, the short lines alone are parsed."""
    try:
        text = clip.with_suffix(".json").read_text(encoding="utf-8")
        lines = [line.rstrip(",") for line in text.splitlines() if len(line) < _SHORT and _ENTRY.match(line)]
        content = json.loads("{" + ",".join(lines) + "}") if lines else json.loads(text)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _voice(value: object) -> str | None:
    """A voice by its name, with the synthesiser's where there is one."""
    if isinstance(value, dict):
        return "/".join(str(value[key]) for key in ("engine", "name") if key in value) or None
    return value if isinstance(value, str) and value else None


def _offset(entry: Mapping[str, Any]) -> float | None:
    """The offset that a row or a sidecar tells, 0 where it was corrected since; None where it tells none that is a number."""
    value = entry.get(_OFFSET_KEY)
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        offset = float(value)
    except ValueError:
        return None
    if not math.isfinite(offset):
        return None
    return 0.0 if str(entry.get(_CORRECTED_KEY)).lower() in _TRUE else offset


def _folders(clip: Path, root: Path) -> tuple[str, ...]:
    """Folders of a clip below `root`; of one that lies elsewhere, the one it lies in."""
    clip, root = clip.absolute(), root.absolute()
    return clip.relative_to(root).parts[:-1] if clip.is_relative_to(root) else (clip.parent.name,)

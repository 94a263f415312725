"""Pictures as a video: the numbered frames of a folder, and whether a photo that could be transparent is so."""

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from latentsync.errors import InputError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_NUMBERED = re.compile(r"(.*?)(\d+)(\.[^.]+)")
_EXAMPLE = "frame_00001.png, frame_00002.png, ..."


@dataclass(frozen=True)
class FrameSeries:
    """The pictures of a folder whose names differ in a number alone, which goes up by one."""

    first: Path
    pattern: str  # with %05d in the place of the number, as ffmpeg's image2 reads it
    start: int  # the number of the first
    count: int
    has_alpha: bool


def find_series(folder: Path) -> FrameSeries:
    """The frames in a folder, in the order of their numbers; other files are passed over. Raises InputError: they are no one video."""
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({(error.strerror or str(error)).lower()}): check the path") from None
    names = [path.name for path in paths if path.is_file()]
    if not names:
        raise InputError(f"{folder} is a folder: give a file, or a folder with the numbered frames of a video ({_EXAMPLE})")
    parts = {name: _NUMBERED.fullmatch(name) for name in names}
    if None in parts.values():
        name = next(name for name in sorted(names) if parts[name] is None)
        raise InputError(f"{folder / name} has no number at its end: a folder of frames holds those of one video alone ({_EXAMPLE})")
    numbers = {name: int(match[2]) for name, match in parts.items()}
    names.sort(key=numbers.get)
    prefix, digits, suffix = parts[names[0]].groups()
    for name, number in zip(names, range(numbers[names[0]], numbers[names[-1]] + 1), strict=False):
        wanted = f"{prefix}{number:0{len(digits)}d}{suffix}"
        if name != wanted:
            raise InputError(f"{folder} lacks {wanted}, {name} is there: number the frames without gaps and in one way ({_EXAMPLE})")
    known = [_size_and_alpha(folder / name) for name in names]
    for name, (size, has_alpha) in zip(names, known, strict=True):
        if (size, has_alpha) != known[0]:
            here, there = (f"{w}x{h}{' with transparency' if alpha else ''}" for (w, h), alpha in ((size, has_alpha), known[0]))
            raise InputError(f"{folder / name} is {here}, but {names[0]} {there}: frames of one video have one size, bring them to it")
    before, after = (text.replace("%", "%%") for text in (str(folder / names[0])[: -len(digits + suffix)], suffix))
    return FrameSeries(folder / names[0], f"{before}%0{len(digits)}d{after}", numbers[names[0]], len(names), known[0][1])


def _size_and_alpha(path: Path) -> tuple[tuple[int, int], bool]:
    try:
        with Image.open(path) as picture:  # reads its header alone
            return picture.size, picture.has_transparency_data
    except OSError as error:
        raise InputError(f"{path} is not a picture that can be read ({error}): export it again") from None


def is_opaque(path: Path) -> bool:
    """Whether a single picture with an alpha channel hides nothing; False also where that cannot be told."""
    try:
        with Image.open(path) as picture:
            return getattr(picture, "n_frames", 1) == 1 and picture.convert("RGBA").getchannel("A").getextrema()[0] == 255
    except (OSError, ValueError):
        return False

"""Find the raw files of an input folder, a few at a time, whatever their number; nothing in there is ever written or removed by this."""

import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from latentsync.errors import InputError
from latentsync.media.ffmpeg import probe
from latentsync.media.files import VIDEO_EXTENSIONS
from preprocess.manifest import RawFile
from preprocess.stage import Clip, Outcome, Rejected, Stage, Worker

logger = logging.getLogger("preprocess.pipeline")

NO_MEDIA = frozenset(  # endings of files that are no video for certain: passed over without a row in the manifest
    {
        *(".txt", ".md", ".rst", ".pdf", ".doc", ".docx", ".html", ".htm", ".xml", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".ini"),
        *(".cfg", ".csv", ".tsv", ".log", ".py", ".sh", ".ipynb", ".srt", ".vtt", ".ass", ".sub", ".nfo", ".url"),
        *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".svg", ".ico", ".psd"),
        *(".npy", ".npz", ".pkl", ".pt", ".pth", ".bin", ".safetensors", ".h5", ".parquet", ".sqlite", ".db"),
        *(
            ".zip",
            ".tar",
            ".gz",
            ".tgz",
            ".bz2",
            ".xz",
            ".zst",
            ".7z",
            ".rar",
            ".part",
            ".crdownload",
            ".torrent",
            ".md5",
            ".sha1",
            ".sha256",
        ),
    }
)
NO_VIDEO = "not a video"
_AT_ONCE = 10_000  # names of one folder that are held in memory and sorted; a folder with more comes in several sorted parts


def find_raw_files(root: Path) -> Iterator[RawFile]:
    """Files below `root` that may hold video; hidden files and links to folders are passed over.

    Raises InputError where `root` is no folder that can be read.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the folder that holds the raw videos with --input_dir")
    folders = [root]
    while folders:
        folder = folders.pop()
        inner: list[Path] = []
        for entry in _entries(folder, is_root=folder == root):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                inner.append(folder / entry.name)
            elif entry.is_dir():
                logger.warning("%s is a link to a folder and is passed over: give it as --input_dir of its own", entry.path)
            elif Path(entry.name).suffix.lower() not in NO_MEDIA:
                yield _raw_file(root, entry)
        folders.extend(reversed(inner))


def _entries(folder: Path, is_root: bool) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, sorted by name as far as memory allows."""
    try:
        with os.scandir(folder) as found:
            while some := sorted(islice(found, _AT_ONCE), key=lambda entry: entry.name):
                yield from some
    except OSError as error:
        sentence = f"{folder} cannot be read ({(error.strerror or str(error)).lower()})"
        if is_root:
            raise InputError(f"{sentence}: give yourself permission to read it") from None
        logger.warning("%s and is passed over", sentence)


def _raw_file(root: Path, entry: os.DirEntry[str]) -> RawFile:
    path = Path(entry.path)
    source = path.relative_to(root).as_posix()
    try:
        status = entry.stat()
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
    except OSError:  # a link to nowhere: the first step says so
        stamp = "gone"
    try:
        source.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(source).decode("utf-8", "backslashreplace")
        return RawFile(shown, stamp, Rejected("unreadable name", f"{shown} is no name in UTF-8: rename the file"))
    if source.splitlines() != [source]:
        return RawFile(source, stamp, Rejected("unreadable name", f"{source!r} has a line break in its name: rename the file"))
    original = path.with_suffix("")
    if path.suffix.lower() == ".mp4" and original.suffix.lower() not in ("", ".mp4", *NO_MEDIA) and original.is_file():
        why = f"{source} would get the name that {original.name} beside it gets as .mp4: rename one of them"
        return RawFile(source, stamp, Rejected("name taken", why))
    return RawFile(source, stamp)


class LookFirst:
    """The first step, after a look whether a file with an unusual ending is media at all."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __call__(self, clip: Clip, folder: Path) -> Outcome:
        """As the step itself; a file that ffmpeg does not know is rejected as no video."""
        if clip.path.suffix.lower() not in VIDEO_EXTENSIONS:
            try:
                probe(clip.path)
            except InputError as error:
                return [Rejected(NO_VIDEO, str(error))]
        return self._worker(clip, folder)


def open_looking_first(device: str, stage: Stage) -> LookFirst:
    """Open a first step that looks first; its `open` once `stage` is bound."""
    return LookFirst(stage.open(device))

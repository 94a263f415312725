"""Which clips a report shows, and one small picture of each."""

import base64
import contextlib
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from latentsync.errors import LatentSyncError
from latentsync.media.process import QUIET, Child, file_url
from preprocess.manifest import Manifest

HEIGHT = 120  # pixels of a thumbnail
_KEPT, _WORST, _REJECTED = 12, 6, 3  # how many: at random of the kept; the lowest of a measure; at random of each reason
_MOST_REASONS = 8
_SECONDS = 20.0  # for one picture; a file that takes longer has none
_RANDOM = "((id * 2654435761 + :seed * 40503) % 4294967291)"  # an order that looks like chance and is the same for the same seed


@dataclass(frozen=True)
class Shown:
    """One clip in a report."""

    title: str  # of the group that it belongs to
    source: str
    name: str
    text: str  # why it was rejected, or its measures
    picture: str | None  # data URI


def choose(manifest: Manifest, seed: int) -> list[Shown]:
    """A few dozen clips: of what came through, of the worst that came through, and of each frequent reason."""
    names = manifest.step_names()
    if not names:
        return []
    values = {"seed": seed, "last": names[-1]}
    groups = [("Kept, at random", f"step = :last AND kept ORDER BY {_RANDOM} LIMIT {_KEPT}", values)]
    groups += [
        (f"Kept, lowest {measure}", f"step = :last AND kept AND {measure} IS NOT NULL ORDER BY {measure}, id LIMIT {_WORST}", values)
        for measure in ("confidence", "hyperiqa")
    ]
    reasons = manifest.connection.execute(
        "SELECT step, reason FROM clips WHERE NOT kept AND parent IS NOT NULL GROUP BY step, reason ORDER BY count(*) DESC LIMIT ?",
        (_MOST_REASONS,),
    ).fetchall()
    for step, reason in reasons:
        where = f"step = :step AND reason = :reason ORDER BY {_RANDOM} LIMIT {_REJECTED}"
        groups.append((f"{step}: {reason}", where, {"seed": seed, "step": step, "reason": reason}))
    return [shown for title, where, chosen in groups for shown in _shown(manifest, title, where, chosen)]


def _shown(manifest: Manifest, title: str, where: str, values: dict[str, object]) -> list[Shown]:
    rows = manifest.connection.execute(f"SELECT * FROM clips WHERE {where}", values).fetchall()
    shown = []
    for row in rows:
        measures = ", ".join(
            f"{name} {row[name]:.4g}" for name in ("duration", "face_size", "offset", "confidence", "hyperiqa") if row[name]
        )
        path = _picture_path(manifest, row["id"])
        picture = None if path is None else thumbnail(path, (row["duration"] or 0.0) / 3)
        shown.append(Shown(title, row["source"], row["name"], row["why"] or measures, picture))
    return shown


def _picture_path(manifest: Manifest, number: int | None) -> Path | None:
    """The clip's own file; that of the clip before where it has none, or it is gone."""
    while number is not None:
        row = manifest.connection.execute("SELECT id, parent, path, made FROM clips WHERE id = ?", (number,)).fetchone()
        if row is None:
            return None
        if row["path"] is not None and (path := manifest.places.of(row["path"], row["made"])).is_file():
            return path
        number = row["parent"]
    return None


def thumbnail(path: Path, at: float) -> str | None:
    """A frame of a video near a time in seconds as a data URI; its first one where there is none there, None where there is none at all."""
    for start in sorted({max(0.0, at), 0.0}, reverse=True):
        picture = _frame(path, start)
        if picture:
            return f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"
    return None


def _frame(path: Path, at: float) -> bytes:
    limits = ("-protocol_whitelist", "file", "-ss", f"{at:.3f}")
    output = ("-frames:v", "1", "-vf", f"scale=-2:{HEIGHT}", "-c:v", "mjpeg", "-q:v", "6", "-f", "image2pipe", "pipe:1")
    try:
        child = Child(["ffmpeg", *QUIET, "-nostdin", *limits, "-i", file_url(path), "-an", *output], stdout=subprocess.PIPE)
    except LatentSyncError:  # no ffmpeg here
        return b""
    timer = threading.Timer(_SECONDS, child.interrupt)
    timer.start()
    try:
        assert child.stdout is not None
        picture = b""
        with contextlib.suppress(OSError):
            picture = child.stdout.readall()  # type: ignore[attr-defined]
    finally:
        timer.cancel()
        child.kill()
    return picture

"""The report of a data pipeline, as a table and as a page: `python -m preprocess.report MANIFEST`."""

import argparse
import base64
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from latentsync.cli import CODES, run_command
from latentsync.errors import OutputError
from latentsync.media.files import check_target, write_text
from latentsync.media.probe import QUIET, file_url
from preprocess.manifest import COLUMNS, Manifest, read_manifest
from preprocess.step import RAW

logger = logging.getLogger("preprocess.pipeline")
REPORT_NAME = "report.html"
TEMPLATE = "report.html.jinja"  # beside this file
BINS = 24
_HEADS = ("step", "clips in", "kept", "rejected", "hours in", "hours out", "work h", "video h / work h")
_THUMBNAIL_HEIGHT = 120  # pixels
_THUMBNAIL_SECONDS = 20.0  # for one picture; a file that takes longer has none
_KEPT, _LOWEST, _REJECTED, _REASONS = 12, 6, 3, 8  # clips shown: at random of the kept; lowest of a measure; of each reason; reasons
_RANDOM = "((id * 2654435761 + :seed * 40503) % 4294967291)"  # an order that looks like chance and is the same for the same seed


@dataclass(frozen=True)
class StepCount:
    """One step in numbers."""

    name: str
    clips_in: int
    kept: int
    reasons: dict[str, int]  # most frequent first
    hours_in: float
    hours_out: float
    seconds: float  # of work

    @property
    def rejected(self) -> int:
        return sum(self.reasons.values())

    @property
    def speed(self) -> float:
        """Hours of video that one worker does in an hour."""
        return self.hours_in * 3600 / self.seconds if self.seconds else 0.0

    def cells(self) -> list[str]:
        numbers = [str(self.clips_in), str(self.kept), str(self.rejected), f"{self.hours_in:.2f}", f"{self.hours_out:.2f}"]
        return [self.name, *numbers, f"{self.seconds / 3600:.2f}", f"{self.speed:.2f}" if self.seconds else ""]


def count_steps(manifest: Manifest) -> list[StepCount]:
    """The steps of the newest run, the search for raw files before them."""
    names = [RAW, *manifest.step_names()]
    totals = (
        "SELECT total(kept) AS kept, total(seconds) AS seconds, total(duration) AS duration, total(duration * kept) AS duration_kept, "
        "total(kept AND done) AS done, total(duration * (kept AND done)) AS duration_done FROM clips WHERE step = ?"
    )
    query = "SELECT reason, count(*) FROM clips WHERE step = ? AND NOT kept GROUP BY reason ORDER BY 2 DESC, 1"
    counts: list[StepCount] = []
    before: sqlite3.Row | None = None
    for name in names:
        row = manifest.connection.execute(totals, (name,)).fetchone()
        reasons = dict(map(tuple, manifest.connection.execute(query, (name,))))
        clips_in = row["kept"] + sum(reasons.values()) if before is None else before["done"]
        duration = row["duration"] if before is None or counts[-1].name == RAW else before["duration_done"]  # raw files have none yet
        hours = (duration / 3600, row["duration_kept"] / 3600)
        counts.append(StepCount(name, int(clips_in), int(row["kept"]), reasons, *hours, row["seconds"]))
        before = row
    return counts


def as_text(counts: Sequence[StepCount]) -> str:
    lines: list[Sequence[str]] = [_HEADS]
    for count in counts:
        lines.append(count.cells())
        lines += [(f"  {reason}", "", "", str(number), "", "", "", "") for reason, number in count.reasons.items()]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join("  ".join([line[0].ljust(first), *map(str.rjust, line[1:], others)]).rstrip() for line in lines)


def histograms(manifest: Manifest) -> list[dict[str, Any]]:
    """Of each fact with a column and several values: its spread over clips that ended or came through; whole numbers get a bin each."""
    names = manifest.step_names()
    last = names[-1] if names else RAW
    found = []
    for column in manifest.columns:
        ends = f'parent IS NOT NULL AND (NOT kept OR step = ?) AND "{column}" IS NOT NULL'
        numbers = f'min("{column}"), max("{column}"), total("{column}" != CAST("{column}" AS INTEGER))'
        low, high, fractions = manifest.connection.execute(f"SELECT {numbers} FROM clips WHERE {ends}", (last,)).fetchone()
        if low is None or low == high:
            continue
        whole = not fractions and high - low < BINS
        width = 1.0 if whole else (high - low) / BINS
        bins = int(high - low) + 1 if whole else BINS
        counts = [[0] * bins, [0] * bins]
        query = f'SELECT kept, min(CAST(("{column}" - ?) / ? AS INTEGER), ?) AS bin, count(*) FROM clips WHERE {ends} GROUP BY kept, bin'
        for kept, place, number in manifest.connection.execute(query, (low, width, bins - 1, last)):
            counts[bool(kept)][place] = number
        about = {"name": column, "low": low, "high": low + bins * width, "width": width}
        found.append(about | {"kept": counts[1], "rejected": counts[0], "top": max(map(sum, zip(*counts, strict=True)))})
    return found


def choose_clips(manifest: Manifest, seed: int) -> dict[str, list[dict[str, str | None]]]:
    """Name, text and picture of a few dozen clips by title: of what came through, of the lowest measures, of each frequent reason."""
    names = manifest.step_names()
    if not names:
        return {}
    values = {"seed": seed, "last": names[-1]}
    wanted = {"Kept, at random": (f"step = :last AND kept ORDER BY {_RANDOM} LIMIT {_KEPT}", values)}
    for measure in (name for name in manifest.columns if name not in COLUMNS):
        lowest = f'step = :last AND kept AND "{measure}" IS NOT NULL ORDER BY "{measure}", id LIMIT {_LOWEST}'
        wanted[f"Kept, lowest {measure}"] = (lowest, values)
    reasons = "SELECT step, reason FROM clips WHERE NOT kept AND parent IS NOT NULL GROUP BY step, reason ORDER BY count(*) DESC LIMIT ?"
    for step, reason in manifest.connection.execute(reasons, (_REASONS,)).fetchall():
        where = f"step = :step AND reason = :reason ORDER BY {_RANDOM} LIMIT {_REJECTED}"
        wanted[f"{step}: {reason}"] = (where, {"seed": seed, "step": step, "reason": reason})
    rows = {
        title: manifest.connection.execute(f"SELECT * FROM clips WHERE {where}", own).fetchall() for title, (where, own) in wanted.items()
    }
    shown = {row["id"]: row for group in rows.values() for row in group}  # each once, though it may stand in several groups
    clips = {number: _shown(manifest, row) for number, row in shown.items()}
    return {title: [clips[row["id"]] for row in group] for title, group in rows.items() if group}


def _shown(manifest: Manifest, row: sqlite3.Row) -> dict[str, str | None]:
    measures = ", ".join(f"{name} {row[name]:.4g}" for name in manifest.columns if name != "frames" and row[name])
    owner: sqlite3.Row | None = row
    while owner is not None and (owner["path"] is None or not manifest.path_of(owner).is_file()):  # it has none, or it is gone
        owner = manifest.one("SELECT parent, path, made FROM clips WHERE id = ?", owner["parent"])
    picture = None if owner is None else thumbnail(manifest.path_of(owner), (row["duration"] or 0.0) / 3)
    return {"name": row["name"], "text": row["why"] or measures, "picture": picture}


def thumbnail(path: Path, at: float) -> str | None:
    """A frame of a video near a time in seconds as a data URI; its first one where there is none there, None where there is none at all."""
    output = ("-frames:v", "1", "-vf", f"scale=-2:{_THUMBNAIL_HEIGHT}", "-c:v", "mjpeg", "-q:v", "6", "-f", "image2pipe", "pipe:1")
    for start in (at, 0.0):
        source = ("-protocol_whitelist", "file", "-ss", f"{start:.3f}", "-i", file_url(path), "-an")
        try:
            command = ["ffmpeg", *QUIET, "-nostdin", *source, *output]
            picture = subprocess.run(command, capture_output=True, timeout=_THUMBNAIL_SECONDS, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):  # no ffmpeg, or a disk that does not answer
            return None
        if picture:
            return f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"
    return None


def write_report(manifest: Manifest, target: Path, seed: int = 1) -> None:
    """Write the page, whole or not at all; everything is inside it. Raises OutputError."""
    counts = count_steps(manifest)
    environment = Environment(autoescape=True, loader=FileSystemLoader(Path(__file__).parent))
    page = environment.get_template(TEMPLATE).render(
        title=f"Clips of {manifest.raw.name}",
        counts=counts,
        hours=counts[1].hours_in if len(counts) > 1 else 0.0,
        run=manifest.one("SELECT started, ending FROM runs ORDER BY id DESC"),
        heads=_HEADS,
        histograms=histograms(manifest),
        groups=choose_clips(manifest, seed),
        thumbnail_height=_THUMBNAIL_HEIGHT,
    )
    write_text(target, page)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.report",
        description="Print a table of kept and rejected clips and write an HTML report with histograms; also during a run.",
        epilog=CODES,
    )
    parser.add_argument("manifest", type=Path, help="manifest.sqlite, or the folder that holds it")
    parser.add_argument("--output", type=Path, help=f"HTML file (default: {REPORT_NAME} beside the manifest)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the choice of example clips (default %(default)s)")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    with read_manifest(arguments.manifest) as manifest:
        target = arguments.output or manifest.output / REPORT_NAME
        print(as_text(count_steps(manifest)))
        try:
            check_target(target)
        except OutputError as error:
            raise OutputError(f"{error}: name another place for the page with --output") from None
        write_report(manifest, target, arguments.seed)
    logger.info("The report is %s", target)


def main(arguments: list[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "preprocess", "no page was written.")


if __name__ == "__main__":
    sys.exit(main())

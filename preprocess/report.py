"""The report of a data pipeline: `python -m preprocess.report MANIFEST`."""

import argparse
import base64
import contextlib
import html
import logging
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from latentsync.cli import run_command
from latentsync.errors import LatentSyncError, OutputError
from latentsync.media.files import check_target, write_text
from latentsync.media.probe import QUIET, Child, file_url
from preprocess.manifest import COLUMNS, Manifest, read_manifest
from preprocess.step import RAW

_HOUR = 3600.0
BINS = 24


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
        """Clips, or parts of clips, that ended here."""
        return sum(self.reasons.values())

    @property
    def speed(self) -> float:
        """Hours of video that one worker does in an hour."""
        return self.hours_in * _HOUR / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Histogram:
    """How a fact is spread over the clips that ended at a step or came through."""

    name: str
    low: float
    width: float  # of a bin
    kept: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)


def count_steps(manifest: Manifest) -> list[StepCount]:
    """The steps of the newest run, the search for raw files before them."""
    counts = []
    before: str | None = None
    for name in (RAW, *manifest.step_names()):
        counts.append(_count_step(manifest, name, before))
        before = name
    return counts


def _count_step(manifest: Manifest, name: str, before: str | None) -> StepCount:
    ask = manifest.connection.execute
    row = ask("SELECT count(*) AS kept, total(duration) AS seconds FROM clips WHERE step = ? AND kept", (name,)).fetchone()
    reasons = ask("SELECT reason, count(*) FROM clips WHERE step = ? AND NOT kept GROUP BY reason ORDER BY 2 DESC, 1", (name,)).fetchall()
    work, inside = ask("SELECT total(seconds), total(duration) FROM clips WHERE step = ?", (name,)).fetchone()
    clips_in = row["kept"] + sum(number for _, number in reasons)
    if before is not None:
        done = "SELECT count(*), total(duration) FROM clips WHERE step = ? AND kept AND done"
        clips_in, came = ask(done, (before,)).fetchone()
        inside = inside if before == RAW else came  # how long a raw file is, the first step finds out
    return StepCount(name, clips_in, row["kept"], dict(map(tuple, reasons)), inside / _HOUR, row["seconds"] / _HOUR, work)


def as_text(counts: Sequence[StepCount]) -> str:
    """The numbers as a table for the terminal."""
    head = ("step", "clips in", "kept", "rejected", "hours in", "hours out", "work h", "video h / work h")
    lines: list[tuple[str, ...]] = [head]
    for count in counts:
        numbers = (str(count.clips_in), str(count.kept), str(count.rejected), f"{count.hours_in:.2f}", f"{count.hours_out:.2f}")
        lines.append((count.name, *numbers, f"{count.seconds / _HOUR:.2f}", f"{count.speed:.2f}" if count.seconds else ""))
        lines += [(f"  {reason}", "", "", str(number), "", "", "", "") for reason, number in count.reasons.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Iterable[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) if k == 0 else cell.rjust(width) for k, (cell, width) in enumerate(zip(line, widths, strict=True))]
    return "  ".join(cells).rstrip()


def histograms(manifest: Manifest) -> list[Histogram]:
    """Of each fact that has a column and more than one value."""
    names = manifest.step_names()
    last = names[-1] if names else RAW
    found = []
    for column in COLUMNS:
        ends = f'parent IS NOT NULL AND (NOT kept OR step = ?) AND "{column}" IS NOT NULL'
        row = manifest.connection.execute(f'SELECT min("{column}"), max("{column}") FROM clips WHERE {ends}', (last,)).fetchone()
        low, high = row[0], row[1]
        if low is None or low == high:
            continue
        whole = column in ("offset", "frames") and high - low < BINS
        width = 1.0 if whole else (high - low) / BINS
        bins = int(high - low) + 1 if whole else BINS
        counts = [[0] * bins, [0] * bins]
        query = f'SELECT kept, min(CAST(("{column}" - ?) / ? AS INTEGER), ?) AS bin, count(*) FROM clips WHERE {ends} GROUP BY kept, bin'
        for kept, place, number in manifest.connection.execute(query, (low, width, bins - 1, last)):
            counts[bool(kept)][place] = number
        found.append(Histogram(column, low, width, counts[1], counts[0]))
    return found


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


logger = logging.getLogger("preprocess.pipeline")
REPORT_NAME = "report.html"
_PLOT_WIDTH, _PLOT_HEIGHT = 360, 120
_KEPT_COLOUR, _REJECTED_COLOUR = "#2a9d5c", "#c8553d"
_STYLE = f"""
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; background: #fff; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }}
td:first-child, th:first-child {{ text-align: left; }} tr.reason td {{ color: #777; border: 0; }}
tr.reason td:first-child {{ padding-left: 2rem; }}
.row {{ display: flex; flex-wrap: wrap; gap: 1rem; }} figure {{ margin: 0; width: 14rem; font-size: 12px; overflow-wrap: anywhere; }}
figure img, .none {{ height: {HEIGHT}px; max-width: 100%; object-fit: contain; background: #eee; display: block; }}
.none {{ width: 10rem; }}
.kept {{ color: {_KEPT_COLOUR}; }} .rejected {{ color: {_REJECTED_COLOUR}; }}
"""


def write_report(manifest: Manifest, target: Path, seed: int = 1) -> None:
    """Write the page, whole or not at all; everything is inside it. Raises OutputError."""
    write_text(target, page(manifest, choose(manifest, seed)))


def page(manifest: Manifest, shown: Sequence[Shown]) -> str:
    """The page as HTML."""
    counts, run = count_steps(manifest), manifest.connection.execute("SELECT * FROM runs ORDER BY id DESC LIMIT 1").fetchone()
    title = f"Clips of {manifest.places.input.name}"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(_summary(counts))}</p>",
        *([f"<p>Newest run: begun {run['started']}, {html.escape(run['ending'] or 'at work')}.</p>"] if run is not None else []),
        "<h2>Steps</h2>",
        _table(counts),
        "<h2>Measures</h2><p>Of clips that came through (<span class=kept>green</span>) or ended at a step "
        "(<span class=rejected>red</span>).</p><div class=row>",
        *(_plot(histogram) for histogram in histograms(manifest)),
        "</div><h2>Clips</h2>",
    ]
    for name, group in groupby(shown, key=lambda clip: clip.title):
        parts += [f"<h3>{html.escape(name)}</h3><div class=row>", *(_figure(clip) for clip in group), "</div>"]
    return "\n".join([*parts, "</html>\n"])


def _summary(counts: Sequence[StepCount]) -> str:
    hours = counts[1].hours_in if len(counts) > 1 else 0.0
    came = f"{counts[-1].kept} clips with {counts[-1].hours_out:.2f} h came through"
    return f"{counts[0].clips_in} raw files with {hours:.2f} h of video; {came}."


def _table(counts: Sequence[StepCount]) -> str:
    heads = ("step", "clips in", "kept", "rejected", "hours in", "hours out", "hours of work", "video h / work h")
    rows = ["<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"]
    for count in counts:
        numbers = (count.clips_in, count.kept, count.rejected, f"{count.hours_in:.2f}", f"{count.hours_out:.2f}")
        cells = (html.escape(count.name), *numbers, f"{count.seconds / 3600:.2f}", f"{count.speed:.2f}" if count.seconds else "")
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        for reason, number in count.reasons.items():
            share = f"{100 * number / max(1, count.kept + count.rejected):.1f} %"
            rows.append(f"<tr class=reason><td>{html.escape(reason)}</td><td></td><td></td><td>{number}</td><td>{share}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _plot(histogram: Histogram) -> str:
    """A histogram as SVG: rejected on top of kept."""
    bins = len(histogram.kept)
    top = max(kept + rejected for kept, rejected in zip(histogram.kept, histogram.rejected, strict=True)) or 1
    step, scale = _PLOT_WIDTH / bins, _PLOT_HEIGHT / top
    bars = []
    for k, (kept, rejected) in enumerate(zip(histogram.kept, histogram.rejected, strict=True)):
        low = histogram.low + k * histogram.width
        label = f"<title>{low:.4g}: {kept} kept, {rejected} rejected</title>"
        for count, under, colour in ((kept, 0, _KEPT_COLOUR), (rejected, kept, _REJECTED_COLOUR)):
            if count:
                y, height = _PLOT_HEIGHT - (under + count) * scale, count * scale
                box = f'x="{k * step:.1f}" y="{y:.1f}" width="{max(1, step - 1):.1f}" height="{height:.1f}"'
                bars.append(f'<rect {box} fill="{colour}">{label}</rect>')
    high = histogram.low + bins * histogram.width
    axis = f'<text x="0" y="{_PLOT_HEIGHT + 14}" font-size="11">{histogram.low:.4g}</text>'
    axis += f'<text x="{_PLOT_WIDTH}" y="{_PLOT_HEIGHT + 14}" font-size="11" text-anchor="end">{high:.4g}</text>'
    head = f"<div><b>{html.escape(histogram.name)}</b> (highest bar: {top})"
    return f'{head}<br><svg width="{_PLOT_WIDTH}" height="{_PLOT_HEIGHT + 18}">{"".join(bars)}{axis}</svg></div>'


def _figure(clip: Shown) -> str:
    picture = f'<img src="{clip.picture}" alt="">' if clip.picture else "<div class=none></div>"
    return f"<figure>{picture}<figcaption>{html.escape(clip.name)}<br>{html.escape(clip.text)}</figcaption></figure>"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.report",
        description="Print what a pipeline kept and rejected, and write a page with histograms and pictures; also while it runs.",
        epilog="Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted.",
    )
    parser.add_argument("manifest", type=Path, help="manifest.sqlite, or the folder that holds it")
    parser.add_argument("--output", type=Path, help=f"the page to write (default: {REPORT_NAME} beside the manifest)")
    parser.add_argument("--seed", type=int, default=1, help="other clips are shown for another number (default %(default)s)")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    with read_manifest(arguments.manifest) as manifest:
        target = arguments.output or manifest.places.output / REPORT_NAME
        print(as_text(count_steps(manifest)))
        try:
            check_target(target)
        except OutputError as error:
            raise OutputError(f"{error}: name another place for the page with --output") from None
        write_report(manifest, target, arguments.seed)
    logger.info("The report is %s", target)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "preprocess", "no page was written.")


if __name__ == "__main__":
    sys.exit(main())

"""The report of a data pipeline, as a table and as a page: `python -m preprocess.report MANIFEST`."""

import argparse
import base64
import contextlib
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from latentsync.cli import run_command
from latentsync.errors import LatentSyncError, OutputError
from latentsync.media.files import check_target, write_text
from latentsync.media.probe import QUIET, Child, file_url
from preprocess.manifest import COLUMNS, Manifest, read_manifest
from preprocess.step import RAW

logger = logging.getLogger("preprocess.pipeline")
REPORT_NAME = "report.html"
BINS = 24
_HEADS = ("step", "clips in", "kept", "rejected", "hours in", "hours out", "work h", "video h / work h")
_PLOT_WIDTH, _PLOT_HEIGHT = 360, 120  # pixels
_THUMBNAIL_HEIGHT = 120
_THUMBNAIL_SECONDS = 20.0  # for one picture; a file that takes longer has none
_KEPT, _LOWEST, _REJECTED, _REASONS = 12, 6, 3, 8  # clips shown: at random of the kept; lowest of a measure; of each reason; reasons
_RANDOM = "((id * 2654435761 + :seed * 40503) % 4294967291)"  # an order that looks like chance and is the same for the same seed
_PAGE = """\
<!doctype html><html lang=en><meta charset=utf-8><title>{{ title }}</title><style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; background: #fff; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; } tr.reason td { color: #777; border: 0; }
tr.reason td:first-child { padding-left: 2rem; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; width: 14rem; font-size: 12px; overflow-wrap: anywhere; }
figure img, .none { height: {{ thumbnail_height }}px; max-width: 100%; object-fit: contain; background: #eee; display: block; }
.none { width: 10rem; }
.kept { color: #2a9d5c; fill: #2a9d5c; } .rejected { color: #c8553d; fill: #c8553d; }
</style>
<h1>{{ title }}</h1>
<p>{{ counts[0].clips_in }} raw files with {{ "%.2f" % hours }} h of video;
{{ counts[-1].kept }} clips with {{ "%.2f" % counts[-1].hours_out }} h came through.</p>
{% if run %}<p>Newest run: begun {{ run.started }}, {{ run.ending or "at work" }}.</p>{% endif %}
<h2>Steps</h2>
<table><tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for count in counts %}<tr>{% for cell in count.cells() %}<td>{{ cell }}</td>{% endfor %}</tr>
{% for reason, number in count.reasons.items() -%}
<tr class=reason><td>{{ reason }}</td><td></td><td></td><td>{{ number }}</td>
<td>{{ "%.1f" % (100 * number / (count.kept + count.rejected)) }} %</td></tr>
{% endfor %}{% endfor %}</table>
<h2>Measures</h2>
<p>Of clips that came through (<span class=kept>green</span>) or ended at a step (<span class=rejected>red</span>).</p>
<div class=row>{% for plot in histograms %}<div><b>{{ plot.name }}</b> (highest bar: {{ plot.top }})<br>
<svg width="{{ width }}" height="{{ height + 18 }}">
{% for bar in plot.bars() %}<rect x="{{ "%.1f" % bar.x }}" y="{{ "%.1f" % bar.y }}" width="{{ "%.1f" % bar.width }}" \
height="{{ "%.1f" % bar.height }}" class="{{ bar.kind }}"><title>{{ bar.title }}</title></rect>{% endfor %}
<text x="0" y="{{ height + 14 }}" font-size="11">{{ "%.4g" % plot.low }}</text>
<text x="{{ width }}" y="{{ height + 14 }}" font-size="11" text-anchor="end">{{ "%.4g" % plot.high }}</text></svg></div>
{% endfor %}</div>
<h2>Clips</h2>
{% for title, clips in groups.items() %}<h3>{{ title }}</h3><div class=row>
{% for clip in clips %}<figure>{% if clip.picture %}<img src="{{ clip.picture }}" alt="">{% else %}<div class=none></div>{% endif %}
<figcaption>{{ clip.name }}<br>{{ clip.text }}</figcaption></figure>
{% endfor %}</div>
{% endfor %}</html>
"""


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
        return self.hours_in * 3600 / self.seconds if self.seconds else 0.0

    def cells(self) -> list[str]:
        """Its row of a table with `_HEADS`."""
        numbers = [str(self.clips_in), str(self.kept), str(self.rejected), f"{self.hours_in:.2f}", f"{self.hours_out:.2f}"]
        return [self.name, *numbers, f"{self.seconds / 3600:.2f}", f"{self.speed:.2f}" if self.seconds else ""]


def count_steps(manifest: Manifest) -> list[StepCount]:
    """The steps of the newest run, the search for raw files before them."""
    names = [RAW, *manifest.step_names()]
    return [_count_step(manifest, name, before) for name, before in zip(names, [None, *names], strict=False)]


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
    return StepCount(name, clips_in, row["kept"], dict(map(tuple, reasons)), inside / 3600, row["seconds"] / 3600, work)


def as_text(counts: Sequence[StepCount]) -> str:
    """The numbers as a table for the terminal."""
    lines: list[Sequence[str]] = [_HEADS]
    for count in counts:
        lines.append(count.cells())
        lines += [(f"  {reason}", "", "", str(number), "", "", "", "") for reason, number in count.reasons.items()]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join("  ".join([line[0].ljust(first), *map(str.rjust, line[1:], others)]).rstrip() for line in lines)


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, in pixels."""

    x: float
    y: float
    width: float
    height: float
    kind: str  # "kept" or "rejected"
    title: str


@dataclass(frozen=True)
class Histogram:
    """How a fact is spread over the clips that ended at a step or came through."""

    name: str
    low: float
    width: float  # of a bin
    kept: list[int]
    rejected: list[int]

    @property
    def high(self) -> float:
        """Where the last bin ends."""
        return self.low + len(self.kept) * self.width

    @property
    def top(self) -> int:
        """Clips of the highest bin."""
        return max(map(sum, zip(self.kept, self.rejected, strict=True)))

    def bars(self) -> Iterator[Bar]:
        """Rejected on top of kept."""
        step, scale = _PLOT_WIDTH / len(self.kept), _PLOT_HEIGHT / (self.top or 1)
        for k, (kept, rejected) in enumerate(zip(self.kept, self.rejected, strict=True)):
            title = f"{self.low + k * self.width:.4g}: {kept} kept, {rejected} rejected"
            for kind, count, end in (("kept", kept, kept), ("rejected", rejected, kept + rejected)):
                if count:
                    yield Bar(k * step, _PLOT_HEIGHT - end * scale, max(1.0, step - 1), count * scale, kind, title)


def histograms(manifest: Manifest) -> list[Histogram]:
    """Of each fact that has a column and more than one value; a bin for each value where these are few whole numbers."""
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
        found.append(Histogram(column, low, width, counts[1], counts[0]))
    return found


@dataclass(frozen=True)
class ShownClip:
    """One clip in a report."""

    name: str
    text: str  # why it was rejected, or its measures
    picture: str | None  # data URI


def choose_clips(manifest: Manifest, seed: int) -> dict[str, list[ShownClip]]:
    """A few dozen clips by title: of what came through, of the lowest measures that came through, and of each frequent reason."""
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


def _shown(manifest: Manifest, row: sqlite3.Row) -> ShownClip:
    measures = ", ".join(f"{name} {row[name]:.4g}" for name in manifest.columns if name != "frames" and row[name])
    path = _picture_path(manifest, row["id"])
    picture = None if path is None else thumbnail(path, (row["duration"] or 0.0) / 3)
    return ShownClip(row["name"], row["why"] or measures, picture)


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
    output = ("-frames:v", "1", "-vf", f"scale=-2:{_THUMBNAIL_HEIGHT}", "-c:v", "mjpeg", "-q:v", "6", "-f", "image2pipe", "pipe:1")
    try:
        child = Child(["ffmpeg", *QUIET, "-nostdin", *limits, "-i", file_url(path), "-an", *output], stdout=subprocess.PIPE)
    except LatentSyncError:  # no ffmpeg here
        return b""
    timer = threading.Timer(_THUMBNAIL_SECONDS, child.interrupt)
    timer.start()
    try:
        assert child.stdout is not None
        picture = b""
        with contextlib.suppress(OSError):
            picture = child.stdout.read()
    finally:
        timer.cancel()
        child.kill()
    return picture


def write_report(manifest: Manifest, target: Path, seed: int = 1) -> None:
    """Write the page, whole or not at all; everything is inside it. Raises OutputError."""
    counts = count_steps(manifest)
    template = jinja2.Environment(autoescape=True).from_string(_PAGE)
    page = template.render(
        title=f"Clips of {manifest.places.input.name}",
        counts=counts,
        hours=counts[1].hours_in if len(counts) > 1 else 0.0,
        run=manifest.connection.execute("SELECT started, ending FROM runs ORDER BY id DESC LIMIT 1").fetchone(),
        heads=_HEADS,
        histograms=histograms(manifest),
        groups=choose_clips(manifest, seed),
        **{"width": _PLOT_WIDTH, "height": _PLOT_HEIGHT, "thumbnail_height": _THUMBNAIL_HEIGHT},
    )
    write_text(target, page)


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

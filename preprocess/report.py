"""The report of a pipeline: a table for the terminal, and one page with histograms and pictures: `python -m preprocess.report MANIFEST`."""

import argparse
import html
import logging
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from latentsync.command import run_command
from latentsync.errors import OutputError
from latentsync.media.files import check_target, write_text
from preprocess.manifest import Manifest
from preprocess.manifest_file import read_manifest
from preprocess.tables import Histogram, StepCount, as_text, count_steps, histograms
from preprocess.thumbnails import HEIGHT, Shown, choose

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

"""Sync confidence, offset and distance of videos: `eval/eval_sync_conf.sh --video FILE_OR_FOLDER --output_dir OUT`."""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.metrics.base import Column, Estimate, mean
from eval.metrics.sync import SyncMeasure, SyncResult
from latentsync.cli import CODES, TEMP_DIR, accept_published, run_command
from latentsync.errors import InputError, StalledError, WeightsError
from latentsync.media.files import staged
from latentsync.third_party.sync_search import MAX_SHIFT

if TYPE_CHECKING:
    from eval.metrics.sync import SyncMeasure

NONE = "-"


@dataclass(frozen=True)
class SyncRow:
    """One video: what was found, or why nothing was."""

    name: str
    result: SyncResult | None
    reason: str | None = None


def to_json(measure: SyncMeasure, rows: Sequence[SyncRow]) -> dict[str, Any]:
    """Everything that is known."""
    videos = []
    for row in rows:
        if row.result is None:
            videos.append({"video": row.name, "reason": row.reason})
        else:
            videos.append({"video": row.name, **measure.numbers(row.result), "tracks": row.result.tracks, "frames": row.result.frames})
    summary = {}
    for place, column in enumerate(measure.columns):
        found, values = estimate(measure, rows, place)
        if found is not None:
            summary[column.name] = {"mean": found.value, "low": found.low, "high": found.high, "median": median(values)}
    done = sum(row.result is not None for row in rows)
    head = {"warning": measure.warning} if measure.warning else {}
    head |= {"measure": measure.name, "protocol": measure.protocol, "settings": dict(measure.settings)}
    return {**head, "measured": done, "not_measured": len(rows) - done, "summary": summary, "videos": videos}


def to_markdown(measure: SyncMeasure, rows: Sequence[SyncRow]) -> str:
    """The table: what it is, the summary's warning, a row for each video, the rows about all of them, what was left out and why."""
    columns = [column.name + (f" ({column.unit})" if column.unit else "") for column in measure.columns]
    lines = [f"# {'Sync confidence' if measure.warning is None else 'Sync in the eyes of a SyncNet of this project'}", ""]
    if measure.warning is not None:
        lines += [f"**{measure.warning}**", ""]
    lines += [f"| video | {' | '.join(columns)} | faces followed | frames | not measured because |", "|---" * (len(columns) + 4) + "|"]
    for row in rows:
        if row.result is None:
            cells = [NONE] * (len(columns) + 2) + [_cell(row.reason or "")]
        else:
            numbers = measure.numbers(row.result)
            shown = [_number(numbers[column.name], _row_digits(column)) for column in measure.columns]
            cells = [*shown, str(row.result.tracks), str(row.result.frames), ""]
        lines.append(f"| {' | '.join([_cell(row.name), *cells])} |")
    estimates = [estimate(measure, rows, place) for place in range(len(columns))]
    digits = [column.digits for column in measure.columns]
    means = [_interval(found, count) for (found, _), count in zip(estimates, digits, strict=True)]
    medians = [_number(median(values), count) if values else NONE for (_, values), count in zip(estimates, digits, strict=True)]
    lines += [
        f"| **mean (95 % interval)** | {' | '.join(means)} | | | |",
        f"| **median** | {' | '.join(medians)} | | | |",
    ]
    return "\n".join([*lines, "", *_notes(rows), "", measure.protocol]) + "\n"


def estimate(measure: SyncMeasure, rows: Sequence[SyncRow], place: int) -> tuple[Estimate | None, list[float]]:
    """The mean of a column over the videos that were measured, and its values."""
    name = measure.columns[place].name
    values = [measure.numbers(row.result)[name] for row in rows if row.result is not None]
    return mean(values), values


def draw(measure: SyncMeasure, rows: Sequence[SyncRow], path: Path) -> None:
    """Write a picture (PNG) with the histograms of confidences and of offsets. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, because importing it looks for a folder of settings
    from matplotlib.figure import Figure

    results = [row.result for row in rows if row.result is not None]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    confidences = np.array([result.confidence for result in results])
    left.hist(confidences, bins=min(30, 5 + len(results) // 4), color="#1f5fa8")
    left.axvline(confidences.mean(), color="#c8501e", label=f"mean {confidences.mean():.2f}")
    left.set(xlabel="confidence" if measure.warning is None else "difference of cosines (NOT Sync-C)", ylabel="videos")
    left.legend(fontsize=8)
    offsets = Counter(result.offset for result in results)
    right.bar(list(offsets), list(offsets.values()), color="#1f5fa8")
    right.set(xlabel="offset in frames: +, the sound comes too early", ylabel="videos", xlim=(-MAX_SHIFT - 1, MAX_SHIFT + 1))
    for axes in (left, right):
        axes.yaxis.get_major_locator().set_params(integer=True)
    title = f"{len(results)} of {len(rows)} videos, SyncNet v2" if measure.warning is None else _folded(measure.warning)
    figure.suptitle(title, color="black" if measure.warning is None else "#c00000", fontsize=10)
    with staged(path) as temporary:
        canvas.print_figure(temporary, dpi=110, format="png")


def _notes(rows: Sequence[SyncRow]) -> list[str]:
    offsets = [row.result.offset for row in rows if row.result is not None]
    notes = [f"{len(offsets)} of {len(rows)} videos were measured."]
    if offsets:
        zero, near = (sum(abs(offset) <= reach for offset in offsets) for reach in (0, 1))
        notes.append(f"Offset 0: {zero} of {len(offsets)}; one frame at most: {near} of {len(offsets)}.")
    left_out = len(rows) - len(offsets)
    return [*notes, f"{left_out} could not be measured; the reasons stand in their rows."] if left_out else notes


def _row_digits(column: Column) -> int:
    """The offset of one video is a whole number."""
    return 0 if column.unit == "frames" else column.digits


def _interval(found: Estimate | None, digits: int) -> str:
    if found is None:
        return NONE
    if found.low is None or found.high is None:
        return _number(found.value, digits)
    return f"{_number(found.value, digits)} ({_number(found.low, digits)} to {_number(found.high, digits)})"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _folded(text: str) -> str:
    """Two lines instead of one."""
    first, _, rest = text.partition(". ")
    return f"{first}.\n{rest}"


logger = logging.getLogger("eval")
WITHOUT_EFFECT = {"--initial_model": "SyncNet v2 is auxiliary/syncnet_v2.model in the folder of --checkpoints", **TEMP_DIR}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="eval_sync_conf.sh",
        description="How well picture and sound of videos fit, each with its own sound: SyncNet v2 on the faces that S3FD follows. "
        "Prints the table; with --output_dir also writes sync.json, sync.md and sync.png.",
        epilog=f"With --output_dir the same command goes on where it stopped: what was measured is kept in OUT/sync.jsonl. {CODES}",
    )
    parser.add_argument(
        "--video",
        *("--video_path", "--videos_dir"),  # the published names
        type=Path,
        required=True,
        metavar="VIDEO",
        help="a video, or a folder of videos (folders in it, too)",
    )
    parser.add_argument("--output_dir", type=Path, help="where results go (default: the table is printed only)")
    parser.add_argument("--checkpoints", type=Path, help="folder of weights, with auxiliary/ in it (default: checkpoints/ of the project)")
    parser.add_argument("--published", action="store_true", help="count windows as the published program does, one fewer than fit")
    parser.add_argument("--device", default="auto", help="auto (default), cuda, cuda:1, mps or cpu")
    own = parser.add_argument_group(
        "another judge", "a SyncNet of this project in place of SyncNet v2: its figures are no Sync-C, and every result says so"
    )
    own.add_argument("--syncnet_config", type=Path, help="YAML that it was trained with")
    own.add_argument("--syncnet", type=Path, help="its weights")
    own.add_argument("--detector", choices=("auto", "face-alignment", "mtcnn"), default="auto", help="face detector, as in inference")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    accept_published(parser, WITHOUT_EFFECT)
    return parser.parse_args(arguments)


def open_measure(parsed: argparse.Namespace) -> "SyncMeasure":
    """What measures. Raises InputError, ConfigError, WeightsError."""
    from eval.metrics.sync import load_own_sync, load_sync_confidence
    from latentsync.pipelines.build import ROOT, resolve_device
    from latentsync.weights import CHECKPOINTS

    if (parsed.syncnet is None) != (parsed.syncnet_config is None):
        raise InputError("A SyncNet is a configuration and its weights: give both --syncnet_config and --syncnet, or neither.")
    checkpoints, device = parsed.checkpoints or ROOT / CHECKPOINTS, resolve_device(parsed.device)
    if parsed.syncnet is None:
        return load_sync_confidence(checkpoints, device, parsed.published)
    if parsed.published:
        raise InputError("--published is about SyncNet v2: leave it out, or leave out --syncnet and --syncnet_config.")
    return load_own_sync(parsed.syncnet_config, parsed.syncnet, checkpoints, device, parsed.detector)


def find_videos(place: Path) -> dict[str, Path]:
    """Videos by the name they have in the table. Raises InputError where there is none."""
    from latentsync.media.files import walk_media

    if not place.is_dir():
        if not place.exists():
            raise InputError(f"{place} does not exist: name a video or a folder of videos with --video")
        return {place.name: place}
    found = {str(path.relative_to(place)): path for path in walk_media(place)}
    if not found:
        raise InputError(f"{place} holds no video: name a folder of videos with --video")
    return found


def measure_videos(videos: dict[str, Path], measure: "SyncMeasure", output_dir: Path) -> "list[SyncRow]":
    """A row for each video; those that were measured before are not looked at again. Raises OutputError."""
    from eval.cases import ResultCache
    from eval.metrics.sync import SyncResult

    kept, rows = ResultCache(output_dir / "sync.jsonl", {"measure": measure.name, **measure.settings}), []
    for number, (name, path) in enumerate(videos.items(), 1):
        outcome = kept.find(path)
        if outcome is None:
            logger.info("%s (%d of %d)", name, number, len(videos))
            outcome = measure_one(path, measure)
            if not outcome.pop("unknown", False):
                kept.add(path, outcome)
        if "reason" in outcome:
            logger.warning("%s is left out: %s", name, outcome["reason"])
        result = SyncResult(**outcome["result"]) if "result" in outcome else None
        rows.append(SyncRow(name, result, outcome.get("reason")))
    return rows


def measure_one(path: Path, measure: "SyncMeasure") -> dict:
    """{"result": ...} or {"reason": ...} of a video, with "unknown" where its disk gave no answer."""
    try:
        return {"result": measure.reader.read(path)._asdict()}
    except WeightsError:
        raise  # of every video alike
    except InputError as error:
        return {"reason": str(error), **({"unknown": True} if isinstance(error, StalledError) else {})}


def write_results(measure: "SyncMeasure", rows: "Sequence[SyncRow]", output_dir: Path) -> str:
    """Write everything; the table. Raises OutputError."""
    from latentsync.media.files import write_json, write_text

    write_json(output_dir / "sync.json", to_json(measure, rows))
    table = to_markdown(measure, rows)
    write_text(output_dir / "sync.md", table)
    if any(row.result is not None for row in rows):
        draw(measure, rows, output_dir / "sync.png")
    return table


def run(parsed: argparse.Namespace) -> None:
    """Do what the command line says."""
    from latentsync.media.files import FolderLock

    videos = find_videos(parsed.video)
    measure = open_measure(parsed)
    if measure.warning is not None:
        logger.warning("%s", measure.warning)
    busy = "is in use by another measurement: wait for its end, or give another --output_dir"
    with ExitStack() as stack:
        folder = parsed.output_dir or Path(stack.enter_context(TemporaryDirectory(prefix="latentsync-")))
        stack.enter_context(FolderLock(folder, ".sync-lock", busy))
        rows = measure_videos(videos, measure, folder)
        print(write_results(measure, rows, folder), end="")
    if all(row.result is None for row in rows):
        raise InputError(f"Not one of {len(rows)} videos could be measured, the last because: {rows[-1].reason}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    again = "with --output_dir the same command goes on with the video that was in work."
    return run_command(lambda: run(parsed), "eval", again, verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())

"""Sync confidence, offset and distance of videos: `eval/eval_sync_conf.sh --video FILE_OR_FOLDER --output_dir OUT`."""

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from latentsync.cli import CODES, TEMP_DIR, accept_published, run_command
from latentsync.errors import InputError, OutputError, StalledError, WeightsError

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from eval.metrics.sync import SyncMetric, SyncResult

logger = logging.getLogger("eval")
WITHOUT_EFFECT = {"--initial_model": "SyncNet v2 is auxiliary/syncnet_v2.model in the folder of --checkpoints", **TEMP_DIR}
OUTCOMES = ("result", "reason")


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
    stable = parser.add_argument_group(
        "another network", "a SyncNet of this project in place of SyncNet v2: its figures are no Sync-C, and every result says so"
    )
    stable.add_argument("--syncnet_config", type=Path, help="YAML that it was trained with")
    stable.add_argument("--syncnet", type=Path, help="its weights")
    stable.add_argument("--detector", choices=("auto", "face-alignment", "mtcnn"), default="auto", help="face detector, as in inference")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    accept_published(parser, WITHOUT_EFFECT)
    return parser.parse_args(arguments)


def open_metric(parsed: argparse.Namespace) -> "SyncMetric":
    """The metric of a command line. Raises InputError, ConfigError, WeightsError."""
    from eval.metrics.sync import load_stable_sync, load_sync_confidence
    from latentsync.pipelines.build import ROOT, resolve_device
    from latentsync.weights import CHECKPOINTS

    if (parsed.syncnet is None) != (parsed.syncnet_config is None):
        raise InputError("A SyncNet is a configuration and its weights: give both --syncnet_config and --syncnet, or neither.")
    checkpoints, device = parsed.checkpoints or ROOT / CHECKPOINTS, resolve_device(parsed.device)
    if parsed.syncnet is None:
        return load_sync_confidence(checkpoints, device, parsed.published)
    if parsed.published:
        raise InputError("--published is about SyncNet v2: leave it out, or leave out --syncnet and --syncnet_config.")
    return load_stable_sync(parsed.syncnet_config, parsed.syncnet, checkpoints, device, parsed.detector)


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


class ResultCache:
    """Outcomes by file; one of another size, time or way of measuring is none.

    Args:
        path: a text file with one outcome a line; what a kill cut short is passed over.
        settings: everything that decides an outcome beside the file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Raises OutputError where the file is there and cannot be read."""
        self.path, self._settings = path, json.loads(json.dumps(dict(settings)))
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise OutputError(f"cannot read {path} ({type(error).__name__}): delete it, or name another --output_dir") from None
        self._entries = {entry["file"]: entry for entry in map(_parse, lines) if entry is not None}

    def find(self, file: Path) -> dict[str, Any] | None:
        """What was found of a file: {"result": ...} or {"reason": ...}; None where it has to be measured."""
        entry = self._entries.get(str(file.absolute()))
        if entry is None or any(entry.get(key) != value for key, value in self._identity(file).items()):
            return None
        return {kind: entry[kind] for kind in OUTCOMES if kind in entry}

    def add(self, file: Path, outcome: Mapping[str, Any]) -> None:
        """Keep {"result": ...} or {"reason": ...} of a file. Raises OutputError."""
        entry = {**self._identity(file), **outcome}
        self._entries[entry["file"]] = entry
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as kept:
                kept.write("\n" * self._is_cut() + json.dumps(entry, ensure_ascii=False) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {(error.strerror or str(error)).lower()}") from None

    def _is_cut(self) -> bool:
        """Whether the last line has no end."""
        return self.path.is_file() and self.path.stat().st_size > 0 and not self.path.read_bytes().endswith(b"\n")

    def _identity(self, file: Path) -> dict[str, Any]:
        try:
            status = file.stat()
            size, time = status.st_size, status.st_mtime_ns
        except OSError:
            size, time = -1, -1
        return {"file": str(file.absolute()), "size": size, "mtime": time, "settings": self._settings}


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "file" in entry and any(kind in entry for kind in OUTCOMES) else None


@dataclass(frozen=True)
class SyncRow:
    """One video: what was found, or why nothing was."""

    name: str
    result: "SyncResult | None"
    reason: str | None = None


def measure_videos(videos: dict[str, Path], metric: "SyncMetric", output_dir: Path) -> list[SyncRow]:
    """A row for each video; those that were measured before are not read again. Raises OutputError."""
    from eval.metrics.sync import SyncResult

    cache, rows = ResultCache(output_dir / "sync.jsonl", {"measure": metric.name, **metric.settings}), []
    for number, (name, path) in enumerate(videos.items(), 1):
        outcome = cache.find(path)
        if outcome is None:
            logger.info("%s (%d of %d)", name, number, len(videos))
            try:
                outcome = {"result": metric.reader.read(path)._asdict()}
                cache.add(path, outcome)
            except WeightsError:
                raise  # of every video alike
            except InputError as error:
                outcome = {"reason": str(error)}
                if not isinstance(error, StalledError):  # a disk that gave no answer is asked again
                    cache.add(path, outcome)
        if "reason" in outcome:
            logger.warning("%s is left out: %s", name, outcome["reason"])
        result = SyncResult(**outcome["result"]) if "result" in outcome else None
        rows.append(SyncRow(name, result, outcome.get("reason")))
    return rows


def by_column(metric: "SyncMetric", rows: Sequence[SyncRow]) -> dict[str, list[float]]:
    """The numbers of the videos that were measured."""
    numbers = [metric.by_column(row.result) for row in rows if row.result is not None]
    return {column.name: [found[column.name] for found in numbers] for column in metric.columns}


def to_json(metric: "SyncMetric", rows: Sequence[SyncRow]) -> dict[str, Any]:
    """Everything that is known."""
    from eval.estimates import mean

    videos = []
    for row in rows:
        if row.result is None:
            videos.append({"video": row.name, "reason": row.reason})
        else:
            videos.append({"video": row.name, **metric.by_column(row.result), "tracks": row.result.tracks, "frames": row.result.frames})
    summary = {}
    for name, values in by_column(metric, rows).items():
        if (found := mean(values)) is not None:
            summary[name] = {"mean": found.value, "low": found.low, "high": found.high, "median": median(values)}
    done = sum(row.result is not None for row in rows)
    head = {"warning": metric.warning} if metric.warning else {}
    head |= {"measure": metric.name, "protocol": metric.protocol, "settings": dict(metric.settings)}
    return {**head, "measured": done, "not_measured": len(rows) - done, "summary": summary, "videos": videos}


def to_markdown(metric: "SyncMetric", rows: Sequence[SyncRow]) -> str:
    """The table: a row for each video, the means of all of them, what was left out and why."""
    from eval.estimates import NONE, markdown_table, mean

    columns = [(column, 0 if column.unit == "frames" else column.digits) for column in metric.columns]  # one offset is a whole number
    cells = []
    for row in rows:
        if row.result is None:
            cells.append([row.name, *[NONE] * (len(columns) + 2), row.reason or ""])
        else:
            numbers = metric.by_column(row.result)
            shown = [f"{numbers[column.name]:.{digits}f}" for column, digits in columns]
            cells.append([row.name, *shown, str(row.result.tracks), str(row.result.frames), ""])
    values = [(by_column(metric, rows)[column.name], column.digits) for column in metric.columns]
    means = [NONE if (found := mean(numbers)) is None else found.text(digits) for numbers, digits in values]
    medians = [f"{median(numbers):.{digits}f}" if numbers else NONE for numbers, digits in values]
    cells += [["**mean [95 %]**", *means, "", "", ""], ["**median**", *medians, "", "", ""]]
    header = ["video", *(column.name + (f" ({column.unit})" if column.unit else "") for column in metric.columns)]
    table = markdown_table([*header, "faces followed", "frames", "not measured because"], cells)
    title = "# Sync confidence" if metric.warning is None else "# Sync confidence by a SyncNet of this project"
    offsets = [row.result.offset for row in rows if row.result is not None]
    notes = [f"{len(offsets)} of {len(rows)} videos were measured."]
    if offsets:
        zero, near = (sum(abs(offset) <= reach for offset in offsets) for reach in (0, 1))
        notes.append(f"Offset 0: {zero} of {len(offsets)}; one frame at most: {near} of {len(offsets)}.")
    warning = [f"**{metric.warning}**"] if metric.warning else []
    return "\n\n".join([title, *warning, table, "\n".join(notes), metric.protocol]) + "\n"


def draw(metric: "SyncMetric", rows: Sequence[SyncRow], path: Path) -> None:
    """Write a picture (PNG) with the histograms of confidences and of offsets. Raises OutputError."""
    from matplotlib.figure import Figure  # here, because importing it searches a folder of settings

    from latentsync.media.files import staged
    from latentsync.third_party.sync_search import MAX_SHIFT

    results = [row.result for row in rows if row.result is not None]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    confidences = np.array([result.confidence for result in results])
    left.hist(confidences, bins=min(30, 5 + len(results) // 4), color="#1f5fa8")
    left.axvline(confidences.mean(), color="#c8501e", label=f"mean {confidences.mean():.2f}")
    left.set(xlabel="confidence" if metric.warning is None else "difference of cosines (NOT Sync-C)", ylabel="videos")
    left.legend(fontsize=8)
    offsets = Counter(result.offset for result in results)
    right.bar(list(offsets), list(offsets.values()), color="#1f5fa8")
    right.set(xlabel="offset in frames: +, the sound comes too early", ylabel="videos", xlim=(-MAX_SHIFT - 1, MAX_SHIFT + 1))
    for axes in (left, right):
        axes.yaxis.get_major_locator().set_params(integer=True)
    title = f"{len(results)} of {len(rows)} videos, SyncNet v2" if metric.warning is None else metric.warning.replace(". ", ".\n", 1)
    figure.suptitle(title, color="black" if metric.warning is None else "#c00000", fontsize=10)
    with staged(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def write_results(metric: "SyncMetric", rows: Sequence[SyncRow], output_dir: Path) -> str:
    """Write everything; the table. Raises OutputError."""
    from latentsync.media.files import write_json, write_text

    write_json(output_dir / "sync.json", to_json(metric, rows))
    table = to_markdown(metric, rows)
    write_text(output_dir / "sync.md", table)
    if any(row.result is not None for row in rows):
        draw(metric, rows, output_dir / "sync.png")
    return table


def run(parsed: argparse.Namespace) -> None:
    """Do what the command line says."""
    from latentsync.media.files import FolderLock

    videos = find_videos(parsed.video)
    metric = open_metric(parsed)
    if metric.warning is not None:
        logger.warning("%s", metric.warning)
    busy = "is in use by another measurement: wait for its end, or give another --output_dir"
    with ExitStack() as stack:
        folder = parsed.output_dir or Path(stack.enter_context(TemporaryDirectory(prefix="latentsync-")))
        stack.enter_context(FolderLock(folder, ".sync-lock", busy))
        rows = measure_videos(videos, metric, folder)
        print(write_results(metric, rows, folder), end="")
    if all(row.result is None for row in rows):
        raise InputError(f"Not one of {len(rows)} videos could be measured, the last because: {rows[-1].reason}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    again = "with --output_dir the same command goes on with the video that was interrupted."
    return run_command(lambda: run(parsed), "eval", again, verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())

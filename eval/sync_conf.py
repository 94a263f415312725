"""Sync confidence, offset and distance of one video or a folder: `eval/eval_sync_conf.sh --video FILE_OR_FOLDER [--output_dir OUT]`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from latentsync.command import CODES, TEMP_DIR, accept_published, run_command
from latentsync.errors import InputError, StalledError, WeightsError

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from eval.measures.sync import SyncMeasure
    from eval.results.sync_table import Row

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
    from eval.measures.sync import load_own_sync, load_sync_confidence
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


def measure_videos(videos: dict[str, Path], measure: "SyncMeasure", output_dir: Path) -> "list[Row]":
    """A row for each video; those that were measured before are not looked at again. Raises OutputError."""
    from eval.measures.sync_confidence import SyncResult
    from eval.results.sync_table import Row
    from eval.runs.kept import KeptResults

    kept, rows = KeptResults(output_dir / "sync.jsonl", {"measure": measure.name, **measure.settings}), []
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
        rows.append(Row(name, result, outcome.get("reason")))
    return rows


def measure_one(path: Path, measure: "SyncMeasure") -> dict:
    """{"result": ...} or {"reason": ...} of a video, with "unknown" where its disk gave no answer."""
    try:
        return {"result": measure.reader.read(path)._asdict()}
    except WeightsError:
        raise  # of every video alike
    except InputError as error:
        return {"reason": str(error), **({"unknown": True} if isinstance(error, StalledError) else {})}


def write_results(measure: "SyncMeasure", rows: "Sequence[Row]", output_dir: Path) -> str:
    """Write everything; the table. Raises OutputError."""
    from eval.results.sync_table import draw, to_json, to_markdown
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

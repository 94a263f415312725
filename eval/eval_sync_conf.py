"""Sync confidence, offset and distance of videos: `eval/eval_sync_conf.sh --video FILE_OR_FOLDER --output_dir OUT`."""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.estimates import NONE, Estimate, markdown_table, mean
from latentsync.cli import CODES, TEMP_DIR, accept_published, run_command
from latentsync.errors import InputError, StalledError, WeightsError
from latentsync.media.files import folder_lock, read_record, staged, walk_media, write_json, write_text

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from eval.metrics.sync import SyncMetric

logger = logging.getLogger("eval")
WITHOUT_EFFECT = {"--initial_model": "SyncNet v2 is auxiliary/syncnet_v2.model in the folder of --checkpoints", **TEMP_DIR}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="eval_sync_conf.sh",
        description="Sync confidence (Sync-C), distance and offset of videos: SyncNet v2 on face tracks of S3FD. "
        "Prints the table; with --output_dir also writes sync.json, sync.md and sync.png.",
        epilog=f"With --output_dir, run the same command again to resume: results of each video are kept in its folder videos/. {CODES}",
    )
    parser.add_argument(
        "--video",
        *("--video_path", "--videos_dir"),  # the published names
        type=Path,
        required=True,
        metavar="VIDEO",
        help="a video, or a folder of videos, searched with its subfolders",
    )
    parser.add_argument("--output_dir", type=Path, help="folder of the results (default: the table is only printed)")
    parser.add_argument("--checkpoints", type=Path, help="folder of weights, with auxiliary/ in it (default: checkpoints/ of the project)")
    parser.add_argument("--published", action="store_true", help="one window fewer, as the published program counts")
    parser.add_argument("--device", default="auto", help="auto (default), cuda, cuda:1, mps or cpu")
    stable = parser.add_argument_group(
        "another network", "a SyncNet of this project in place of SyncNet v2; its values are not Sync-C and are labelled so"
    )
    stable.add_argument("--syncnet_config", type=Path, help="YAML of that SyncNet's training")
    stable.add_argument("--syncnet", type=Path, help="checkpoint of that SyncNet")
    stable.add_argument("--detector", choices=("auto", "face-alignment", "mtcnn"), default="auto", help="face detector, as in inference")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
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
    if place.is_file():
        return {place.name: place}
    found = {str(path.relative_to(place)): path for path in walk_media(place)}
    if not found:
        raise InputError(f"{place} holds no video: name a video or a folder of videos with --video")
    return found


def measure_videos(videos: dict[str, Path], metric: "SyncMetric", output_dir: Path) -> list[dict[str, Any]]:
    """The numbers of each video, or why it has none; what videos/NAME.json holds of the same file and settings stays. OutputError."""
    from latentsync.data.cache import stamp

    settings, rows = json.loads(json.dumps({"measure": metric.name, **metric.settings})), []
    for number, (name, path) in enumerate(videos.items(), 1):
        place = output_dir / "videos" / f"{name}.json"
        row, record, identity = {"video": name}, read_record(place), {}
        try:
            identity = {"file": str(path.absolute()), "stamp": stamp(path), "settings": settings}
            if identity.items() <= record.items():
                row |= record["row"]
            else:
                logger.info("%s (%d of %d)", name, number, len(videos))
                found = metric.measure(path)
                row |= {**metric.by_column(found), "tracks": found.tracks, "frames": found.frames}
        except WeightsError:
            raise  # of every video alike
        except StalledError as error:  # a disk that gave no answer is asked again
            row["reason"], identity = str(error), {}
        except InputError as error:
            row["reason"] = str(error)
        if "reason" in row:
            logger.warning("%s is left out: %s", name, row["reason"])
        write_json(place, {**identity, "row": row})
        rows.append(row)
    return rows


def to_json(metric: "SyncMetric", videos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    measured, summary = [video for video in videos if "reason" not in video], {}
    for name in (column.name for column in metric.columns) if measured else ():
        values = [video[name] for video in measured]
        value, low, high, _ = mean(values)
        summary[name] = {"mean": value, "low": low, "high": high, "median": median(values)}
    return {
        **({"warning": metric.warning} if metric.warning else {}),
        **{"measure": metric.name, "protocol": metric.protocol, "settings": dict(metric.settings)},
        **{"measured": len(measured), "not_measured": len(videos) - len(measured), "summary": summary, "videos": list(videos)},
    }


def to_markdown(metric: "SyncMetric", content: Mapping[str, Any]) -> str:
    """The table: a row for each video, the means of all of them, what was left out and why."""
    header, cells, means, medians = ["video"], [[video["video"]] for video in content["videos"]], ["**mean [95 %]**"], ["**median**"]
    for column in metric.columns:
        header.append(column.name + (f" ({column.unit})" if column.unit else ""))
        digits = 0 if column.unit == "frames" else column.digits  # one offset is a whole number
        for row, video in zip(cells, content["videos"], strict=True):
            row.append(f"{video[column.name]:.{digits}f}" if column.name in video else NONE)
        found = content["summary"].get(column.name)
        means.append(Estimate(found["mean"], found["low"], found["high"], 0).text(column.digits) if found else NONE)
        medians.append(f"{found['median']:.{column.digits}f}" if found else NONE)
    for row, video in zip(cells, content["videos"], strict=True):
        row += [str(video.get("tracks", NONE)), str(video.get("frames", NONE)), video.get("reason", "")]
    body = [*cells, [*means, "", "", ""], [*medians, "", "", ""]]
    table = markdown_table([*header, "faces followed", "frames", "not measured because"], body)
    offsets = [abs(video[metric.columns[1].name]) for video in content["videos"] if "reason" not in video]
    notes = f"{len(offsets)} of {len(cells)} videos were measured."
    if offsets:
        zero, near = (sum(offset <= reach for offset in offsets) for reach in (0, 1))
        notes += f"\nOffset 0: {zero} of {len(offsets)}; one frame at most: {near} of {len(offsets)}."
    title = "# Sync confidence" if metric.warning is None else "# Sync confidence by a SyncNet of this project"
    warning = [f"**{metric.warning}**"] if metric.warning else []
    return "\n\n".join([title, *warning, table, notes, metric.protocol]) + "\n"


def draw(metric: "SyncMetric", videos: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a picture (PNG) with the histograms of confidences and of offsets. Raises OutputError."""
    from matplotlib.figure import Figure  # here, because importing it searches a folder of settings

    from latentsync.third_party.sync_search import MAX_SHIFT

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    measured = [video for video in videos if "reason" not in video]
    confidences, offsets = (np.array([video[column.name] for video in measured]) for column in metric.columns[:2])
    left.hist(confidences, bins=min(30, 5 + len(measured) // 4), color="#1f5fa8")
    left.axvline(confidences.mean(), color="#c8501e", label=f"mean {confidences.mean():.2f}")
    left.set(xlabel="confidence" if metric.warning is None else "difference of cosines (NOT Sync-C)", ylabel="videos")
    left.legend(fontsize=8)
    right.bar(*np.unique(offsets, return_counts=True), color="#1f5fa8")
    right.set(xlabel="offset in frames: +, the sound comes too early", ylabel="videos", xlim=(-MAX_SHIFT - 1, MAX_SHIFT + 1))
    for axes in (left, right):
        axes.yaxis.get_major_locator().set_params(integer=True)
    title = f"{len(measured)} of {len(videos)} videos, SyncNet v2" if metric.warning is None else metric.warning.replace(". ", ".\n", 1)
    figure.suptitle(title, color="black" if metric.warning is None else "#c00000", fontsize=10)
    with staged(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def run(parsed: argparse.Namespace) -> None:
    videos = find_videos(parsed.video)
    metric = open_metric(parsed)
    if metric.warning is not None:
        logger.warning("%s", metric.warning)
    busy = "is in use by another measurement: wait for its end, or give another --output_dir"
    with ExitStack() as stack:
        folder = parsed.output_dir or Path(stack.enter_context(TemporaryDirectory(prefix="latentsync-")))
        stack.enter_context(folder_lock(folder, ".sync-lock", busy))
        content = to_json(metric, measure_videos(videos, metric, folder))
        write_json(folder / "sync.json", content)
        write_text(folder / "sync.md", table := to_markdown(metric, content))
        if content["measured"]:
            draw(metric, content["videos"], folder / "sync.png")
        print(table, end="")
    if not content["measured"]:
        raise InputError(f"Not one of {len(videos)} videos could be measured, the last because: {content['videos'][-1]['reason']}")


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    again = "with --output_dir the same command goes on with the video that was interrupted."
    return run_command(lambda: run(parsed), "eval", again, verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())

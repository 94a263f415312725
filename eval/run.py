"""Evaluate a model: every metric on a list of pairs: `python -m eval.run --config eval.yaml`."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentsync.cli import CODES, run_command
from latentsync.errors import ConfigError, InputError, OutputError, WeightsError, reason_of

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from eval.cases import Pair
    from eval.config import EvaluationConfig
    from eval.measure import CaseRecord, FaceClips
    from eval.metrics.base import Case
    from eval.metrics.table import LoadedMetrics

logger = logging.getLogger("eval")
BUSY = "is in use by another evaluation: wait for it, or name another folder for results (output.folder)"


@dataclass(frozen=True)
class Subject:
    """What is evaluated."""

    generate: "Callable[[Pair], Path]"  # the video of a pair, generated or found
    settings: dict[str, Any]  # these and the weights decide how videos turn out
    weights: dict[str, str]
    face_clips: "FaceClips"  # finds their faces
    stand_ins: tuple[str, ...] = ()  # what is to be known of the model


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.run",
        description="Generate videos of a fixed list of pairs, measure each by every metric whose weights are there, beside its source. "
        "Writes pairs.json, results.json, results.md and report.html; prints the table.",
        epilog="The same command goes on where it stopped. " + CODES,
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML of the evaluation, such as configs/evaluation.yaml")
    parser.add_argument("--limit", type=int, help="the first N pairs only")
    parser.add_argument("--print_config", action="store_true", help="print the configuration with all overrides and stop")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the configuration")
    return parser.parse_intermixed_args(arguments)


def open_subject(config: "EvaluationConfig", folder: Path) -> Subject:
    """The model under test, or the videos that were generated elsewhere. Raises ConfigError, WeightsError, InputError."""
    from eval.cases import find_model
    from eval.config import options_of
    from eval.measure import FaceClips
    from latentsync.faces.detector import build_detector
    from latentsync.pipelines.build import ROOT, resolve_device
    from latentsync.weights import CHECKPOINTS, weights_path

    model, options, resolution = config.model, options_of(config.inference), config.measures.resolution
    if (place := config.data.generated) is not None:
        if not place.is_dir():
            raise InputError(f"{place} is no folder of videos (data.generated): check the path")
        boxes, landmarks = (weights_path(name, ROOT / CHECKPOINTS) for name in ("s3fd", "2dfan4"))
        detector = build_detector(model.detector, boxes, landmarks, resolve_device(model.device))
        faces = FaceClips(detector, resolution, options.face)
        return Subject(lambda pair: find_generated(place, pair), {"generated": str(place)}, {}, faces)
    named = (model.config, model.unet, model.vae, model.whisper)
    found = find_model(named, model.overrides, model.detector, model.device, model.dtype, options)
    videos, faces = found.videos(folder / "generated"), FaceClips(found.face_detector(), resolution, options.face)
    stand_ins = ("The model is the small one that comes with the project and has seen rendered faces only.",) if found.is_embedded else ()
    return Subject(lambda pair: videos.generate(pair.name, pair.source, pair.audio), found.settings(), found.weights, faces, stand_ins)


def find_generated(folder: Path, pair: "Pair") -> Path:
    """The video of a pair that was generated elsewhere. Raises InputError where there is none."""
    video = folder / f"{pair.name}.mp4"
    if not video.is_file():
        raise InputError(f"{video} does not exist: give {pair.source} the words of {pair.audio} there, or leave out data.generated")
    return video


def evaluate(config: "EvaluationConfig", limit: int | None, subject: Subject, metrics: "LoadedMetrics") -> str:
    """Evaluate a subject, one pair after another; the table. A failure of one pair does not stop the others.

    Raises ConfigError, WeightsError, OutputError; InputError where no pair could be measured.
    """
    from eval.cases import find_videos, make_pairs
    from eval.report import EvaluationResults, write_report

    data, folder = config.data, config.output.folder
    pairs = make_pairs(find_videos(data.videos), data.kinds, data.seed)
    pairs.write(folder / "pairs.json")
    for measure, why in metrics.missing.items():
        logger.warning("%s is not measured: %s", measure, why)
    signatures = signatures_of(subject.face_clips, metrics)
    records: dict[str, CaseRecord] = {}
    cases, failed, chosen = [], {}, pairs.pairs[:limit]
    for number, pair in enumerate(chosen, start=1):
        logger.info("%s (%d of %d)", pair.name, number, len(chosen))
        try:
            case, records[pair.name] = measure_pair(pair, pairs.checksums, subject, metrics, signatures, folder)
            cases.append(case)
        except (ConfigError, WeightsError, OutputError):
            raise  # of every pair alike
        except Exception as error:
            failed[pair.name] = reason_of(error)
            logger.warning("%s is left out: %s", pair.name, failed[pair.name])
            logger.debug("Where it happened:", exc_info=error)
    if not cases:
        raise InputError(f"Not one of {len(chosen)} videos could be measured, the last because: {failed[chosen[-1].name]}")
    settings = {"limit": limit, "kinds": list(data.kinds), "pairs_seed": data.seed, "measured_resolution": config.measures.resolution}
    results = EvaluationResults(
        settings={**settings, **subject.settings},
        weights={**subject.weights, **{name: sha for found in metrics.weights.values() for name, sha in found.items()}},
        pairs=pairs,
        cases=cases,
        metrics=metrics,
        results={metric.name: {name: record.result(metric) for name, record in records.items()} for metric in metrics.metrics},
        failed=failed,
        warnings={name: record.warnings for name, record in records.items() if record.warnings},
        notices=[*config.output.stand_ins, *subject.stand_ins, *metrics.stand_ins],
    )
    return write_report(results, folder, config.output.clips)


def signatures_of(clips: "FaceClips", metrics: "LoadedMetrics") -> dict[str, Any]:
    """Metric -> what decides its numbers beside the files of a case; a metric with another signature is run again."""
    faces = {"resolution": clips.resolution, "detector": clips.detector.name, "face": str(clips.choice)}
    signatures = {
        metric.name: {
            "protocol": metric.protocol,
            "columns": [column.name for column in metric.columns],
            "weights": metrics.weights.get(metric.name, {}),
            "settings": dict(metric.settings),
            "faces": faces,
        }
        for metric in metrics.metrics
    }
    return json.loads(json.dumps(signatures, default=str))  # as they are read again


def measure_pair(
    pair: "Pair", checksums: Mapping[str, str], subject: Subject, metrics: "LoadedMetrics", signatures: Mapping[str, Any], folder: Path
) -> "tuple[Case, CaseRecord]":
    """Generate and measure a pair, as far as that was not done. Raises InputError, OutputError."""
    from eval.measure import CaseRecord, measure_case
    from eval.metrics.base import Case
    from latentsync.weights import file_sha256

    case = Case(pair.name, subject.generate(pair), pair.source, pair.audio, pair.kind)
    inputs = {"video": file_sha256(case.video), "source": checksums[str(case.source)], "audio": checksums[str(case.audio)]}
    record = CaseRecord(folder, case.name, inputs)
    if to_run := [metric for metric in metrics.metrics if not record.has(metric, signatures[metric.name])]:
        warnings: list[str] = []
        record.add(to_run, measure_case(case, subject.face_clips, to_run, warnings), signatures, warnings)
    return case, record


def run(parsed: argparse.Namespace) -> None:
    """Do what the command line says."""
    from eval.config import load_evaluation_config
    from eval.metrics.table import load_metrics
    from latentsync.config import dump_config
    from latentsync.media.files import FolderLock

    config = load_evaluation_config(parsed.config, parsed.overrides)
    if parsed.print_config:
        print(dump_config(config), end="")
        return
    if parsed.limit is not None and parsed.limit < 1:
        raise InputError(f"--limit is {parsed.limit}: give 1 or more, or leave it out")
    with FolderLock(config.output.folder, ".evaluation.lock", BUSY):
        subject = open_subject(config, config.output.folder)
        metrics = load_metrics(config.measures, config.model.device, config.model.detector, subject.settings.get("mask", "mask"))
        print(evaluate(config, parsed.limit, subject, metrics), end="")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "eval", "the same command goes on with the pair that was interrupted.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())

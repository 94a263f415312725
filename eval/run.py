"""Evaluate a model: every metric on a list of pairs: `python -m eval.run --config eval.yaml`."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentsync.cli import CODES, run_command
from latentsync.errors import ConfigError, InputError, OutputError, WeightsError, reason_of

if TYPE_CHECKING:
    from eval.cases import Pair, PairList
    from eval.config import EvaluationConfig
    from eval.measure import FaceClips
    from eval.metrics.available import Available
    from eval.metrics.base import Case
    from eval.report import EvaluationResults

logger = logging.getLogger("eval")
BUSY = "is in use by another evaluation: wait for it, or name another folder for results (output.folder)"


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        make: the video of a pair, made or found.
        settings, weights: what decides how videos turn out.
        looker: finds their faces.
        stand_ins: what is to be known of the model.
    """

    make: "Callable[[Pair], Path]"
    settings: dict[str, Any]
    weights: dict[str, str]
    looker: "FaceClips"
    stand_ins: tuple[str, ...] = ()


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.run",
        description="Make videos of a fixed list of pairs, measure each by everything whose weights are there, beside its source. Writes "
        "pairs.json, results.json, results.md and report.html; prints the table.",
        epilog="The same command goes on where it stopped. " + CODES,
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML of the evaluation, such as configs/evaluation.yaml")
    parser.add_argument("--limit", type=int, help="the first N pairs only")
    parser.add_argument("--print_config", action="store_true", help="print the configuration with all overrides and stop")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the configuration")
    return parser.parse_intermixed_args(arguments)


def open_subject(config: "EvaluationConfig", folder: Path) -> Subject:
    """The model under test, or the videos that were made elsewhere. Raises ConfigError, WeightsError, InputError."""
    from eval.cases import find_model
    from eval.config import options_of
    from eval.measure import FaceClips

    model = config.model
    place, options = config.data.made, options_of(config.inference)
    if place is not None:
        if not place.is_dir():
            raise InputError(f"{place} is no folder of videos (data.made): check the path")
        looker = FaceClips(_detector(config), config.measures.resolution, options.face)
        return Subject(lambda pair: _find_made(place, pair), {"made": str(place)}, {}, looker)
    named = (model.config, model.unet, model.vae, model.whisper)
    found = find_model(named, model.overrides, model.detector, model.device, model.dtype, options)
    videos = found.videos(folder / "generated")
    stand_ins = ("The model is the small one that comes with the project and has seen rendered faces only.",) if found.is_embedded else ()
    return Subject(
        lambda pair: videos.say(pair.name, pair.source, pair.audio),
        found.settings(),
        found.weights,
        FaceClips(found.face_detector(), config.measures.resolution, options.face),
        stand_ins,
    )


def _detector(config: "EvaluationConfig") -> Any:
    """The face detector where no model is loaded."""
    from latentsync.faces.detector import build_detector
    from latentsync.pipelines.build import ROOT, resolve_device
    from latentsync.weights import CHECKPOINTS, weights_path

    boxes, landmarks = (weights_path(name, ROOT / CHECKPOINTS) for name in ("s3fd", "2dfan4"))
    return build_detector(config.model.detector, boxes, landmarks, resolve_device(config.model.device))


def _find_made(folder: Path, pair: "Pair") -> Path:
    video = folder / f"{pair.name}.mp4"
    if not video.is_file():
        raise InputError(f"{video} does not exist: make {pair.source} say {pair.audio} there, or leave out data.made")
    return video


class Evaluation:
    """One run over a list of pairs.

    Args:
        subject, available: what is measured, and by what.
        folder: for results.
    """

    def __init__(self, subject: Subject, available: "Available", folder: Path) -> None:
        self.subject, self.available, self.folder = subject, available, folder
        looker = subject.looker
        looking = {"resolution": looker.resolution, "detector": looker.detector.name, "face": str(looker.choice)}
        signatures = {
            measure.name: {
                "protocol": measure.protocol,
                "columns": [column.name for column in getattr(measure, "columns", None) or [measure.column]],
                "weights": available.weights.get(measure.name, {}),
                "settings": dict(getattr(measure, "settings", {})),
                "looking": looking,
            }
            for measure in (*available.measures, *available.sets)
        }
        self.signatures = json.loads(json.dumps(signatures, default=str))  # as they are read again

    def measure(self, pair: "Pair", checksums: dict[str, str]) -> "tuple[Case, list[str]]":
        """Make and measure a pair, as far as that was not done; the case, and what is to be known of it. Raises InputError, OutputError."""
        from eval.measure import measure_case
        from eval.metrics.base import Case

        case = Case(pair.name, self.subject.make(pair), pair.source, pair.audio, pair.kind)
        record = self.record(case, checksums)
        measures, sets = (
            [measure for measure in some if not record.has(measure.name, self.signatures[measure.name])]
            for some in (self.available.measures, self.available.sets)
        )
        if measures or sets:
            warnings: list[str] = []
            self.subject.looker.warn = warnings.append
            record.add(measure_case(case, self.subject.looker, measures, sets), self.signatures, warnings)
        return case, record.warnings

    def record(self, case: "Case", checksums: dict[str, str]) -> Any:
        """What is kept of a case."""
        from eval.measure import CaseRecord
        from latentsync.weights import file_sha256

        inputs = {"video": file_sha256(case.video), "source": checksums[str(case.source)], "audio": checksums[str(case.audio)]}
        return CaseRecord(self.folder, case.name, inputs)

    def run(self, pairs: "PairList", limit: int | None, settings: dict[str, Any], stand_ins: Sequence[str]) -> "EvaluationResults":
        """Everything, one pair after another; a failure of one does not stop the others. Raises InputError where none could be measured."""
        from eval.report import EvaluationResults

        cases, failed, warnings = [], {}, {}
        chosen = pairs.pairs[:limit]
        for number, pair in enumerate(chosen, start=1):
            logger.info("%s (%d of %d)", pair.name, number, len(chosen))
            try:
                case, warnings[pair.name] = self.measure(pair, pairs.checksums)
                cases.append(case)
            except (ConfigError, WeightsError, OutputError):
                raise  # of every pair alike
            except Exception as error:
                failed[pair.name] = reason_of(error)
                logger.warning("%s is left out: %s", pair.name, failed[pair.name])
                logger.debug("Where it happened:", exc_info=error)
        if not cases:
            raise InputError(f"Not one of {len(chosen)} videos could be measured, the last because: {failed[chosen[-1].name]}")
        records = {case.name: self.record(case, pairs.checksums) for case in cases}
        available = self.available
        return EvaluationResults(
            settings={**settings, **self.subject.settings},
            weights={**self.subject.weights, **{name: sha for found in available.weights.values() for name, sha in found.items()}},
            pairs=pairs,
            cases=cases,
            measures=available.measures,
            sets=available.sets,
            numbers={
                measure.name: {name: record.numbers(measure.name) for name, record in records.items()} for measure in available.measures
            },
            features={
                measure.name: {name: record.features(measure.name) for name, record in records.items()} for measure in available.sets
            },
            failed=failed,
            warnings={name: found for name, found in warnings.items() if found},
            missing=available.missing,
            stand_ins=[*stand_ins, *self.subject.stand_ins, *available.stand_ins],
        )


def evaluate(config: "EvaluationConfig", limit: int | None, subject: Subject, available: "Available") -> str:
    """Evaluate a subject; the table. Raises InputError, ConfigError, OutputError."""
    from eval.cases import find_videos, make_pairs
    from eval.measure import doubts
    from eval.report import write_report, write_results

    data, folder = config.data, config.output.folder
    pairs = make_pairs(find_videos(data.videos), data.kinds, data.seed)
    pairs.write(folder / "pairs.json")
    for entry in available.missing:
        logger.warning("%s is not measured: %s", entry.measure, entry.why)
    settings = {"limit": limit, "kinds": list(data.kinds), "pairs_seed": data.seed, "measured_resolution": config.measures.resolution}
    outcome = Evaluation(subject, available, folder).run(pairs, limit, settings, config.output.stand_ins)
    rows = outcome.rows()
    outcome = replace(outcome, stand_ins=[*outcome.stand_ins, *doubts(rows)])
    text = write_results(outcome, rows, folder)
    write_report(outcome, rows, folder, config.output.clips)
    return text


def run(parsed: argparse.Namespace) -> None:
    """Do what the command line says."""
    from eval.config import load_evaluation_config
    from eval.metrics.available import available
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
        measures = available(config.measures, config.model.device, config.model.detector, subject.settings.get("mask", "mask"))
        print(evaluate(config, parsed.limit, subject, measures), end="")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "eval", "the same command goes on with the pair that was in work.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())

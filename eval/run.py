"""Evaluate a model: every metric on a list of pairs: `python -m eval.run --config eval.yaml`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.cli import CODES, add_version, run_command
from latentsync.config import dump_config
from latentsync.errors import ConfigError, InputError, OutputError, WeightsError, reason_of
from latentsync.media.files import folder_lock

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from eval.config import EvaluationConfig
    from eval.measure import CaseRecord, Subject
    from eval.metrics.table import LoadedMetrics

logger = logging.getLogger("eval")
BUSY = "is in use by another evaluation: wait for it, or name another folder for results (output.folder)"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.run",
        description="Generate a video for each pair of a fixed list; compute all metrics whose weights exist, on it and on its source. "
        "Writes pairs.json, results.json, results.md and report.html; prints the table.",
        epilog="Run the same command again to resume. " + CODES,
    )
    add_version(parser)
    parser.add_argument("--config", type=Path, required=True, help="YAML of the evaluation, such as configs/evaluation.yaml")
    parser.add_argument("--limit", type=int, help="only the first LIMIT pairs")
    parser.add_argument("--print_config", action="store_true", help="print the configuration with all overrides and stop")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the configuration")
    return parser.parse_intermixed_args(arguments)


def evaluate(config: "EvaluationConfig", limit: int | None, subject: "Subject", metrics: "LoadedMetrics") -> str:
    """Evaluate one pair after another; the table. Raises ConfigError, WeightsError, OutputError; InputError: no pair could be measured."""
    from eval.cases import find_videos, make_pairs
    from eval.measure import measure_pair, signatures_of
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


def run(parsed: argparse.Namespace) -> None:
    from eval.config import load_evaluation_config
    from eval.measure import open_subject
    from eval.metrics.table import load_metrics

    config = load_evaluation_config(parsed.config, parsed.overrides)
    if parsed.print_config:
        print(dump_config(config), end="")
        return
    if parsed.limit is not None and parsed.limit < 1:
        raise InputError(f"--limit is {parsed.limit}: give 1 or more, or leave it out")
    with folder_lock(config.output.folder, ".evaluation.lock", BUSY):
        subject = open_subject(config, config.output.folder)
        metrics = load_metrics(config.measures, config.model.device, config.model.detector, subject.settings.get("mask", "mask"))
        print(evaluate(config, parsed.limit, subject, metrics), end="")


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "eval", "the same command goes on with the pair that was interrupted.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())

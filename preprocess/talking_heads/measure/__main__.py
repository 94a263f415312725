"""Measures rendered talking heads: `python -m preprocess.talking_heads.measure DIR` prints a table and writes DIR/measured.json.

detection and tracking: is a face found, and does a tracker that sees the pictures alone find the mouth of the truth; sync: does the sound
swell where the mouth opens; diversity: how far apart people are; speed: frames a second on this machine.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from latentsync.command import run_command
from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.files import walk_media, write_json
from latentsync.media.video import VideoSource
from preprocess.talking_heads.measure.diversity import diversity
from preprocess.talking_heads.measure.faces import FaceWatcher, track_mouth
from preprocess.talking_heads.measure.speed import speeds
from preprocess.talking_heads.performance import envelope
from preprocess.talking_heads.truth import read_speech, read_truth

PARTS = ("clips", "diversity", "speed")
LAGS = tuple(range(-3, 4))  # frames; positive: what is measured comes later than what it is held against
_SPEED_PEOPLE = (1, 2, 3, 4)
_LONGEST = 60 * VIDEO_FPS  # frames of a clip that are looked at: they are held in memory
_RESULT = "measured.json"


def correlations(measured: np.ndarray, known: np.ndarray) -> list[float]:
    """Pearson's r of two series (n each) at each of LAGS; 0 where one does not vary."""
    return [_correlation(*_overlap(np.asarray(measured, np.float64), np.asarray(known, np.float64), lag)) for lag in LAGS]


def _overlap(measured: np.ndarray, known: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    return (measured[lag:], known[: len(known) - lag]) if lag >= 0 else (measured[:lag], known[-lag:])


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if len(one) < 3 or one.std() < 1e-9 or other.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def measure_clip(path: Path, watcher: FaceWatcher) -> dict[str, Any]:
    """Detection, tracking and sync of one clip with its truth beside it. Raises InputError where that is missing."""
    truth, speech = read_truth(path.with_suffix(".json")), read_speech(path)
    frames = list(VideoSource(path).frames(0, _LONGEST))
    count = min(len(frames), truth["frames"])
    frames, gap, width = frames[:count], np.array(truth["lip_gap_cm"][:count]), np.array(truth["lip_width_cm"][:count])
    sighting = watcher.watch(frames)
    mouth = track_mouth(frames, sighting)
    return {
        "clip": path.name,
        "frames": count,
        "found": float((sighting.score > 0).mean()),
        "score": float(sighting.score[sighting.score > 0].mean()) if sighting.score.any() else 0.0,
        "opening": correlations(mouth.opening, gap),
        "width": correlations(mouth.width, width),
        "sync": correlations(gap, envelope(speech, count)),
    }


def summary(clips: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over clips (at least one), and for each correlation the distribution at lag 0 and the lag at which the mean is best."""
    frames = np.array([clip["frames"] for clip in clips])
    found = np.array([clip["found"] for clip in clips])
    seen = frames * found
    scores = np.array([clip["score"] for clip in clips])
    result: dict[str, Any] = {
        "clips": len(clips),
        "frames": int(frames.sum()),
        "found": float(seen.sum() / frames.sum()),
        "score": float((scores * seen).sum() / max(seen.sum(), 1)),
    }
    for name in ("opening", "width", "sync"):
        values = np.array([clip[name] for clip in clips])  # clips, lags
        now = values[:, LAGS.index(0)]
        result[name] = {
            "mean": float(now.mean()),
            "median": float(np.median(now)),
            "least": float(now.min()),
            "least_clip": clips[int(now.argmin())]["clip"],
            "by_lag": dict(zip(map(str, LAGS), values.mean(0).round(4).tolist(), strict=True)),
            "best_lag": LAGS[int(values.mean(0).argmax())],
        }
    return result


def table(measured: dict[str, Any]) -> str:
    """What was measured, for people."""
    lines = []
    if "clips" in measured:
        found = measured["clips"]
        lines.append(f"{found['clips']} clips, {found['frames']} frames: a face in {found['found']:.1%}, mean score {found['score']:.4f}")
        lines.append(f"{'correlation at lag 0':<36}{'mean':>8}{'median':>8}{'least':>8}{'best lag':>10}")
        titles = (
            ("opening", "tracked opening with the truth"),
            ("width", "tracked width with the truth"),
            ("sync", "lip gap with loudness"),
        )
        for name, title in titles:
            row = found[name]
            lines.append(
                f"{title:<36}{row['mean']:>8.3f}{row['median']:>8.3f}{row['least']:>8.3f}{row['best_lag']:>+10d}  {row['least_clip']}"
            )
    if "diversity" in measured:
        lines.append(f"{'distance between people':<36}{'mean':>8}{'least':>8}  the closest pair")
        titles = (("shape", "shape, % of the eyes' distance"), ("colour", "colour, CIELAB"), ("both", "both, each over its mean"))
        for name, title in titles:
            row = measured["diversity"][name]
            lines.append(f"{title:<36}{row['mean']:>8.2f}{row['least']:>8.2f}  {row['closest'][0]} and {row['closest'][1]}")
    if "speed" in measured:
        processes = f"{measured['speed'][0]['processes']} processes"
        lines.append(f"{'pixels':<12}{'s to build':>12}{'frames/s':>12}{processes:>16}")
        lines += [f"{row['size']:<12}{row['build']:>12.2f}{row['one']:>12.1f}{row['all']:>16.1f}" for row in measured["speed"]]
    return "\n".join(lines)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.talking_heads.measure",
        description="Measure rendered talking heads; print a table and write DIR/measured.json.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of clips that preprocess.talking_heads has written")
    parser.add_argument("--clips", type=int, default=16, help="measure at most so many clips (default %(default)s)")
    parser.add_argument("--people", type=int, default=200, help="identities whose diversity is measured (default %(default)s)")
    parser.add_argument("--frames", type=int, default=12, help="frames of each person that are timed (default %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: everything)")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what the command line asks for. Raises InputError for what cannot be measured."""
    if arguments.clips < 1 or arguments.people < 2 or arguments.frames < 1:
        raise InputError("--clips, --people and --frames: ask for at least one clip, two people and one frame")
    if not arguments.folder.is_dir():
        raise InputError(f"{arguments.folder} is no folder: give one that preprocess.talking_heads has written")
    measured: dict[str, Any] = {}
    if "clips" in arguments.parts:
        paths = [path for path in walk_media(arguments.folder) if path.with_suffix(".json").is_file()][: arguments.clips]
        if not paths:
            raise InputError(f"{arguments.folder} holds no clip with its .json beside it: render some with preprocess.talking_heads")
        watcher = FaceWatcher()
        clips = [measure_clip(path, watcher) for path in tqdm(paths, unit="clip", disable=None)]
        measured["clips"] = summary(clips) | {"each": clips}
    if "diversity" in arguments.parts:
        measured["diversity"] = {name: asdict(found) for name, found in diversity(range(arguments.people)).items()}
    if "speed" in arguments.parts:
        measured["speed"] = [asdict(speed) for speed in speeds(_SPEED_PEOPLE, arguments.frames)]
    return measured


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)

    def work() -> None:
        measured = run(parsed)
        write_json(parsed.folder / _RESULT, measured)
        print(table(measured))

    return run_command(work, "preprocess", "nothing was written.")


if __name__ == "__main__":
    sys.exit(main())

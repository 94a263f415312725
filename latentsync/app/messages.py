"""What the app says: progress and results in sentences."""

import re
from collections.abc import Mapping
from pathlib import Path

from latentsync.app.jobs import JobProgress, JobStage
from latentsync.faces.plan import SkippedRun, frame_reasons, reason_runs
from latentsync.media.video_reader import source_index
from latentsync.pipelines.result import LipsyncResult

SYNCED = ""  # the reason of frames that were given a new mouth
SAID_OTHERWISE = ("Left as they are: ", "The sound (")  # begin warnings of the pipeline whose facts the report tells in its own words
MOUTH_HEIGHT = 0.75  # of a face's box, from its top
MOUTH_SIZE = 0.6  # of a face's box, what is shown enlarged
MOST_ENLARGED = 8.0
MAX_PLACES = 4  # stretches that are named in one sentence
TITLES = {
    JobStage.WAITING: "Waiting in line",
    JobStage.LOADING: "Getting the model ready",
    JobStage.ANALYSE: "Following the face",
    JobStage.GENERATE: "Making the new mouth",
    JobStage.COMPARE: "Putting original and result side by side",
}
COMMAND_LINE = (  # what sentences of the library advise to who calls it, and what the page says instead
    (r" with --face \(now [^)]*\)", " above"),
    (r"; another one is chosen with --audio_track", ""),
    (r": name another folder with --\w+", ""),
    (r"\bname (a|another) (video|file)\b", r"take \1 \2"),
    (r"\s--(\w+)", r" the setting \1"),
)


def in_page_words(sentence: str) -> str:
    """A sentence of the library, which speaks of options of the command line, as a page says it."""
    for pattern, words in COMMAND_LINE:
        sentence = re.sub(pattern, words, sentence)
    return sentence


def title_of(progress: JobProgress, is_loaded: bool = False) -> str:
    """What a job does now."""
    if progress.is_stopping:
        return "Stopping"
    return "Opening the files" if progress.stage is JobStage.LOADING and is_loaded else TITLES[progress.stage]


def describe_progress(progress: JobProgress, is_loaded: bool = False) -> str:
    """One line on how far a job is: "48 of 340 frames · 3.1 frames/s · about 1 min 34 s left"; `is_loaded`: whether its model is."""
    if progress.is_stopping:
        return "It stops at the next step."
    if progress.stage is JobStage.WAITING:
        place = f"Place {progress.ahead + 1} in line"
        if progress.seconds_ahead is None:
            return f"{place}." if progress.ahead else f"{place}: it begins in a moment."
        return f"{place}: it begins in about {describe_seconds(progress.seconds_ahead)}."
    if progress.stage is JobStage.LOADING:
        return "" if is_loaded else "It is loaded into memory; jobs with the same model begin at once."
    parts = [f"{progress.done} of {progress.total} frames" if progress.total else f"{progress.done} frames"]
    if progress.rate > 0:
        parts.append(f"{progress.rate:.1f} frames/s")
    if progress.seconds_left is not None:
        parts.append(f"about {describe_seconds(progress.seconds_left)} left")
    return " · ".join(parts)


def describe_stop(jobs: int) -> str:
    """What is said of a job that was stopped; `jobs`: that run or wait now."""
    return "Nothing was made." + (" The device is free for the next job." if not jobs else " Other jobs use the device now.")


def describe_seconds(seconds: float) -> str:
    """A time to wait: "8 s", "1 min 40 s", "2 h 5 min"."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def output_runs(result: LipsyncResult) -> list[SkippedRun]:
    """All frames of the result as runs, in order of time: why they were left as they were, or SYNCED."""
    reasons = frame_reasons(result.skipped, result.source_frames)
    return reason_runs(reasons[source_index(k, result.source_frames)] for k in range(result.frames))


def mouth_places(result: LipsyncResult) -> list[tuple[float, float, float, float]]:
    """Where to look for the new mouth: (from which second of the result, x, y as shares of the picture, how much to enlarge)."""
    found: list[tuple[float, float, float, float]] = []
    for k in range(result.frames):
        source = source_index(k, result.source_frames)
        box = next((span.box for span in result.spans if span.start <= source < span.stop), None)
        if box is None:
            continue
        left, top, right, bottom = box
        x, y = (left + right) / 2 / result.width, (top + MOUTH_HEIGHT * (bottom - top)) / result.height
        scale = min(min(result.width / (right - left), result.height / (bottom - top)) / MOUTH_SIZE, MOST_ENLARGED)
        place = (round(x, 4), round(y, 4), round(max(scale, 1.0), 3))
        if not found or found[-1][1:] != place:
            found.append((round(k / result.fps, 3), *place))
    return found


def describe_result(result: LipsyncResult) -> list[str]:
    """The report: what was synced, what was left and why, what else there is to know."""
    every = result.generated == result.frames
    sentences = [f"All {result.frames} frames synced." if every else f"{result.generated} of {result.frames} frames synced."]
    runs = output_runs(result)
    for reason in sorted({run.reason for run in runs} - {SYNCED}):
        left = [run for run in runs if run.reason == reason]
        count, why = sum(run.stop - run.start for run in left), f" ({reason})"
        frames, was = (f"{count} frames", "left as they were") if count > 1 else ("1 frame", "left as it was")
        if reason == "no face":
            frames, why = f"{frames} without a face", ""
        places = [describe_place(run, result.fps) for run in left[:MAX_PLACES]]
        places += [f"and {len(left) - MAX_PLACES} more places"] if len(left) > MAX_PLACES else []
        sentences.append(f"{frames} {was}{why}: {', '.join(places)}.")
    if result.frames > result.source_frames:
        sentences.append("The sound is longer than the video, so the video plays forwards and backwards.")
    names = {path: path.name for path in (result.video_path, result.audio_path)}
    return sentences + [without_paths(warning, names) for warning in result.warnings if not warning.startswith(SAID_OTHERWISE)]


def describe_place(run: SkippedRun, fps: float) -> str:
    """Where a run of frames lies in the result: "8.2-9.3 s", or "12.0 s" where it is too short for two numbers."""
    start, stop = f"{run.start / fps:.1f}", f"{run.stop / fps:.1f}"
    return f"{start} s" if start == stop else f"{start}-{stop} s"


def describe_work(result: LipsyncResult, title: str) -> str:
    """The small print: size, speed, the model's title, seed."""
    total = max(result.seconds["total"], 1e-6)
    return (
        f"{result.width}×{result.height} · {result.fps:g} frames/s · {result.duration:.1f} s long · generated in {describe_seconds(total)} "
        f"({result.frames / total:.1f} frames/s) · {title} · seed {result.seed}"
    )


def without_paths(sentence: str, names: Mapping[Path, str]) -> str:
    """A sentence that speaks of files by the names that a person gave them, and of no folder of this machine."""
    for path, name in sorted(names.items(), key=lambda item: -len(str(item[0]))):
        sentence = sentence.replace(str(path), name)
    return sentence

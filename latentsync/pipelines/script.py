"""Dubbing scripts: a film and lines of new words, read from a file or made in code, checked before any work, opened."""

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pysubs2
import yaml

from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.errors import InputError, first_line
from latentsync.media.audio import AudioSamples, Excerpt
from latentsync.media.deep import deep_format
from latentsync.media.files import check_readable, read_text, written_path
from latentsync.media.mix import MixedLine, SampleStore, stretched
from latentsync.media.probe import probe
from latentsync.media.video_writer import check_output
from latentsync.pipelines.layers import Line
from latentsync.pipelines.options import LINE_OPTIONS, OPTION_TYPES, PATH_OPTIONS, LipsyncOptions, parse_option, parse_time
from latentsync.pipelines.result import log_all, sound_warnings

logger = logging.getLogger(__name__)

LARGEST_TEMPO = 1.1
TOLERANCE = Fraction(1, 50)  # seconds by which a sound may last longer than its place
SCRIPT_KEYS = ("video", "output", "cues", "audio", "lines")
LINE_KEYS = ("start", "end", "cue", "audio")
Cue = tuple[Fraction, Fraction]  # start, end in seconds
CUE_FIELD = re.compile(r"\{cue(:0?\d+)?\}")


@dataclass(frozen=True)
class DubbingLine:
    """New words for one person: from when (seconds or h:mm:ss.fff), with which sound, until when, whose mouth."""

    start: Fraction | float | str
    audio: Path | str
    end: Fraction | float | str | None = None  # None: where the sound ends
    options: LipsyncOptions | None = None  # those of `LINE_OPTIONS` count; None: those of the script

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Fraction):
                object.__setattr__(self, name, parse_time(str(value)))
        object.__setattr__(self, "audio", Path(self.audio))


@dataclass(frozen=True)
class DubbingScript:
    """A film and its new words, in order of time; `options` count for all of it."""

    video: Path | str
    lines: Sequence[DubbingLine]
    options: LipsyncOptions = LipsyncOptions()  # noqa: RUF009 - frozen
    output: Path | None = None  # where the file of the script wants the result

    def __post_init__(self) -> None:
        object.__setattr__(self, "video", Path(self.video))
        lines = [replace(line, options=line.options or self.options) for line in self.lines]
        object.__setattr__(self, "lines", tuple(lines))

    @property
    def files(self) -> list[Path]:
        """All inputs."""
        refs = [Path(line.options.face_ref) for line in self.lines if line.options.face_ref is not None]
        return [self.video, *(line.audio for line in self.lines), *refs, *([Path(self.options.bed)] if self.options.bed else [])]

    def name(self, index: int) -> str:
        """What a sentence calls a line: none where it is the only one."""
        return f"line {index + 1}" if len(self.lines) > 1 else ""

    @contextmanager
    def told(self, index: int) -> Iterator[None]:
        """Failures inside are told with the number of the line."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.name(index) or 'The line'}: {error}") from error


def read_script(path: Path, defaults: LipsyncOptions) -> DubbingScript:
    """A script of a .yaml file, see docs/dubbing.md; paths are relative to its folder. Raises InputError with the number of the line."""
    try:
        content = yaml.load(read_text(path), Loader=yaml.BaseLoader)  # all values as text
    except yaml.YAMLError as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}): it must be a mapping with video and lines.") from error
    if not isinstance(content, Mapping) or not content.get("video"):
        raise InputError(f"{path} names no video: it must be a mapping with video and lines.")
    _refuse_unknown(content, SCRIPT_KEYS, tuple(OPTION_TYPES), str(path))
    options = _options_of(content, defaults, path.parent, str(path))
    cues = _read_cues(written_path(path.parent, content["cues"])) if content.get("cues") else []
    rows = content.get("lines") or [{"cue": str(number)} for number in range(1, len(cues) + 1)]
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows) or not rows:
        raise InputError(f"{path} has no lines: give lines, a list in which each has start and audio, or cues.")
    lines = [_line_of(row, f"{path}, line {k}", path.parent, cues, content.get("audio"), options) for k, row in enumerate(rows, start=1)]
    output = content.get("output")
    return DubbingScript(written_path(path.parent, content["video"]), lines, options, path.parent / output if output else None)


def _refuse_unknown(row: Mapping[str, Any], keys: Sequence[str], options: Sequence[str], where: str) -> None:
    unknown = [str(key) for key in row if key not in keys and key not in options]
    if unknown:
        raise InputError(f"{where}: {', '.join(unknown)} is not known here; {', '.join((*keys, *options))} are.")


def _options_of(row: Mapping[str, Any], defaults: LipsyncOptions, folder: Path, where: str) -> LipsyncOptions:
    named = {key: str(written_path(folder, value)) if key in PATH_OPTIONS else value for key, value in row.items() if key in OPTION_TYPES}
    try:
        return replace(defaults, **{key: parse_option(key, value) for key, value in named.items()})
    except (ValueError, TypeError, InputError) as error:
        raise InputError(f"{where}: {error}") from error


def _line_of(
    row: Mapping[str, Any], where: str, folder: Path, cues: Sequence[Cue], pattern: str | None, options: LipsyncOptions
) -> DubbingLine:
    """One mapping of a script as a line."""
    _refuse_unknown(row, LINE_KEYS, LINE_OPTIONS, where)
    start, end, audio, cue = (row.get(key) for key in ("start", "end", "audio", "cue"))
    if cue:
        if not cue.isdecimal() or not 1 <= int(cue) <= len(cues):
            raise InputError(f"{where}: there is no cue {cue}: give a number from 1 to {len(cues)}, and cues with a file of subtitles.")
        audio = audio or (CUE_FIELD.sub(lambda field: format(int(cue), (field[1] or ":")[1:]), pattern) if pattern else None)
    if not audio or not (cue or start):
        raise InputError(f"{where}: {'start (or cue)' if audio else 'audio'} is missing.")
    try:
        times = [parse_time(text) if text else None for text in (start, end)]
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    known = cues[int(cue) - 1] if cue else (None, None)
    begin, stop = (time if text is None else text for text, time in zip(times, known, strict=True))
    return DubbingLine(begin, written_path(folder, audio), stop, _options_of(row, options, folder, where))


def _read_cues(path: Path) -> list[Cue]:
    """Start and end, in seconds, of the cues of an SRT, VTT or ASS file, in its order. Raises InputError."""
    text = read_text(path)
    try:
        cues = [(Fraction(cue.start, 1000), Fraction(cue.end, 1000)) for cue in pysubs2.SSAFile.from_string(text) if not cue.is_comment]
    except pysubs2.exceptions.Pysubs2Error:
        cues = []
    if not cues:
        raise InputError(f"{path} holds no cues with times: give an .srt or .vtt file with lines such as 00:00:01,000 --> 00:00:02,500.")
    return cues


@dataclass(frozen=True)
class Place:
    """Where a line lies in its film, in seconds, how much faster its sound is played, and what the user must know of it."""

    start: Fraction
    stop: Fraction
    tempo: float = 1.0
    warning: str = ""


def place_of(script: DubbingScript, index: int, seconds: Fraction, film: Fraction | None) -> Place:
    """The place of a line whose sound lasts `seconds`, in a film of a length that may not be known. Raises InputError: it does not fit."""
    line = script.lines[index]
    room = [other.start for other in script.lines[index + 1 :] if same_face(other, line)] + ([] if film is None else [film])
    limit = min(room, default=None)
    wanted = line.start + seconds
    end = line.end if line.end is not None else wanted if limit is None else limit
    if wanted <= end + TOLERANCE:
        return Place(line.start, line.end if line.end is not None else min(wanted, end))
    tempo, space = float(seconds / (end - line.start)), float(end - line.start)
    longer = f"its sound lasts {float(seconds):.2f} s and there are {space:.2f} s for it (until {float(end):.2f} s)"
    if script.options.overrun == "warn":
        stop = wanted if limit is None else min(wanted, limit)
        cut = "it goes on" if stop == wanted else f"it is cut at {float(stop):.2f} s"
        return Place(line.start, stop, warning=f"{longer}: {cut}.")
    if script.options.overrun == "stretch" and tempo <= LARGEST_TEMPO:
        return Place(line.start, end, tempo, f"{longer}: it is played {100 * (tempo - 1):.1f} % faster.")
    advice = "shorten it or give it more time" + ("" if script.options.overrun == "stretch" else ", or use --overrun warn or stretch")
    raise InputError(f"{longer}: {advice}.")


def same_face(line: DubbingLine, other: DubbingLine) -> bool:
    """Whether two lines name a face in the same way."""
    return (line.options.face, line.options.face_ref) == (other.options.face, other.options.face_ref)


def check_script(script: DubbingScript) -> None:
    """Raise InputError, with the number of the line, for what cannot be dubbed, as far as it can be known without decoding anything."""
    if not script.lines:
        raise InputError(f"There is no line for {script.video}: give at least one, with start and audio.")
    video = probe(script.video)
    stream = video.require_video()
    film = stream.duration or video.duration
    film = None if film is None else Fraction(film)
    if script.options.bed is not None:
        probe(script.options.bed).require_audio()
    for index, line in enumerate(script.lines):
        with script.told(index):
            sound = probe(line.audio).require_audio(line.options.audio_track)
            if line.options.face_ref is not None:
                check_readable(Path(line.options.face_ref))
            _check_times(script, index, film)
            seconds = sound.duration or probe(line.audio).duration
            if seconds is not None:
                place_of(script, index, Fraction(seconds), film)


def _check_times(script: DubbingScript, index: int, film: Fraction | None) -> None:
    """Raise InputError for a line that comes too early, too late, or while its face still speaks."""
    line, earlier = script.lines[index], script.lines[:index]
    if earlier and line.start < earlier[-1].start:
        raise InputError(
            f"it starts at {float(line.start):.2f} s, before {script.name(index - 1)} ({float(earlier[-1].start):.2f} s): "
            "sort the lines by time."
        )
    if line.end is not None and line.end <= line.start:
        raise InputError(f"it ends at {float(line.end):.2f} s, which is not after its start ({float(line.start):.2f} s): give a later end.")
    last = line.start if line.end is None else line.end - TOLERANCE
    if film is not None and (line.start >= film or last > film):
        raise InputError(f"it lies at {float(line.start):.2f} s and the video ends at {float(film):.2f} s: give an earlier time.")
    for other, before in enumerate(earlier):
        if same_face(line, before) and before.end is not None and before.end > line.start:
            raise InputError(
                f"{script.name(other)} has the same face ({line.options.face}) until {float(before.end):.2f} s and this one starts at "
                f"{float(line.start):.2f} s: let one face say one line at a time."
            )


@contextmanager
def open_lines(script: DubbingScript, fps: Fraction, film: Fraction | None) -> Iterator[tuple[list[Line], list[MixedLine], list[str]]]:
    """The lines with their sounds decoded, the same for the mix, and what the user must know of them. Raises InputError."""
    lines, mixed, warnings = [], [], []
    with SampleStore() as store, tempfile.TemporaryDirectory(prefix="latentsync-") as folder:
        for index, line in enumerate(script.lines):
            with script.told(index), AudioSamples(line.audio, AUDIO_SAMPLE_RATE, line.options.audio_track) as samples:
                warnings += sound_warnings(samples, line.options.audio_track, script.name(index))
                place, before = place_of(script, index, Fraction(len(samples), AUDIO_SAMPLE_RATE), film), script.name(index)
                warnings += log_all([f"{before}: {place.warning}" if before else f"The line: {place.warning}"] if place.warning else [])
                kept, path, stream, pan = store.add(samples), line.audio, samples.stream, samples.mix
            if place.tempo != 1:
                path = stretched(path, stream, place.tempo, Path(folder) / f"{index}.wav")
                with AudioSamples(path, AUDIO_SAMPLE_RATE) as samples:
                    kept, stream, pan = store.add(samples), samples.stream, samples.mix
            first, last = (int(moment * fps + Fraction(1, 2)) for moment in (place.start, place.stop))
            last, shift = max(last, first + 1), round((first / fps - place.start) * AUDIO_SAMPLE_RATE)
            said = Excerpt(kept, shift, min(len(kept), int((place.stop - place.start) * AUDIO_SAMPLE_RATE)))
            lines.append(Line(line.audio, said, line.options, first, last, index + 1, script.name(index)))
            spoken = min(place.stop, place.start + Fraction(len(kept), AUDIO_SAMPLE_RATE))
            mixed.append(MixedLine(path, stream, place.start, spoken, 10 ** (line.options.gain_db / 20), pan))
        yield lines, mixed, warnings


def check_inputs(video_path: Path, audio_path: Path, output_path: Path, options: LipsyncOptions) -> None:
    """Raise InputError or OutputError, before any work, for unusable inputs, and an output that cannot be written or would cost a file."""
    if options.is_range:
        return check_dubbing(range_script(video_path, audio_path, options), output_path)
    if options.bed is not None or options.gain_db:
        raise InputError("bed and gain_db belong to words in a part of a video: give --start or --end, too, or a script.")
    probe(audio_path).require_audio(options.audio_track)
    _check_target(output_path, [video_path, audio_path], options)


def check_dubbing(script: DubbingScript, output_path: Path) -> None:
    """`check_inputs` of a script."""
    check_script(script)
    _check_target(output_path, script.files, script.options)


def range_script(video_path: Path, audio_path: Path, options: LipsyncOptions) -> DubbingScript:
    """A job with `start` or `end` as the script of one line that it is."""
    return DubbingScript(video_path, [DubbingLine(options.start or "0", audio_path, options.end)], options)


def _check_target(path: Path, inputs: Sequence[Path], options: LipsyncOptions) -> None:
    """The first input is the video."""
    deep = deep_format(probe(inputs[0]).require_video())
    check_output(path, inputs, options.codec, options.crf, options.preset, lossless=options.lossless, deep=deep)
    if not options.overwrite and path.exists() and path.stat().st_size > 0:
        raise InputError(f"{path} exists already: name another output, or say --overwrite to replace it.")

"""Sound as mono samples: decoded once by ffmpeg, kept on disk, read piece by piece.

One time line holds for the features of the networks, for the length of a result and for the sound that is written into it: the first
sample of the track is at 0, samples follow each other, and where the time stamps of the file jump ahead (packets that are missing or cannot
be decoded) silence fills the hole. `fill_holes` is the ffmpeg filter that makes this time line, here and in `VideoWriter`.
"""

import logging
import math
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.errors import InputError, OutputError
from latentsync.media.probe import DISK_FULL, QUIET, AudioStream, Child, MediaInfo, file_url, pipe_url, probe, read_exactly

logger = logging.getLogger(__name__)

FULL_SCALE = 32768.0  # a 16-bit sample of this value would be 1.0
SILENCE = 33  # 16-bit samples at or below this (-60 dB of full scale) are silence
_BLOCK = 1 << 20  # samples that are read together

_HOLE = 0.03  # seconds: a time stamp further ahead of the samples before it leaves a hole; jitter and rounding of clocks are smaller
_LATE_START = 0.1  # seconds between the start of a track and its first sample that make a hole; the lead-in of codecs is shorter
_FILL = "async=1:first_pts=0:min_hard_comp=0.01"  # options of ffmpeg's aresample: silence where the next frame's place is ahead
_RESTART = 1.0  # seconds: a time stamp further back is a clock that starts anew, samples go on
_LARGEST_HOLE = 600.0  # seconds: a time stamp further ahead is a clock that jumps, samples go on
_STEADY = 0.015  # seconds between time stamps and samples up to which the packets of a track play as its samples do
_LEAST_MISSING = 0.2  # seconds of sound, or 1 % of it, that may be missing from what the header promises
_NAMED_HOLES = 3  # holes that a sentence names

_LEVEL_RATE = 8000  # Hz at which the channels are compared
_LEVEL_BLOCK = 2000  # samples of each channel that are compared together
_CANCELLED = 0.1  # a mix of less than this share of the louder channel's power has cancelled
_CANCELLED_SHARE = 1 / 3  # of the blocks that are not silent
_FAINT = 1e-4  # a centre channel of less than this share of the loudest channel's power holds no words


class Samples(Protocol):
    """Mono samples, sliced on demand: an array, or `AudioSamples`."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> np.ndarray: ...


class Excerpt:
    """Samples start..stop of a recording, of which pieces can be had without holding it; silence where the recording does not reach."""

    def __init__(self, samples: Samples, start: int, stop: int) -> None:
        self._samples, self._start, self._length = samples, start, max(0, stop - start)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        """The samples of a slice: float32, or what the recording gives."""
        start, stop, _ = part.indices(self._length)
        start, stop = start + self._start, max(start, stop) + self._start
        found = self._samples[min(max(start, 0), len(self._samples)) : max(stop, 0)]
        before = min(max(-start, 0), stop - start)
        return np.pad(found, (before, stop - start - before - len(found)))


def fill_holes(stream: AudioStream) -> str:
    """ffmpeg filters from the decoded frames of a track, with the file's time stamps (`-copyts`), to its time line at its sample rate."""
    return f"{_place(stream)},aresample={stream.sample_rate}:{_FILL}"


def _place(stream: AudioStream) -> str:
    """The ffmpeg filter that gives each frame its place on the time line, in samples.

    Variables: 0 what is added to the file's time stamps, 1 where the next frame belongs when nothing is missing, 2 this frame's place.
    """
    start = "PTS" if stream.start_time is None else f"{stream.start_time:.6f}*SR"
    begin = f"if(N,0,st(0,-if(gt(PTS-{start},{_LATE_START}*SR),{start},PTS)))"
    place = "st(2,if(isnan(PTS),ld(1),PTS+ld(0)))"
    jumps = f"gt(ld(1)-ld(2),{_RESTART}*SR)+gt(ld(2)-ld(1),{_LARGEST_HOLE}*SR)"
    go_on = f"if({jumps},st(0,ld(0)+ld(1)-ld(2));st(2,ld(1)))"
    follow = f"if(lt(ld(2)-ld(1),if(N,{_HOLE},{_LATE_START})*SR),st(2,ld(1)))"
    return f"asetpts='{begin};{place};{go_on};{follow};st(1,ld(2)+S);ld(2)'"


class AudioSamples:
    """An audio track of a file (sound or video) as mono float32 samples in [-1, 1]; a context manager.

    Decoded once into an unnamed temporary file as 16-bit numbers, mapped into memory. Sample 0 is the first of the track; holes are silent.
    The centre channel is taken where there is one that is not silent; one of two channels where they are out of phase, so that their mix
    would cancel; in all other cases the channels are mixed.
    """

    def __init__(
        self, path: str | Path, sample_rate: int = AUDIO_SAMPLE_RATE, track: str | None = None, longest: float | None = None
    ) -> None:
        """Decode `track`, a number or a language, None for the default one. Raises InputError where no sound can be decoded.

        `longest`: seconds, from the first sample, after which nothing is decoded; None: all is.
        """
        self.info: MediaInfo = probe(path)
        self.stream: AudioStream = self.info.require_audio(track)
        self.sample_rate = sample_rate
        self._longest = longest
        self.mix = ""  # ffmpeg filters, each with a comma behind it, that take one channel; empty where channels are mixed as usual
        self.holes: tuple[tuple[float, float], ...] = ()  # parts that are filled with silence, in order: start, duration in seconds
        self.can_be_copied = True  # whether the track's packets, copied, play on the same time line as these samples
        self.notes: tuple[str, ...] = ()  # a sentence on each choice and each fault, for the user; they have been logged
        self._file = tempfile.TemporaryFile(prefix="latentsync-")  # noqa: SIM115 - closed by `close`
        try:
            self._decode()
            self._samples: np.ndarray = np.memmap(self._file, dtype="<i2", mode="r")  # t
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "AudioSamples":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file, and the samples with it. May be called twice."""
        self._samples = np.empty(0, "<i2")
        self._file.close()

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, part: slice) -> np.ndarray:
        """The samples of a slice as a fresh float32 array in [-1, 1]."""
        return self._samples[part].astype(np.float32) / np.float32(FULL_SCALE)  # t

    @property
    def duration(self) -> float:
        """Seconds, exact to a sample."""
        return len(self) / self.sample_rate

    @property
    def is_cut(self) -> bool:
        """Whether decoding ended at the `longest` duration, so that the file may hold more."""
        return self._longest is not None and self.duration >= self._longest

    @property
    def is_silent(self) -> bool:
        """Whether no sample rises above -60 dB of full scale."""
        blocks = (self._samples[start : start + _BLOCK] for start in range(0, len(self), _BLOCK))
        return all(int(block.min()) >= -SILENCE and int(block.max()) <= SILENCE for block in blocks)

    def _note(self, sentence: str) -> None:
        text = f"{self.info.path} {sentence}."
        logger.warning("%s", text)
        self.notes += (text,)

    def _decode(self) -> None:
        """Decode all channels into one; where one channel must do, decode once more."""
        levels = _ChannelLevels(self.stream) if self.stream.channels > 1 else None
        with tempfile.TemporaryFile(prefix="latentsync-") as in_file, tempfile.TemporaryFile(prefix="latentsync-") as on_line:
            status, child = self._run((in_file, on_line), levels)
            holes, is_steady, ahead = _compare_stamps(in_file, on_line)
        self.holes, self.can_be_copied = tuple(holes), is_steady and not holes
        size = self._file.seek(0, 2)
        if size == 0:
            reason = child.reason() if child.errors() or status else "it has 0 samples, so record or export it again"
            raise InputError(f"{self.info.path} holds an audio track but no sound that can be decoded: {reason}")
        self._tell_faults(size / 2 / self.sample_rate + ahead, status, child)
        channel, why = levels.choose() if levels else (None, "")
        if channel is not None:
            self._note(why)
            self.mix = f"pan=mono|c0=c{channel},"
            self._file.seek(0)
            self._file.truncate()
            self._run()

    def _run(self, stamps: Sequence[IO[bytes]] = (), levels: "_ChannelLevels | None" = None) -> tuple[int, Child]:
        """Decode once, to ffmpeg's exit status and remains; `stamps`: two files for time stamps, in the file and on the time line."""
        place = _place(self.stream)
        track, branches, outputs, files = f"[0:{self.stream.index}]", [], [], [self._file]
        end = ""
        if self._longest is not None:  # by the count of samples, whatever their time stamps; then, with holes filled, by the time line
            branches.append(f"{track}atrim=end_sample={math.ceil(self._longest * self.stream.sample_rate)}[begin]")
            track, end = "[begin]", f",atrim=end_sample={math.ceil(self._longest * self.stream.sample_rate)}"
        if levels:
            branches.append(f"{track}asplit[channels][rest]")
            outputs += ["-map", "[channels]", "-ar", str(_LEVEL_RATE), "-c:a", "pcm_s16le", "-f", "s16le", "pipe:1"]
            track = "[rest]"
        if stamps:
            branches.append(f"{track}asplit[file][unplaced];[unplaced]{place},asplit[line][placed]")
            for name, file in zip(("[file]", "[line]"), stamps, strict=True):
                outputs += ["-map", name, "-c:a", "pcm_s16le", "-f", "framecrc", "-flush_packets", "0", pipe_url(file)]
                files.append(file)
            track, place = "[placed]", "anull"
        branches.append(f"{track}{self.mix}{place},aresample={_FILL}{end}[mono]")
        outputs += ["-map", "[mono]", "-ac", "1", "-ar", str(self.sample_rate), "-c:a", "pcm_s16le", "-f", "s16le", pipe_url(self._file)]
        source = ["-copyts", "-protocol_whitelist", "file", "-i", file_url(self.info.path), "-filter_complex", ";".join(branches)]
        stdout = subprocess.PIPE if levels else subprocess.DEVNULL
        child = Child(["ffmpeg", *QUIET, "-nostdin", *source, *outputs], stdout=stdout, files=files)
        try:
            if levels:
                levels.read(child.stdout)
            status = child.finish()
        except BaseException:
            child.kill()
            raise
        if any(DISK_FULL in line for line in child.errors()):
            raise OutputError(
                f"{tempfile.gettempdir()} is full: {self.info.path} could not be decoded into it, free some space or set TMPDIR"
            )
        return status, child

    def _tell_faults(self, seconds: float, status: int, child: Child) -> None:
        if self.holes:
            places = ", ".join(f"{duration:.2f} s at {start:.2f} s" for start, duration in self.holes[:_NAMED_HOLES])
            more = ", ..." if len(self.holes) > _NAMED_HOLES else ""
            total = sum(duration for _, duration in self.holes)
            count = "a hole" if len(self.holes) == 1 else f"{len(self.holes)} holes"
            self._note(
                f"has {count} in its sound, {total:.2f} s in all ({places}{more}): packets are missing or damaged, silence fills them"
            )
        elif not self.can_be_copied:
            self._note(
                "has time stamps that do not fit its sound (they go back, overlap or jump): its samples are taken one after the other"
            )
        promised = self.stream.promised
        if promised is not None and self._longest is not None:
            promised = min(promised, self._longest)
        if promised is not None and promised - seconds > max(_LEAST_MISSING, promised / 100):
            reason = f" ({child.reason()})" if child.errors() or status else ""
            self._note(f"is cut short or damaged: only {seconds:.1f} s of about {promised:.1f} s of sound could be decoded{reason}")
        elif status:
            self._note(f"could not be decoded to the end of its sound ({child.reason()})")


class _ChannelLevels:
    """How loud the channels of a track are, and the first two together, gathered while it is decoded."""

    def __init__(self, stream: AudioStream) -> None:
        self._stream = stream
        self._power = np.zeros(stream.channels)  # sums over blocks of the mean square, of 16-bit numbers
        self._centre_peak = 0
        self._sounding = self._cancelled = 0  # blocks

    def read(self, pipe: IO[bytes]) -> None:
        """Take in all samples that ffmpeg writes: 16-bit numbers, t c."""
        block = np.empty((_LEVEL_BLOCK, self._stream.channels), "<i2")  # t c
        while True:
            block[:] = 0
            more = read_exactly(pipe, block)
            power = np.square(block, dtype=np.float32).mean(0)  # c
            self._power += power
            if self._stream.has_centre:
                self._centre_peak = max(self._centre_peak, int(np.abs(block[:, 2].astype(np.int32)).max()))
            mix = np.square(block[:, :2].mean(1, dtype=np.float32)).mean()
            louder = power[:2].max()
            if louder > SILENCE**2 / 2:
                self._sounding += 1
                self._cancelled += bool(mix < _CANCELLED * louder)
            if not more:
                return

    def choose(self) -> tuple[int | None, str]:
        """Which channel alone is used, and why; None where all are mixed."""
        stream = self._stream
        if stream.has_centre and self._centre_peak > SILENCE and self._power[2] > _FAINT * self._power.max():
            return 2, f"has {stream.layout} sound: its centre channel, which carries the words, is what the mouth follows"
        is_pair = stream.channels == 2 or stream.has_centre
        if is_pair and self._sounding and self._cancelled >= _CANCELLED_SHARE * self._sounding:
            side = int(self._power[1] > 1.01 * self._power[0])
            name = ("left", "right")[side]
            return side, f"has left and right out of phase, so that they cancel in a mix: the {name} channel is what the mouth follows"
        return None, ""


def _compare_stamps(in_file: IO[bytes], on_line: IO[bytes]) -> tuple[list[tuple[float, float]], bool, float]:
    """By framecrc's stamps in the file and on the time line: holes, whether both agree, seconds by which the file's clock came ahead."""
    rate, end, first, ahead, is_steady = 1.0, 0, None, 0.0, True  # samples a second, samples so far
    holes = []
    in_file.seek(0)
    on_line.seek(0)
    for theirs, ours in zip(in_file, on_line, strict=False):
        if ours.startswith(b"#tb 0:"):
            numerator, _, denominator = ours.partition(b":")[2].partition(b"/")
            rate = int(denominator) / int(numerator)
        if ours.startswith(b"#"):
            continue
        stamp, duration = (int(field) for field in ours.split(b",")[2:4])
        if stamp - end > _HOLE / 2 * rate:
            holes.append((end / rate, (stamp - end) / rate))
        end = max(end, stamp) + duration
        shift = (int(theirs.split(b",")[2]) - stamp) / rate
        first = shift if first is None else first
        ahead = max(ahead, shift - first)
        is_steady = is_steady and abs(shift - first) <= _STEADY
    return holes, is_steady, ahead


def read_audio(path: str | Path, sample_rate: int = AUDIO_SAMPLE_RATE) -> np.ndarray:
    """The audio track of a file as mono float32 samples in [-1, 1] (t), all in memory; see `AudioSamples`. Raises InputError."""
    with AudioSamples(path, sample_rate) as samples:
        return samples[:]

"""Sound as mono samples: decoded once by ffmpeg, kept on disk, looked at piece by piece."""

import logging
import tempfile
from pathlib import Path
from types import TracebackType

import ffmpeg
import numpy as np

from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.errors import InputError, OutputError
from latentsync.media.ffmpeg import MediaInfo, probe
from latentsync.media.process import DISK_FULL, QUIET, Child, file_url

logger = logging.getLogger(__name__)

FULL_SCALE = 32768.0  # a 16-bit sample of this value would be 1.0
SILENCE = 33  # 16-bit samples at or below this (-60 dB of full scale) are silence
_BLOCK = 1 << 20  # samples that are looked at together


class AudioSamples:
    """The first audio track of a file (sound or video) as mono float32 samples in [-1, 1]; a context manager.

    The track is decoded once into an unnamed temporary file as 16-bit numbers (32 kB a second at 16 kHz) and mapped into memory, so
    an hour of sound costs no memory. Sample 0 is the first sample of the track, also where the track starts later than its file.
    """

    def __init__(self, path: str | Path, sample_rate: int = AUDIO_SAMPLE_RATE) -> None:
        """Decode. Raises InputError when there is no audio track or nothing in it can be decoded."""
        self.info: MediaInfo = probe(path)
        self.sample_rate = sample_rate
        self._file = tempfile.TemporaryFile(prefix="latentsync-")  # noqa: SIM115 - closed by `close`
        try:
            self._decode()
            self._samples: np.ndarray = np.memmap(self._file, dtype="<i2", mode="r")  # t
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "AudioSamples":
        """Nothing more: the samples are there since the constructor."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let the temporary file go."""
        self.close()

    def close(self) -> None:
        """Let the temporary file go; the samples are gone then. May be called twice."""
        self._samples = np.empty(0, "<i2")
        self._file.close()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._samples)

    def __getitem__(self, part: slice) -> np.ndarray:
        """The samples of a slice as a fresh float32 array in [-1, 1]."""
        return self._samples[part].astype(np.float32) / np.float32(FULL_SCALE)  # t

    @property
    def duration(self) -> float:
        """Seconds, exact to a sample."""
        return len(self) / self.sample_rate

    @property
    def is_silent(self) -> bool:
        """Whether no sample rises above -60 dB of full scale."""
        blocks = (self._samples[start : start + _BLOCK] for start in range(0, len(self), _BLOCK))
        return all(int(block.min()) >= -SILENCE and int(block.max()) <= SILENCE for block in blocks)

    def _decode(self) -> None:
        path = self.info.path
        stream = self.info.require_audio()
        node = ffmpeg.input(file_url(path), protocol_whitelist="file")
        node = ffmpeg.output(node, "pipe:1", map=f"0:{stream.index}", ac=1, ar=self.sample_rate, f="s16le", acodec="pcm_s16le")
        child = Child(["ffmpeg", *QUIET, "-nostdin", *ffmpeg.get_args(node)], stdout=self._file)
        try:
            status = child.finish()
        except BaseException:
            child.kill()
            raise
        if any(DISK_FULL in line for line in child.errors()):
            raise OutputError(f"{tempfile.gettempdir()} is full: {path} could not be decoded into it, free some space or set TMPDIR")
        if self._file.seek(0, 2) == 0:
            reason = child.reason() if child.errors() or status else "it has 0 samples, so record or export it again"
            raise InputError(f"{path} holds an audio track but no sound that can be decoded: {reason}")
        if status:
            logger.warning("%s: the sound could not be decoded to its end (%s)", path, child.reason())


def read_audio(path: str | Path, sample_rate: int = AUDIO_SAMPLE_RATE) -> np.ndarray:
    """The first audio track of a file as mono float32 samples in [-1, 1] (t), all in memory. Raises InputError."""
    with AudioSamples(path, sample_rate) as samples:
        return samples[:]

"""What a person may choose for one job, checked as soon as it is chosen."""

from dataclasses import dataclass, replace

from latentsync.errors import InputError
from latentsync.faces.selection import FaceChoice

LENGTHS = ("audio", "video")
LARGEST_SEED = 2**63 - 1
MOST_STEPS = 999  # the schedule has 1000 steps and leaves the first one out


@dataclass(frozen=True)
class LipsyncOptions:
    """The choices of one job.

    Args:
        inference_steps: denoising steps, 1 to 999; more is slower and finer. None: as many as the model was made for, 20 for the published.
        guidance_scale: how strongly the sound steers the mouth; 1 switches guidance off and halves the work. None: what the model was made
            for, 1.5 for the published.
        seed: the same seed gives the same video; -1 draws a fresh one.
        face: whose mouth: "largest", "left", "right", an index from the left, or "x,y@seconds".
        audio_track: which audio track of the sound file: a number counted from 0, or a language as the file names it ("eng"); None: the
            track that the file marks as default, or the first.
        length: "audio": the video is played forwards and backwards or cut to the sound; "video": the sound is cut or followed by silence.
        keep_fps: keep the frame rate of the video instead of the 25 frames a second the networks were trained at.
        batch_clips: clips of 16 frames that go through the networks at once.
        codec: "h264", "hevc", "vp9" or "av1"; None lets the container choose.
        crf: constant rate factor of the one lossy encode, lower is better; None takes the codec's own default.
        preset: the encoder's speed preset; None takes the default.
        lossless: encode without any loss.
        overwrite: replace an output file that exists.
    """

    inference_steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 1247
    face: str = "largest"
    audio_track: str | None = None
    length: str = "audio"
    keep_fps: bool = False
    batch_clips: int = 1
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    lossless: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.inference_steps is not None and not 1 <= self.inference_steps <= MOST_STEPS:
            raise InputError(
                f"inference_steps is {self.inference_steps}: give a number from 1 to {MOST_STEPS} (20 is the published setting)."
            )
        if self.guidance_scale is not None and not 0 <= self.guidance_scale <= 100:
            raise InputError(f"guidance_scale is {self.guidance_scale}: give a number from 0 to 100 (1.5 is usual, 1 switches it off).")
        if not -1 <= self.seed <= LARGEST_SEED:
            raise InputError(f"seed is {self.seed}: give a whole number from 0 up, or -1 for a fresh one.")
        if self.batch_clips < 1:
            raise InputError(f"batch_clips is {self.batch_clips}: give 1 or more.")
        if self.length not in LENGTHS:
            raise InputError(f"length is {self.length!r}: give one of {', '.join(LENGTHS)}.")
        FaceChoice.parse(self.face)

    def completed(self, inference_steps: int, guidance_scale: float) -> "LipsyncOptions":
        """The same with a model's own settings where nothing else was chosen."""
        return replace(
            self,
            inference_steps=inference_steps if self.inference_steps is None else self.inference_steps,
            guidance_scale=guidance_scale if self.guidance_scale is None else self.guidance_scale,
        )

"""Lip sync as a model on Replicate, or in any container that Cog builds: `cog predict -i video=@talk.mp4 -i audio=@words.wav`."""

import tempfile

from cog import BasePredictor, Input, Path

from latentsync import LipsyncOptions, build_pipeline


class Predictor(BasePredictor):
    """One set of networks for all predictions. Cog reads the inputs without running this file: they are written out."""

    def setup(self) -> None:
        """Load the newest published weights in checkpoints/, or else the embedded model."""
        self.pipeline = build_pipeline()

    def predict(
        self,
        video: Path = Input(description="Video of a person talking."),  # noqa: B008 - as Cog reads it
        audio: Path = Input(description="The recording: any audio file, or a video with sound."),  # noqa: B008
        quality: str = Input(
            default="standard",
            choices=["draft", "standard", "fine"],
            description="Preset of sampler, steps, guidance and cache: draft is the fastest, fine the published setting.",
        ),
        face: str = Input(
            default="largest",
            description="Whose mouth: largest, left, right, an index from the left, or x,y@seconds: the face at that pixel at that time.",
        ),
        length: str = Input(
            default="audio", choices=["audio", "video"], description="Length of the result: that of the audio, or of the video."
        ),
        keep_fps: bool = Input(default=False, description="Keep the video's frame rate; else 25 frames a second."),
        inference_steps: int | None = Input(default=None, ge=1, le=999, description="Denoising steps; empty: the preset's."),
        guidance_scale: float | None = Input(
            default=None, ge=0, le=100, description="How closely the mouth follows the audio, 1 is off; empty: the model's."
        ),
        seed: int = Input(default=1247, description="The same seed gives the same video; -1: a random one."),
    ) -> Path:
        """Give the person in the video the words of the recording."""
        options = LipsyncOptions(
            quality=quality,
            face=face,
            length=length,
            keep_fps=keep_fps,
            inference_steps=inference_steps,
            guidance_scale=guidance_scale,
            seed=seed,
        )
        output = Path(tempfile.mkdtemp()) / "lipsync.mp4"
        self.pipeline(video, audio, output, options)
        return output

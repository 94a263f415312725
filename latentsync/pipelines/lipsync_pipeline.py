"""The six steps of inference, streaming: look, hear, encode, denoise, decode, restore (LatentSync, arXiv 2412.09262, figure 2).

Two passes over the video. *Look* decodes, detects and tracks; a few numbers a frame are kept. *Make* decodes again, gives the faces
new mouths clip by clip and encodes; a bounded number of pictures is held. Decoding and encoding run beside the networks.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.diffusion import shared_noise
from latentsync.faces.choice import FaceChoice
from latentsync.faces.detector import FaceDetector
from latentsync.faces.look import plan_spans
from latentsync.faces.mask import fixed_mask
from latentsync.faces.plan import FacePlan
from latentsync.faces.restore import inside_picture, restore_faces
from latentsync.faces.skin import FaceMatte
from latentsync.faces.warp import warp_faces
from latentsync.media.audio import AudioSamples
from latentsync.media.overlap import prefetch
from latentsync.media.sink import AudioTrack, VideoSink
from latentsync.media.video import VideoSource
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import LatentCodec
from latentsync.pipelines.generator import FaceGenerator, latent_size
from latentsync.pipelines.job import Job, ProgressCallback
from latentsync.pipelines.memory import describe_bytes, estimate_bytes
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.report import LipsyncResult, Stopwatch
from latentsync.pipelines.timeline import Clip, batches, clips, pieces
from latentsync.whisper.audio2feature import Audio2Feature, AudioWindows

logger = logging.getLogger(__name__)

FRAMES_AHEAD = 16  # decoded pictures that may wait for the networks, or as many as a batch takes
BYTES_AHEAD = 512 << 20  # ... but never more than this


class LipsyncPipeline(DiffusionPipeline):
    """A video and a voice in, a lip-synced video out.

    Args:
        vae: pixels to latents and back.
        audio_encoder: sound to windows of features.
        unet: the denoiser.
        scheduler: the denoising schedule.
        face_detector: finds faces and their anchors in a picture.
        resolution: side of the aligned face in pixels that the denoiser was trained at.
        num_frames: frames in one clip.
        mask_name: which fixed mask the denoiser was trained with.
        inference_steps, guidance_scale: used where a job does not choose; see `LipsyncOptions`.
        paste: "face" brings the whole aligned face back into the frame, as published; "mask" only what was generated, on the face
            and inside the picture, see `FaceMatte`.
        match_skin: bring the broad colours of what was generated to those of the source, see `match_skin`.
        use_reference: False hides the reference, as from a denoiser that was trained without.

    Example:
        >>> pipeline = build_pipeline()
        >>> result = pipeline("talk.mp4", "words.wav", "dubbed.mp4", LipsyncOptions(guidance_scale=2.0))
        >>> result.skipped
    """

    def __init__(
        self,
        vae: LatentCodec,
        audio_encoder: Audio2Feature,
        unet: UNet3DConditionModel,
        scheduler: DDIMScheduler,
        face_detector: FaceDetector,
        *,
        resolution: int,
        num_frames: int = 16,
        mask_name: str = "mask",
        inference_steps: int = 20,
        guidance_scale: float = 1.5,
        paste: str = "face",
        match_skin: bool = False,
        use_reference: bool = True,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, audio_encoder=audio_encoder, unet=unet, scheduler=scheduler)
        self.face_detector = face_detector
        self.resolution = resolution
        self.num_frames = num_frames
        self.mask_name = mask_name
        self.inference_steps, self.guidance_scale = inference_steps, guidance_scale
        self.keep = fixed_mask(resolution, mask_name) if paste == "mask" else None
        self.match_skin, self.use_reference = match_skin, use_reference

    @property
    def components(self) -> dict[str, Any]:
        """The registered parts: what diffusers moves, offloads and lists."""
        return {name: getattr(self, name) for name in ("vae", "audio_encoder", "unet", "scheduler")}

    @torch.no_grad()
    def __call__(
        self,
        video_path: Path | str,
        audio_path: Path | str,
        video_out_path: Path | str,
        options: LipsyncOptions | None = None,
        callback: ProgressCallback | None = None,
    ) -> LipsyncResult:
        """Give the person in a video other words.

        Args:
            video_path: any video that ffmpeg reads; never changed.
            audio_path: any sound that ffmpeg reads, the sound of a video too; never changed.
            video_out_path: the result, .mp4, .mov, .mkv or .webm; it appears whole or not at all.
            options: see `LipsyncOptions`.
            callback: told of progress; raising from it stops the job and leaves no output.

        Raises:
            InputError: an input cannot be used, or no face was found in it.
            OutputError: the result cannot be written.
            OutOfMemoryError: a single clip is too much for the device.
        """
        chosen = (options or LipsyncOptions()).completed(self.inference_steps, self.guidance_scale)
        job = Job(Path(video_path), Path(audio_path), Path(video_out_path), chosen, Stopwatch(self.unet.device), callback)
        job.check()
        if self.unet.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.unet.device)
        source = VideoSource(job.video_path, None if job.options.keep_fps else Fraction(VIDEO_FPS))
        with job.clock("total"), AudioSamples(job.audio_path, AUDIO_SAMPLE_RATE, chosen.audio_track) as samples:
            job.note_losses(source)
            job.hear(samples, source)
            plan = job.note_damage(self._look(source, job), source)
            windows = self.audio_encoder.windows(job.settle(plan, source, samples), source.fps)
            self._announce(job, plan, source)
            generated = self._make(source, plan, windows, job)
        return job.result(source, plan, generated)

    def _look(self, source: VideoSource, job: Job) -> FacePlan:
        """First pass: which frames show which face, and how it lies. Frames that the result does not need are not looked at."""
        expected = source.expected_frames
        total = min(job.total, expected) if job.total and expected else job.total or expected
        with job.clock("look"), self.progress_bar(total=total or 0) as bar:  # 0: unknown
            bar.set_description("look")

            def advance(done: int) -> None:
                bar.update(done - bar.n)
                job.progress("look", done, total)

            choice = FaceChoice.parse(job.options.face)
            with closing(prefetch(source.frames(0, job.total), FRAMES_AHEAD)) as frames:
                return plan_spans(frames, self.face_detector, self.resolution, float(source.fps), choice, progress=advance)

    def _announce(self, job: Job, plan: FacePlan, source: VideoSource) -> None:
        """The preflight line: what is about to happen, and what it takes."""
        guided = 2 if job.options.guidance_scale > 1 else 1
        need = estimate_bytes(
            self.unet,
            self.vae,
            self.audio_encoder,
            resolution=self.resolution,
            unet_frames=guided * job.options.batch_clips * self.num_frames,
        )
        covered = sum(span.stop - span.start for span in plan.spans)
        logger.info(
            "%s: %d frames at %.5g fps, %dx%d; %d span%s with a face over %d of %d source frames, at most %d face%s at once; "
            "network for %d px, %d step%s on %s in %s, seed %d, about %s of memory",
            job.output_path,
            job.total,
            float(source.fps),
            source.width,
            source.height,
            len(plan.spans),
            "" if len(plan.spans) == 1 else "s",
            covered,
            plan.num_frames,
            plan.most_faces,
            "" if plan.most_faces == 1 else "s",
            self.resolution,
            job.options.inference_steps,
            "" if job.options.inference_steps == 1 else "s",
            self.unet.device.type,
            str(self.unet.dtype).removeprefix("torch."),
            job.seed,
            describe_bytes(need),
        )

    def _make(self, source: VideoSource, plan: FacePlan, windows: AudioWindows, job: Job) -> int:
        """Second pass: decode, generate, encode; returns how many frames were generated."""
        options, generated = (
            job.options,
            sum(stop - start for start, stop, span in pieces(plan, job.total, self.num_frames) if span is not None),
        )
        sink = VideoSink(
            job.output_path,
            source.width,
            source.height,
            source.fps,
            like=source.info,
            audio=AudioTrack(
                job.audio_path,
                duration=float(job.total / source.fps),
                length=job.sound_length,
                track=options.audio_track,
                can_be_copied=job.copy_sound,
            ),
            codec=options.codec,
            crf=options.crf,
            preset=options.preset,
            lossless=options.lossless,
        )
        with ExitStack() as stack, job.clock("make"), sink, self.progress_bar(total=job.total) as bar:
            bar.set_description("make")
            ahead = min(max(FRAMES_AHEAD, options.batch_clips * self.num_frames), max(1, BYTES_AHEAD // (source.width * source.height * 3)))
            frames = stack.enter_context(closing(prefetch(source.ping_pong(job.total, plan.num_frames), ahead)))
            on_step = lambda step: bar.set_postfix_str(f"step {step}/{options.inference_steps}")  # noqa: E731 - one line of its own
            for done, frame in enumerate(self.generate(frames, plan, job.total, windows, options, job.seed, job.clock, on_step), start=1):
                with job.clock("write"):
                    sink.write(frame)
                bar.update()
                job.progress("make", done, job.total)
        return generated

    @torch.no_grad()
    def generate(
        self,
        frames: Iterable[np.ndarray],
        plan: FacePlan,
        total: int,
        windows: AudioWindows,
        options: LipsyncOptions,
        seed: int,
        clock: Stopwatch | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Iterator[np.ndarray]:
        """The frames of the result, one after the other, for callers that decode and encode themselves.

        Args:
            frames: pictures uint8 (h, w, 3) of the output's timeline, `total` of them.
            plan: which face lies where in the *source*; output frames beyond it play backwards and forwards again.
            windows: the sound, a window a frame.
            seed: noise is drawn from it on the CPU (first the start of all clips, then clip by clip), so that neither device nor
                batch size matters.
            on_step: called after each denoising step.

        Yields:
            uint8 (h, w, 3): generated where the plan has a face, the very input elsewhere.
        """
        options = options.completed(self.inference_steps, self.guidance_scale)
        clock, size, random = clock or Stopwatch(self.unet.device), latent_size(self.resolution), torch.Generator().manual_seed(seed)
        scheduler = self.scheduler.from_config(self.scheduler.config)  # its own timesteps for each run
        scheduler.set_timesteps(options.inference_steps)
        make_faces = FaceGenerator(
            self.vae,
            self.unet,
            scheduler,
            resolution=self.resolution,
            mask_name=self.mask_name,
            noise=shared_noise(size, random),
            guidance_scale=options.guidance_scale,
            match_skin=self.match_skin,
            use_reference=self.use_reference,
            clock=clock,
            on_step=on_step,
        )
        matte = FaceMatte(self.resolution)
        for batch in batches(clips(frames, plan, total, self.num_frames, size, random), options.batch_clips):
            yield from self._render(batch, make_faces, matte, windows, clock)

    def _render(
        self, batch: list[Clip], make_faces: FaceGenerator, matte: FaceMatte, windows: AudioWindows, clock: Stopwatch
    ) -> Iterator[np.ndarray]:
        """The output frames of neighbouring clips; clips of one length go through the networks together."""
        restored: dict[int, list[np.ndarray]] = {clip.start: clip.frames for clip in batch if clip.matrices is None}
        waiting = [clip for clip in batch if clip.matrices is not None]
        with clock("align"):
            faces = {clip.start: warp_faces(clip.frames, clip.matrices, self.resolution, self.unet.device) for clip in waiting}
            keeps = {clip.start: self._kept(clip, faces[clip.start], matte) for clip in waiting}  # in order of time
        for length in sorted({len(clip.frames) for clip in waiting}, reverse=True):
            group = [clip for clip in waiting if len(clip.frames) == length]
            with clock("hear"):
                heard = [windows.frames(clip.start, clip.stop) for clip in group]
            kept = None if self.keep is None else [keeps[clip.start] for clip in group]
            pixels = make_faces([faces[clip.start] for clip in group], [clip.noise for clip in group], heard, kept)
            with clock("restore"):
                for clip, new in zip(group, pixels, strict=True):
                    restored[clip.start] = restore_faces(clip.frames, new, clip.matrices, keeps[clip.start])
        for clip in batch:
            yield from restored.pop(clip.start)

    def _kept(self, clip: Clip, faces: torch.Tensor, matte: FaceMatte) -> torch.Tensor | None:
        """What of the aligned faces (f, R, R, 3) of a clip is not pasted, (f, R, R), 1 = not; None where all of it is."""
        if self.keep is None:
            return None
        height, width = clip.frames[0].shape[:2]
        inside = inside_picture(clip.matrices, (width, height), self.resolution, faces.device)
        return 1 - (1 - self.keep.to(faces.device)) * inside * matte(faces, inside, clip.span)

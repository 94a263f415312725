"""The pipeline: a video and a recording in, a lip-synced video out."""

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from einops import rearrange, repeat
from torch import Tensor, nn

from latentsync.constants import AUDIO_SAMPLE_RATE, VAE_FACTOR, VIDEO_FPS
from latentsync.diffusion import Conditions, denoise, shared_noise
from latentsync.errors import InputError, OutOfMemoryError
from latentsync.faces.alignment import warp_faces
from latentsync.faces.compositing import FaceMatte, inside_picture, match_skin, restore_faces, skin_weights
from latentsync.faces.detector import FaceDetector
from latentsync.faces.mask import fixed_mask, latent_mask, masked_pixels, to_pixels
from latentsync.faces.plan import FacePlan, name_damage, plan_spans
from latentsync.faces.selection import FaceChoice
from latentsync.media.audio import AudioSamples
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader, prefetch
from latentsync.media.video_writer import AudioTrack, VideoWriter, check_output
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import LatentCodec
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.result import LipsyncResult, StageTimer, describe_covered, describe_damage, describe_skipped, spans_of
from latentsync.pipelines.timeline import Clip, batches, clips, frames_in, pieces
from latentsync.whisper.audio2feature import Audio2Feature, AudioWindows, FollowedBySilence, Samples

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
UNET_VALUES_PER_CHANNEL = 30  # most values alive at once per latent cell, frame and channel of the first level; measured at full size
VAE_VALUES_PER_CHANNEL = 10  # the same per decoded pixel and channel of the autoencoder's first level
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")  # in the messages of failures that have no type of their own


def parameter_bytes(*modules: nn.Module) -> int:
    """Bytes that the weights of modules take."""
    return sum(tensor.numel() * tensor.element_size() for module in modules for tensor in (*module.parameters(), *module.buffers()))


def estimate_bytes(unet: UNet3DConditionModel, vae: LatentCodec, audio_encoder: nn.Module, *, resolution: int, unet_frames: int) -> int:
    """Memory that generation needs, roughly: all weights and the larger of the two networks' activations.

    Args:
        resolution: side of a face in pixels.
        unet_frames: frames that go through the denoiser at once, guidance counted twice.
    """
    cells = unet_frames * (resolution // VAE_FACTOR) ** 2
    vae_pixels = (vae.slice_size or unet_frames) * resolution**2
    unet_bytes = cells * unet.config.block_out_channels[0] * UNET_VALUES_PER_CHANNEL * unet.dtype.itemsize
    vae_bytes = vae_pixels * vae.vae.config.block_out_channels[0] * VAE_VALUES_PER_CHANNEL * vae.dtype.itemsize
    return parameter_bytes(unet, vae, audio_encoder) + max(unet_bytes, vae_bytes)


def describe_bytes(count: int) -> str:
    """A size for a person: "850 MB", "6.1 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def release_cached_memory() -> None:
    """Give what the allocators hold in reserve back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a failure is the device's or the machine's lack of memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def in_smaller_batches(
    work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], on_shrink: Callable[[int], bool]
) -> list[Result]:
    """Do `work` on all items at once, or in halves when memory runs out.

    Args:
        work: takes items, returns one result each.
        on_shrink: told the size of the batch that failed; says whether to try again even though that batch was a single item
            (because something else was made smaller).

    Raises:
        OutOfMemoryError: memory ran out and nothing could be made smaller.
    """
    try:
        return work(items)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
    release_cached_memory()
    can_shrink = on_shrink(len(items))
    if len(items) > 1:
        half = (len(items) + 1) // 2
        return in_smaller_batches(work, items[:half], on_shrink) + in_smaller_batches(work, items[half:], on_shrink)
    if can_shrink:
        return in_smaller_batches(work, items, on_shrink)
    raise OutOfMemoryError(
        f"The device ran out of memory with a single clip ({reason}): "
        "use half precision (--dtype fp16 or bf16), a configuration of lower resolution, or a device with more memory."
    )


class FaceGenerator:
    """Generates the mouths of clips that all have the same number of frames.

    Args:
        vae, unet, scheduler: the networks, and the schedule with its timesteps set.
        resolution: side of a face in pixels.
        mask_name: which of the fixed masks.
        noise: the start of every clip, (1, 4, 1, h/8, w/8): one frame of noise for the whole video.
        guidance_scale: see `denoise`.
        match_skin: see `latentsync.faces.compositing.match_skin`.
        use_reference: False shows zeros in the place of the reference, as to a denoiser that was trained so.
        clock: takes the time of each stage.
        on_step: called after each denoising step with the number of steps done.
    """

    def __init__(
        self,
        vae: LatentCodec,
        unet: UNet3DConditionModel,
        scheduler: DDIMScheduler,
        *,
        resolution: int,
        mask_name: str,
        noise: Tensor,
        guidance_scale: float,
        match_skin: bool = False,
        use_reference: bool = True,
        clock: StageTimer,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self.vae, self.unet, self.scheduler, self.clock = vae, unet, scheduler, clock
        self.mask = fixed_mask(resolution, mask_name).to(unet.device)  # h w
        self.noise = noise.to(unet.device)
        self.guidance_scale = guidance_scale
        self.use_reference = use_reference
        self.match_skin = match_skin
        self.on_step = on_step
        self.largest_batch: int | None = None  # clips that fit into memory at once, known after a failure

    def __call__(
        self, faces: Sequence[Tensor], noises: Sequence[Tensor], windows: Sequence[Tensor], keeps: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """New faces of several clips of one length, in smaller batches when memory runs out.

        Args:
            faces: uint8 (f, R, R, 3) for each clip.
            noises: (2, f, 4, R/8, R/8) for each clip, see `Clip.noise`.
            windows: audio (f, n, d) for each clip.
            keeps: masks (f, R, R) for each clip of what goes into the frame (1 = not): colours are compared on the rest alone; by default
                the fixed mask.

        Returns:
            Pixels float32 (f, 3, R, R) for each clip: generated where the mask is 0, the input elsewhere.
        """
        keeps = keeps or [self.mask.expand(len(part), -1, -1) for part in faces]
        items, size = list(zip(faces, noises, windows, keeps, strict=True)), self.largest_batch or len(faces)
        done: list[Tensor] = []
        for start in range(0, len(items), size):
            done += in_smaller_batches(self._generate, items[start : start + size], self._shrink)
        return done

    def _shrink(self, failed: int) -> bool:
        """Remember that a batch was too large; a single clip may still fit when the autoencoder sees fewer frames at once."""
        self.largest_batch = max(1, failed // 2)
        logger.warning("Memory ran out with %d clip(s) at once: going on with less.", failed)
        if failed > 1 or self.vae.slice_size == 1:
            return False
        self.vae.slice_size = max(1, (self.vae.slice_size or 16) // 2)
        return True

    @torch.no_grad()
    def _generate(self, items: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> list[Tensor]:
        faces, noises, windows, keeps = (torch.stack(part) for part in zip(*items, strict=True))
        pixels = to_pixels(faces.to(self.unet.device))  # b f c h w
        with self.clock("encode"):
            conditions = self.encode(pixels, noises.to(pixels))
        with self.clock("denoise"):
            noise = self.noise.expand(len(items), -1, pixels.shape[1], -1, -1)
            latents = denoise(
                self.unet,
                self.scheduler,
                noise,
                conditions,
                windows.to(pixels),
                guidance_scale=self.guidance_scale,
                dtype=self.unet.dtype,
                on_step=self.on_step,
            )
        with self.clock("decode"):
            return list(self.paste(self.decode(latents), pixels, keeps.to(pixels)))

    def encode(self, pixels: Tensor, noises: Tensor) -> Conditions:
        """What the denoiser is shown.

        Args:
            pixels: aligned faces (b, f, 3, h, w) in [-1, 1]; at inference each frame is its own reference.
            noises: (b, 2, f, 4, h/8, w/8).
        """
        batch, frames = pixels.shape[:2]
        both = torch.stack([masked_pixels(pixels, self.mask), pixels], dim=1)
        latents = self.vae.encode(
            rearrange(both, "b k f c h w -> (b k f) c h w").to(self.vae.dtype),
            rearrange(noises, "b k f c h w -> (b k f) c h w").to(self.vae.dtype),
        )
        masked, reference = rearrange(latents.float(), "(b k f) c h w -> k b c f h w", b=batch, k=2)
        mask = repeat(latent_mask(self.mask), "h w -> b 1 f h w", b=batch, f=frames)
        return Conditions(mask, masked, reference if self.use_reference else torch.zeros_like(reference))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b, 4, f, h/8, w/8) to pixels float32 (b, f, 3, h, w)."""
        pixels = self.vae.decode(rearrange(latents, "b c f h w -> (b f) c h w").to(self.vae.dtype))
        return rearrange(pixels.float(), "(b f) c h w -> b f c h w", b=len(latents))

    def paste(self, generated: Tensor, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """The generated mouth inside the untouched rest of the aligned face; both (b, f, 3, h, w).

        keep: masks (b, f, h, w) whose other part is where colours are compared; by default the fixed mask.
        """
        if self.match_skin:
            generated = match_skin(generated, pixels, skin_weights(self.mask if keep is None else keep))
        return generated * (1 - self.mask) + pixels * self.mask


def latent_size(resolution: int) -> int:
    """Side of a face in latent cells."""
    return resolution // VAE_FACTOR


ProgressCallback = Callable[[str, int, int | None], None]  # stage ("look" or "make"), frames done, frames in all where known
SEED_LIMIT = 2**32  # fresh seeds are small enough to be typed again


@dataclass
class Job:
    """State of one run; made per call and thrown away with it."""

    video_path: Path
    audio_path: Path
    output_path: Path
    options: LipsyncOptions
    clock: StageTimer
    callback: ProgressCallback | None = None
    total: int | None = None  # output frames, once they are known
    sound_length: float | None = None  # seconds of sound, as decoded
    copy_sound: bool = True  # whether the packets of the sound play as they were decoded
    warnings: list[str] = field(default_factory=list)
    seed: int = field(init=False)

    def __post_init__(self) -> None:
        self.seed = self.options.seed if self.options.seed >= 0 else secrets.randbelow(SEED_LIMIT)

    def check(self) -> None:
        """Refuse, before any work, inputs that cannot be used and an output that cannot be written or would cost the user a file.

        Raises:
            InputError, OutputError: why.
        """
        probe(self.video_path).require_video()
        options = self.options
        probe(self.audio_path).require_audio(options.audio_track)
        inputs = [self.video_path, self.audio_path]
        check_output(self.output_path, inputs, options.codec, options.crf, options.preset, lossless=options.lossless)
        if not options.overwrite and self.output_path.exists() and self.output_path.stat().st_size > 0:
            raise InputError(f"{self.output_path} exists already: name another output, or say --overwrite to replace it.")

    def warn(self, message: str) -> None:
        """Tell the user now and in the result."""
        logger.warning("%s", message)
        self.warnings.append(message)

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Pass progress on to who asked for it."""
        if self.callback is not None:
            self.callback(stage, done, total)

    def hear(self, samples: AudioSamples, source: VideoReader) -> None:
        """Measure the sound: it decides how long the result is, unless the video does."""
        if len(samples) == 0:
            raise InputError(f"{self.audio_path} holds no sound (0 samples): give a recording of the words to be said.")
        self.sound_length, self.copy_sound = samples.duration, samples.can_be_copied
        self._tell_track(samples)
        self.warnings += samples.notes  # the samples have said so themselves
        if samples.is_silent:
            self.warn(f"{self.audio_path} is silent: there are no words to move the mouth to.")
        if self.options.length == "audio":
            self.total = frames_in(Fraction(len(samples), AUDIO_SAMPLE_RATE), source.fps)

    def _tell_track(self, samples: AudioSamples) -> None:
        """Say which track is taken where there are several."""
        tracks = samples.info.audio_tracks
        if len(tracks) < 2:
            return
        taken = f"{self.audio_path} has {len(tracks)} audio tracks, {samples.info.describe_audio_tracks()}: "
        taken += f"number {tracks.index(samples.stream)} is taken"
        if self.options.audio_track is None:
            self.warn(f"{taken}; another one is chosen with --audio_track.")
        else:
            logger.info("%s.", taken)

    def note_losses(self, source: VideoReader) -> None:
        """Tell what the picture loses by being read as 8-bit RGB."""
        for sentence in source.losses:
            self.warn(sentence)

    def note_damage(self, plan: FacePlan, source: VideoReader) -> FacePlan:
        """Tell where the video is damaged, now that it was read; the plan says so of frames without a face."""
        damaged = source.damaged_runs(plan.num_frames)
        if damaged:
            where = describe_damage(damaged, source.fps)
            self.warn(f"{self.video_path} is damaged: the picture may be wrong in {where}; use another copy of it if there is one.")
        return name_damage(plan, damaged)

    def settle(self, plan: FacePlan, source: VideoReader, samples: AudioSamples) -> Samples:
        """Fix the length of the result now that the video was seen; returns the sound of that length.

        Raises:
            InputError: there is no face to work on.
        """
        if not plan.spans:
            raise InputError(f"No face to work on in {self.video_path} ({describe_skipped(plan, source.fps)}): {self._advice(plan)}.")
        if source.problem:
            self.warnings.append(f"{self.video_path}: {source.problem}.")  # the source has said so itself
        if plan.skipped:
            self.warn(f"Left as they are: {describe_skipped(plan, source.fps)}.")
        if plan.covered:
            self.warn(f"Something may cover the mouth, and is painted over: {describe_covered(plan, source.fps)}.")
        if self.total is None:
            self.total = plan.num_frames
            sound = Fraction(len(samples), AUDIO_SAMPLE_RATE) * source.fps
            if sound < self.total:
                return FollowedBySilence(samples, int(self.total / source.fps * AUDIO_SAMPLE_RATE))
        elif self.total > plan.num_frames:
            self.warn(
                f"The sound ({self.total} frames) is longer than the video ({plan.num_frames} frames): "
                "the video plays forwards and backwards."
            )
        return samples

    def _advice(self, plan: FacePlan) -> str:
        """What to do when no face can be worked on."""
        if plan.most_faces:
            return f"choose another person with --face (now {self.options.face}), or a video in which the face is larger"
        return "name a video in which a face is clearly visible"

    def result(self, source: VideoReader, plan: FacePlan, generated: int) -> LipsyncResult:
        """The outcome, after the output file has appeared."""
        device = self.clock.device
        return LipsyncResult(
            video_path=self.video_path,
            audio_path=self.audio_path,
            output_path=self.output_path,
            width=source.width,
            height=source.height,
            fps=float(source.fps),
            frames=self.total,
            source_frames=plan.num_frames,
            generated=generated,
            duration=float(self.total / source.fps),
            seed=self.seed,
            batch_clips=self.options.batch_clips,
            spans=spans_of(plan),
            skipped=plan.skipped,
            warnings=tuple(self.warnings),
            seconds={stage: round(seconds, 3) for stage, seconds in self.clock.seconds.items()},
            peak_device_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        )


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
        job = Job(Path(video_path), Path(audio_path), Path(video_out_path), chosen, StageTimer(self.unet.device), callback)
        job.check()
        if self.unet.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.unet.device)
        source = VideoReader(job.video_path, None if job.options.keep_fps else Fraction(VIDEO_FPS))
        with job.clock("total"), AudioSamples(job.audio_path, AUDIO_SAMPLE_RATE, chosen.audio_track) as samples:
            job.note_losses(source)
            job.hear(samples, source)
            plan = job.note_damage(self._look(source, job), source)
            windows = self.audio_encoder.windows(job.settle(plan, source, samples), source.fps)
            self._announce(job, plan, source)
            generated = self._make(source, plan, windows, job)
        return job.result(source, plan, generated)

    def _look(self, source: VideoReader, job: Job) -> FacePlan:
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

    def _announce(self, job: Job, plan: FacePlan, source: VideoReader) -> None:
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

    def _make(self, source: VideoReader, plan: FacePlan, windows: AudioWindows, job: Job) -> int:
        """Second pass: decode, generate, encode; returns how many frames were generated."""
        options, generated = (
            job.options,
            sum(stop - start for start, stop, span in pieces(plan, job.total, self.num_frames) if span is not None),
        )
        sink = VideoWriter(
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
        clock: StageTimer | None = None,
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
        clock, size, random = clock or StageTimer(self.unet.device), latent_size(self.resolution), torch.Generator().manual_seed(seed)
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
        self, batch: list[Clip], make_faces: FaceGenerator, matte: FaceMatte, windows: AudioWindows, clock: StageTimer
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

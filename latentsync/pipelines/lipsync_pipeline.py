"""The pipeline: a video and a recording in, a lip-synced video out."""

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from functools import cached_property, partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from einops import rearrange, repeat
from torch import Tensor

from latentsync.constants import AUDIO_SAMPLE_RATE, VAE_FACTOR, VIDEO_FPS
from latentsync.diffusion import Conditions, denoise, shared_noise
from latentsync.errors import InputError, WeightsError
from latentsync.faces.alignment import warp_faces
from latentsync.faces.compositing import FaceMatte, inside_picture, match_skin, restore_faces, skin_weights
from latentsync.faces.detector import FaceDetector
from latentsync.faces.mask import fixed_mask, latent_mask, masked_pixels, to_pixels
from latentsync.faces.plan import FacePlan, Sighting, Span, find_faces, name_damage, plan_sightings
from latentsync.faces.selection import FaceChoice
from latentsync.media.audio import AudioSamples
from latentsync.media.deep import deep_format
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader, prefetch
from latentsync.media.video_writer import AudioTrack, VideoWriter, check_output
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import LatentCodec, sample_latents
from latentsync.pipelines.face_cache import FaceCache, digest, source_digest, temporary_cache, weights_digest
from latentsync.pipelines.memory import BatchLimiter, estimate_bytes
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.result import LipsyncResult, SpanReport, StageTimer, counted, log_all, sound_warnings, video_warnings
from latentsync.pipelines.timeline import Clip, batches, clips, frames_in, pieces, same_length
from latentsync.whisper.audio2feature import Audio2Feature, PaddedSamples

logger = logging.getLogger(__name__)

ProgressCallback = Callable[[str, int, int | None], None]  # stage ("analyse" or "generate"), frames done, frames in all where known
FrameCallback = Callable[[np.ndarray], None]
SEED_LIMIT = 2**32  # fresh seeds are small enough to be typed again
BLANK = 2.0  # grey levels, standard deviation: an aligned face with less shows nothing, and its frame stays as it is
FRAMES_AHEAD = 16  # decoded pictures that may wait for the networks, or as many as a batch takes
BYTES_AHEAD = 512 << 20  # ... but never more than this


def check_inputs(video_path: Path, audio_path: Path, output_path: Path, options: LipsyncOptions) -> None:
    """Raise InputError or OutputError, before any work, for unusable inputs, and an output that cannot be written or would cost a file."""
    deep = deep_format(probe(video_path).require_video())
    probe(audio_path).require_audio(options.audio_track)
    quality = (options.codec, options.crf, options.preset)
    check_output(output_path, [video_path, audio_path], *quality, lossless=options.lossless, deep=deep)
    if not options.overwrite and output_path.exists() and output_path.stat().st_size > 0:
        raise InputError(f"{output_path} exists already: name another output, or say --overwrite to replace it.")


class LipsyncPipeline(DiffusionPipeline):
    """A video and a voice in, a lip-synced video out.

    Args:
        vae: pixels to latents and back.
        audio_encoder: sound to windows of features.
        unet: the denoiser.
        face_detector: finds faces and their anchors in a picture.
        resolution: side of the aligned face in pixels that the denoiser was trained at.
        num_frames: frames in one clip.
        mask_name: which fixed mask the denoiser was trained with.
        inference_steps, guidance_scale: used where a job does not choose; see `LipsyncOptions`.
        paste: "face" brings the whole aligned face back into the frame, as published; "mask" only what was generated, on the face
            and inside the picture, see `FaceMatte`.
        match_skin: bring the broad colours of what was generated to those of the source, see `match_skin`.
        use_reference: False hides the reference, as from a denoiser that was trained without.
        single_reference: the last face of a span's first clip is the reference of all its frames; False: each frame is its own.
        face_cache: keeps what was found in a video and computed from its faces; None: nothing is kept.

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
        single_reference: bool = False,
        face_cache: FaceCache | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, audio_encoder=audio_encoder, unet=unet)
        self.face_detector = face_detector
        self.resolution, self.num_frames = resolution, num_frames
        self.mask = fixed_mask(resolution, mask_name)  # h w
        self.inference_steps, self.guidance_scale = inference_steps, guidance_scale
        self.paste, self.match_skin = paste, match_skin
        self.use_reference, self.single_reference = use_reference, single_reference
        self.face_cache = face_cache

    @property
    def components(self) -> dict[str, Any]:
        """The registered parts: what diffusers moves, offloads and lists."""
        return {name: getattr(self, name) for name in ("vae", "audio_encoder", "unet")}

    def __call__(
        self,
        video_path: Path | str,
        audio_path: Path | str,
        video_out_path: Path | str,
        options: LipsyncOptions | None = None,
        callback: ProgressCallback | None = None,
        on_frame: FrameCallback | None = None,
    ) -> LipsyncResult:
        """Give the person in a video other words.

        Args:
            video_path: any video that ffmpeg reads; never changed.
            audio_path: any sound that ffmpeg reads, the sound of a video too; never changed.
            video_out_path: the result, .mp4, .mov, .mkv or .webm; it appears whole or not at all.
            options: see `LipsyncOptions`.
            callback: told of progress; raising from it stops the job and leaves no output.
            on_frame: shown each finished frame (uint8 h w 3), which must not be changed.

        Raises:
            InputError: an input cannot be used, or no face was found in it.
            OutputError: the result cannot be written.
            OutOfMemoryError: a single clip is too much for the device.
        """
        options = options or LipsyncOptions()
        check_inputs(Path(video_path), Path(audio_path), Path(video_out_path), options)
        if self.unet.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.unet.device)
        timer = StageTimer(self.unet.device)
        reader = VideoReader(video_path, None if options.keep_fps else Fraction(VIDEO_FPS))
        quality = {"codec": options.codec, "crf": options.crf, "preset": options.preset, "lossless": options.lossless, "deep": reader.deep}
        open_writer = partial(VideoWriter, video_out_path, reader.width, reader.height, reader.fps, like=reader.info, **quality)
        with AudioSamples(audio_path, AUDIO_SAMPLE_RATE, options.audio_track) as samples:
            length = frames_in(Fraction(len(samples), AUDIO_SAMPLE_RATE), reader.fps) if options.length == "audio" else None
            return self.run(reader, samples, open_writer, length, options, callback, timer, on_frame)

    @torch.no_grad()
    def run(
        self,
        reader: VideoReader,
        samples: AudioSamples,
        open_writer: Callable[..., VideoWriter],
        length: int | None,
        options: LipsyncOptions,
        callback: ProgressCallback | None = None,
        timer: StageTimer | None = None,
        on_frame: FrameCallback | None = None,
    ) -> LipsyncResult:
        """The steps of inference; the video and the sound are open, and `open_writer(audio=...)` opens the result.

        The result has `length` frames, or as many as the video: where the sound is shorter than that it is followed by silence.
        Clips of one length go through the networks together, `batch_clips` at a time. Noise is drawn from the seed on the CPU (first the
        start of all clips, then clip by clip), so that neither device nor batch size matters.
        """
        options, timer = options.completed(self.inference_steps, self.guidance_scale), timer or StageTimer(self.unet.device)
        warnings = log_all(reader.losses) + sound_warnings(samples, options)

        plan, notes = self.analyse(reader, length, options, callback, timer)  # which face lies where; why a frame is left alone
        total = length or plan.num_frames
        padded = samples if length else PaddedSamples(samples, int(total / reader.fps * AUDIO_SAMPLE_RATE))
        audio = self.audio_encoder.windows(padded, reader.fps)  # one window of features a frame, computed when it is asked for

        seed = options.seed if options.seed >= 0 else secrets.randbelow(SEED_LIMIT)
        self._announce(reader, plan, total, options, seed)
        random, in_batches = torch.Generator().manual_seed(seed), BatchLimiter(self.vae)
        noise = shared_noise(self.resolution // VAE_FACTOR, random)  # where every frame starts
        track = AudioTrack(samples.info.path, float(total / reader.fps), samples.duration, options.audio_track, samples.can_be_copied)
        with (
            self._opened_cache(reader, repeats=total > plan.num_frames) as (cache, key),
            self._stage("generate", total, callback, timer) as (advance, bar),
            open_writer(audio=track) as writer,
            closing(self._aligned_clips(reader, plan, total, options, random, timer)) as stream,
        ):

            def generate(group: Sequence[Clip]) -> Sequence[Tensor]:
                with timer("audio"):
                    windows = torch.stack([audio.frames(clip.start, clip.stop) for clip in group])  # b f n d
                with timer("encode"):
                    conditions = self.encode_faces(group, cache, key)  # mask, masked and reference latents
                with timer("denoise"):
                    show = lambda step: bar.set_postfix_str(f"step {step}/{options.inference_steps}")  # noqa: E731 - one line of its own
                    latents = self.denoise(noise, conditions, windows, options, show)
                with timer("decode"):
                    return self.decode(latents, group)

            for batch in batches(stream, options.batch_clips):
                for group in same_length(batch):
                    for clip, faces in zip(group, in_batches(partial(self.finite, generate), group), strict=True):
                        with timer("composite"):
                            clip.frames = self.composite(clip, faces)
                for frame in chain.from_iterable(clip.frames for clip in batch):
                    with timer("write"):
                        writer.write(frame)
                    if on_frame is not None:
                        on_frame(frame)
                    advance()
        return self._result(reader, samples, writer, plan, options, seed, (*warnings, *notes), timer)

    def analyse(
        self, reader: VideoReader, length: int | None, options: LipsyncOptions, callback: ProgressCallback | None, timer: StageTimer
    ) -> tuple[FacePlan, list[str]]:
        """Find and follow the face in the first `length` frames, or in all: the plan, and what the user must know of the video.

        Raises InputError where there is no face to work on.
        """
        expected = reader.expected_frames
        total = min(length, expected) if length and expected else length or expected
        with self._stage("analyse", total, callback, timer) as (advance, _), closing(self._sightings(reader, length)) as sightings:
            how = (self.face_detector.smoothing, self.resolution, float(reader.fps), FaceChoice.parse(options.face))
            plan = plan_sightings(sightings, *how, progress=lambda _: advance())
        damaged = reader.damaged_runs(plan.num_frames)
        plan = name_damage(plan, damaged)
        return plan, video_warnings(reader, plan, damaged, length, options)

    def encode_faces(self, group: Sequence[Clip], cache: FaceCache | None = None, key: str = "") -> Conditions:
        """What the denoiser is shown of aligned clips of one length; each frame is its own reference, or its clip has one.

        `cache` keeps the posteriors of each crop of a frame under `key`, what these depend on beside the frame and its crop.
        """
        device = self.unet.device
        faces = torch.cat([clip.faces for clip in group])  # (b f) R R 3
        noise = torch.stack([clip.noise for clip in group]).to(device)  # b k f c h w

        def moments(places: Sequence[int] | slice) -> Tensor:
            pixels = to_pixels(faces[places].to(device))  # n c h w
            pictures = [masked_pixels(pixels, self.mask), *([] if self.single_reference else [pixels])]
            return rearrange(self.vae.moments(torch.cat(pictures).to(self.vae.dtype)), "(k n) c h w -> n k c h w", n=len(pixels))

        if cache is not None:
            found = cache.rows(key, [name for clip in group for name in clip.crop_names()], moments)
        else:
            found = moments(slice(None))
        found = rearrange(found.to(device), "(b f) k c h w -> b k f c h w", b=len(group))
        if self.single_reference:
            pixels = to_pixels(torch.stack([clip.reference for clip in group]).to(device))  # b c h w
            shown = self.vae.moments(pixels.to(self.vae.dtype))
            found = torch.cat([found, repeat(shown.to(found), "b c h w -> b 1 f c h w", f=noise.shape[2])], dim=1)
        masked, reference = rearrange(sample_latents(found, noise).to(self.vae.dtype).float(), "b k f c h w -> k b c f h w")
        mask = repeat(latent_mask(self.mask).to(device), "h w -> b 1 f h w", b=len(group), f=noise.shape[2])
        return Conditions(mask, masked, reference if self.use_reference else torch.zeros_like(reference))

    def denoise(
        self, noise: Tensor, conditions: Conditions, windows: Tensor, options: LipsyncOptions, on_step: Callable[[int], None] | None = None
    ) -> Tensor:
        """Latents float32 (b, 4, f, h/8, w/8) from one frame of noise (1, 4, 1, h/8, w/8) and audio windows (b, f, n, d)."""
        start, windows = noise.to(self.unet.device).expand_as(conditions.masked), windows.to(self.unet.device)
        return denoise(self.unet, start, conditions, windows, options.sampling, dtype=self.unet.dtype, on_step=on_step)

    def decode(self, latents: Tensor, group: Sequence[Clip] = ()) -> Tensor:
        """Latents (b, 4, f, h/8, w/8) to pixels float32 (b, f, 3, h, w); an autoencoder that wants it is shown the masked clips."""
        masked = None
        if group and self.vae.is_shown_picture:
            faces = torch.cat([clip.faces for clip in group]).to(latents.device)  # (b f) R R 3
            masked = masked_pixels(to_pixels(faces), self.mask).to(self.vae.dtype)
        pixels = self.vae.decode(rearrange(latents, "b c f h w -> (b f) c h w").to(self.vae.dtype), masked)
        return rearrange(pixels.float(), "(b f) c h w -> b f c h w", b=len(latents))

    def finite(self, generate: Callable[[Sequence[Clip]], Tensor], group: Sequence[Clip]) -> Tensor:
        """What `generate` makes of clips; where that is not finite, it is made again in float32. Raises WeightsError if that is in vain."""
        faces = generate(group)
        where, dtype = f"frames {group[0].start}-{group[-1].stop - 1}", self.unet.dtype
        if not faces.isfinite().all() and dtype != torch.float32:
            name = str(dtype).removeprefix("torch.")
            logger.warning("Numbers that are not finite came out in %s for %s: they are computed again in float32.", name, where)
            try:
                self.vae.float(), self.unet.float()
                faces = generate(group)
            finally:
                self.vae.to(dtype), self.unet.to(dtype)
        if not faces.isfinite().all():
            raise WeightsError(f"The networks gave numbers that are not finite for {where}: the weights may be damaged, load them anew.")
        return faces

    def blend(self, generated: Tensor, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """The generated mouth inside the untouched rest of the aligned face; both (..., f, 3, h, w) in [-1, 1].

        keep: masks (..., f, h, w) whose other part is where colours are compared; by default the fixed mask.
        """
        mask = self.mask.to(generated)
        if self.match_skin:
            generated = match_skin(generated, pixels, skin_weights(mask if keep is None else keep))
        return generated * (1 - mask) + pixels * mask

    def composite(self, clip: Clip, generated: Tensor) -> list[np.ndarray]:
        """The frames uint8 (h, w, 3) of a clip with generated faces (f, 3, R, R) in them; blank ones, such as a flash, stay as they are."""
        faces = self.blend(generated, to_pixels(clip.faces.to(generated.device)), clip.keep)
        pasted = restore_faces(clip.frames, faces, clip.matrices, clip.keep)
        blank = clip.faces.float().std(dim=(1, 2)).amax(dim=1) < BLANK  # f
        return [source if is_blank else frame for source, frame, is_blank in zip(clip.frames, pasted, blank.tolist(), strict=True)]

    def _aligned_clips(
        self, reader: VideoReader, plan: FacePlan, total: int, options: LipsyncOptions, random: torch.Generator, timer: StageTimer
    ) -> Iterator[Clip]:
        """The clips of the result in order; those with a face with their aligned faces, and with what of them is not pasted."""
        matte, device = FaceMatte(self.resolution), self.unet.device
        ahead = min(max(FRAMES_AHEAD, options.batch_clips * self.num_frames), max(1, BYTES_AHEAD // reader.frame_bytes))
        references: dict[int, Tensor] = {}  # of the span in work
        with closing(prefetch(reader.ping_pong(total, plan.num_frames), ahead)) as frames:
            for clip in clips(frames, plan, total, self.num_frames, self.resolution // VAE_FACTOR, random):
                if clip.matrices is not None:
                    with timer("align"):
                        clip.faces = warp_faces(clip.frames, clip.matrices, self.resolution, device)
                        if self.single_reference:
                            if clip.span not in references:
                                references = {clip.span: self._reference_face(reader, plan.spans[clip.span], clip)}
                            clip.reference = references[clip.span]
                        if self.paste == "mask":
                            inside = inside_picture(clip.matrices, (reader.width, reader.height), self.resolution, device)
                            clip.keep = 1 - (1 - self.mask.to(device)) * inside * matte(clip.faces, inside, clip.span)
                yield clip

    def _reference_face(self, reader: VideoReader, span: Span, clip: Clip) -> Tensor:
        """The last aligned face of a span's first clip, uint8 R R 3, also where a video plays backwards."""
        index = min(span.start + self.num_frames, span.stop) - 1
        if index in clip.sources:
            return clip.faces[clip.sources.index(index)]
        frames, matrix = list(reader.exactly(index, index + 1)), span.matrices[index - span.start]
        return warp_faces(frames, matrix[None], self.resolution, self.unet.device)[0]

    def _sightings(self, reader: VideoReader, length: int | None) -> Iterator[Sighting]:
        """The faces of the first `length` frames, or of all; from the cache where they are there."""

        def find() -> Iterator[Sighting]:
            with closing(prefetch(reader.frames(0, length), FRAMES_AHEAD)) as frames:
                yield from find_faces(frames, self.face_detector)

        if self.face_cache is None:
            return find()
        key = digest("faces", source_digest(reader.path), str(reader.fps), self.face_detector.name, self.face_detector.weights)
        return self.face_cache.sightings(key, length, find, lambda: not reader.met_errors and reader.problem is None)

    @contextmanager
    def _opened_cache(self, reader: VideoReader, repeats: bool) -> Iterator[tuple[FaceCache | None, str]]:
        """The cache of posteriors and the key of those of a video; one that lasts for this job where frames come again."""
        if self.face_cache is not None:
            faces = (self.resolution, self.mask.tolist(), self.single_reference)
            where = (source_digest(reader.path), str(reader.fps), *faces, self._vae_digest)
            yield self.face_cache, digest("posterior", *where)
        elif repeats:
            with temporary_cache() as cache:
                yield cache, "posterior"
        else:
            yield None, ""

    @cached_property
    def _vae_digest(self) -> str:
        return weights_digest(self.vae)

    @contextmanager
    def _stage(
        self, name: str, total: int | None, callback: ProgressCallback | None, timer: StageTimer
    ) -> Iterator[tuple[Callable[[], None], Any]]:
        """Time a pass over the video; yields what is called after each frame, and the progress bar."""
        with timer(name), self.progress_bar(total=total or 0) as bar:  # 0: unknown
            bar.set_description(name)
            done = count(1)

            def advance() -> None:
                bar.update()
                if callback is not None:
                    callback(name, next(done), total)

            yield advance, bar

    def _announce(self, reader: VideoReader, plan: FacePlan, total: int, options: LipsyncOptions, seed: int) -> None:
        """One line on what is about to happen, and what it takes."""
        unet_frames = (2 if options.sampling.is_guided else 1) * options.batch_clips * self.num_frames
        networks, is_cached = (self.unet, self.vae, self.audio_encoder), options.sampling.cache_interval > 1
        need = estimate_bytes(*networks, resolution=self.resolution, unet_frames=unet_frames, is_cached=is_cached)
        covered = sum(span.stop - span.start for span in plan.spans)
        logger.info(
            "%d frames at %.5g fps, %dx%d; %s with a face over %d of %d source frames, at most %s at once; "
            "network for %d px, %s of %s on %s in %s, seed %d, about %.2g GB of memory",
            *(total, float(reader.fps), reader.width, reader.height),
            *(counted(len(plan.spans), "span"), covered, plan.num_frames, counted(plan.most_faces, "face")),
            *(self.resolution, counted(options.inference_steps, "step"), options.sampler, self.unet.device.type),
            *(str(self.unet.dtype).removeprefix("torch."), seed, need / 1e9),
        )

    def _result(
        self,
        reader: VideoReader,
        samples: AudioSamples,
        writer: VideoWriter,
        plan: FacePlan,
        options: LipsyncOptions,
        seed: int,
        warnings: tuple[str, ...],
        timer: StageTimer,
    ) -> LipsyncResult:
        """The outcome, after the output file has appeared."""
        device, total = self.unet.device, writer.frames_written
        return LipsyncResult(
            video_path=reader.path,
            audio_path=samples.info.path,
            output_path=writer.path,
            width=reader.width,
            height=reader.height,
            fps=float(reader.fps),
            frames=total,
            source_frames=plan.num_frames,
            generated=sum(stop - start for start, stop, span in pieces(plan, total, self.num_frames) if span is not None),
            duration=float(total / reader.fps),
            seed=seed,
            batch_clips=options.batch_clips,
            spans=tuple(SpanReport(span.start, span.stop, span.shot) for span in plan.spans),
            skipped=plan.skipped,
            warnings=warnings,
            seconds=timer.report(),
            peak_device_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        )

"""The pipeline: a video and a recording in, a lip-synced video out."""

import logging
import secrets
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from fractions import Fraction
from functools import cached_property, partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from einops import rearrange, repeat
from torch import Tensor

from latentsync.config import Sampling
from latentsync.constants import AUDIO_SAMPLE_RATE, VAE_FACTOR, VIDEO_FPS
from latentsync.diffusion import Conditions, denoise, shared_noise
from latentsync.errors import InputError, WeightsError
from latentsync.faces.alignment import warp_faces
from latentsync.faces.compositing import FaceMatte, cross_fade, draw_mark, inside_picture, match_skin, restore_faces, skin_weights
from latentsync.faces.detector import FaceDetector
from latentsync.faces.mask import fixed_mask, latent_mask, masked_pixels, to_pixels
from latentsync.faces.plan import FacePlan, FaceRequest, Sighting, find_faces, name_damage, plan_sightings
from latentsync.faces.selection import FaceChoice
from latentsync.media.audio import AudioSamples
from latentsync.media.mix import FilmSound, mix
from latentsync.media.segments import SegmentedWriter
from latentsync.media.video_reader import VideoReader, prefetch
from latentsync.media.video_writer import AudioTrack, VideoWriter
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import LatentCodec, sample_latents
from latentsync.pipelines.face_cache import FaceCache, digest, source_digest, temporary_cache, weights_digest
from latentsync.pipelines.layers import Layer, Line, in_layers, packed, unpacked
from latentsync.pipelines.memory import BatchLimiter, estimate_bytes, estimate_picture_bytes, frames_ahead
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.result import (
    LipsyncResult,
    SpanReport,
    StageTimer,
    counted,
    covered_frames,
    first_frame,
    line_reports,
    log_all,
    sound_warnings,
    video_warnings,
)
from latentsync.pipelines.script import DubbingLine, DubbingScript, check_dubbing, check_inputs, open_lines, range_script
from latentsync.pipelines.streaming import LiveFaces, LiveWindows
from latentsync.pipelines.timeline import (
    Clip,
    Part,
    Piece,
    SpokenLine,
    batches,
    clip_noise,
    clips,
    frames_in,
    pieces,
    pieces_within,
    same_length,
    segment_stops,
    separate_runs,
)
from latentsync.sync_meter import LineSync, SyncMeter
from latentsync.voice_activity import SpeechOnly
from latentsync.whisper.audio2feature import Audio2Feature, PaddedSamples

logger = logging.getLogger(__name__)

ProgressCallback = Callable[[str, int, int | None], None]  # stage ("analyse" or "generate"), frames done, frames in all where known
FrameCallback = Callable[[np.ndarray], None]
SEED_LIMIT = 2**32  # fresh seeds are small enough to be typed again
BLANK = 2.0  # grey levels, standard deviation: an aligned face with less shows nothing, and its frame stays as it is
SPARE_SOUND = 10.0  # seconds of sound that are decoded beyond the length that a video's file promises
SEGMENT_SECONDS = 10
NO_MATTER = {"overwrite": None, "resume": None}  # options that do not change a result


def segment_frames(fps: Fraction) -> int:
    """Frames of a segment of a long result; shorter ones are written at once."""
    return round(SEGMENT_SECONDS * fps)


def seeded(options: LipsyncOptions) -> LipsyncOptions:
    """The same with a fresh seed where a random one is asked for."""
    return options if options.seed >= 0 else replace(options, seed=secrets.randbelow(SEED_LIMIT))


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
        sampling: used where a job does not choose; see `LipsyncOptions`.
        paste: "face" brings the whole aligned face back into the frame, as published; "mask" only what was generated, on the face
            and inside the picture, see `FaceMatte`.
        match_skin: bring the broad colours of what was generated to those of the source, see `match_skin`.
        noise_scale: standard deviation of the noise that denoising starts from.
        use_reference: False hides the reference, as from a denoiser that was trained without.
        single_reference: the face in the middle of a clip is the reference of all its frames; False: each frame is its own.
        face_cache: keeps what was found in a video and computed from its faces; None: nothing is kept.
        sync_meter: measures how lips and sound of each line fit, for the report; None: nothing does.

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
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        paste: str = "face",
        match_skin: bool = False,
        noise_scale: float = 1.0,
        use_reference: bool = True,
        single_reference: bool = False,
        face_cache: FaceCache | None = None,
        sync_meter: SyncMeter | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, audio_encoder=audio_encoder, unet=unet)
        self.face_detector = face_detector
        self.resolution, self.num_frames = resolution, num_frames
        self.mask = fixed_mask(resolution, mask_name)  # h w
        self.sampling = sampling
        self.paste, self.match_skin = paste, match_skin
        self.noise_scale, self.use_reference, self.single_reference = noise_scale, use_reference, single_reference
        self.face_cache, self.sync_meter = face_cache, sync_meter

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
        part: Part | None = None,
    ) -> LipsyncResult:
        """Give the person in a video other words.

        Args:
            video_path: any video that ffmpeg reads; never changed.
            audio_path: any sound that ffmpeg reads, the sound of a video too; never changed.
            video_out_path: the result, .mp4, .mov, .mkv or .webm; it appears whole or not at all.
            options: see `LipsyncOptions`.
            callback: told of progress; raising from it stops the job and leaves no output.
            on_frame: shown each finished frame (uint8 h w 3), which must not be changed.
            part: make some segments of a long result alone, into its work folder, while other processes make others; then the same call
                without a part makes what is missing and joins them.

        Raises:
            InputError: an input cannot be used, or no face was found in it.
            OutputError: the result cannot be written.
            OutOfMemoryError: a single clip is too much for the device.
        """
        options = options or LipsyncOptions()
        check_inputs(Path(video_path), Path(audio_path), Path(video_out_path), options)
        if options.is_range:
            return self.dub(range_script(Path(video_path), Path(audio_path), options), video_out_path, callback, on_frame, part)
        timer, options = self._begin(), seeded(options)
        reader = VideoReader(video_path, None if options.keep_fps else Fraction(VIDEO_FPS))
        needed = float(reader.expected_frames / reader.fps) + SPARE_SOUND if options.length == "video" and reader.expected_frames else None
        with AudioSamples(audio_path, AUDIO_SAMPLE_RATE, options.audio_track, needed) as samples:
            warnings = sound_warnings(samples, options.audio_track)
            length = frames_in(Fraction(len(samples), AUDIO_SAMPLE_RATE), reader.fps) if options.length == "audio" else None

            def open_writer(total: int) -> VideoWriter:
                known = None if samples.is_cut else samples.duration
                track = (float(total / reader.fps), known, options.audio_track, samples.can_be_copied)
                script = DubbingScript(reader.path, [DubbingLine("0", samples.info.path)], options)
                return self._writer(script, total, Path(video_out_path), reader, AudioTrack(samples.info.path, *track))

            lines = [Line(samples.info.path, samples, options, is_script=False)]
            return self.run(reader, lines, open_writer, length, options, callback, timer, warnings, on_frame, part)

    def dub(
        self,
        script: DubbingScript,
        video_out_path: Path | str,
        callback: ProgressCallback | None = None,
        on_frame: FrameCallback | None = None,
        part: Part | None = None,
    ) -> LipsyncResult:
        """Give people in a film other words, line by line; the film keeps its frame rate, its length, and all frames without a line.

        Arguments and failures are those of `__call__`; a failure names the line.

        Example:
            >>> lines = [DubbingLine(1.5, "anna.wav", options=LipsyncOptions(face="left")), DubbingLine("0:03.2", "carl.wav")]
            >>> pipeline.dub(DubbingScript("film.mp4", lines), "dubbed.mp4").lines
        """
        check_dubbing(script, Path(video_out_path))
        timer = self._begin()
        script = replace(script, options=seeded(script.options), lines=[replace(one, options=seeded(one.options)) for one in script.lines])
        reader, options = VideoReader(script.video, None), script.options
        film = None if reader.expected_frames is None else reader.expected_frames / reader.fps
        with open_lines(script, reader.fps, film) as (lines, mixed, warnings), tempfile.TemporaryDirectory(prefix="latentsync-") as folder:

            def open_writer(total: int) -> VideoWriter:
                sound, target = FilmSound.of(script.video, options.bed, mixed), Path(folder) / "mix.flac"
                gain = 1.0 if options.bed else options.original_gain
                warnings.extend(log_all(mix(sound, mixed, total / reader.fps, gain, target)))
                return self._writer(script, total, Path(video_out_path), reader, AudioTrack(target, float(total / reader.fps)))

            return self.run(reader, lines, open_writer, None, options, callback, timer, warnings, on_frame, part)

    def _begin(self) -> StageTimer:
        if self.unet.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.unet.device)
        return StageTimer(self.unet.device)

    def _writer(
        self, script: DubbingScript, total: int, path: Path, reader: VideoReader, track: AudioTrack
    ) -> VideoWriter | SegmentedWriter:
        """How a result of `total` frames is written: at once, or, where it is long, by segments that outlast a job that is killed."""
        options = script.options
        quality = {"crf": options.crf, "preset": options.preset, "lossless": options.lossless, "deep": reader.deep}
        open_video = partial(
            VideoWriter, width=reader.width, height=reader.height, fps=reader.fps, like=reader.info, is_generated=True, **quality
        )
        whole = open_video(path, audio=track, codec=options.codec)
        if total <= segment_frames(reader.fps):
            return whole
        told = [[str(line.start), str(line.end), {**asdict(line.options), **NO_MATTER}] for line in script.lines]
        files = [source_digest(file) for file in script.files]
        key = digest("segments", files, told, {**asdict(options), **NO_MATTER}, str(reader.fps), total, self._model_digest)
        return SegmentedWriter(path, key, partial(open_video, codec=whole.encoding.codec_name), whole, keep=options.resume)

    @cached_property
    def _model_digest(self) -> str:
        """One name for all of this pipeline that results depend on."""
        how = (self.resolution, self.num_frames, self.mask.tolist(), self.paste, self.match_skin)
        how = (*how, self.noise_scale, self.use_reference, self.single_reference)
        encoder = (weights_digest(self.audio_encoder), self.audio_encoder.feat_length, self.audio_encoder.limit)
        defaults = (asdict(self.sampling), self.face_detector.name, self.face_detector.weights)
        return digest(*how, *encoder, *defaults, weights_digest(self.unet), self._vae_digest)

    @torch.no_grad()
    def run(
        self,
        reader: VideoReader,
        lines: Sequence[Line],
        open_writer: Callable[[int], VideoWriter],
        length: int | None,
        options: LipsyncOptions,
        callback: ProgressCallback | None = None,
        timer: StageTimer | None = None,
        warnings: Sequence[str] = (),
        on_frame: FrameCallback | None = None,
        part: Part | None = None,
    ) -> LipsyncResult:
        """The steps of inference; the video and the sounds are open, and `open_writer(frames)` opens a result of so many.

        The result has `length` frames, or as many as the video: where the sound is shorter than that it is followed by silence.
        Each layer of lines takes the frames that the one before it gave out. Clips of one length go through the networks together,
        `batch_clips` at a time. Noise is drawn from the seed of a line on the CPU (first the start of all clips, then clip by clip), so
        that neither device nor batch size nor other lines matter. `warnings`: what is known already, for the result.
        """
        options, timer = options.completed(self.sampling), timer or StageTimer(self.unet.device)
        losses = log_all(reader.losses)

        in_order = in_layers(lines)
        plans, notes = self.analyse(reader, in_order, length, callback, timer)  # which face lies where; why a frame is left alone
        total = length or plans[0].num_frames
        self._announce(reader, plans, lines, total, options)

        open_line = partial(self._open_line, fps=reader.fps, total=total, is_cut=length is not None)
        cuts = [list(pieces(plan, total, self.num_frames)) for plan in plans]
        is_measured = self.sync_meter is not None and part is None and any(line.is_script for line in lines)
        open_sync = partial(LineSync, self.sync_meter, fps=reader.fps) if is_measured else None

        def new_layers() -> list[Layer]:
            told = zip(in_order, plans, cuts, strict=True)
            return [Layer(*parts, FaceMatte(self.resolution), open_line, open_sync) for parts in told]

        layers, writer, stops = new_layers(), open_writer(total), segment_stops(cuts, total, segment_frames(reader.fps))
        with (
            self._opened_cache(reader, repeats=total > plans[0].num_frames) as kept,
            self._stage("generate", total, callback, timer) as (advance, bar),
        ):
            show = lambda step: bar.set_postfix_str(f"step {step}/{options.inference_steps}")  # noqa: E731 - one line of its own

            def tell(frame: np.ndarray) -> None:
                if on_frame is not None:
                    on_frame(frame)
                advance()

            make = partial(self.make, reader, total=total, options=options, timer=timer, kept=kept, tell=tell, on_step=show)
            if part is None:
                with writer:
                    for _ in range(writer.frames_written):
                        advance()
                    make(layers, writer, stops)
            elif isinstance(writer, SegmentedWriter):
                for numbers in separate_runs(cuts, stops)[part.index :: part.count]:
                    with writer.part(stops, numbers) as some:
                        make(new_layers(), some, stops[: numbers.stop])
        return self._result(reader, layers, writer, total, options, (*losses, *warnings, *notes), timer)

    def make(
        self,
        reader: VideoReader,
        layers: Sequence[Layer],
        writer: VideoWriter | SegmentedWriter,
        stops: Sequence[int],
        total: int,
        options: LipsyncOptions,
        timer: StageTimer,
        kept: tuple[FaceCache | None, str],
        tell: Callable[[np.ndarray], None],
        on_step: Callable[[int], None],
    ) -> None:
        """The segments that end at `stops`, from where `writer` stands, by fresh layers; `tell` is shown each frame that was written."""
        begin, num_frames = writer.frames_written, layers[0].plan.num_frames  # 0, or those of a run that was interrupted
        if begin and writer.state:
            for layer, state in zip(layers, unpacked(writer.state, len(layers)), strict=True):
                layer.restore(state)
        elif begin < stops[-1]:
            self._pass_over(reader, layers, begin, options, timer)
        with closing(self._source(reader, begin, stops[-1], num_frames, options)) as source:
            for stop in stops:
                if stop <= begin:
                    continue
                frames = islice(source, stop - begin)
                for number, layer in enumerate(layers):
                    cached = kept if number == 0 else (None, "")  # the others see frames that change with the words
                    frames = self.sync(frames, layer, pieces_within(layer.cut, begin, stop), options, timer, cached, on_step)
                for frame in frames:
                    with timer("write"):
                        writer.write(frame)
                    tell(frame)
                if stop < total:
                    writer.checkpoint(packed([layer.state() for layer in layers]))
                begin = stop

    def _pass_over(self, reader: VideoReader, layers: Sequence[Layer], stop: int, options: LipsyncOptions, timer: StageTimer) -> None:
        """Bring fresh layers to their state before frame `stop` without generating: draw the noise, follow the outline of the face.

        Where the first layer sees the video itself, the others have no span that goes on at `stop`.
        """
        for number, layer in enumerate(layers):
            done = [piece for piece in pieces_within(layer.cut, 0, stop) if piece[2] is not None]
            if not done:
                continue
            last = layer.plan.spans[done[-1][2]].request
            own = [piece for piece in done if layer.plan.spans[piece[2]].request == last]
            ahead = next((piece[2] for piece in pieces_within(layer.cut, stop, layer.cut[-1][1]) if piece[2] is not None), None)
            goes_on = number == 0 and ahead == own[-1][2]
            followed = list(takewhile(lambda piece, ahead=ahead: piece[2] == ahead, reversed(done)))[::-1] if goes_on else []
            for start, end, _ in own[: len(own) - len(followed)]:
                clip_noise(end - start, self.resolution // VAE_FACTOR, layer.voice(last).random)
            if followed:
                first = followed[0][0]
                with closing(self._source(reader, first, stop, layer.plan.num_frames, options)) as frames:
                    for _ in self._aligned_clips(frames, layer, pieces_within(layer.cut, first, stop), timer):
                        pass

    @torch.no_grad()
    def generate(
        self,
        frames: Iterable[np.ndarray],
        sound: Iterable[np.ndarray],
        fps: Fraction | int = VIDEO_FPS,
        options: LipsyncOptions | None = None,
    ) -> Iterator[np.ndarray]:
        """Live use: frames and sound that arrive piece by piece in, the same frames with a new mouth out, `live_delay` frames later.

        Args:
            frames: uint8 (h, w, 3) RGB, all of one size, at `fps`; when they end, the rest comes out.
            sound: mono samples float32 in [-1, 1] at 16 kHz, in pieces (n,) of any length; the first belongs to the first frame. It is
                asked for as it is needed, at most `SOUND_AHEAD` after the clip in work; when it ends, silence follows.
            options: see `LipsyncOptions`; those of files, of batches and of pauses do nothing here.

        Memory does not grow. Both iterables are read in the calling thread, while the frames that come out are asked for. What is made of
        a frame does not depend on how the sound is cut in pieces. Raises InputError for pictures and sound of another kind.
        """
        options = seeded(options or LipsyncOptions()).completed(self.sampling)
        random = torch.Generator().manual_seed(options.seed)
        noise, matte = shared_noise(self.resolution // VAE_FACTOR, random), FaceMatte(self.resolution)
        audio, choice = LiveWindows(self.audio_encoder, sound, Fraction(fps), strength=options.strength), self._choice(options)
        faces = LiveFaces(self.face_detector, choice, Fraction(fps), self.resolution, self.num_frames, random)
        for clip in faces.clips(frames):
            if clip.matrices is None:
                audio.advance(clip.stop)
            else:
                windows = audio.frames(clip.start, clip.stop)[None]  # 1 f n d
                self.align(clip, matte)

                def make(group: Sequence[Clip], windows: Tensor = windows) -> Tensor:
                    return self.decode(self.denoise(noise, self.encode_faces(group), windows, options), group)

                clip.output = self.composite(clip, self.finite(make, [clip])[0], options.mark)
            yield from clip.frames if clip.output is None else clip.output

    def analyse(
        self,
        reader: VideoReader,
        layers: Sequence[Sequence[Line]],
        length: int | None,
        callback: ProgressCallback | None,
        timer: StageTimer,
    ) -> tuple[list[FacePlan], list[str]]:
        """Find and follow the faces in the first `length` frames, or in all: a plan a layer, and what the user must know of the video.

        Raises InputError where there is no face to work on.
        """
        expected = reader.expected_frames
        total = min(length, expected) if length and expected else length or expected
        requests = [[FaceRequest(self._choice(one.options, one.name), one.start, one.stop, one.name) for one in layer] for layer in layers]
        describe = any(request.choice.reference is not None for layer in requests for request in layer)
        with (
            self._stage("analyse", total, callback, timer) as (advance, _),
            closing(self._sightings(reader, length, describe, lambda: advance(0))) as sightings,
        ):
            how = (self.face_detector.smoothing, self.resolution, float(reader.fps), requests)
            plans = plan_sightings(sightings, *how, progress=lambda _: advance())
        damaged = reader.damaged_runs(plans[0].num_frames)
        plans = [name_damage(plan, damaged) for plan in plans]
        return plans, video_warnings(reader, layers, plans, damaged, length)

    def sync(
        self,
        frames: Iterable[np.ndarray],
        layer: Layer,
        cut: Iterable[Piece],
        options: LipsyncOptions,
        timer: StageTimer,
        kept: tuple[FaceCache | None, str] = (None, ""),
        on_step: Callable[[int], None] | None = None,
    ) -> Iterator[np.ndarray]:
        """The frames of pieces of a layer, with new mouths; those without a face of it are the very same arrays.

        `kept`: a cache of posteriors and their key, see `encode_faces`.
        """
        in_batches = BatchLimiter(self.vae)

        def generate(group: Sequence[Clip]) -> Sequence[Tensor]:
            with timer("audio"):
                windows = torch.stack([clip.voice.audio(clip.start, clip.stop) for clip in group])  # b f n d
            with timer("encode"):
                conditions = self.encode_faces(group, *kept)  # mask, masked and reference latents
            with timer("denoise"):
                noise = torch.cat([clip.voice.noise for clip in group])  # b c 1 h w
                latents = self.denoise(noise, conditions, windows, options, on_step)
            with timer("decode"):
                return self.decode(latents, group)

        for batch in batches(self._aligned_clips(frames, layer, cut, timer), options.batch_clips):
            for group in same_length(batch):
                for clip, faces in zip(group, in_batches(partial(self.finite, generate), group), strict=True):
                    clip.output, clip.frames = timer.each("composite", self.composite(clip, faces, options.mark)), []
            for clip in batch:
                yield from clip.frames if clip.output is None else self.measured(clip, layer, timer)

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
        """Latents float32 (b, 4, f, h/8, w/8) from one frame of noise (1 or b, 4, 1, h/8, w/8) and audio windows (b, f, n, d)."""
        start, windows = self.noise_scale * noise.to(self.unet.device).expand_as(conditions.masked), windows.to(self.unet.device)
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

    def composite(self, clip: Clip, generated: Tensor, is_marked: bool = False) -> Iterator[np.ndarray]:
        """The frames uint8 (h, w, 3) of a clip with generated faces (f, 3, R, R) by their shares; blank ones (a flash) stay as they are.

        Each is made when it is asked for, from a frame that is let go of then: large ones do not add up. `is_marked`: see `draw_mark`.
        """
        faces = self.blend(generated, to_pixels(clip.faces.to(generated.device)), clip.keep)
        blank = clip.faces.float().std(dim=(1, 2)).amax(dim=1) < BLANK  # f
        shares, frames, keep = (clip.shares * ~blank.numpy(force=True)).tolist(), deque(clip.frames), clip.keep

        def pasted(place: int) -> np.ndarray:
            frame, this = frames.popleft(), slice(place, place + 1)
            (made,) = restore_faces([frame], faces[this], clip.matrices[this], None if keep is None else keep[this])
            made = cross_fade(frame, made, shares[place])
            return draw_mark(made) if is_marked else made

        return (pasted(place) if share else frames.popleft() for place, share in enumerate(shares))

    def measured(self, clip: Clip, layer: Layer, timer: StageTimer) -> Iterator[np.ndarray]:
        """The output of a clip as it is; how its new mouths fit the sound of its line is noted where that is asked for."""
        index = layer.plan.spans[clip.span].request
        sync, faces = layer.sync(index), []
        for frame, matrix in zip(clip.output, clip.matrices, strict=True):
            if sync is not None:
                with timer("measure"):
                    faces.append(warp_faces([frame], matrix[None], self.resolution, self.unet.device))
                    if len(faces) == len(clip.matrices):
                        sync.add(torch.cat(faces), clip.start - layer.lines[index].start)
            yield frame

    def _open_line(self, line: Line, fps: Fraction, total: int, is_cut: bool) -> SpokenLine:
        """What the clips of a line are made from, in a result of `total` frames; `is_cut`: the result is as long as the sound."""
        frames = (line.stop or total) - line.start
        samples = line.samples if is_cut else PaddedSamples(line.samples, int(frames / fps * AUDIO_SAMPLE_RATE))
        random = torch.Generator().manual_seed(line.options.seed)
        noise = shared_noise(self.resolution // VAE_FACTOR, random)
        heard = SpeechOnly(samples, fps, frames) if line.options.silence == "close" else samples
        windows = self.audio_encoder.windows(heard, fps, line.options.strength)
        return SpokenLine(windows, line.start, random, noise)

    def _source(self, reader: VideoReader, first: int, total: int, num_frames: int, options: LipsyncOptions) -> Iterator[np.ndarray]:
        """The pictures of frames `first` to `total` of the result, of a video of `num_frames`, decoded ahead."""
        ahead = frames_ahead(reader.frame_bytes, options.batch_clips * self.num_frames)
        return prefetch(reader.ping_pong(total, num_frames, first=first), ahead)

    def _aligned_clips(self, frames: Iterable[np.ndarray], layer: Layer, cut: Iterable[Piece], timer: StageTimer) -> Iterator[Clip]:
        """The clips of pieces of a layer in order; those with a face with their aligned faces, and with what of them is not pasted."""
        for clip in clips(frames, layer.plan, cut, self.resolution // VAE_FACTOR, layer.voice):
            if clip.matrices is not None:
                with timer("align"):
                    self.align(clip, layer.matte)
            yield clip

    def align(self, clip: Clip, matte: FaceMatte) -> None:
        """Give a clip its aligned faces, their one reference, and what of them is not pasted; `matte` has seen the clips before it."""
        device, (height, width) = self.unet.device, clip.frames[0].shape[:2]
        clip.faces = warp_faces(clip.frames, clip.matrices, self.resolution, device)
        if self.single_reference:
            clip.reference = clip.faces[len(clip.faces) // 2]
        if self.paste == "mask":
            inside = inside_picture(clip.matrices, (width, height), self.resolution, device)
            clip.keep = 1 - (1 - self.mask.to(device)) * inside * matte(clip.faces, inside, clip.span)

    def _choice(self, options: LipsyncOptions, name: str = "") -> FaceChoice:
        """Whose mouth is changed. Raises InputError, with the `name` of the line, for a picture without a face."""
        choice, path = FaceChoice.parse(options.face), options.face_ref
        if path is None:
            return choice
        (picture,) = VideoReader(path, None).frames(0, 1)
        ((faces, _),) = find_faces([picture], self.face_detector, describe=True)
        if not faces:
            raise InputError(f"{name or 'face_ref'}: no face was found in {path}: give a picture with a large face, seen from the front.")
        return replace(choice, reference=max(faces, key=lambda face: face.width * face.height).appearance)

    def _sightings(self, reader: VideoReader, length: int | None, describe: bool, on_frame: Callable[[], None]) -> Iterator[Sighting]:
        """The faces of the first `length` frames, or of all, on request described; from the cache where they are there.

        `on_frame` may raise to stop.
        """

        def find() -> Iterator[Sighting]:
            with closing(prefetch(reader.frames(0, length), frames_ahead(reader.frame_bytes))) as frames:
                watched = (on_frame() or frame for frame in frames)  # many frames are read before the faces of the first are known
                yield from find_faces(watched, self.face_detector, describe)

        if self.face_cache is None:
            return find()
        how = (str(reader.fps), self.face_detector.name, self.face_detector.weights)
        key = digest("described faces" if describe else "faces", source_digest(reader.path), *how)
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
    ) -> Iterator[tuple[Callable[..., None], Any]]:
        """Time a pass over the video; yields what is called after each frame (with 0: the pass goes on), and the progress bar."""
        with timer(name), self.progress_bar(total=total or 0) as bar:  # 0: unknown
            bar.set_description(name)
            done = 0

            def advance(frames: int = 1) -> None:
                nonlocal done
                done += frames
                bar.update(frames)
                if callback is not None:
                    callback(name, done, total)

            yield advance, bar

    def _announce(self, reader: VideoReader, plans: Sequence[FacePlan], lines: Sequence[Line], total: int, options: LipsyncOptions) -> None:
        """One line on what is about to happen, and what it takes."""
        unet_frames = (2 if options.sampling.is_guided else 1) * options.batch_clips * self.num_frames
        networks, is_cached = (self.unet, self.vae, self.audio_encoder), options.sampling.cache_interval > 1
        need = estimate_bytes(*networks, resolution=self.resolution, unet_frames=unet_frames, is_cached=is_cached)
        spans = [span for plan in plans for span in plan.spans]
        plays_back = total > plans[0].num_frames
        pictures = estimate_picture_bytes(reader.frame_bytes, options.batch_clips * self.num_frames, plays_back=plays_back)
        logger.info(
            "%d frames at %.5g fps, %dx%d; %s with a face over %d of %d source frames, at most %s at once; "
            "network for %d px, %s of %s on %s in %s, seed %s, about %.2g GB of memory and %.2g GB for pictures",
            *(total, float(reader.fps), reader.width, reader.height),
            *(counted(len(spans), "span"), covered_frames(spans), plans[0].num_frames, counted(plans[0].most_faces, "face")),
            *(self.resolution, counted(options.inference_steps, "step"), options.sampler, self.unet.device.type),
            *(
                str(self.unet.dtype).removeprefix("torch."),
                ", ".join(dict.fromkeys(str(one.options.seed) for one in lines)),
                need / 1e9,
                pictures / 1e9,
            ),
        )

    def _result(
        self,
        reader: VideoReader,
        layers: Sequence[Layer],
        writer: VideoWriter | SegmentedWriter,
        total: int,
        options: LipsyncOptions,
        warnings: tuple[str, ...],
        timer: StageTimer,
    ) -> LipsyncResult:
        """The outcome, after the output file has appeared."""
        device = self.unet.device
        lines, spans = line_reports(layers, reader.fps), [span for layer in layers for span in layer.plan.spans]
        return LipsyncResult(
            video_path=reader.path,
            audio_path=lines[0].audio_path,
            output_path=writer.path,
            width=reader.width,
            height=reader.height,
            fps=float(reader.fps),
            frames=total,
            source_frames=layers[0].plan.num_frames,
            generated=covered_frames(SpanReport(start, stop, 0) for one in layers for start, stop, span in one.cut if span is not None),
            duration=float(total / reader.fps),
            seed=options.seed,
            batch_clips=options.batch_clips,
            spans=tuple(SpanReport.of(span) for span in sorted(spans, key=first_frame)),
            skipped=tuple(sorted((run for one in lines for run in one.skipped), key=first_frame)),
            lines=lines,
            warnings=warnings,
            seconds=timer.report(),
            peak_device_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        )

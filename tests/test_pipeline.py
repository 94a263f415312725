"""The six steps end to end against the published code's numbers, and what must hold for any clip."""

import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden_recipe import GOLDEN, weights_sha256
from refusals import refused
from tiny_pipeline import (
    CASE,
    NUMBERS,
    SHAPES,
    MemoryReader,
    MemoryWriter,
    reference_frames,
    reference_pipeline,
    run,
    silence_unet,
)

from latentsync.config import Sampling
from latentsync.constants import VAE_FACTOR
from latentsync.diffusion import shared_noise
from latentsync.errors import InputError, OutOfMemoryError, WeightsError
from latentsync.faces.alignment import warp_faces
from latentsync.faces.compositing import FaceMatte, draw_mark
from latentsync.faces.mask import to_pixels
from latentsync.faces.plan import FacePlan, SkippedRun, Span, plan_spans
from latentsync.media.deep import DeepFormat, changed_planes, deep_frame
from latentsync.media.probe import Colour
from latentsync.media.video_reader import source_index
from latentsync.pipelines.build import compile_networks, resolve_dtype
from latentsync.pipelines.face_cache import FaceCache
from latentsync.pipelines.layers import Line
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.memory import BatchLimiter, is_out_of_memory
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.timeline import Clip, batches, clips, pieces

SEED = CASE["seed"]["torch.manual_seed"]
TOTAL = CASE["shapes"]["video_out"][0]
OPTIONS = LipsyncOptions(quality="fine", seed=SEED).completed(Sampling(CASE["config"]["steps"], CASE["config"]["guidance_scale"]))
ONE_STEP = replace(OPTIONS, inference_steps=1)
VOICES = lambda _: SimpleNamespace(random=torch.Generator())  # noqa: E731 - of clips whose noise does not matter
LATENTS = {key: CASE["tolerance"]["latents"][key] for key in ("rtol", "atol")}


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with wave.open(str(GOLDEN / "speech_3p2s_16k.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32768
    return samples[: CASE["shapes"]["audio_out"][0]]


@pytest.fixture(scope="module")
def one_step(speech: np.ndarray) -> np.ndarray:
    return run(reference_pipeline(), speech, ONE_STEP).astype(int)


def assert_frames(ours: np.ndarray, theirs: torch.Tensor) -> None:
    difference = np.abs(ours.astype(int) - theirs.numpy().astype(int))
    assert difference.max() <= 2
    assert difference.mean() <= 0.05


def test_weights_are_those_of_the_case() -> None:
    state = reference_pipeline().unet.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == {key: entry[0] for key, entry in SHAPES.items()}
    assert weights_sha256(state) == CASE["weights_digest"]["sha256_sorted_key_then_f4_bytes"]


def test_frames_of_the_whole_pipeline(speech: np.ndarray) -> None:
    output = run(reference_pipeline(), speech, OPTIONS)
    assert list(output.shape) == CASE["shapes"]["video_out"]
    assert_frames(output[[0, 11, 12, 15, 16, 21]], NUMBERS["video_frames_0_11_12_15_16_21"])


def test_a_denoiser_that_predicts_zero(speech: np.ndarray) -> None:
    pipeline = reference_pipeline()
    silence_unet(pipeline.unet)
    assert_frames(run(pipeline, speech, OPTIONS)[:1], NUMBERS["zero_unet_video_frame_0"][None])


def test_a_deep_frame_takes_the_new_mouth_along(speech: np.ndarray, one_step: np.ndarray) -> None:
    layout, writer = DeepFormat(None, 8, True, Colour()), MemoryWriter()
    stored = [np.concatenate([frame[..., place].ravel() for place in (1, 2, 0, 1)]) for frame in reference_frames()]  # G B R, and any alpha
    pictures = [deep_frame(*pair, layout) for pair in zip(reference_frames(), stored, strict=True)]
    reference_pipeline().run(MemoryReader(pictures), [Line(Path("memory.wav"), speech, ONE_STEP)], writer, TOTAL, ONE_STEP)
    assert np.array_equal(np.stack(writer), one_step)
    height, width = pictures[0].shape[:2]
    for k, frame in enumerate(writer):
        green, blue, red, alpha = layout.planes(changed_planes(frame), width, height)
        assert np.array_equal(np.stack([red, green, blue], axis=-1), one_step[k])
        assert np.array_equal(alpha, reference_frames()[source_index(k, 12)][..., 1])


def prepared(pipeline: LipsyncPipeline) -> tuple[torch.Tensor, list[Clip]]:
    """The noise and the aligned clips of the case, for the steps one by one."""
    source, random = reference_frames(), torch.Generator().manual_seed(SEED)
    plan = plan_spans(source, pipeline.face_detector, pipeline.resolution, 25.0)
    shown = [source[source_index(i, len(source))] for i in range(TOTAL)]
    size = pipeline.resolution // VAE_FACTOR
    noise, voice = shared_noise(size, random), SimpleNamespace(random=random)
    aligned = list(clips(shown, plan, pieces(plan, TOTAL, 16), size, lambda _: voice))
    for clip in aligned:
        clip.faces = warp_faces(clip.frames, clip.matrices, pipeline.resolution)
    return noise, aligned


@torch.no_grad()
def test_every_step_of_the_pipeline(speech: np.ndarray) -> None:
    pipeline = reference_pipeline()
    noise, both = prepared(pipeline)
    audio = pipeline.audio_encoder.windows(speech)
    torch.testing.assert_close(noise, NUMBERS["init_noise"])
    assert [len(clip.frames) for clip in both] == [shape[2] for shape in CASE["shapes"]["chunks"]]
    for k, clip in enumerate(both):
        torch.testing.assert_close(clip.noise[0], NUMBERS[f"encode_noise_masked_chunk{k}"])
        torch.testing.assert_close(clip.noise[1], NUMBERS[f"encode_noise_ref_chunk{k}"])
        conditions = pipeline.encode_faces([clip])
        torch.testing.assert_close(conditions.mask[0, 0, 0], NUMBERS["mask_latents_chunk0_frame0"], **LATENTS)
        torch.testing.assert_close(conditions.masked, NUMBERS[f"masked_latents_chunk{k}"], **LATENTS)
        torch.testing.assert_close(conditions.reference, NUMBERS[f"ref_latents_chunk{k}"], **LATENTS)
        latents = pipeline.denoise(noise, conditions, audio.frames(clip.start, clip.stop)[None], OPTIONS)
        torch.testing.assert_close(latents, NUMBERS[f"final_latents_chunk{k}"], **LATENTS)
        decoded = pipeline.decode(latents)[0]
        blended = pipeline.blend(decoded, to_pixels(clip.faces))
        if k == 0:
            torch.testing.assert_close(decoded[0], NUMBERS["decoded_chunk0_frame0"], rtol=0, atol=0.009)
            torch.testing.assert_close(blended[[0, 15]], NUMBERS["pasted_chunk0_frames0_15"], rtol=0, atol=CASE["tolerance"]["pasted"])
        else:
            torch.testing.assert_close(blended[5], NUMBERS["pasted_chunk1_frame5"], rtol=0, atol=CASE["tolerance"]["pasted"])
    pipeline.use_reference = False
    hidden = pipeline.encode_faces([clip])
    assert torch.equal(hidden.masked, conditions.masked) and not hidden.reference.any()
    pipeline.use_reference, pipeline.single_reference = True, True
    clip.reference = clip.faces[2]
    single = pipeline.encode_faces([clip])
    assert torch.equal(single.masked, conditions.masked) and not torch.equal(single.reference, conditions.reference)
    torch.testing.assert_close(single.reference[0, :, 2], conditions.reference[0, :, 2], **LATENTS)


def test_one_face_is_the_reference_of_a_clip() -> None:
    pipeline = reference_pipeline()
    _, (clip, _) = prepared(pipeline)
    pipeline.align(clip, FaceMatte(pipeline.resolution))
    assert clip.reference is None
    pipeline.single_reference = True
    pipeline.align(clip, FaceMatte(pipeline.resolution))
    assert torch.equal(clip.reference, clip.faces[8])


@torch.no_grad()
@pytest.mark.parametrize(("silent", "guidance", "expected"), [(True, 1.5, "zero_unet"), (False, 1.0, "no_cfg")])
def test_latents_without_a_denoiser_or_without_guidance(speech: np.ndarray, silent: bool, guidance: float, expected: str) -> None:
    pipeline = reference_pipeline()
    if silent:
        silence_unet(pipeline.unet)
    noise, (clip, _) = prepared(pipeline)
    windows = pipeline.audio_encoder.windows(speech).frames(0, 16)[None]
    latents = pipeline.denoise(noise, pipeline.encode_faces([clip]), windows, replace(OPTIONS, guidance_scale=guidance))
    torch.testing.assert_close(latents, NUMBERS[f"{expected}_final_latents_chunk0"], **LATENTS)
    if silent:
        blended = pipeline.blend(pipeline.decode(latents)[0], to_pixels(clip.faces))[0]
        torch.testing.assert_close(blended, NUMBERS["zero_unet_pasted_chunk0_frame0"], rtol=0, atol=CASE["tolerance"]["pasted"])


def test_blank_frames_and_those_of_a_hidden_mouth_stay_as_they_are() -> None:
    pipeline = reference_pipeline()
    _, (clip, _) = prepared(pipeline)
    clip.frames[1] = np.full_like(clip.frames[1], 255)
    clip.faces[1] = 255
    made = torch.zeros(16, 3, pipeline.resolution, pipeline.resolution)
    whole = list(pipeline.composite(clip, made))
    assert whole[1].min() == 255 and not np.array_equal(whole[0], clip.frames[0])
    clip.shares[:3] = 0, 1, 0.25
    faded = list(pipeline.composite(clip, made))
    assert faded[0] is clip.frames[0] and faded[1] is clip.frames[1] and np.array_equal(faded[3], whole[3])
    change, full = (np.abs(frames[2].astype(int) - clip.frames[2]) for frames in (faded, whole))
    assert np.abs(change - full / 4).max() <= 0.5 and (change[full == 0] == 0).all()
    marked = list(pipeline.composite(clip, made, is_marked=True))
    places = [np.argwhere(np.any(one != other, axis=2)) for one, other in zip(marked, faded, strict=True)]
    assert not len(places[0]) and not len(places[1]) and marked[0] is clip.frames[0]  # frames without a new mouth have no mark
    height = len(whole[3])
    assert len(places[3]) and places[3].min(axis=0)[0] > height * 0.7 and np.array_equal(draw_mark(marked[3].copy()), marked[3])


def test_strength_moves_the_mouth_by_what_the_sound_asks_for(speech: np.ndarray, one_step: np.ndarray) -> None:
    made = {strength: run(reference_pipeline(), speech, replace(ONE_STEP, strength=strength)).astype(int) for strength in (0.5, 1.5)}
    far, near = (np.abs(made[strength] - one_step).mean() for strength in (1.5, 0.5))
    assert near > 0 and far > 0
    for name, value in (("strength", 1.6), ("strength", -0.1), ("silence", "open")):
        refused(InputError, name, LipsyncOptions, **{name: value})


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 1), ("dpm++", 2), ("unipc", 2)])
def test_batches_change_nothing_but_rounding(speech: np.ndarray, sampler: str, steps: int) -> None:
    options = replace(ONE_STEP, sampler=sampler, inference_steps=steps)
    one, three = (run(reference_pipeline(), np.tile(speech, 4), replace(options, batch_clips=n), 40).astype(int) for n in (1, 3))
    difference = np.abs(one - three)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_about_the_same_video(speech: np.ndarray, one_step: np.ndarray, dtype: torch.dtype) -> None:
    pipeline = reference_pipeline()
    pipeline.unet.to(dtype)
    pipeline.vae.to(dtype)
    assert np.abs(run(pipeline, speech, ONE_STEP).astype(int) - one_step).mean() < 2


def plan_of(*runs: tuple[int, int, int | None]) -> FacePlan:
    """A plan from (start, stop, span or None)."""
    eye = np.eye(2, 3, dtype=np.float32)
    spans = tuple(
        Span(a, b, 0, np.stack([eye * (index + 1)] * (b - a)), np.zeros((b - a, 4), np.float32), np.ones(b - a))
        for a, b, index in runs
        if index is not None
    )
    return FacePlan(runs[-1][1], 1, 1, spans, tuple(SkippedRun(a, b, "no face") for a, b, index in runs if index is None))


def test_clips_never_mix_spans_and_cover_every_frame() -> None:
    plan = plan_of((0, 20, 0), (20, 25, None), (25, 30, 1))
    cut = list(pieces(plan, 70, 16))
    assert cut[:4] == [(0, 16, 0), (16, 20, 0), (20, 25, None), (25, 35, 1)]  # the second span goes on backwards over the turn
    assert [start for start, _, _ in cut] == [0, *(stop for _, stop, _ in cut[:-1])]
    assert cut[-1][1] == 70
    assert all(stop - start <= 16 for start, stop, _ in cut)
    for start, stop, span in cut:
        inside = {next((k for k, s in enumerate(plan.spans) if s.start <= source_index(i, 30) < s.stop), None) for i in range(start, stop)}
        assert inside == {span}


def test_clips_follow_their_frames_back_and_forth() -> None:
    plan = plan_of((0, 3, 0))
    plan.spans[0].matrices[:] = np.arange(3)[:, None, None]
    frames = [np.full((2, 2, 3), source_index(i, 3), np.uint8) for i in range(8)]
    (clip,) = clips(frames, plan, pieces(plan, 8, 16), 4, VOICES)
    assert clip.matrices[:, 0, 0].tolist() == [0, 1, 2, 2, 1, 0, 0, 1] == [frame[0, 0, 0] for frame in clip.frames]


def test_batches_hold_a_bounded_number_of_clips() -> None:
    plan = plan_of((0, 40, None), (40, 90, 0), (90, 200, None))
    frames = (np.zeros((1, 1, 3), np.uint8) for _ in range(200))
    groups = list(batches(clips(frames, plan, pieces(plan, 200, 16), 1, VOICES), 2))
    assert sum(len(clip.frames) for group in groups for clip in group) == 200
    assert max(len(group) for group in groups) <= 5
    assert max(sum(clip.matrices is not None for clip in group) for group in groups) == 2
    starts = [clip.start for group in groups for clip in group]
    assert starts == sorted(starts)


def test_memory_that_runs_out_halves_the_batch() -> None:
    sizes: list[int] = []

    def work(items: list[int]) -> list[int]:
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [item * 10 for item in items]

    in_batches = BatchLimiter(reference_pipeline().vae)
    assert in_batches(work, [1, 2, 3, 4, 5]) == [10, 20, 30, 40, 50]
    assert in_batches(work, [1, 2, 3]) == [10, 20, 30]
    assert sizes == [5, 2, 2, 1, 2, 1]


def test_a_clip_that_never_fits_and_other_failures_are_told() -> None:
    def fail(message: str) -> None:
        raise RuntimeError(message)

    with pytest.raises(OutOfMemoryError, match="a single clip"):
        BatchLimiter(reference_pipeline().vae)(lambda _: fail("DefaultCPUAllocator: can't allocate memory"), [1])
    with pytest.raises(RuntimeError, match="shapes"):
        BatchLimiter(reference_pipeline().vae)(lambda _: fail("shapes do not match"), [1, 2])
    for message in ("CUDA error: out of memory", "MPS backend out of memory (allocated 1 GB)", "CUBLAS_STATUS_ALLOC_FAILED"):
        assert is_out_of_memory(RuntimeError(message))


def test_a_run_that_is_short_of_memory_decodes_fewer_frames_at_once(speech: np.ndarray, one_step: np.ndarray, monkeypatch) -> None:
    pipeline, calls = reference_pipeline(), []
    decode = pipeline.vae.decode

    def scarce(latents: torch.Tensor, *more: object) -> torch.Tensor:
        calls.append(pipeline.vae.slice_size)
        if pipeline.vae.slice_size is None or pipeline.vae.slice_size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(latents, *more)

    monkeypatch.setattr(pipeline.vae, "decode", scarce)
    assert np.abs(run(pipeline, speech, ONE_STEP) - one_step).max() <= 1
    assert calls[:3] == [None, 8, 4]


def test_a_masked_paste_stays_off_the_border_of_the_picture(speech: np.ndarray, one_step: np.ndarray) -> None:
    """The crop of this case leaves the picture by ten rows at its lower edge; the published paste goes up to it, as golden numbers want."""
    source, pipeline = np.stack([reference_frames()[source_index(i, 12)] for i in range(TOTAL)]), reference_pipeline()
    pipeline.paste = "mask"
    change = np.abs(run(pipeline, speech, ONE_STEP).astype(int) - source)
    assert np.abs(one_step[:, -1] - source[:, -1]).mean() > 3 and change[:, -1].max() <= 1
    assert change[:, 85:95, 70:90].mean() > 3, "the mouth is new"


def test_numbers_that_are_not_finite_are_computed_again_in_float32(
    speech: np.ndarray, one_step: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: LipsyncPipeline, noise: torch.Tensor, *rest: object) -> torch.Tensor:
        latents = denoise(self, noise, *rest)
        if self.unet.dtype != torch.float32 or always:
            latents[0, 0, 0, 0, 0] = torch.nan
        return latents

    denoise, always = LipsyncPipeline.denoise, False
    monkeypatch.setattr(LipsyncPipeline, "denoise", broken)
    pipeline = reference_pipeline()
    pipeline.vae.bfloat16(), pipeline.unet.bfloat16()
    output = run(pipeline, speech, ONE_STEP).astype(int)
    assert np.abs(output - one_step).max() <= 12 and np.abs(output - one_step).mean() < 1  # the weights were rounded to bfloat16
    assert "computed again in float32" in caplog.text and pipeline.unet.dtype == torch.bfloat16
    always = True
    with pytest.raises(WeightsError, match="not finite for frames 0-15"):
        run(reference_pipeline(), speech, ONE_STEP)


def test_a_video_is_analysed_and_encoded_once(speech: np.ndarray, one_step: np.ndarray, tmp_path: Path) -> None:
    """Twelve frames play forwards and backwards in 22; a cache that is kept serves another sound."""

    def encoded(cache: FaceCache | None, length: int, anchors: list | None = None) -> tuple[np.ndarray, int]:
        pipeline, counts = reference_pipeline(anchors), []
        pipeline.face_cache, moments = cache, pipeline.vae.moments
        pipeline.vae.moments = lambda pixels: counts.append(len(pixels) // 2) or moments(pixels)
        return run(pipeline, speech, ONE_STEP, length).astype(int), sum(counts)

    frames, count = encoded(None, TOTAL)
    assert count == 12 and np.abs(frames - one_step).max() <= 1
    cache = FaceCache(tmp_path / "cache")
    assert encoded(cache, 8)[1] == 8
    again, more = encoded(cache, TOTAL)
    assert more == 4 and np.abs(again - one_step).max() <= 1
    cached, none = encoded(cache, TOTAL, anchors=[])  # a detector that finds nothing
    assert none == 0 and np.array_equal(cached, again)


def test_automatic_precision_is_what_the_processor_is_fast_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, dtype in (("amx_bf16", torch.bfloat16), ("avx512_bf16", torch.bfloat16), ("avx2", torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=capability: {name: True})
        assert resolve_dtype("auto", torch.device("cpu")) == dtype
    assert resolve_dtype("fp32", torch.device("cpu")) == torch.float32


def test_only_whole_clips_run_compiled(
    speech: np.ndarray, one_step: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lengths: list[int] = []

    def compiled(forward: Callable, dynamic: bool) -> Callable:
        return lambda sample, *rest: lengths.append(sample.shape[2]) or forward(sample, *rest)

    def no_compiler(*_: object) -> None:
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(torch, "compile", compiled)
    pipeline = reference_pipeline()
    compile_networks(pipeline)
    assert np.abs(run(pipeline, speech, ONE_STEP).astype(int) - one_step).max() <= 1
    assert {16} <= set(lengths) and 6 not in lengths  # 22 frames are a clip of 16 and one of 6
    monkeypatch.setattr(torch, "compile", lambda forward, dynamic: no_compiler)
    pipeline = reference_pipeline()
    compile_networks(pipeline)
    assert "cannot be compiled here (no compiler): going on without" in caplog.text
    assert "forward" not in vars(pipeline.unet) and "forward" not in vars(pipeline.vae.vae.decoder)


def test_what_is_not_finite_is_never_kept(tmp_path: Path) -> None:
    cache = FaceCache(tmp_path)
    assert cache.rows("key", ["a", "b", "a"], lambda places: torch.tensor([[1.0], [torch.nan]])[places]).isnan().flatten().tolist() == [
        0,
        1,
        0,
    ]
    asked: list[list[int]] = []
    assert cache.rows("key", ["b", "a"], lambda places: asked.append(places) or torch.tensor([[2.0]])).flatten().tolist() == [2.0, 1.0]
    assert asked == [[0]]  # the row "b" alone

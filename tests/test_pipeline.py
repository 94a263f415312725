"""The six steps end to end against the published code's numbers, and what must hold for any clip."""

import wave
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_recipe import GOLDEN, weights_sha256
from tiny_pipeline import CASE, NUMBERS, SHAPES, reference_frames, reference_pipeline, silence_unet

from latentsync.diffusion import denoise, shared_noise
from latentsync.errors import OutOfMemoryError
from latentsync.faces.alignment import warp_faces
from latentsync.faces.mask import fixed_mask, to_pixels
from latentsync.faces.plan import FacePlan, SkippedRun, Span, plan_spans
from latentsync.media.video_reader import source_index
from latentsync.pipelines.lipsync_pipeline import FaceGenerator, in_smaller_batches, is_out_of_memory, latent_size
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.result import StageTimer
from latentsync.pipelines.timeline import batches, clips, pieces

SEED = CASE["seed"]["torch.manual_seed"]
TOTAL = CASE["shapes"]["video_out"][0]
OPTIONS = LipsyncOptions(inference_steps=CASE["config"]["steps"], guidance_scale=CASE["config"]["guidance_scale"], seed=SEED)
LATENTS = {key: CASE["tolerance"]["latents"][key] for key in ("rtol", "atol")}


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with wave.open(str(GOLDEN / "speech_3p2s_16k.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32768
    return samples[: CASE["shapes"]["audio_out"][0]]


def make(pipeline, speech: np.ndarray, options: LipsyncOptions = OPTIONS) -> np.ndarray:
    """The output frames of the case (t, h, w, 3)."""
    source = reference_frames()
    plan = plan_spans(source, pipeline.face_detector, pipeline.resolution, 25.0)
    shown = [source[source_index(i, len(source))] for i in range(TOTAL)]
    windows = pipeline.audio_encoder.windows(speech)
    return np.stack(list(pipeline.generate(shown, plan, TOTAL, windows, options, options.seed)))


def assert_frames(ours: np.ndarray, theirs: torch.Tensor) -> None:
    difference = np.abs(ours.astype(int) - theirs.numpy().astype(int))
    assert difference.max() <= 2
    assert difference.mean() <= 0.05


def test_weights_are_those_of_the_case() -> None:
    state = reference_pipeline().unet.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == {key: entry[0] for key, entry in SHAPES.items()}
    assert weights_sha256(state) == CASE["weights_digest"]["sha256_sorted_key_then_f4_bytes"]


def test_frames_of_the_whole_pipeline(speech: np.ndarray) -> None:
    output = make(reference_pipeline(), speech)
    assert list(output.shape) == CASE["shapes"]["video_out"]
    assert_frames(output[[0, 11, 12, 15, 16, 21]], NUMBERS["video_frames_0_11_12_15_16_21"])


def test_a_silent_denoiser(speech: np.ndarray) -> None:
    pipeline = reference_pipeline()
    silence_unet(pipeline.unet)
    assert_frames(make(pipeline, speech)[:1], NUMBERS["zero_unet_video_frame_0"][None])


def prepared(pipeline, speech: np.ndarray, guidance: float = OPTIONS.guidance_scale):
    """A generator and the clips of the case, for looking at the steps one by one."""
    source, random = reference_frames(), torch.Generator().manual_seed(SEED)
    plan = plan_spans(source, pipeline.face_detector, pipeline.resolution, 25.0)
    shown = [source[source_index(i, len(source))] for i in range(TOTAL)]
    size = latent_size(pipeline.resolution)
    pipeline.scheduler.set_timesteps(OPTIONS.inference_steps)
    generator = FaceGenerator(
        pipeline.vae,
        pipeline.unet,
        pipeline.scheduler,
        resolution=pipeline.resolution,
        mask_name="mask",
        noise=shared_noise(size, random),
        guidance_scale=guidance,
        clock=StageTimer(torch.device("cpu")),
    )
    return generator, list(clips(shown, plan, TOTAL, 16, size, random)), pipeline.audio_encoder.windows(speech)


@torch.no_grad()
def test_every_step_of_the_pipeline(speech: np.ndarray) -> None:
    pipeline = reference_pipeline()
    generator, both, windows = prepared(pipeline, speech)
    torch.testing.assert_close(generator.noise, NUMBERS["init_noise"])
    assert [len(clip.frames) for clip in both] == [shape[2] for shape in CASE["shapes"]["chunks"]]
    for k, clip in enumerate(both):
        torch.testing.assert_close(clip.noise[0], NUMBERS[f"encode_noise_masked_chunk{k}"])
        torch.testing.assert_close(clip.noise[1], NUMBERS[f"encode_noise_ref_chunk{k}"])
        pixels = to_pixels(warp_faces(clip.frames, clip.matrices, pipeline.resolution))[None]
        conditions = generator.encode(pixels, clip.noise[None])
        torch.testing.assert_close(conditions.mask[0, 0, 0], NUMBERS["mask_latents_chunk0_frame0"], **LATENTS)
        torch.testing.assert_close(conditions.masked, NUMBERS[f"masked_latents_chunk{k}"], **LATENTS)
        torch.testing.assert_close(conditions.reference, NUMBERS[f"ref_latents_chunk{k}"], **LATENTS)
        audio = windows.frames(clip.start, clip.stop)[None]
        noise = generator.noise.expand(-1, -1, len(clip.frames), -1, -1)
        latents = denoise(pipeline.unet, pipeline.scheduler, noise, conditions, audio, guidance_scale=OPTIONS.guidance_scale)
        torch.testing.assert_close(latents, NUMBERS[f"final_latents_chunk{k}"], **LATENTS)
        decoded = generator.decode(latents)
        pasted = generator.paste(decoded, pixels)[0]
        if k == 0:
            torch.testing.assert_close(decoded[0, 0], NUMBERS["decoded_chunk0_frame0"], rtol=0, atol=0.009)
            torch.testing.assert_close(pasted[[0, 15]], NUMBERS["pasted_chunk0_frames0_15"], rtol=0, atol=CASE["tolerance"]["pasted"])
        else:
            torch.testing.assert_close(pasted[5], NUMBERS["pasted_chunk1_frame5"], rtol=0, atol=CASE["tolerance"]["pasted"])
    generator.use_reference = False
    hidden = generator.encode(pixels, clip.noise[None])
    assert torch.equal(hidden.masked, conditions.masked) and not hidden.reference.any()


@torch.no_grad()
@pytest.mark.parametrize(("silent", "guidance", "expected"), [(True, 1.5, "zero_unet"), (False, 1.0, "no_cfg")])
def test_latents_without_a_denoiser_or_without_guidance(speech: np.ndarray, silent: bool, guidance: float, expected: str) -> None:
    pipeline = reference_pipeline()
    if silent:
        silence_unet(pipeline.unet)
    generator, (clip, _), windows = prepared(pipeline, speech, guidance)
    pixels = to_pixels(warp_faces(clip.frames, clip.matrices, pipeline.resolution))[None]
    conditions, noise = generator.encode(pixels, clip.noise[None]), generator.noise.expand(-1, -1, 16, -1, -1)
    latents = denoise(pipeline.unet, pipeline.scheduler, noise, conditions, windows.frames(0, 16)[None], guidance_scale=guidance)
    torch.testing.assert_close(latents, NUMBERS[f"{expected}_final_latents_chunk0"], **LATENTS)
    if silent:
        pasted = generator.paste(generator.decode(latents), pixels)[0, 0]
        torch.testing.assert_close(pasted, NUMBERS["zero_unet_pasted_chunk0_frame0"], rtol=0, atol=CASE["tolerance"]["pasted"])


def test_batches_change_nothing_but_rounding(speech: np.ndarray) -> None:
    long, pipeline = np.tile(speech, 4), reference_pipeline()
    source = reference_frames()
    plan = plan_spans(source, pipeline.face_detector, pipeline.resolution, 25.0)
    shown = [source[source_index(i, len(source))] for i in range(70)]
    windows = pipeline.audio_encoder.windows(long)
    one, three = (
        np.stack(list(pipeline.generate(shown, plan, 70, windows, replace(OPTIONS, inference_steps=1, batch_clips=n), SEED)))
        for n in (1, 3)
    )
    difference = np.abs(one.astype(int) - three.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_about_the_same_video(speech: np.ndarray, dtype: torch.dtype) -> None:
    pipeline, options = reference_pipeline(), replace(OPTIONS, inference_steps=1)
    expected = make(pipeline, speech, options).astype(int)
    pipeline = reference_pipeline()
    pipeline.unet.to(dtype)
    pipeline.vae.to(dtype)
    assert np.abs(make(pipeline, speech, options).astype(int) - expected).mean() < 2


def test_another_seed_gives_another_video(speech: np.ndarray) -> None:
    one, other = (make(reference_pipeline(), speech, replace(OPTIONS, inference_steps=1, seed=seed)) for seed in (1, 2))
    assert (one != other).any()


def plan_of(*runs: tuple[int, int, int | None]) -> FacePlan:
    """A plan from (start, stop, span or None)."""
    eye = np.eye(2, 3, dtype=np.float32)
    spans = tuple(
        Span(a, b, 0, np.stack([eye * (index + 1)] * (b - a)), np.zeros((b - a, 4), np.float32))
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
    (clip,) = clips(frames, plan, 8, 16, 4, torch.Generator())
    assert clip.matrices[:, 0, 0].tolist() == [0, 1, 2, 2, 1, 0, 0, 1] == [frame[0, 0, 0] for frame in clip.frames]


def test_batches_hold_a_bounded_number_of_clips() -> None:
    plan = plan_of((0, 40, None), (40, 90, 0), (90, 200, None))
    frames = (np.zeros((1, 1, 3), np.uint8) for _ in range(200))
    groups = list(batches(clips(frames, plan, 200, 16, 1, torch.Generator()), 2))
    assert sum(len(clip.frames) for group in groups for clip in group) == 200
    assert max(len(group) for group in groups) <= 5
    assert max(sum(clip.matrices is not None for clip in group) for group in groups) == 2
    starts = [clip.start for group in groups for clip in group]
    assert starts == sorted(starts)


def test_frames_without_a_face_come_out_as_they_went_in(speech: np.ndarray) -> None:
    pipeline, source = reference_pipeline(), reference_frames()
    whole = plan_spans(source, pipeline.face_detector, pipeline.resolution, 25.0)
    plan = FacePlan(12, 1, 1, (replace(whole.spans[0], stop=5, matrices=whole.spans[0].matrices[:5]),), (SkippedRun(5, 12, "no face"),))
    windows = pipeline.audio_encoder.windows(speech)
    made = list(pipeline.generate(source, plan, 12, windows, replace(OPTIONS, inference_steps=1), SEED))
    assert all((made[i] == source[i]).all() for i in range(5, 12))
    assert all((made[i] != source[i]).any() for i in range(5))


def test_out_of_memory_halves_the_batch() -> None:
    sizes: list[int] = []

    def work(items):
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [item * 10 for item in items]

    assert in_smaller_batches(work, [1, 2, 3, 4, 5], lambda failed: False) == [10, 20, 30, 40, 50]
    assert sizes == [5, 3, 2, 1, 2]


def test_out_of_memory_with_one_clip_is_told() -> None:
    def work(items):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    with pytest.raises(OutOfMemoryError, match="a single clip"):
        in_smaller_batches(work, [1], lambda failed: False)


@pytest.mark.parametrize(
    "message", ["CUDA error: out of memory", "MPS backend out of memory (allocated 1 GB)", "CUBLAS_STATUS_ALLOC_FAILED"]
)
def test_untyped_lack_of_memory_is_recognised(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


def test_other_failures_are_not_taken_for_lack_of_memory() -> None:
    def work(items):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_smaller_batches(work, [1, 2], lambda failed: True)


def test_a_generator_that_runs_out_of_memory_uses_smaller_slices_and_still_finishes(speech: np.ndarray, monkeypatch) -> None:
    pipeline = reference_pipeline()
    expected = make(pipeline, speech, replace(OPTIONS, inference_steps=1))
    pipeline, calls = reference_pipeline(), []
    decode = pipeline.vae.decode

    def scarce(latents: torch.Tensor) -> torch.Tensor:
        calls.append(pipeline.vae.slice_size)
        if pipeline.vae.slice_size is None or pipeline.vae.slice_size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(latents)

    monkeypatch.setattr(pipeline.vae, "decode", scarce)
    made = make(pipeline, speech, replace(OPTIONS, inference_steps=1))
    assert calls[:3] == [None, 8, 4]
    assert np.abs(made.astype(int) - expected.astype(int)).max() <= 1


def test_a_masked_paste_stays_off_the_border_of_the_picture(speech: np.ndarray) -> None:
    """The crop of this case leaves the picture by ten rows at its lower edge; the published paste goes up to it, as golden numbers want."""
    options, source = replace(OPTIONS, inference_steps=1), np.stack([reference_frames()[source_index(i, 12)] for i in range(TOTAL)])
    published, pipeline = make(reference_pipeline(), speech, options), reference_pipeline()
    pipeline.keep = fixed_mask(pipeline.resolution)
    masked = make(pipeline, speech, options)
    change = np.abs(masked.astype(int) - source)
    assert np.abs(published[:, -1].astype(int) - source[:, -1]).mean() > 3 and change[:, -1].max() <= 1
    assert change[:, 85:95, 70:90].mean() > 3, "the mouth is new"

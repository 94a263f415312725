"""What surrounds a rendered head: light, movement, clothes, glasses, background and camera keep the promises that clips rely on."""

import hashlib
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from preprocess.talking_heads.performance import envelope, motion_of
from preprocess.talking_heads.scene.camera import CameraLook, apply, draw_look, expose, frame_camera
from preprocess.talking_heads.scene.glasses import FaceFit, make_glasses, wears_glasses
from preprocess.talking_heads.scene.jewellery import earrings
from preprocess.talking_heads.scene.lighting import harmonics, irradiance, light
from preprocess.talking_heads.scene.motion import Motion, add, motion, place, rotation, speech_gestures
from preprocess.talking_heads.scene.room import background
from preprocess.talking_heads.scene.torso import NECK_Z
from preprocess.talking_heads.scene.wardrobe import NeckSeat, breathe, bust
from preprocess.talking_heads.solids import Mesh
from preprocess.talking_heads.speech.phones import Phone
from preprocess.talking_heads.speech.synthesis import Speech
from preprocess.talking_heads.speech.voices import Voice
from preprocess.talking_heads.traits import draw_traits

_SKIN = np.array([0.5, 0.33, 0.25], np.float32)
_FIT = FaceFit(
    pupil_left=np.array([-3.15, 0.0, 8.6]),
    pupil_right=np.array([3.15, 0.0, 8.6]),
    nose_bridge=np.array([0.0, -0.5, 9.6]),
    ear_left=np.array([-7.2, 0.8, -0.3]),
    ear_right=np.array([7.2, 0.8, -0.3]),
    temple_width=14.4,
    brow_y=2.2,
)


def _neck_radius(femininity: float) -> float:
    return 6.2 - 1.2 * femininity


def _directions(count: int) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(count, 3))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_irradiance_of_an_even_environment_is_that_environment() -> None:
    colour = np.array([0.7, 0.4, 0.2], np.float32)
    coefficients = irradiance(lambda direction: np.tile(colour, (len(direction), 1)))
    assert np.allclose(harmonics(_directions(50)) @ coefficients, colour, atol=2e-3)


def test_irradiance_of_a_half_lit_environment_follows_the_cosine() -> None:
    coefficients = irradiance(lambda direction: np.repeat(direction[:, 1:2] > 0, 3, axis=1).astype(np.float32))
    up, aside, down = (harmonics(np.array(d, np.float32)) @ coefficients for d in ([0, 1, 0], [1, 0, 0], [0, -1, 0]))
    assert np.allclose(up, 1.0, atol=0.08)  # a sky of radiance 1: all of it, half of it, none of it
    assert np.allclose(aside, 0.5, atol=0.03)
    assert np.allclose(down, 0.0, atol=0.08)


def test_lights_expose_skin_well_and_never_go_negative() -> None:
    for seed in range(60):
        lamp = light(seed)
        surroundings = harmonics(_directions(200)) @ lamp.ambient
        facing = (harmonics(lamp.key_direction) @ lamp.ambient + lamp.key_colour).mean()
        assert surroundings.min() > 0, seed
        assert 0.7 < facing < 1.5, seed
        assert lamp.key_direction[2] > 0 and lamp.key_direction[1] > 0, seed


def test_motion_is_smooth_and_within_human_range() -> None:
    for seed in range(20):
        moved = motion(seed, 20 * VIDEO_FPS)
        assert np.abs(np.diff(moved.pose, axis=0)).max() < np.radians(1.6), seed  # 40 degrees a second
        assert np.abs(np.diff(moved.pose, n=2, axis=0)).max() < np.radians(0.35), seed  # no jitter
        assert np.abs(np.diff(moved.translation, axis=0)).max() < 0.2, seed
        assert np.abs(moved.gaze).max() <= 0.5 and np.abs(moved.pose).max() <= 0.6, seed


def test_blinks_shut_reopen_and_come_at_a_human_rate() -> None:
    rates = []
    for seed in range(12):
        lid = motion(seed, 120 * VIDEO_FPS).blink
        shut = np.flatnonzero((lid[1:, 0] >= 1) & (lid[:-1, 0] < 1)) + 1
        rates.append(len(shut) / 2)
        for frame in shut[:-1]:
            assert lid[frame : frame + 2].max(0).min() > 0.9, (seed, frame)  # both eyes
            assert lid[frame : frame + 12, 0].min() < 0.05, (seed, frame)
            assert lid[frame - 3, 0] < 0.75, (seed, frame)
    assert 12 <= np.mean(rates) <= 25
    assert min(rates) > 7 and max(rates) < 32


def test_motion_of_a_longer_clip_begins_alike() -> None:
    for seed in range(100):
        short, long = motion(seed, 100), motion(seed, 130)
        for field in fields(Motion):
            assert np.array_equal(getattr(short, field.name), getattr(long, field.name)[:100]), (seed, field.name)


def _syllables(seconds: float, silence: float = 0.0) -> Speech:
    """Noise that swells four times a second, ever louder, and silence after it."""
    time = np.arange(round(seconds * AUDIO_SAMPLE_RATE)) / AUDIO_SAMPLE_RATE
    sound = np.random.default_rng(0).normal(0, 0.05, len(time)) * np.sin(4 * np.pi * time) ** 2 * (0.3 + time / seconds)
    samples = np.append(sound, np.zeros(round(silence * AUDIO_SAMPLE_RATE))).astype(np.float32)
    return Speech(samples, (Phone("aa", 0.0, seconds + silence),), "", Voice("flite", "slt"))


def test_gestures_do_not_depend_on_how_much_of_a_speech_is_shown() -> None:
    for seed in range(10):
        spoken = _syllables(4.0)
        short, long = motion_of(seed, 40, spoken), motion_of(seed, 150, spoken)
        assert not np.array_equal(short.pose, motion(seed, 40).pose)
        for field in fields(Motion):
            assert np.array_equal(getattr(short, field.name), getattr(long, field.name)[:40]), (seed, field.name)
        assert np.array_equal(long.pose[140:], motion(seed, 150).pose[140:])
        assert np.abs(np.diff(long.pose - motion(seed, 150).pose, axis=0)).max() < 0.06, seed


def test_loudness_is_beside_the_whole_speech() -> None:
    spoken = _syllables(4.0)
    whole = envelope(spoken, 100)
    assert whole.max() == 1 and whole.dtype == np.float32
    assert np.array_equal(envelope(spoken, 1), whole[:1]) and whole[0] < 0.2
    assert np.array_equal(envelope(spoken, 120), np.append(whole, np.zeros(20, np.float32)))
    assert np.allclose(envelope(_syllables(4.0, 2.0), 100), whole)
    assert not envelope(_syllables(0.0, 0.04), 3).any()
    assert envelope(_syllables(0.01), 1).shape == (1,)


def test_speech_gestures_are_nothing_in_silence_and_follow_stress() -> None:
    silent = speech_gestures(3, np.zeros(60, np.float32))
    assert all(not getattr(silent, field.name).any() for field in fields(Motion))
    loudness = np.zeros(60, np.float32)
    loudness[28:34] = 1.0
    stressed = speech_gestures(3, loudness)
    assert stressed.pose[28:40, 1].min() < -0.003 and abs(stressed.pose[:8]).max() == 0
    base = motion(3, 60)
    assert np.allclose(add(base, stressed).pose, base.pose + stressed.pose)
    assert np.array_equal(add(base, silent).pose, base.pose)


def test_rotation_keeps_lengths_and_turns_the_named_way() -> None:
    turned = rotation(0.3, 0.2, 0.1)
    assert np.allclose(turned @ turned.T, np.eye(3), atol=1e-6)
    nose, crown = np.array([0.0, 0.0, 10.0]), np.array([0.0, 10.0, 0.0])
    assert (rotation(0.3, 0, 0) @ nose)[0] > 0 and (rotation(0, 0.3, 0) @ nose)[1] > 0 and (rotation(0, 0, 0.3) @ crown)[0] < 0
    assert np.allclose(place(nose, np.zeros(3), np.array([1.0, 2.0, 3.0])), nose + np.array([1, 2, 3]), atol=1e-5)


def _foremost(mesh: Mesh, x: np.ndarray, y: float) -> np.ndarray:
    """Greatest z of a mesh's triangles at (x, y), -inf where there is none."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    corners = corners[(corners[..., 1].min(1) <= y) & (corners[..., 1].max(1) >= y)]
    edge, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0]
    corners, edge, other, area = (rows[np.abs(area) > 1e-9] for rows in (corners, edge, other, area))
    from_corner = np.stack(np.broadcast_arrays(x[:, None] - corners[:, 0, 0], y - corners[:, 0, 1]), -1)
    u = (from_corner[..., 0] * other[:, 1] - from_corner[..., 1] * other[:, 0]) / area
    v = (edge[:, 0] * from_corner[..., 1] - edge[:, 1] * from_corner[..., 0]) / area
    z = corners[:, 0, 2] + u * edge[:, 2] + v * other[:, 2]
    return np.where((u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9), z, -np.inf).max(1)


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_bust_covers_the_rim_of_the_neck_from_the_front(first: int) -> None:
    angle = np.radians(np.arange(-80, 81, 10))
    for seed in range(first, first + 10):
        traits = draw_traits(seed)
        radius = _neck_radius(traits.femininity)
        worn = bust(traits, radius, _SKIN)
        rim = np.stack([radius * np.sin(angle), NECK_Z + radius * np.cos(angle)], -1)
        assert (_foremost(worn, rim[:, 0], -19.0) >= rim[:, 1] - 0.02).all(), seed
        assert worn.vertices[:, 1].min() < -44 and len(worn.faces) < 20000, seed
        assert np.isfinite(worn.vertices).all() and worn.faces.max() < len(worn.vertices), seed


def test_neck_settles_on_the_chest() -> None:
    traits = draw_traits(2)
    angle, height = np.meshgrid(np.linspace(-1.3, 1.3, 12), np.linspace(-17.8, -10.0, 15))
    tube = np.stack([5.5 * np.sin(angle), height, NECK_Z + 5.5 * np.cos(angle)], -1).reshape(-1, 3).astype(np.float32)
    settled = NeckSeat(traits, 5.5, tube).settle(tube)
    moved = np.linalg.norm(settled - tube, axis=1)
    assert moved[tube[:, 1] > -12.5].max() == 0 and 0.02 < moved.max() < 1.5


def test_breathing_lifts_the_chest_and_spares_the_neck() -> None:
    vertices = np.array([[0, -12, 4], [0, -32, 9], [18, -22, 0]], np.float32)
    moved = breathe(vertices, 1.0) - vertices
    assert not moved[0].any() and 0.1 < np.linalg.norm(moved[1]) < 0.7
    assert np.array_equal(breathe(vertices, 0.0), vertices)


def test_glasses_fit_the_face() -> None:
    for seed in range(12):
        worn = make_glasses(seed, seed % 2, _FIT)
        lens = worn.vertices[(worn.vertices[:, 2] > 8.0)]
        assert lens[:, 2].min() > 8.0 and 9.5 < worn.vertices[:, 2].max() < 11.5, seed
        assert abs(worn.vertices[:, 0].min() + worn.vertices[:, 0].max()) < 0.2, seed
        assert lens[:, 1].max() < _FIT.brow_y + 1.4 and lens[:, 1].min() > -4.0, seed
        for ear in (_FIT.ear_left, _FIT.ear_right):
            assert np.linalg.norm(worn.vertices - ear, axis=1).min() < 0.6, seed


def test_glasses_and_earrings_are_worn_by_some() -> None:
    people = [draw_traits(seed) for seed in range(300)]
    assert 0.15 < np.mean([wears_glasses(person) for person in people]) < 0.32
    lobes = np.array([-7.5, -4.0, 0.0]), np.array([7.5, -4.0, 0.0])
    feminine = [earrings(replace(person, femininity=0.9), *lobes) is not None for person in people[:60]]
    masculine = [earrings(replace(person, femininity=0.1), *lobes) is not None for person in people[:60]]
    assert np.mean(feminine) > 0.3 > np.mean(masculine)


def test_background_is_light_in_range_and_varied() -> None:
    pictures = np.stack([background(seed, 64, 64) for seed in range(24)])
    assert np.isfinite(pictures).all() and pictures.min() >= 0 and pictures.max() <= 6.0
    assert background(0, 96, 64).shape == (64, 96, 3)
    assert np.std(pictures.mean((1, 2, 3))) > 0.03
    blurred = np.abs(np.diff(pictures, axis=2)).mean() / pictures.std()
    assert blurred < 0.25  # out of focus: neighbours are alike


def test_head_stays_in_the_picture() -> None:
    outline = np.array([[0, -11.3, 8.8], [0, 12.3, -1], [-7.5, 0, 0], [7.5, 0, 0]], np.float32)
    for seed in range(60):
        camera = frame_camera(seed)
        seen = camera.project(outline, 256, 256)[:, :2]
        share = (seen[:, 1].max() - seen[:, 1].min()) / 256
        assert seen.min() > 0 and seen.max() < 256, seed
        assert 0.3 < share < 0.8 and 55 <= camera.eye[2] - 4 <= 161, seed


def test_camera_keeps_brightness_and_does_not_move_the_picture() -> None:
    rng = np.random.default_rng(1)
    picture = cv2.GaussianBlur(rng.uniform(0, 255, (128, 128, 3)), (0, 0), 2.0)
    picture = np.clip(128 + 4 * (picture - 128), 30, 225).astype(np.uint8)
    for seed in range(20):
        seen = apply(draw_look(seed), picture, 3, seed)
        assert abs(float(seen.mean()) - float(picture.mean())) < 3.0, seed
        shift, _ = cv2.phaseCorrelate(picture.mean(2), seen.mean(2))
        assert np.abs(shift).max() < 0.1, seed
        exposed = expose(draw_look(seed), picture / np.float32(255))
        assert 0.65 < exposed.mean() / (picture.mean() / 255) < 1.45, seed


def test_noise_differs_from_frame_to_frame_and_grows_with_its_parameter() -> None:
    grey = np.full((64, 64, 3), 120, np.uint8)
    quiet = CameraLook(np.ones(3, np.float32), 0.0, 0.0, 0.0, 1.0, 0.5, 1.0, 100)
    first, second = (apply(quiet, grey, index, 7) for index in (0, 1))
    assert not np.array_equal(first, second) and np.array_equal(first, apply(quiet, grey, 0, 7))
    loud = apply(replace(quiet, noise=6.0), grey, 0, 7)
    assert loud.std() > 2.5 * first.std()


def test_same_seed_same_bytes() -> None:
    def digest() -> str:
        traits = draw_traits(11)
        worn, lamp, moved = bust(traits, 5.5, _SKIN), light(11), motion(11, 50)
        parts = [worn.vertices, worn.materials[-1].albedo, worn.materials[-1].bump, lamp.ambient, lamp.key_colour, moved.pose, moved.gaze]
        parts += [moved.blink, background(11, 64, 64), make_glasses(11, 0.3, _FIT).vertices, frame_camera(11).eye, draw_look(11).gain]
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()

    assert digest() == digest()

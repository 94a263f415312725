"""Training of the landmark network: landmarks of rendered clips, augmentation, a real training, its file."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_fixtures import FRAMES, catalog_of, make_training_clip
from omegaconf import OmegaConf
from training_fixtures import curve

from embedded import landmarks as train_landmarks
from embedded.landmarks import (
    MIRRORED,
    LandmarkDataset,
    LandmarkStep,
    LandmarkValidator,
    compress,
    degrade,
    load_landmark_config,
    measures,
    mirror,
    mouth_scale,
    occlude,
    pearson,
    read_points,
    recolour,
    shrink,
    transform,
)
from latentsync.data.sampling import collate
from latentsync.errors import ConfigError, InputError, WeightsError
from latentsync.faces.mask import to_pixels
from latentsync.models.landmark_network import (
    LANDMARK_SIDE,
    POINTS,
    LandmarkNetwork,
    LandmarkNetworkConfig,
    load_landmark_network,
    measure,
    published,
)
from latentsync.training.trainer import ValidationSum

ROOT = Path(__file__).parents[2]
SIZES = LandmarkNetworkConfig([8, 8, 16, 16], 4, 16)
PICTURE = 64  # pixels a side of the clips


def mouth(gap: float, middle: tuple[float, float] = (0.5, 0.65), half_width: float = 0.15) -> np.ndarray:
    """Twenty points in units of the face's side, whose inner lips are `gap` apart."""
    outer = np.linspace(-1, 1, 7), np.linspace(1, -1, 7)[1:-1]
    inner = np.linspace(-1, 1, 5), np.linspace(1, -1, 5)[1:-1]
    points = [(x, -0.03 * (1 - x * x)) for x in outer[0]] + [(x, 0.03 * (1 - x * x) + gap) for x in outer[1]]
    points += [(x, 0.0) for x in inner[0]] + [(x, gap) for x in inner[1]]
    return (np.array(points) * (half_width, 1) + middle).astype(np.float32)


def draw(points: np.ndarray, side: int = LANDMARK_SIDE) -> np.ndarray:
    """A face, uint8 h h 3, on which nothing but the inner lips can be seen."""
    face = np.full((side * 8, side * 8, 3), (180, 140, 120), np.uint8)
    cv2.fillPoly(face, [np.round(points[12:] * side * 8).astype(np.int32)], (60, 10, 10))
    return cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)


def write_labels(clip: Path, **changes: object) -> np.ndarray:
    """The labels beside a clip: mouths that open and close, at different places; n 20 2."""
    points = np.stack([mouth(0.03 + 0.03 * np.sin(k / 3), (0.5 + 0.02 * np.sin(k / 7), 0.65)) for k in range(FRAMES)])
    landmarks = np.zeros((FRAMES, 68, 2))
    landmarks[:, 48:] = PICTURE * points
    labels = {"landmarks": landmarks.tolist(), "lip_gap_cm": [0.0] * FRAMES, "mouth": {"values": [[0.0]]}}
    facts = {"plan": {"split": "train"}, "settings": {"width": PICTURE, "height": PICTURE}}
    clip.with_suffix(".json").write_text(json.dumps({**labels, **facts, **changes}))
    return points


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of clips with labels: `train` and `val`."""
    folder = tmp_path_factory.mktemp("mouths")
    for name in ("train/a.mp4", "train/b.mp4", "val/c.mp4"):
        write_labels(make_training_clip(folder / name))
    return folder


def recipe(clips: Path) -> Path:
    settings = {
        "data": {
            **{"train_data_dir": "train", "val_data_dir": "val", "train_output_dir": "out", "cache_dir": "cache"},
            **{"num_frames": 2, "batch_size": 2, "num_workers": 0},
        },
        "model": {"block_out_channels": SIZES.block_out_channels, "head_channels": 4, "hidden": 16},
        "run": {"max_train_steps": 2, "validation_steps": 2, "log_steps": 1, "num_val_clips": 1, "mixed_precision": "no"},
        "optimizer": {"lr": 1e-2},
        "ckpt": {"save_ckpt_steps": 2},
    }
    OmegaConf.save(OmegaConf.create(settings), clips / "landmarks.yaml")
    return clips / "landmarks.yaml"


def test_points_are_in_units_of_the_face_and_clips_without_landmarks_of_a_square_face_are_refused(tmp_path: Path) -> None:
    expected = write_labels(tmp_path / "good.mp4")
    np.testing.assert_allclose(read_points(tmp_path / "good.mp4"), expected, atol=1e-6)
    for changes in (
        {"landmarks": "none"},
        {"landmarks": [[[0.0, 0.0]] * 5]},
        {"lip_gap_cm": [0.0]},
        {"settings": {"width": 64, "height": 48}},
    ):
        write_labels(tmp_path / "clip.mp4", **changes)
        with pytest.raises(InputError, match=r"clip\.(json|mp4)"):
            read_points(tmp_path / "clip.mp4")


def test_samples_hold_faces_and_their_points(clips: Path, tmp_path: Path) -> None:
    catalog = catalog_of(clips / "train", tmp_path)
    plain = LandmarkDataset(catalog, num_frames=4, seed=1, drawn=False, degraded=False)
    batch = collate([plain[0], plain[1]])
    assert batch.faces.shape == (2, 4, LANDMARK_SIDE, LANDMARK_SIDE, 3) and batch.faces.dtype == torch.uint8
    expected = read_points(clips / "train" / "a.mp4")
    torch.testing.assert_close(batch.points[0], torch.from_numpy(expected[[0, 25, 49, 74]]))
    drawn, again, other = (LandmarkDataset(catalog, num_frames=4, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(drawn.faces, again.faces) and torch.equal(drawn.points, again.points)
    assert not torch.equal(drawn.points, other.points)


def test_points_follow_a_face_that_is_moved_and_mirrored() -> None:
    points = mouth(0.08)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        face, moved = transform(draw(points), points, rng)
        if seed % 2:
            face, moved = mirror(face, moved)
        away, along = (np.abs(face.astype(float) - draw(there.astype(np.float32))).mean() for there in (points, moved))
        assert along < 0.3 * away  # edges alone differ
    assert sorted(MIRRORED) == list(range(POINTS))
    face, mirrored = mirror(draw(points), points)
    np.testing.assert_allclose(mirrored, points, atol=1e-6)  # a mouth that is its own mirror image keeps every number in its place


def test_degraded_faces_are_faces_and_depend_on_chance_alone() -> None:
    face, points = draw(mouth(0.05)), mouth(0.05)
    for seed in range(20):
        first, again = (degrade(face, points, np.random.default_rng(seed)) for _ in range(2))
        assert first[0].shape == face.shape and first[0].dtype == np.uint8 and first[1].dtype == np.float32
        assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    rng = np.random.default_rng(3)
    noise = rng.integers(256, size=face.shape, dtype=np.uint8)
    assert np.diff(shrink(noise.astype(np.float32), rng), axis=1).std() < 0.8 * np.diff(noise.astype(float), axis=1).std()
    assert 0 < np.abs(compress(face, 90).astype(float) - face).mean() < np.abs(compress(face, 12).astype(float) - face).mean() < 8
    assert 0 < (occlude(noise, rng) != noise).any(-1).mean() < 0.5
    assert recolour(face, rng).dtype == np.float32


@torch.no_grad()
def test_landmarks_do_not_depend_on_the_size_of_a_face() -> None:
    torch.manual_seed(0)
    network = LandmarkNetwork(SIZES, torch.from_numpy(mouth(0.03)), torch.full((POINTS, 2), 0.02)).eval()
    torch.nn.init.normal_(network.head[-1].weight)
    small, large = (to_pixels(torch.from_numpy(draw(mouth(0.06), side)))[None] for side in (LANDMARK_SIDE, 2 * LANDMARK_SIDE))
    first, second = network(small), network(large)
    assert first.points.shape == (1, POINTS, 2) and first.gap.shape == first.width.shape == (1,)
    torch.testing.assert_close(first.points, second.points, atol=2e-3, rtol=0)
    assert (first.points - network(-small).points).abs().max() > 1e-2
    upper = small.clone()
    upper[..., :40, :] = 1.0  # above the part that counts
    assert torch.equal(network(upper).points, first.points)
    assert [tuple(stage.shape[1:]) for stage in network.features(small)] == [(8, 40, 64), (8, 20, 32), (16, 10, 16), (16, 5, 8)]


def test_a_network_learns_landmarks() -> None:
    """A few drawn mouths that differ in gap and place: after some steps their gaps are told apart."""
    torch.manual_seed(0)
    gaps, places = np.linspace(0, 0.08, 8), np.linspace(0.44, 0.56, 8)[[3, 6, 0, 5, 2, 7, 1, 4]]
    true = np.stack([mouth(gap, (x, 0.65)) for gap, x in zip(gaps, places, strict=True)])
    pixels, points = to_pixels(torch.from_numpy(np.stack([draw(one) for one in true]))), torch.from_numpy(true)
    network = LandmarkNetwork(SIZES, points.mean(0), points.std(0).clamp(min=0.01))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(30):
        loss = (network(pixels).points - points).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        seen = network(pixels)
    assert (seen.points - points).abs().mean() < 0.5 * (points - points.mean(0)).abs().mean()
    assert pearson(seen.gap, measure(points).gap) > 0.8


def test_losses_are_about_one_for_a_constant_guess(clips: Path, tmp_path: Path) -> None:
    catalog = catalog_of(clips / "train", tmp_path)
    scale = mouth_scale(catalog)
    dataset = LandmarkDataset(catalog, num_frames=20, seed=0)
    batch = collate([dataset[0], dataset[1]])
    network = LandmarkNetwork(SIZES, scale.mean, scale.deviation.points)
    with torch.no_grad():
        losses = LandmarkStep(scale, {"landmarks": 1.0, "opening": 1.0})(network, batch)
    assert all(0.4 < float(loss) < 1.6 for loss in losses.values()), losses
    assert list(LandmarkStep(scale, {"landmarks": 1.0, "opening": 0.0})(network, batch)) == ["landmarks"]


def test_measures_tell_good_landmarks_from_bad_ones() -> None:
    true = torch.from_numpy(np.stack([[mouth(0.02 + 0.01 * (k % 5), (0.5, 0.6 + 0.02 * clip)) for k in range(10)] for clip in range(3)]))
    true[2] = true[2, :1]  # a mouth that stays still has no correlation
    exact = {name: tally.total / tally.count for name, tally in measures(true, true).items()}
    assert [exact[name] for name in ("gap_r", "gap_r_middle", "gap_r_people")] == pytest.approx([1, 1, 1])
    assert exact["point_error"] == exact["gap_error"] == 0 and measures(true, true)["gap_r"].count == 2
    shifted = {name: tally.total / tally.count for name, tally in measures(true + torch.tensor([0.03, 0.04]), true).items()}
    assert shifted["point_error"] == pytest.approx(0.05, rel=1e-3)
    assert shifted["point_error_of_mouth"] == pytest.approx(0.05 / 0.3, rel=1e-3) and shifted["gap_r"] == pytest.approx(1)
    backwards = measures(true.flip(1), true)["gap_r"]
    assert isinstance(backwards, ValidationSum) and backwards.total / backwards.count < 0.5
    assert pearson(torch.ones(1, 5), torch.arange(5.0)[None]) == 0


def test_training_writes_a_network(clips: Path) -> None:
    arguments = ["--config_path", str(recipe(clips)), "--device", "cpu", "--quiet"]
    assert train_landmarks.main(arguments) == 0
    out = clips / "out"
    assert len(curve(out, "training", "landmarks")) == len(curve(out, "training", "opening")) == 2
    assert len(curve(out, "validation", "point_error")) == len(curve(out, "validation", "gap_r_degraded")) == 2
    assert curve(out, "validation", "point_error")[0] < 0.05  # the mean mouth is no bad guess
    network = load_landmark_network(out / "checkpoints" / "checkpoint-00000002.pt")
    assert network.config == SIZES and network.mean[6, 0] > network.mean[0, 0] > 0.2
    batches = [LandmarkDataset(catalog_of(clips / "val", clips / "cache"), num_frames=3, seed=0, degraded=False)[0]]
    with torch.no_grad():
        assert LandmarkValidator(batches)(network.eval(), 2)["point_error"].count == 3


def test_files_of_another_network_are_refused(tmp_path: Path) -> None:
    state_dict = LandmarkNetwork(SIZES).state_dict()
    torch.save(published(SIZES, state_dict, 7), tmp_path / "good.pt")
    assert load_landmark_network(tmp_path / "good.pt").config == SIZES
    wider = published(LandmarkNetworkConfig([8, 8, 16, 24], 4, 16), state_dict, 7)
    for contents in ({"state_dict": state_dict}, {"state_dict": state_dict, "config": {"hidden": 3}}, wider):
        torch.save(contents, tmp_path / "bad.pt")
        with pytest.raises(WeightsError):
            load_landmark_network(tmp_path / "bad.pt")


def test_the_shipped_configuration_and_its_refusals() -> None:
    config = load_landmark_config(train_landmarks.DEFAULT_CONFIG)
    assert config.data.train_output_dir == ROOT / "outputs" / "embedded" / "landmarks" and config.model == LandmarkNetworkConfig()
    for override in ("model.block_out_channels=[16, 32, 64]", "model.hidden=0", "data.num_frames=0", "data.resolution=256"):
        with pytest.raises(ConfigError, match=override.split("=")[0]):
            load_landmark_config(train_landmarks.DEFAULT_CONFIG, [override])

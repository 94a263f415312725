"""SyncNet v2 against reference numbers and the published key list; offsets of known shifts; face tracks; loading."""

import numpy as np
import pytest
import torch
from golden_recipe import GOLDEN, assert_published, load_case, load_seeded, same_input, seeded_normal
from torch import Tensor

from latentsync.errors import InputError, WeightsError
from latentsync.media.audio import AudioSamples
from latentsync.third_party.face_tracks import MAX_STEP, SyncNetDetector, crop_face, crop_path, link_faces, track_crops
from latentsync.third_party.sync_search import Offset, OffsetSearch, over_tracks
from latentsync.third_party.syncnet_mfcc import mfcc
from latentsync.third_party.syncnet_v2 import SyncNetEval, SyncNetV2, load_syncnet_v2, sound_windows, to_picture, window_count

SIDECAR, TENSORS = load_case("eval_syncnet_v2")
SPEECH = GOLDEN / "speech_3p2s_16k.wav"


def offset_of(video: Tensor, audio: Tensor) -> Offset:
    search = OffsetSearch()
    search.add(video, audio)
    return search.finish()


@pytest.fixture(scope="module")
def network() -> SyncNetV2:
    network = load_seeded(SyncNetV2(), SIDECAR)
    assert_published(network, "syncnet_v2_joonson")
    return network


@torch.no_grad()
def test_embeddings_equal_the_reference(network: SyncNetV2) -> None:
    pictures = np.random.RandomState(11001).randint(0, 256, (2, 3, 5, 224, 224)).astype(np.float32)
    columns = (10 * np.random.RandomState(11002).standard_normal((3, 1, 13, 20))).astype(np.float32)
    lips, sound = (same_input(torch.from_numpy(given), SIDECAR["inputs"][name]) for given, name in ((pictures, "lip"), (columns, "aud")))
    features = network.lip_features(lips)
    for found, name in ((features, "lipfeat_out"), (network.netfclip(features), "lip_out"), (network.embed_sound(sound), "aud_out")):
        torch.testing.assert_close(found, TENSORS[name], **SIDECAR["tolerance"])


def test_coefficients_equal_the_reference() -> None:
    with AudioSamples(SPEECH) as samples:
        found = mfcc(samples)
        whole = (samples[:] * 32768).astype(np.int16)
    np.testing.assert_allclose(found, TENSORS["mfcc"].numpy(), rtol=1e-9, atol=1e-9)
    assert np.array_equal(found, mfcc(whole))


def test_long_sound_is_computed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = (3000 * np.random.RandomState(0).standard_normal(5000)).astype(np.int16)
    whole = mfcc(samples)
    monkeypatch.setattr("latentsync.third_party.syncnet_mfcc._BLOCK", 7)
    np.testing.assert_allclose(mfcc(samples), whole, rtol=1e-12)
    assert np.isfinite(mfcc(np.zeros(1000, np.int16))).all() and mfcc(samples[:100]).shape == (13, 1)


@pytest.mark.parametrize("case", ["plus3", "minus4", "zero"])
def test_offsets_equal_the_reference(case: str) -> None:
    expected = SIDECAR["offset_results"][case]
    found = offset_of(TENSORS[f"{case}_im"], TENSORS[f"{case}_cc"])
    assert found.offset == expected["offset"]
    np.testing.assert_allclose(found.distances, TENSORS[f"{case}_mean_dists"], **SIDECAR["tolerance"])
    assert found.confidence == pytest.approx(expected["confidence"], rel=1e-3)
    assert found.distance == pytest.approx(expected["min_dist"], rel=1e-3)


@pytest.mark.parametrize("shift", [-15, -2, 0, 3, 15])
def test_a_known_shift_is_found_with_its_sign_whole_and_in_pieces(shift: int) -> None:
    video = seeded_normal(5, (90, 8))
    audio = torch.roll(video, -shift, 0) + 0.05 * seeded_normal(6, (90, 8))  # row i is what belongs to frame i + shift
    whole = offset_of(video, audio)
    assert whole.offset == shift and whole.confidence > 1
    search = OffsetSearch()
    for start, stop in ((0, 1), (1, 14), (14, 60), (60, 61), (61, 90)):
        search.add(video[start:stop], audio[start:stop])
    np.testing.assert_allclose(search.finish().distances, whole.distances, rtol=1e-6)


def test_beyond_the_ends_of_short_clips_is_silence() -> None:
    video = seeded_normal(7, (4, 8))
    found = offset_of(video, video)
    assert found.offset == 0 and found.distance == pytest.approx(1e-6 * 8**0.5, rel=1e-3)
    np.testing.assert_allclose(found.distances[[0, 30]], video.norm(dim=1).mean(), rtol=1e-5)
    with pytest.raises(InputError, match="longer clip"):
        OffsetSearch().finish()


def test_several_tracks_are_one_result() -> None:
    one, other = Offset(-2, 4.0, np.array([1.0, 3.0])), Offset(-5, 5.0, np.array([3.0, 5.0]))
    mean = over_tracks([one, other])
    assert (mean.offset, mean.confidence, mean.distances.tolist()) == (-3, 4.5, [2.0, 4.0])  # -3.5 loses its fraction
    with pytest.raises(InputError, match="No face track"):
        over_tracks([])


def test_windows_are_counted_as_published_or_all_that_fit() -> None:
    for name, expected in SIDECAR["window_arithmetic"].items():
        frames, samples = (int("".join(filter(str.isdigit, part))) for part in name.split("_"))
        assert window_count(frames, samples, published=True) == expected["windows"]
    assert window_count(80, 52000) == 76 and window_count(80, 10**6, published=True) == 75  # 76 windows of five in 80 frames
    assert window_count(4, 10**6) == 0 and sound_windows(0) == sound_windows(0, published=True) == 0
    for samples in range(3000, 7000, 40):
        assert 4 * (sound_windows(samples) - 1) + 20 <= mfcc(np.ones(samples, np.int16)).shape[1]


class TinySyncNet:
    """Embeddings that say what they were made of: the brightness of five frames, the loudness of a window."""

    def __init__(self) -> None:
        self.netfclip = self.netfcaud = [torch.nn.Linear(1, 1)]

    def embed_lips(self, pictures: Tensor) -> Tensor:
        assert pictures.shape[:2] == (1, 3) and pictures.shape[3:] == (224, 224)
        level = pictures[0, 0].mean((1, 2)).unfold(0, 5, 1) / 40  # blue
        return torch.cat([level.sin(), level.cos()], 1)

    def embed_sound(self, columns: Tensor) -> Tensor:
        assert columns.shape[1:] == (1, 13, 20)
        return columns[:, 0, :10, 0].float() / 20


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize(("num_frames", "num_samples"), [(60, 52000), (80, 30000)])
def test_a_clip_in_pieces_gives_the_same_result(num_frames: int, num_samples: int, published: bool) -> None:
    random = np.random.RandomState(3)
    frames = [np.full((32, 40, 3), (0, 0, level), np.uint8) for level in random.randint(0, 256, num_frames)]
    samples = random.randint(-9000, 9000, num_samples).astype(np.int16)
    net, count = TinySyncNet(), window_count(num_frames, num_samples, published)
    video = torch.from_numpy(np.stack([to_picture(frame) for frame in frames]).astype(np.float32)).permute(3, 0, 1, 2)[None]
    columns = mfcc(samples).astype(np.float32)
    sound = torch.from_numpy(np.stack([columns[None, :, 4 * i : 4 * i + 20] for i in range(count)]))
    expected = offset_of(net.embed_lips(video)[:count], net.embed_sound(sound))
    for batch in (7, 100):
        found = SyncNetEval(net, batch)(iter(frames), samples, published)
        np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-5)


def test_files_are_loaded_strictly_and_frozen(tmp_path, network: SyncNetV2) -> None:
    weights = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}  # as old PyTorch wrote it
    torch.save(weights, tmp_path / "syncnet_v2.model")
    loaded = load_syncnet_v2(tmp_path / "syncnet_v2.model")
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(value.device.type == "cpu" for value in loaded.state_dict().values())
    assert torch.equal(loaded.netfcaud[3].weight, network.netfcaud[3].weight)
    del weights["netcnnaud.0.bias"]
    torch.save(weights, tmp_path / "other.model")
    with pytest.raises(WeightsError, match=r"SyncNetV2: of 102 entries 1 missing \(such as netcnnaud.0.bias\); use syncnet_v2.model"):
        load_syncnet_v2(tmp_path / "other.model")


BOX = np.array([100.0, 50.0, 220.0, 200.0])


def detected(*boxes: np.ndarray) -> np.ndarray:
    return np.array([[*box, 0.95] for box in boxes]).reshape(-1, 5)


def test_a_track_bridges_gaps_and_ends_at_cuts() -> None:
    drift = np.array([0.75, 0.5, 0.75, 0.5])
    detections = [detected(BOX + i * drift) if i < 40 or i >= 40 + MAX_STEP - 1 else detected() for i in range(100)]
    (track,) = link_faces([detected(), *detections])
    assert (track.start, track.stop, track.samples) == (1, 101, slice(640, 101 * 640))
    np.testing.assert_allclose(track.boxes, BOX + np.arange(100)[:, None] * drift)
    cut = link_faces((detected(BOX) for _ in range(160)), cuts=[60, 100])
    assert [(track.start, track.stop) for track in cut] == [(0, 60), (100, 160)]  # the shot between them is too short
    longer = [detected(BOX) if i < 60 or i >= 60 + MAX_STEP else detected() for i in range(140)]  # one frame too many without a face
    assert [(track.start, track.stop) for track in link_faces(longer)] == [(0, 60), (85, 140)]


def test_two_people_are_two_tracks_however_their_order_changes() -> None:
    left, right = BOX, BOX + np.array([300.0, 0, 300, 0])
    detections = [detected(left, right) if i % 3 else detected(right, left) for i in range(60)]
    detections += [detected(right)] * 10
    first, second = sorted(link_faces(detections), key=lambda track: track.boxes[0, 0])
    assert (first.boxes == left).all() and (second.boxes == right).all()
    assert (first.stop, second.stop) == (60, 70)


def test_short_and_small_tracks_are_left_out() -> None:
    assert link_faces([detected(BOX)] * 50) == [] and len(link_faces([detected(BOX)] * 51)) == 1
    assert link_faces([detected(np.array([0.0, 0, 100, 90]))] * 60) == []
    assert len(link_faces([detected(np.array([0.0, 0, 90, 101]))] * 60)) == 1
    assert link_faces([detected(BOX + i % 2 * 80) for i in range(60)]) == []  # jumps too far to be one face
    assert link_faces([]) == []


def test_places_are_filtered_along_time() -> None:
    boxes = np.tile(BOX, (40, 1))
    boxes[20] += 50  # one wrong detection
    path = crop_path(boxes)
    assert path.shape == (40, 3) and np.array_equal(path[20], [160, 125, 75])
    rising = crop_path(BOX + np.arange(40)[:, None])
    assert np.array_equal(rising[6:34, 0], 160.0 + np.arange(6, 34))
    assert rising[0, 0] == 160 and rising[39, 0] == 160 + 33  # beyond the ends the filter sees zeros


def test_crops_reach_from_brow_to_below_the_chin() -> None:
    frame = np.random.RandomState(0).randint(0, 100, (400, 400, 3), np.uint8)
    crop = crop_face(frame, np.array([200.4, 150.2, 80.0]))  # 224 pixels a side
    assert np.array_equal(crop, frame[70:294, 88:312])
    corner = crop_face(frame, np.array([10.0, 20.0, 80.0]))
    assert (corner[:60] == 110).all() and (corner[:, :102] == 110).all() and np.array_equal(corner[60:, 102:], frame[:164, :122])
    low = crop_face(frame, np.array([390.0, 380.0, 80.0]))
    assert (low[100:] == 110).all() and np.array_equal(low[:100, :122], frame[300:, 278:])


def test_a_video_becomes_tracks_and_crops() -> None:
    class Finder:
        """Finds one box, and keeps nothing."""

        def detect(self, frames: list[np.ndarray]) -> list[np.ndarray]:
            batches.append(len(frames))
            return [detected(BOX) for _ in frames]

    batches: list[int] = []
    frame = np.full((300, 400, 3), 7, np.uint8)
    (track,) = SyncNetDetector(Finder(), batch_size=16)(frame for _ in range(70))
    assert batches == [16, 16, 16, 16, 6] and (track.start, track.stop) == (0, 70)
    crops = list(track_crops((frame for _ in range(70)), track))
    assert len(crops) == 70 and crops[30].shape == (224, 224, 3) and crops[30][120, 112, 0] == 7

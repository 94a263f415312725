"""S3FD against reference numbers and the published key list; boxes in pixels; loading."""

import numpy as np
import pytest
import torch
from golden_recipe import assert_published, load_case, load_seeded, same_input, seeded_normal
from torchvision.ops import nms

from latentsync.third_party.s3fd import MEAN, S3FD, prior_boxes, shrink, suppress

SIDECAR, TENSORS = load_case("eval_s3fd")


@pytest.fixture(scope="module")
def network() -> S3FD:
    with torch.device("meta"):
        network = S3FD()
    assert_published(network, "s3fd")
    return load_seeded(network, SIDECAR, gain=1.4)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return same_input(60 * seeded_normal(SIDECAR["seed"] + 1, (1, 3, 96, 128)), SIDECAR["inputs"])


def equal(found: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(found, TENSORS[name], **SIDECAR["tolerance"])


@torch.no_grad()
def test_maps_and_heads_equal_the_reference(network: S3FD, pixels: torch.Tensor) -> None:
    heads = network.heads(pixels)
    assert [list(shifts.shape[2:]) for shifts, _ in heads] == [size[1:] for size in SIDECAR["source_map_sizes_c_h_w"]]
    equal(heads[0][0][0, :, :2], "loc0_first")
    equal(heads[0][1][0, :, :2], "conf0_first")
    equal(heads[5][0][0], "loc5")
    equal(heads[5][1][0], "conf5")


@torch.no_grad()
def test_boxes_equal_the_reference(network: S3FD, pixels: torch.Tensor) -> None:
    boxes, scores = network(pixels)
    assert boxes.shape == (1, SIDECAR["n_priors"], 4)
    boxes, scores = suppress(boxes[0], scores[0])
    equal(torch.cat([scores[:, None], boxes], 1)[:30], "det_top30")


def test_prior_boxes_equal_the_reference() -> None:
    priors = prior_boxes([size[1:] for size in SIDECAR["source_map_sizes_c_h_w"]], 96, 128)
    assert len(priors) == SIDECAR["n_priors"]
    equal(priors[:5], "priors_first5")
    equal(priors[-3:], "priors_last3")


def test_suppression_equals_the_example() -> None:
    example = SIDECAR["nms_example"]
    boxes = torch.tensor(example["boxes"])
    for share in (0.1, 0.5):
        assert nms(boxes[:, :4], boxes[:, 4], share).tolist() == example[f"thresh{share}"]
        kept, scores = suppress(boxes[:, :4], boxes[:, 4], max_overlap=share)
        assert torch.equal(torch.cat([kept, scores[:, None]], 1), boxes[example[f"thresh{share}"]])
    assert torch.equal(suppress(boxes[:, :4], boxes[:, 4], min_score=0.75)[0], boxes[[3, 1], :4])
    assert len(suppress(boxes[:, :4], boxes[:, 4], max_overlap=0.5, keep=2)[0]) == 2


def test_faces_are_boxes_in_pixels_of_each_frame(network: S3FD) -> None:
    """The frames a batch holds do not matter, and boxes fit the frame whatever it was shrunk to."""
    random = np.random.RandomState(0)
    small = random.randint(0, 256, (2, 40, 56, 3), np.uint8)
    frames = np.repeat(np.repeat(small, 4, 1), 4, 2)  # n 160 224 3: the same pictures, larger
    found = network.detect(frames, threshold=0.5)
    assert np.array_equal(shrink(frames, 0.25), small)
    alone, whole = network.detect(frames[1:], threshold=0.5), network.detect(small, scale=1, threshold=0.5)
    assert len(found) == 2 and len(found[1]) > 0 and found[1].dtype == np.float32
    np.testing.assert_allclose(found[1], alone[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found[1][:, :4], 4 * whole[1][:, :4], rtol=1e-3, atol=1e-2)
    assert (found[1][:, 4] > 0.5).all() and (np.diff(found[1][:, 4]) <= 0).all()
    assert network.detect(frames[:0]) == [] and [len(boxes) for boxes in network.detect(frames[:1], threshold=1.0)] == [0]


@torch.no_grad()
def test_pixels_are_rgb_less_the_mean(network: S3FD, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(network, "forward", lambda pixels: (seen.append(pixels), (torch.zeros(1, 1, 4), torch.zeros(1, 1)))[1])
    network.detect(np.full((1, 128, 256, 3), (10, 20, 30), np.uint8))
    assert seen[0].shape == (1, 3, 32, 64)
    torch.testing.assert_close(seen[0][0, :, 5, 5], torch.tensor([10.0, 20.0, 30.0]) - torch.tensor(MEAN))

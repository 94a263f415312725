"""hyperIQA against reference numbers and the published key list; what it is given of a clip; loading."""

import numpy as np
import pytest
import torch
from golden_recipe import assert_published, load_case, load_seeded, same_input, seeded_normal

from latentsync.errors import InputError
from latentsync.third_party.hyperiqa import MEAN, STD, HyperNet, chosen_frames, middle_square

SIDECAR, TENSORS = load_case("eval_hyperiqa")


@pytest.fixture(scope="module")
def network() -> HyperNet:
    with torch.device("meta"):
        network = HyperNet()
    assert_published(network, "hyperiqa_hypernet")
    return load_seeded(network, SIDECAR)


@torch.no_grad()
def test_the_predicted_weights_and_their_scores_equal_the_reference(network: HyperNet) -> None:
    pixels = same_input(seeded_normal(SIDECAR["seed"] + 1, (3, 3, 224, 224)), SIDECAR["inputs"])
    inputs, weights, biases = network.predict_weights(pixels)
    found = {"target_in_vec": inputs, "fc1w_first8": weights[0][:, :8, :8], "fc1b": biases[0], "fc5w": weights[4][:, 0], "fc5b": biases[4]}
    found["quality"] = network(pixels)
    assert found.keys() == TENSORS.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, TENSORS[name], **SIDECAR["tolerance"])


def test_a_clip_is_scored_by_the_middles_of_three_frames(network: HyperNet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [chosen_frames(count) for count in (100, 7, 1)] == [(0, 50, 99), (0, 3, 6), (0, 0, 0)]
    frames = np.random.RandomState(0).randint(0, 256, (3, 256, 301, 3), np.uint8)
    assert np.array_equal(middle_square(frames[0]), frames[0][16:240, 38:262])
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(network, "forward", lambda pixels: (seen.append(pixels), torch.tensor([30.0, 50.0, 70.0]))[1])
    assert network.score(frames) == 50
    expected = (frames[2, 16, 38] / 255 - MEAN) / STD
    np.testing.assert_allclose(seen[0][2, :, 0, 0], expected, rtol=1e-5)
    with pytest.raises(InputError, match="these have 300 x 200"):
        network.score(np.zeros((3, 200, 300, 3), np.uint8))

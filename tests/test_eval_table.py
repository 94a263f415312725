"""Which measures can take part: those whose files are there; the others are named with file and source."""

from pathlib import Path

import pytest

from eval.config import MeasuresConfig
from eval.metrics.table import load_metrics
from latentsync.errors import ConfigError, InputError, WeightsError
from latentsync.weights import WEIGHTS

WITHOUT_FILES = ["ssim", "psnr", "lmd", "seam", "jitter"]


def test_what_is_missing_is_named_with_place_and_source(tmp_path: Path) -> None:
    found = load_metrics(MeasuresConfig(), "cpu", checkpoints=tmp_path)
    assert [measure.name for measure in found.metrics] == WITHOUT_FILES
    names = [column.name for measure in found.metrics for column in measure.columns]
    assert len(names) == len(set(names)) and all(len(measure.protocol) > 40 for measure in found.metrics)
    missing = found.missing
    assert missing.keys() == {"sync", "stable_sync", "lpips", "silence", "identity", "hyperiqa", "fvd", "fvd_all", "fid"}
    for name in ("syncnet_v2", "sfd_face"):
        assert str(tmp_path / WEIGHTS[name].path) in missing["sync"]
    assert "ByteDance/LatentSync-1.6" in missing["sync"] and str(tmp_path / WEIGHTS["i3d"].path) in missing["fvd"]
    assert "measures.identity" in missing["identity"] and "measures.syncnet" in missing["stable_sync"]
    assert len(found.stand_ins) == 1 and "MTCNN" in found.stand_ins[0]


def test_measures_are_chosen_by_name(tmp_path: Path) -> None:
    found = load_metrics(MeasuresConfig(names=["psnr", "fid"]), "cpu", checkpoints=tmp_path)
    assert [measure.name for measure in found.metrics] == ["psnr"] and list(found.missing) == ["fid"]
    with pytest.raises(ConfigError, match=r"but the measures are .*fid$"):
        load_metrics(MeasuresConfig(names=["fidd"]), "cpu", checkpoints=tmp_path)
    with pytest.raises(InputError, match="Nothing can be measured"):
        load_metrics(MeasuresConfig(names=["fid"]), "cpu", checkpoints=tmp_path)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS["i3d"].path).parent.mkdir()
    (tmp_path / WEIGHTS["i3d"].path).write_bytes(b"something else")
    with pytest.raises(WeightsError, match="i3d_torchscript"):
        load_metrics(MeasuresConfig(names=["fvd"]), "cpu", checkpoints=tmp_path)

"""python -m scripts.weights: list, check, licences (the download: test_weights.py)."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from benchmarks.write_random_checkpoint import WHISPER_MINUTE, unet_config, write_unet, write_whisper
from latentsync.weights import WEIGHTS
from scripts import weights


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A right file, a wrong one, one with a wrong checksum."""
    write_whisper(tmp_path / WEIGHTS["whisper-tiny"].path, WHISPER_MINUTE)
    for name in ("syncnet_v2", "2dfan4"):
        path = tmp_path / WEIGHTS[name].path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"something else")
    return tmp_path


def test_the_list_names_every_file(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert weights.main(["list", "--checkpoints", str(checkpoints)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() == {"name", *WEIGHTS}
    assert " yes " in lines["whisper-tiny"] and " no " in lines["unet-1.6"] and "no (optional)" in lines["vgg16"]
    assert str(checkpoints / WEIGHTS["vgg16"].path) in lines["vgg16"] and " MB " in lines["whisper-tiny"]


def test_the_list_says_where_files_of_the_published_layout_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_unet(tmp_path / "latentsync_unet.pt", unet_config(tiny=True))
    (tmp_path / "stable_syncnet.pt").touch()
    assert weights.main(["list", "--checkpoints", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert " yes " in lines["unet-1.6"] and f" {tmp_path / 'latentsync_unet.pt'} " in lines["unet-1.6"] and "assumed" in lines["unet-1.6"]
    assert " no " in lines["unet-1.5"] and " no " in lines["unet-1.0"] and f" {tmp_path / 'stable_syncnet.pt'} " in lines["syncnet"]


def test_programs_of_other_libraries_are_checked_unexecuted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / WEIGHTS["i3d"].path
    path.parent.mkdir(parents=True)
    with ZipFile(path, "w") as archive:
        archive.writestr("net/constants.pkl", b"x" * 1000)
    assert weights.main(["check", "i3d", "--checkpoints", str(tmp_path)]) == 0
    path.write_bytes(path.read_bytes()[:500])
    assert weights.main(["check", "i3d", "--checkpoints", str(tmp_path)]) == 1
    assert "right (can be read" in capsys.readouterr().out


def test_files_are_checked_by_sum_and_by_network(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert weights.main(["check", "--checkpoints", str(checkpoints)]) == 1
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["whisper-tiny"].startswith("right (fits its network") and lines["vae"] == "missing"
    assert "not a checkpoint" in lines["syncnet_v2"] and "checksum" in lines["2dfan4"]
    assert weights.main(["check", "whisper-tiny", "--checkpoints", str(checkpoints)]) == 0
    assert weights.main(["check", "vae", "--checkpoints", str(checkpoints)]) == 1


def test_wrong_names_are_refused() -> None:
    with pytest.raises(SystemExit) as caught:
        weights.main(["check", "vea"])
    assert caught.value.code == 2
    assert weights.network_loaders().keys() <= WEIGHTS.keys()

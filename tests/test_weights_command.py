"""python -m scripts.weights: list, check, licences, page, and downloads that break (which files: test_weights.py)."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from zipfile import ZipFile

import pytest

import latentsync.weights
from benchmarks.write_random_checkpoint import WHISPER_MINUTE, unet_config, write_unet, write_whisper
from latentsync.weights import WEIGHTS
from scripts import download_weights, weights


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


def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert weights.main(["page"]) == 0
    assert (weights.ROOT / "docs" / "weights.md").read_text(encoding="utf-8") == capsys.readouterr().out


class CuttingServer(BaseHTTPRequestHandler):
    """Serves CONTENT with the answers of Hugging Face; ends the first answer of each path in its middle."""

    content, ranges, cut = bytes(range(256)) * 96000, [], set()  # huggingface_hub writes 10 MB at a time

    def do_HEAD(self) -> None:
        self.send_response(200)
        headers = {"ETag": sha256(self.content).hexdigest(), "X-Repo-Commit": "0" * 40, "Content-Length": len(self.content)}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def do_GET(self) -> None:
        self.ranges.append(self.headers.get("Range"))
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        if self.path not in self.cut:
            self.cut.add(self.path)
            self.wfile.write(self.content[start : len(self.content) // 2])
            self.connection.close()
            return
        self.wfile.write(self.content[start:])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that breaks off."""
    CuttingServer.ranges, CuttingServer.cut = [], set()
    with ThreadingHTTPServer(("127.0.0.1", 0), CuttingServer) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_download_goes_on_where_the_connection_was_cut(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """From an address and from a mirror of Hugging Face: both ask for the missing half alone, and the checksum is right."""
    content = CuttingServer.content
    vgg = replace(WEIGHTS["vgg16"], source=f"{server}/vgg16.pth", sha256=sha256(content).hexdigest())
    table = {"vgg16": vgg, "whisper-tiny": WEIGHTS["whisper-tiny"]}
    for module in (latentsync.weights, download_weights):
        monkeypatch.setattr(module, "WEIGHTS", table)
    arguments = ["--names", *table, "--checkpoints", str(tmp_path), "--mirror", server]
    assert download_weights.main(arguments) == 0
    assert "No weight file is missing." in capsys.readouterr().out
    for weight in table.values():
        assert (tmp_path / weight.path).read_bytes() == content
    assert CuttingServer.ranges.count(None) == 2 and len(CuttingServer.ranges) == 4, CuttingServer.ranges
    assert not (tmp_path / download_weights.PARTIAL).exists()


def test_files_are_taken_out_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "disk", tmp_path / "checkpoints"
    (source / "LatentSync-1.5").mkdir(parents=True)
    (source / "LatentSync-1.5" / "latentsync_unet.pt").write_bytes(b"denoiser")
    (source / "vgg16-397923af.pth").write_bytes(b"wrong")
    arguments = ["--names", "unet-1.5", "vgg16", "--from_dir", str(source), "--checkpoints", str(target)]
    assert download_weights.main(arguments) == 0
    assert (target / "latentsync-1.5" / "latentsync_unet.pt").read_bytes() == b"denoiser"
    told = capsys.readouterr().out
    assert f"put it at {source / WEIGHTS['vgg16'].path}" in told and "vgg16-397923af.pth: optional" in told


def test_wrong_names_are_refused() -> None:
    with pytest.raises(SystemExit) as caught:
        weights.main(["check", "vea"])
    assert caught.value.code == 2
    assert weights.network_loaders().keys() <= WEIGHTS.keys()

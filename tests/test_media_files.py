"""Walk a tree; write whole or not at all."""

import json

import pytest

from latentsync.errors import InputError, OutputError
from latentsync.media.files import staged, walk_media, write_json, write_text


def test_walk(tmp_path):
    for name in ("b/2.mp4", "b/1.MOV", "a.mkv", "notes.txt", ".hidden/x.mp4", ".latentsync-0.mp4", "c/.x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in walk_media(tmp_path)] == ["a.mkv", "b/1.MOV", "b/2.mp4"]
    assert [path.name for path in walk_media(tmp_path, [".txt"])] == ["notes.txt"]
    with pytest.raises(InputError, match="not a folder"):
        next(walk_media(tmp_path / "absent"))


def test_results_appear_whole(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"name": "dëv"})
    assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == {"name": "dëv"}
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"new", "a.txt"}


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    write_text(tmp_path / "real" / "a.txt", "old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "a.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "new"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(OutputError, match="cannot write"):
        write_text("/proc/nothing.txt", "x")

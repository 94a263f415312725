"""Walk a tree; write whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from refusals import refused

from latentsync.errors import InputError, OutputError
from latentsync.media.files import (
    read_paths,
    read_table,
    read_text,
    staged,
    temporary_folder,
    walk_media,
    write_json,
    write_text,
    written_path,
)

WRITER = """
import sys, time
from latentsync.media.files import staged
with staged(sys.argv[1]) as part:
    part.write_bytes(b"half")
    print(part, flush=True)
    time.sleep(60)
"""


def test_walk(tmp_path):
    for name in ("b/2.mp4", "b/1.MOV", "a.mkv", "notes.txt", ".hidden/x.mp4", ".latentsync-0.mp4", "c/.x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in walk_media(tmp_path)] == ["a.mkv", "b/1.MOV", "b/2.mp4"]
    assert [path.name for path in walk_media(tmp_path, [".txt"])] == ["notes.txt"]
    refused(InputError, "not a folder", lambda: next(walk_media(tmp_path / "absent")))


def test_results_appear_whole(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"name": "dëv"})
    assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == {"name": "dëv"}
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"new", "a.txt"}
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "a.txt").read_text() == "new"
    for place in (tmp_path / "a.txt" / "b.txt", "/proc/nothing.txt"):
        refused(OutputError, "cannot write", write_text, place, "x")


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / name], cwd=root, stdout=subprocess.PIPE, text=True)
        for name in ("killed.mp4", "alive.mp4")
    ]
    killed, alive = (Path(writer.stdout.readline().rstrip()) for writer in writers)
    writers[0].kill()
    writers[0].wait()
    now = time.time()
    elsewhere = {tmp_path / f".latentsync-{name}": age for name, age in (("0" * 12 + ".mp4", 3600), ("0" * 8 + "-" + "0" * 12, 90000))}
    kept = [tmp_path / ".latentsync-setup", tmp_path / ".latentsync-mine.mp4"]
    for path in (*elsewhere, *kept):
        path.touch()
        os.utime(path, (now - elsewhere.get(path, 1e6),) * 2)
    assert killed.is_file() and alive.is_file()
    write_text(tmp_path / "next.txt", "x")
    young, old = elsewhere
    assert not killed.exists() and not old.exists()  # the second: of another machine, a day without a change
    assert alive.read_bytes() == b"half" and young.exists() and all(path.exists() for path in kept)
    writers[1].kill()
    writers[1].wait()


@pytest.mark.parametrize(
    ("encoding", "separator", "line_end"),
    [("utf-8", ",", "\n"), ("utf-8-sig", ";", "\r\n"), ("utf-16", "\t", "\r\n"), ("cp1252", ";", "\r\n"), ("cp1252", ",", "\n")],
)
def test_a_table_as_spreadsheets_save_it(tmp_path: Path, encoding: str, separator: str, line_end: str) -> None:
    (tmp_path / "Müller, a; b.mp4").touch()
    lines = [
        separator.join(("Video_Path", " audio_path ", "length", "")),
        separator.join(('"Müller, a; b.mp4"', "in\\b.wav", "", "")),
        separator * 3,
        "# " + separator.join(["a", "note", "of", "five", "words"]),
        separator.join(("c.mp4", ' "d e.wav"', "audio")),
    ]
    (tmp_path / "jobs.csv").write_bytes((line_end.join(lines) + line_end).encode(encoding))
    first, second = read_table(tmp_path / "jobs.csv")
    assert second == {"video_path": "c.mp4", "audio_path": "d e.wav", "length": "audio"}
    assert first.keys() == {"video_path", "audio_path"}
    assert written_path(tmp_path, first["video_path"]) == tmp_path / "Müller, a; b.mp4"
    assert written_path(tmp_path, first["audio_path"]) == tmp_path / "in" / "b.wav"


def test_tables_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("sep=;\na;b\n1;2,5\n")
    assert read_table(path) == [{"a": "1", "b": "2,5"}]
    path.write_text("")
    assert read_table(path) == []
    path.write_text("a,b\n1,2\n1,2,3\n")
    refused(InputError, "row 2: there are more cells than the header has names", read_table, path)
    path.write_bytes(b"a\0b")
    refused(InputError, "no text file", read_text, path)
    refused(InputError, r"absent\.csv does not exist", read_text, tmp_path / "absent.csv")


def test_a_list_of_paths_as_people_write_it(tmp_path: Path) -> None:
    names = ["a b (1).mp4", "deep/ü.mp4", "as written .mp4 ", "'quoted'.mp4", "e\u0301.mp4", "back\\slash.mp4"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    lines = {
        "a b (1).mp4": "a b (1).mp4",
        "": None,
        "# a comment": None,
        '"a b (1).mp4"': "a b (1).mp4",
        "  'a b (1).mp4' ": "a b (1).mp4",
        "a b (1).mp4 \t": "a b (1).mp4",
        "deep\\ü.mp4": "deep/ü.mp4",
        '".\\deep\\ü.mp4"': "deep/ü.mp4",
        str(tmp_path / "deep/ü.mp4"): "deep/ü.mp4",
        "as written .mp4 ": "as written .mp4 ",
        "'quoted'.mp4": "'quoted'.mp4",
        "\u00e9.mp4": "e\u0301.mp4",
        "back\\slash.mp4": "back\\slash.mp4",
        "no\\such.mp4": "no/such.mp4",
    }
    path = tmp_path / "list.txt"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes("\r\n".join(lines).encode(encoding))
        assert read_paths(path) == [(number, tmp_path / name) for number, name in enumerate(lines.values(), start=1) if name]
    path.write_bytes("deep/ü.mp4\n".encode("cp1252"))
    assert read_paths(path) == [(1, tmp_path / "deep/ü.mp4")]
    raw = tmp_path / os.fsdecode(b"\xfc raw.mp4")
    raw.touch()
    path.write_bytes(b"\xfc raw.mp4\n")
    assert read_paths(path) == [(1, raw)]


OWNER = """
import sys, time
from latentsync.media.files import temporary_folder
with temporary_folder(sys.argv[1]) as folder:
    (folder / "upload.mp4").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_the_temporary_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays():
    prefix = f"latentsync-{os.getpid()}-"
    owners = [subprocess.Popen([sys.executable, "-c", OWNER, prefix], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    left, owned = (Path(owner.stdout.readline().strip()) for owner in owners)
    owners[0].kill()
    owners[0].wait()
    assert left.exists()
    with temporary_folder(prefix) as own:
        assert (left.exists(), owned.exists(), own.is_dir()) == (False, True, True)
    assert not own.exists()
    owners[1].kill()
    owners[1].wait()
    shutil.rmtree(owned)

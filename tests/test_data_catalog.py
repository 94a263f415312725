"""Which clips are taken, which are left out and why, and that the second search opens nothing."""

import logging
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from data_fixtures import FRAMES, SECONDS, catalog_of, make_folder, make_training_clip, write_truth
from media_fixtures import make_clip, make_sound

from latentsync.data import clip_index
from latentsync.data.clip_index import open_catalog, read_with_stamps
from latentsync.errors import InputError


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """One good clip, and one for each reason to leave a clip out."""
    folder = tmp_path_factory.mktemp("clips")
    good = make_training_clip(folder / "good.mp4")
    write_truth(good)
    make_training_clip(folder / "deep" / "good two ü'%d.mp4", sound_seconds=2.8)
    make_training_clip(folder / "short.mp4", seconds=0.2)
    make_training_clip(folder / "thirty.mp4", "-r", "30")
    make_training_clip(folder / "silent half.mp4", sound_seconds=1)
    make_training_clip(folder / "wide.mp4", face="testsrc2=size=96x64:rate=25:duration={seconds}")
    make_training_clip(folder / "late.mkv", "-af", "asetpts=PTS+0.3/TB")
    make_clip(folder / "mute.mp4", picture="testsrc2=size=64x64:rate=25:duration=3")
    make_sound(folder / "unseen.m4a").rename(folder / "unseen.mp4")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video at all\n" * 40)
    (folder / "cut.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "notes.txt").write_text("not a clip")
    return folder


def test_good_clips_are_taken_and_others_left_out_with_a_reason(clips, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        catalog = catalog_of(clips, tmp_path)
    assert [clip.path for clip in catalog.clips] == [clips / "good.mp4", clips / "deep" / "good two ü'%d.mp4"]
    by_name = {clip.path.name: clip for clip in catalog.clips}
    good, other = by_name["good.mp4"], by_name["good two ü'%d.mp4"]
    assert (good.frames, good.mouth) == (FRAMES, True)
    assert good.seconds == pytest.approx(SECONDS, abs=0.1)
    assert (other.frames, other.mouth) == (70, False)
    why = {path.name: reason for path, reason in catalog.rejected.items()}
    assert why.keys() == {path.name for path in clips.rglob("*") if path.suffix in {".mp4", ".mkv"}} - by_name.keys()
    words = {
        "short": "shorter than 6 frames: 5",
        "thirty": "not at 25 frames a second: at 30.00",
        "silent half": "with too little sound: 1.0",
        "wide": "not square: 96 x 64",
        "mute": "without sound",
        "unseen": "only sound",
        "empty": "empty (0 bytes)",
        "text": "not a media file",
        "cut": "cut short",
    }
    for name, part in words.items():
        assert part in why[f"{name}.mp4"], why[f"{name}.mp4"]
    assert "s after its picture" in why["late.mkv"] and "out of step" in why["late.mkv"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "10 of 12 clips are left out" in warnings[0]
    assert "4 unreadable" in warnings[0]
    assert sum("is left out: " in record.getMessage() for record in caplog.records) == 10


def test_the_second_search_opens_no_clip_until_one_changes(clips, tmp_path, monkeypatch):
    first = catalog_of(clips, tmp_path)
    opened = []
    monkeypatch.setattr(clip_index, "read_with_stamps", lambda path: opened.append(path) or read_with_stamps(path))
    assert catalog_of(clips, tmp_path) == first
    assert not opened
    os.utime(clips / "good.mp4", ns=(1, 1_000_000_007))
    write_truth(clips / "deep" / "good two ü'%d.mp4")
    again = catalog_of(clips, tmp_path)
    (clips / "deep" / "good two ü'%d.json").unlink()
    assert set(opened) == {clip.path for clip in again.clips}
    assert all(clip.mouth for clip in again.clips)


def test_torn_lines_of_another_process_are_passed_over(clips, tmp_path):
    first = catalog_of(clips, tmp_path)
    (book,) = tmp_path.glob("*.jsonl")
    book.write_bytes(b'{"path": "a", "stamps"' + b"\n[1]\nnull\n\xff\n" + book.read_bytes()[:-40])
    assert catalog_of(clips, tmp_path) == first
    assert catalog_of(clips, tmp_path) == first


def test_lists(clips, tmp_path):
    lines = ["# two clips", "", "clips/good.mp4", "clips/../clips/good.mp4", str(clips / "good.mp4"), "gone.mp4", "gone.mp4", "clips"]
    (tmp_path / "clips").symlink_to(clips)
    fileslist = tmp_path / "list.txt"
    fileslist.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    catalog = open_catalog(None, fileslist, min_frames=6, cache_dir=tmp_path / "cache")
    assert [clip.path for clip in catalog.clips] == [tmp_path / "clips" / "good.mp4", clips / "good.mp4"]
    assert catalog.rejected == {
        tmp_path / "gone.mp4": f"named in the list but missing: line 6 of {fileslist}",
        tmp_path / "clips": f"named in the list but missing: line 8 of {fileslist}",
    }
    both = open_catalog(clips / "deep", fileslist, min_frames=6, cache_dir=tmp_path / "cache")
    assert [clip.path.name for clip in both.clips] == ["good two ü'%d.mp4", "good.mp4", "good.mp4"]


@pytest.mark.parametrize(
    ("folder", "fileslist", "words"),
    [
        (None, None, "nothing to train on"),
        ("missing", None, "missing is not a folder"),
        (None, "missing.txt", "missing.txt does not exist"),
        (None, "binary.txt", "is no text file"),
        (None, "bare.txt", "bare.txt holds no clip: clips are square videos"),
        ("bad", None, r"bad holds no clip that can be used \(2 unreadable, 1 shorter than 6 frames\)"),
    ],
)
def test_nothing_to_train_on_is_told(folder, fileslist, words, tmp_path):
    make_training_clip(tmp_path / "bad" / "short.mp4", seconds=0.2)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "bad" / name).write_text("text")
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    (tmp_path / "bare.txt").write_text("# nothing\n\n")
    with pytest.raises(InputError, match=words):
        open_catalog(folder and tmp_path / folder, fileslist and tmp_path / fileslist, min_frames=6, cache_dir=tmp_path / "cache")


def test_processes_that_start_together_agree(tmp_path):
    folder = make_folder(tmp_path / "clips", 3)
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        catalogs = list(pool.map(catalog_of, [folder] * 3, [tmp_path / "cache"] * 3))
    assert catalogs[0] == catalogs[1] == catalogs[2]
    (book,) = (tmp_path / "cache").glob("*.jsonl")
    assert len([line for line in book.read_text().splitlines() if line]) == 3  # one opened them, the others read

"""What can be read from a manifest: the table, the page, the lists for training."""

import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pipeline_steps
import pytest
from media_fixtures import make_clip
from test_pipeline_manifest import run

from latentsync.media.files import read_paths
from preprocess import file_list, report
from preprocess.manifest import read_manifest
from preprocess.report import as_text, count_steps, histograms
from preprocess.step import ClipFile, Kept, Outcome, Rejected


def halve(clip: ClipFile, folder: Path) -> Outcome:
    """Keeps every second clip, with numbers."""
    number = int(clip.path.stem.split()[1])
    facts = {"duration": 3.0, "confidence": number / 2, "offset": number % 5 - 2, "codec": "h264", "damaged": number > 4}
    if number % 2:
        return [Rejected("low <confidence>", f"it has {number / 2}, & that is < 9", facts)]
    return [Kept(clip.path, facts)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "raw").mkdir()
    clip = make_clip(folder / "clip.mp4", "-t", "0.4")
    for k in range(12):
        (folder / "raw" / f"clip {k}.mp4").write_bytes(clip.read_bytes())
    run(folder, [pipeline_steps.step("halve", halve, columns=("confidence", "offset"))])
    return folder


def test_the_table_counts(folder: Path) -> None:
    with read_manifest(folder) as manifest:
        raw, halve = count_steps(manifest)
        assert (raw.kept, halve.clips_in, halve.kept, halve.reasons) == (12, 12, 6, {"low <confidence>": 6})
        assert (halve.hours_in, halve.hours_out, halve.seconds) == (pytest.approx(36 / 3600), pytest.approx(18 / 3600), 3.0)
        assert halve.speed == pytest.approx(12.0)
        lines = as_text([raw, halve]).splitlines()
    assert re.match(r"halve +12 +6 +6 +0\.01 +0\.01 +0\.00 +12\.00", lines[2])
    assert lines[3].split() == ["low", "<confidence>", "6"]


def test_histograms_hold_every_clip_once(folder: Path) -> None:
    with read_manifest(folder) as manifest:
        found = {histogram["name"]: histogram for histogram in histograms(manifest)}
    assert set(found) == {"offset", "confidence"}
    assert sum(found["confidence"]["kept"]) == 6 and sum(found["confidence"]["rejected"]) == 6
    assert (found["offset"]["low"], found["offset"]["high"], found["offset"]["kept"]) == (-2, 3, [2, 1, 1, 1, 1])


def test_the_page_is_whole_and_shows_pictures(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "page.html"
    assert report.main([str(folder / "manifest.sqlite"), "--output", str(target)]) == 0
    assert "low <confidence>" in capsys.readouterr().out
    text = target.read_text()
    assert text.count("data:image/jpeg;base64,") >= 9, "kept at random and the lowest, and three of the reason"
    assert "low &lt;confidence&gt;" in text and "<confidence>" not in text
    assert "it has" in text and text.count("class=plot") == 2
    assert not re.search(r'(src|href)="(?!data:)', text), "the page needs another file"
    assert report.main([str(tmp_path)]) == 2


def test_lists_split_by_raw_source(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for k in range(40):
        (tmp_path / "raw" / f"# {k}.mp4").write_text(f"{'x' * (k % 7)}")
    run(tmp_path)
    train, val = tmp_path / "lists" / "train.txt", tmp_path / "cut" / "val.txt"
    train.parent.mkdir()
    arguments = [str(tmp_path), "--output", str(train), "--val", str(val), "--val_share", "0.3"]
    assert file_list.main([*arguments, "--where", "confidence>=3", "--where", "frames == 250"]) == 0
    lists = [[path for _, path in read_paths(file)] for file in (train, val)]
    assert all(path.is_file() for paths in lists for path in paths)
    sources = [{path.name.rpartition("_")[0] for path in paths} for paths in lists]
    assert not sources[0] & sources[1], "one raw file in both lists"
    assert all(len(paths) == 2 * len(names) and names for paths, names in zip(lists, sources, strict=True))
    wanted = {f"# {k}" for k in range(40) if k % 7 + 1 >= 3}
    assert sources[0] | sources[1] == wanted
    before = val.read_text()
    (tmp_path / "raw" / "# 99.mp4").write_text("xxxxxx")
    run(tmp_path)
    assert file_list.main([*arguments, "--where", "confidence>=3"]) == 0
    assert set(before.splitlines()) <= set(val.read_text().splitlines()), "a clip moved from one list to the other"


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of each of 12 speakers, who have a folder each; one raw file lies in none."""
    folder = tmp_path_factory.mktemp("speakers")
    for k in range(12):
        (folder / "raw" / f"s{k}").mkdir(parents=True)
        for n in range(3):
            (folder / "raw" / f"s{k}" / f"t{k % 4}-{n}.mp4").write_text("half")
    (folder / "raw" / "alone.mp4").write_text("half")
    run(folder)
    return folder


def split(folder: Path, tmp_path: Path, *options: str) -> list[set[str]]:
    """The raw files of the clips in the lists for training and for validation."""
    train, val = tmp_path / "train.txt", tmp_path / "val.txt"
    assert file_list.main([str(folder), "--output", str(train), "--val", str(val), *options]) == 0
    lists = [{line.partition("/cut/")[2].removesuffix("_0.mp4") for line in file.read_text().splitlines()} for file in (train, val)]
    assert len(lists[0] | lists[1]) == 37 and not lists[0] & lists[1]
    return lists


@pytest.mark.parametrize(("grouping", "name"), [("folder", r"(s\d+)/"), (r"/(t\d)-", r"/(t\d)-"), (r"s\d+/t\d-(\d)", r"-(\d)")])
def test_groups_are_never_in_both_lists(speakers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, grouping: str, name: str) -> None:
    lists = split(speakers, tmp_path, "--val_share", "0.5", "--group_by", grouping)
    names = [{match[1] for source in sources if (match := re.search(name, source))} for sources in lists]
    assert not names[0] & names[1]
    assert "does not match 1 raw files, such as alone.mp4" in caplog.text
    assert ("folders or names" in caplog.text) == shared(lists)


def shared(lists: list[set[str]]) -> bool:
    train, val = ({source.split("/")[0] for source in sources} for sources in lists)
    return bool(train & val)


def test_lists_that_say_little_are_told(speakers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = split(speakers, tmp_path, "--val_share", "0.3")
    assert shared(lists)
    assert re.search(r"\d+ of 13 folders or names, such as s\d+, have clips in both lists", caplog.text)
    caplog.clear()
    assert split(speakers, tmp_path, "--val_share", "0.001")[1] == set()
    told = re.search(r"validation is empty: none of 37 groups .* --val_share of (\S+) or more", caplog.text)
    assert told and split(speakers, tmp_path, "--val_share", told[1])[1]
    caplog.clear()
    train, val = split(speakers, tmp_path, "--val_share", "0.5", "--group_by", "(s)|(alone)", "--seed", "2")
    assert (len(train), len(val)) == (1, 36)
    assert "One of 2 groups, s, holds 36 of 37 clips" in caplog.text
    caplog.clear()
    assert split(speakers, tmp_path, "--val_share", "1")[0] == set()
    assert "training is empty: all 37 groups" in caplog.text
    for wrong in ("speakers", "s(", ""):
        arguments = [str(speakers), "--output", str(tmp_path / "no.txt"), "--group_by", wrong]
        assert file_list.main(arguments) == 2 and not (tmp_path / "no.txt").exists()


def read_only(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a module in a view of the system in which nothing below `folder` can be written."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, folder]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a folder read-only")
    return subprocess.run([*apart, sys.executable, "-m", *map(str, command)], capture_output=True, text=True, cwd=Path(__file__).parents[1])


def test_a_manifest_is_read_where_nothing_can_be_written(folder: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    listed = read_only(folder, "preprocess.file_list", folder, "--output", tmp_path / "train.txt")
    assert (listed.returncode, len((tmp_path / "train.txt").read_text().splitlines())) == (0, 6), listed.stderr
    shown = read_only(folder, "preprocess.report", folder, "--output", tmp_path / "page.html")
    assert shown.returncode == 0 and "low <confidence>" in shown.stdout and (tmp_path / "page.html").stat().st_size > 10_000
    refused = read_only(folder, "preprocess.report", folder)
    assert refused.returncode == 1 and "low <confidence>" in refused.stdout
    assert re.search(r"cannot write into .*read-only.*--output", refused.stderr)
    assert sorted(path.name for path in folder.iterdir()) == names


def test_rows_that_cannot_be_seen_are_told(folder: Path, tmp_path: Path) -> None:
    unfinished, wrong = tmp_path / "unfinished", tmp_path / "wrong"
    shutil.copytree(folder, tmp_path / "whole")
    with read_manifest(tmp_path / "whole") as manifest, sqlite3.connect(tmp_path / "whole" / "manifest.sqlite") as writer:
        assert manifest.count_raw() == 12
        writer.execute("DELETE FROM clips WHERE source = 'clip 0.mp4'")
        writer.commit()
        shutil.copytree(tmp_path / "whole", unfinished, ignore=shutil.ignore_patterns("*-shm", "raw"))  # as a copy of a run that was killed
    wrong.mkdir()
    (wrong / "manifest.sqlite").write_bytes(b"this is no database, but long enough to be looked at" * 40)
    left, refused = (read_only(path, "preprocess.file_list", path, "--output", tmp_path / "list") for path in (unfinished, wrong))
    assert left.returncode == 0 and "rows that are still in manifest.sqlite-wal are not seen" in left.stderr
    assert refused.returncode == 2 and "is no manifest of this pipeline" in refused.stderr
    with read_manifest(unfinished) as manifest:
        assert manifest.count_raw() == 11, "with a folder that can be written everything is seen"


@pytest.mark.parametrize("condition", ["confidence", "__import__('os')", "confidence >= ", "beauty > 3"])
def test_conditions_that_make_no_sense_are_refused(folder: Path, tmp_path: Path, condition: str) -> None:
    assert file_list.main([str(folder), "--output", str(tmp_path / "list.txt"), "--where", condition]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("condition", "count"), [("confidence<3", 3), ("codec==h264", 6), ("codec != 'h264'", 0), ("damaged = true", 3), ("codec > 4", 0)]
)
def test_conditions_compare_numbers_and_words(folder: Path, tmp_path: Path, condition: str, count: int) -> None:
    with read_manifest(folder) as manifest:
        assert len(list(file_list.chosen_clips(manifest, [file_list.read_condition(condition)]))) == count

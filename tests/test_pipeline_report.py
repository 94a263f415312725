"""What can be read from a manifest: the table, the page, the lists for training."""

import re
from pathlib import Path

import pytest
from media_fixtures import make_clip
from test_pipeline_manifest import run

from latentsync.data.catalog import _read_list
from preprocess import file_list, report
from preprocess.manifest_file import read_manifest
from preprocess.stage import Clip, Kept, Outcome, Rejected, Stage
from preprocess.tables import as_text, count_steps, histograms


class Judge:
    """Keeps every second clip, with numbers."""

    def __call__(self, clip: Clip, folder: Path) -> Outcome:
        number = int(clip.path.stem.split()[1])
        facts = {"duration": 3.0, "confidence": number / 2, "offset": number % 5 - 2, "codec": "h264", "damaged": number > 4}
        if number % 2:
            return [Rejected("low <confidence>", f"it has {number / 2}, & that is < 9", facts)]
        return [Kept(clip.path, facts)]


def open_judge(device: str) -> Judge:
    return Judge()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "raw").mkdir()
    clip = make_clip(folder / "clip.mp4", "-t", "0.4")
    for k in range(12):
        (folder / "raw" / f"clip {k}.mp4").write_bytes(clip.read_bytes())
    run(folder, [Stage("judge", "", open_judge)])
    return folder


def test_the_table_counts(folder: Path) -> None:
    with read_manifest(folder) as manifest:
        raw, judge = count_steps(manifest)
        assert (raw.kept, judge.clips_in, judge.kept, judge.reasons) == (12, 12, 6, {"low <confidence>": 6})
        assert (judge.hours_in, judge.hours_out, judge.seconds) == (pytest.approx(36 / 3600), pytest.approx(18 / 3600), 3.0)
        assert judge.speed == pytest.approx(12.0)
        lines = as_text([raw, judge]).splitlines()
    assert re.match(r"judge +12 +6 +6 +0\.01 +0\.01 +0\.00 +12\.00", lines[2])
    assert lines[3].split() == ["low", "<confidence>", "6"]


def test_histograms_hold_every_clip_once(folder: Path) -> None:
    with read_manifest(folder) as manifest:
        found = {histogram.name: histogram for histogram in histograms(manifest)}
    assert set(found) == {"offset", "confidence"}
    assert sum(found["confidence"].kept) == 6 and sum(found["confidence"].rejected) == 6
    assert (found["offset"].low, found["offset"].width, len(found["offset"].kept)) == (-2, 1, 5)
    assert found["offset"].kept == [2, 1, 1, 1, 1]


def test_the_page_is_whole_and_shows_pictures(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "page.html"
    assert report.main([str(folder / "manifest.sqlite"), "--output", str(target)]) == 0
    assert "low <confidence>" in capsys.readouterr().out
    text = target.read_text()
    assert text.count("data:image/jpeg;base64,") >= 9, "kept at random and the lowest, and three of the reason"
    assert "low &lt;confidence&gt;" in text and "<confidence>" not in text
    assert "it has" in text and text.count("<svg") == 2
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
    lists = [[path for _, path in _read_list(file)] for file in (train, val)]
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


@pytest.mark.parametrize("condition", ["confidence", "__import__('os')", "confidence >= ", "beauty > 3"])
def test_conditions_that_make_no_sense_are_refused(folder: Path, tmp_path: Path, condition: str) -> None:
    assert file_list.main([str(folder), "--output", str(tmp_path / "list.txt"), "--where", condition]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("condition", "count"), [("confidence<3", 3), ("codec==h264", 6), ("codec != 'h264'", 0), ("damaged = true", 3), ("codec > 4", 0)]
)
def test_conditions_compare_numbers_and_words(folder: Path, tmp_path: Path, condition: str, count: int) -> None:
    with read_manifest(folder) as manifest:
        assert len(list(file_list.chosen_clips(manifest, [file_list.read_comparison(condition)]))) == count

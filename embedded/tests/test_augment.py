"""Varied copies of clips."""

from pathlib import Path

import numpy as np
import pytest
from data_fixtures import make_folder

from embedded.augment import draw_change, main
from latentsync.data.cache import open_video, read_frames
from latentsync.media.audio import read_audio


def test_copies_differ_in_the_picture_alone_and_are_made_once(tmp_path: Path) -> None:
    clips, copies = make_folder(tmp_path / "clips", 1), tmp_path / "copies"
    command = ["--clips", str(clips), "--output_dir", str(copies), "--quiet"]
    assert main(command) == 0
    (copy,) = copies.iterdir()
    with open_video(clips / copy.name) as plain, open_video(copy) as varied:
        assert len(plain) == len(varied)
    before, after = (read_frames(path, [0, 5]).float() for path in (clips / copy.name, copy))
    assert before.shape == after.shape and (before - after).abs().mean() > 3
    np.testing.assert_allclose(read_audio(copy), read_audio(clips / copy.name), atol=1e-3)
    stamp = copy.stat().st_mtime_ns
    assert main(command) == 0 and copy.stat().st_mtime_ns == stamp


def test_a_change_is_the_same_for_all_frames_but_for_noise() -> None:
    face = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    changes = [draw_change(np.random.default_rng(seed), 32) for seed in (1, 1, 2)]
    first, same, other = (change(face) for change in changes)
    assert np.array_equal(first, same) and not np.array_equal(first, other) and first.dtype == np.uint8


def test_a_folder_without_clips_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--clips", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--quiet"]) == 2
    assert "holds no .mp4 clip" in caplog.text and not (tmp_path / "out").exists()

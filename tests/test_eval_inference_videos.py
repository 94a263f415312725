"""A list of videos made with one loaded pipeline."""

from pathlib import Path

import pytest
from evaluation_fixtures import Copier, write_clip
from media_fixtures import make_sound

from eval.cases import GeneratedVideos
from eval.inference_videos import Wish, main, make_all, match_wishes, read_wishes
from latentsync.errors import InputError


def test_a_list_is_made_once_and_failures_are_named(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "one.mp4")
    (tmp_path / "pairs.csv").write_text(
        "video_path,audio_path,name\none.mp4,one.mp4,\none.mp4,gone.wav,missing\none.mp4,one.mp4,stubborn\n"
    )
    wishes = read_wishes(tmp_path / "pairs.csv")
    assert wishes[0] == Wish("one__one", video, video)
    copier = Copier()
    videos = GeneratedVideos(tmp_path / "out", {}, lambda: copier)
    failed = make_all(wishes, videos)
    assert set(failed) == {"missing", "stubborn"} and "gone.wav does not exist" in failed["missing"]
    assert copier.jobs == ["one__one", "stubborn"] and (tmp_path / "out" / "one__one.mp4").is_file()
    make_all(wishes, videos)
    assert copier.jobs == ["one__one", "stubborn", "stubborn"]


def test_folders_are_matched_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("videos", "audios"):
        (tmp_path / folder).mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).touch()
    sound = make_sound(tmp_path / "audios" / "b.wav")
    assert match_wishes(tmp_path / "videos", tmp_path / "audios") == [Wish("b", tmp_path / "videos" / "b.mp4", sound)]
    assert "1 files have no partner" in caplog.text
    sound.unlink()
    with pytest.raises(InputError, match="No video in"):
        match_wishes(tmp_path / "videos", tmp_path / "audios")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("video_path,audio_path\n", "names no pair"),
        ("video_path,sound\na.mp4,b.wav\n", "audio_path missing"),
        ("video_path,audio_path,name\na.mp4,b.wav,x\nc.mp4,d.wav,x\n", "twice"),
        ("video_path,audio_path,name\na.mp4,b.wav,../x\n", "plain file name"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        read_wishes(tmp_path / "pairs.csv")


def test_the_command_wants_one_kind_of_list(tmp_path: Path) -> None:
    assert main(["--videos", str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 2

"""Lists of pairs, drawn by seed or read from a file; videos generated of them; which metrics have their files."""

from pathlib import Path

import pytest
from evaluation_fixtures import Copier, write_clip
from media_fixtures import make_clip, make_sound
from refusals import refused

from eval.cases import GeneratedVideos, Pair, draw_others, find_videos, make_pairs
from eval.config import MeasuresConfig
from eval.inference_videos import generate_all, match_pairs, read_pairs
from eval.metrics.table import load_metrics
from latentsync.errors import ConfigError, InputError, WeightsError
from latentsync.weights import WEIGHTS

WITHOUT_FILES = ["ssim", "psnr", "lmd", "lips", "silence", "seam", "jitter"]
PICTURE, SOUND = "color=gray:size=32x32:rate=25:duration=0.2", "sine=duration=0.2"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vid eos 'é")
    (folder / "b").mkdir()
    for name in ("a.mp4", "b/a.mp4", "c.mp4"):
        make_clip(folder / name, picture=PICTURE, sound=SOUND)
    make_clip(folder / "mute.mp4", picture=PICTURE)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


def test_every_video_gets_another_sound_and_none_serves_twice() -> None:
    has_sound = {Path(str(number)): True for number in range(9)}
    first, again, other = draw_others(has_sound, 1), draw_others(has_sound, 1), draw_others(has_sound, 2)
    assert first == again != other
    assert set(first) == set(first.values()) == set(has_sound)
    assert all(video != sound for video, sound in first.items())


def test_pairs_of_a_folder_or_a_list(videos: Path) -> None:
    pairs = make_pairs(find_videos(videos), ["reconstruction", "cross"], 5)
    assert [pair.name for pair in pairs.pairs if pair.kind == "reconstruction"] == ["a", "c", "a_2"]
    cross = [pair for pair in pairs.pairs if pair.kind == "cross"]
    assert {pair.source.name for pair in cross} == {"a.mp4", "c.mp4", "mute.mp4"} and len(cross) == 4
    assert all(pair.source != pair.audio and pair.audio.name != "mute.mp4" for pair in cross)
    assert list(pairs.refused) == [str(videos / "broken.mp4"), str(videos / "mute.mp4")]
    assert "no reconstruction" in pairs.refused[str(videos / "mute.mp4")]
    assert len({pair.name for pair in pairs.pairs}) == 7
    (videos / "list.txt").write_text("# two\nc.mp4\n\nb/a.mp4\n")  # or of a list, relative to itself
    assert find_videos(videos / "list.txt") == [videos / "c.mp4", videos / "b/a.mp4"]


def test_the_list_is_fixed_once_it_is_written(videos: Path, tmp_path: Path) -> None:
    found = find_videos(videos)
    make_pairs(found, ["cross"], 5).write(tmp_path / "pairs.json")
    make_pairs(found, ["cross"], 5).write(tmp_path / "pairs.json")
    refused(ConfigError, "other pairs", lambda: make_pairs(found, ["reconstruction"], 5).write(tmp_path / "pairs.json"))


def test_nothing_to_measure_is_said(videos: Path, tmp_path: Path) -> None:
    for place, words in ((tmp_path, "holds no video"), (tmp_path / "nowhere", "does not exist")):
        refused(InputError, words, find_videos, place)
    for name, kind, words in (("broken.mp4", "cross", "Not one of 1"), ("mute.mp4", "reconstruction", "no sound")):
        refused(InputError, words, make_pairs, [videos / name], [kind], 0)


def test_videos_are_generated_once_and_failures_are_named(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "one.mp4")
    (tmp_path / "pairs.csv").write_text(
        "video_path,audio_path,name\none.mp4,one.mp4,\none.mp4,gone.wav,missing\none.mp4,one.mp4,stubborn\n"
    )
    pairs = read_pairs(tmp_path / "pairs.csv")
    assert pairs[0] == Pair("one__one", video, video, "cross")
    copier = Copier()
    videos = GeneratedVideos(tmp_path / "out", {}, lambda: copier)
    failed = generate_all(pairs, videos)
    assert set(failed) == {"missing", "stubborn"} and "gone.wav does not exist" in failed["missing"]
    assert copier.jobs == ["one__one", "stubborn"] and (tmp_path / "out" / "one__one.mp4").is_file()
    generate_all(pairs, videos)
    assert copier.jobs == ["one__one", "stubborn", "stubborn"]


def test_folders_are_matched_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("videos", "audios"):
        (tmp_path / folder).mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).touch()
    sound = make_sound(tmp_path / "audios" / "b.wav")
    assert match_pairs(tmp_path / "videos", tmp_path / "audios") == [Pair("b", tmp_path / "videos" / "b.mp4", sound, "cross")]
    assert "1 files have no partner" in caplog.text
    sound.unlink()
    refused(InputError, "No video in", match_pairs, tmp_path / "videos", tmp_path / "audios")


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
    refused(InputError, words, read_pairs, tmp_path / "pairs.csv")


def test_what_is_missing_is_named_with_place_and_source(tmp_path: Path) -> None:
    found = load_metrics(MeasuresConfig(), "cpu", checkpoints=tmp_path)
    assert [measure.name for measure in found.metrics] == WITHOUT_FILES
    assert list(found.weights["silence"]) == ["face_mesh.safetensors"]
    names = [column.name for measure in found.metrics for column in measure.columns]
    assert len(names) == len(set(names)) and all(len(measure.protocol) > 40 for measure in found.metrics)
    missing = found.missing
    assert missing.keys() == {"sync", "stable_sync", "lpips", "identity", "hyperiqa", "fvd", "fvd_all", "fid"}
    for name in ("syncnet_v2", "sfd_face"):
        assert str(tmp_path / WEIGHTS[name].path) in missing["sync"]
    assert "ByteDance/LatentSync-1.6" in missing["sync"] and str(tmp_path / WEIGHTS["i3d"].path) in missing["fvd"]
    assert "measures.identity" in missing["identity"] and "measures.syncnet" in missing["stable_sync"]
    assert len(found.stand_ins) == 1 and "FaceMesh" in found.stand_ins[0]


def test_measures_are_chosen_by_name(tmp_path: Path) -> None:
    found = load_metrics(MeasuresConfig(names=["psnr", "fid"]), "cpu", checkpoints=tmp_path)
    assert [measure.name for measure in found.metrics] == ["psnr"] and list(found.missing) == ["fid"]
    refused(ConfigError, r"but the measures are .*fid$", lambda: load_metrics(MeasuresConfig(names=["fidd"]), "cpu", checkpoints=tmp_path))
    refused(InputError, "Nothing can be measured", lambda: load_metrics(MeasuresConfig(names=["fid"]), "cpu", checkpoints=tmp_path))


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS["i3d"].path).parent.mkdir()
    (tmp_path / WEIGHTS["i3d"].path).write_bytes(b"something else")
    refused(WeightsError, "i3d_torchscript", lambda: load_metrics(MeasuresConfig(names=["fvd"]), "cpu", checkpoints=tmp_path))

"""`sim motions`: what it understands, and how it says no."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controllers.motion import load_clip, save_clip
from sim import cli
from sim.motions.author import LIBRARY, load_authored
from sim.motions.commands import Author, Import, Play, Repair, Report, Retarget

ROOT = Path(__file__).parent.parent


def motions(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim.cli", "motions", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("command", ["import", "repair", "retarget", "report", "author", "play"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse(["motions", command, "--help"])
    assert caught.value.code == 0
    assert f"usage: sim motions {command}" in capsys.readouterr().out


def test_words_become_commands() -> None:
    words = ["motions", "import", "a.pkl", "b.csv", "-o", "x", "--quaternion", "wxyz", "--fps", "30"]
    assert cli.parse(words) == Import((Path("a.pkl"), Path("b.csv")), Path("x"), quaternion="wxyz", fps=30.0)
    assert cli.parse(["motions", "repair", "clips", "-o", "x"]) == Repair((Path("clips"),), Path("x"))
    words = ["motions", "retarget", "a.bvh", "-o", "x", "--scale", "0.8"]
    assert cli.parse(words) == Retarget((Path("a.bvh"),), Path("x"), scale=0.8)
    assert cli.parse(["motions", "report", "a.npz", "--no-picture"]) == Report((Path("a.npz"),), picture=False)
    assert cli.parse(["motions", "author", "squat", "kick"]) == Author(("squat", "kick"))
    assert cli.parse(["motions", "play", "a.npz", "--video", "a.mp4"]) == Play((Path("a.npz"),), video=Path("a.mp4"))


def test_one_bad_file_is_one_sentence_and_status_2_and_the_others_are_done(tmp_path: Path) -> None:
    save_clip(tmp_path / "good.npz", load_authored("wave"))
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    repaired = motions("repair", tmp_path / "good.npz", tmp_path / "bad.npz", "-o", tmp_path / "out")
    reported = motions("report", tmp_path / "bad.npz", tmp_path / "good.npz", "-o", tmp_path / "out", "--no-picture")
    for result in (repaired, reported):
        assert result.returncode == 2
        said = [line for line in result.stderr.splitlines() if line.startswith("sim: ")]
        assert len(said) == 1
        assert said[0].startswith(f"sim: {tmp_path / 'bad.npz'}: cannot be read as npz")
        assert "Traceback" not in result.stderr
    assert load_clip(tmp_path / "out" / "good.npz").report["repair"]["after"]["penetration"] < 1e-3
    assert (tmp_path / "out" / "good.json").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("import", "absent.pkl"), "absent.pkl"),
        (("author", "dance"), "motion 'dance' is not one of ours: they are stand, squat, bow"),
        (("play", "absent.npz"), "absent.npz: cannot be read"),
        (("repair", LIBRARY / "wave.npz", "-o", LIBRARY), "would be written over itself"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tmp_path: Path, words: tuple, sentence: str) -> None:
    more = () if "-o" in words or words[0] == "play" else ("-o", tmp_path / "out")
    result = motions(*words, *more)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr

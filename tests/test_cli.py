"""The command `sim`: what it understands, and how it says no."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from sim import cli
from sim.run import Run
from sim.train.teachers import QUICK, TeacherConfig

ROOT = Path(__file__).parent.parent


def sim(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sim.cli", *map(str, words)], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("train", "quad-teachers", "--help"),
        ("train", "quad-student", "--help"),
        ("resume", "--help"),
        ("eval", "quad", "--help"),
        ("eval", "g1", "--help"),
        ("bench", "quadrotor", "--help"),
        ("play", "--help"),
        ("report", "--help"),
        ("robot", "--help"),
        ("wrap", "--help"),
    ],
)
def test_every_command_explains_itself(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse(list(words))
    assert caught.value.code == 0
    assert f"usage: sim {' '.join(words[:-1])}".strip() in capsys.readouterr().out


def test_help_of_the_whole_command_loads_no_simulator() -> None:
    code = "import sys; from sim import cli; cli.parse(['resume', 'x']); print('numba' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_words_become_commands() -> None:
    assert cli.parse(["resume", "runs/x", "--threads", "2"]) == cli.Resume(Path("runs/x"), 2)
    assert cli.parse(["report", "runs/x"]) == cli.Report(Path("runs/x"))
    evaluate = cli.parse(["eval", "quad", "a.onnx", "b.onnx", "--peer", "raptor", "--count", "64"])
    assert evaluate.policies == (Path("a.onnx"), Path("b.onnx"))
    assert (evaluate.peer, evaluate.count) == ("raptor", 64)
    assert cli.parse(["bench", "quadrotor", "-o", "x.json"]) == cli.Bench(Path("x.json"))


def test_settings_of_a_training_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(cli, "_begin", lambda *words: seen.append(words))
    cli.parse(["train", "quad-teachers", "--count", "7", "--preset", "wide", "--seed", "3", "--out", "a", "--quick"])()
    kind, config, seed, folder, threads = seen[0]
    assert (kind, seed, folder, threads) == ("quad-teachers", 3, Path("a"), None)
    assert (config.count, config.preset, config.updates) == (7, "wide", QUICK["updates"])
    cli.parse(["train", "quad-student", "--teachers", "b", "--out", "c"])()
    assert seen[1][0] == "quad-student"
    assert seen[1][1].teachers == "b"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "quad-teachers", "--count", "0", "--out", "{}/x"), "count is 0: at least 1 is needed"),
        (("train", "quad-teachers", "--out", "{}"), "take a new or an empty one"),
        (("train", "quad-teachers", "--threads", "100000", "--out", "{}/x"), "--threads is 100000: allowed are 1 to"),
        (("resume", "{}"), "not a run folder"),
        (("resume", "{}/unknown"), "kind 'walker' is not known"),
        (("eval", "quad", "{}/absent.onnx"), "absent.onnx"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_status_2(
    tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    Run.create(tmp_path / "unknown", "walker", TeacherConfig(), 0).close()
    result = sim(*(word.format(tmp_path) for word in words))
    assert result.returncode == 2
    assert sentence in result.stderr
    assert result.stderr.startswith("sim: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["unknown"]


def test_an_interrupted_training_says_how_to_go_on_and_does(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [
        "train",
        "quad-teachers",
        "--count",
        "16",
        "--updates",
        "500",
        "--judged",
        "16",
        "--rounds",
        "0",
        "--window",
        "50",
    ]
    command = [sys.executable, "-m", "sim.cli", *words, "--out", str(folder)]
    # A shell's background job ignores interrupts and hands that down; the child must not.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    while child.poll() is None and not (folder / "checkpoint.npz").exists():
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate()
    assert child.returncode == 130
    assert f"`sim resume {folder}`" in errors
    assert "Traceback" not in errors
    result = sim("resume", folder)
    assert result.returncode == 0, result.stderr
    assert "published" in result.stdout
    assert json.loads((folder / "metrics" / "summary.json").read_text())["teachers"] == 16

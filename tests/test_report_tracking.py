"""What is left of a training of a tracking policy: its table, curves, video and page; all from the files of a run."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from rich.console import Console

from sim.motions.author import LIBRARY
from sim.report import gather, report_command
from sim.report_tracking import KIND, conclude, curves, judgements, read_lines, record_video
from sim.run import Run, RunError
from sim.train.track_config import TrackConfig

CONFIG = TrackConfig(clip=(str(LIBRARY / "squat.npz"),), iterations=4, judged=50, seed=7)


def training(folder: Path, updates: int = 4, config: TrackConfig = CONFIG) -> Path:
    """A run whose second and fourth judgement are equally good, and whose third is worse."""
    with Run.create(folder, KIND, config, config.seed) as run:
        for i in range(updates):
            line: dict[str, Any] = {"iteration": i + 1, "steps": 12288 * (i + 1), "seconds": 2.0 * (i + 1)}
            line |= {"reward": 1.0 + i, "distance_mm": 50.0, "lost_per_s": 1.0 / (i + 1), "broken": 0}
            line |= {"term.body_position": 0.5, "term.slip": 0.3, "term.torque": 4000.0}
            judged = {"success": (0.5, 0.9, 0.2, 0.9)[i], "e_g": 60.0, "e_mpjpe": (40.0, 31.25, 35.0, 31.25)[i]}
            judged |= {"kept": i != 2}
            run.log(**line, **judged)
    return folder


def printed(folder: Path, config: TrackConfig) -> str:
    text = io.StringIO()
    conclude(folder, config, Console(file=text, width=140))
    return text.getvalue()


def test_the_kept_judgement_is_the_one_whose_policy_the_training_keeps(tmp_path: Path) -> None:
    found = judgements(read_lines(training(tmp_path / "run")))
    assert {name: line["iteration"] for name, line in found.items()} == {"first": 1, "kept": 4, "last": 4}
    assert judgements([{"iteration": 1}]) == {}


def test_a_training_ends_with_its_table_and_its_curves(tmp_path: Path) -> None:
    folder = training(tmp_path / "run")
    text = printed(folder, TrackConfig(clip=CONFIG.clip, judged=50, video=False))
    # 45 of 50: Wilson's interval is 78.6 to 95.7 %
    assert re.search(r"kept\s*│\s*4\s*│\s*0\.0\s*│\s*0\.1\s*│\s*90 \(79 to 96\)\s*│\s*60\s*│\s*31\.2", text)
    assert "no video" not in text  # it was not asked for
    picture = matplotlib.image.imread(folder / "curve.png")
    assert picture.shape[1] > 1000 and picture[..., :3].std() > 0.05


def test_only_what_is_paid_is_drawn_as_a_reward(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    drawn = {curve.title: curve for curve in curves(read_lines(training(tmp_path / "run")), {"body_position": 1.0})}
    axes = Figure().add_subplot()
    drawn["Terms of the reward"].draw(axes)
    assert [line.get_label() for line in axes.get_lines()] == ["body position"]


def test_a_training_does_not_fail_for_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = training(tmp_path / "run")
    text = printed(folder, CONFIG)  # there is no policy.onnx here
    assert text.count("no video: ") == 1
    assert "policy.onnx: no such file" in text
    assert (folder / "curve.png").exists()
    monkeypatch.setenv("MUJOCO_GL", "osmesa_of_nobody")
    reason = record_video(folder, CONFIG)
    assert reason.startswith("this machine cannot draw off-screen with MUJOCO_GL set to osmesa_of_nobody")
    assert "\n" not in reason
    assert not (folder / "video.mp4").exists()


def test_the_page_has_curves_settings_and_the_video(tmp_path: Path) -> None:
    folder = training(tmp_path / "run")
    console = Console(file=io.StringIO(), width=140)
    page = (report_command(folder, console=console) or Path()).read_text()
    assert page.count("<svg") == 6
    assert "There is no video here" in page and "<video" not in page.split("</style>")[1]
    assert "0.9" not in re.findall(r"<b>(.*?)</b>", page) and "90 %" in re.findall(r"<b>(.*?)</b>", page)
    settings = page[page.index("differs from the default") : page.index("all settings")]
    assert [name for name in ("iterations", "seed", "judged", "robots") if f"<code>{name}</code>" in settings] == [
        "iterations",
        "seed",
        "judged",
    ]
    assert "<code>task.weights.body-position</code>" in page
    assert "not finished" not in page
    (folder / "video.mp4").write_bytes(b"pictures")
    report_command(folder, console=console)
    page = (folder / "report.html").read_text()
    assert 'src="data:video/mp4;base64,cGljdHVyZXM="' in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)  # nothing from outside


def test_the_page_of_a_training_that_goes_on_says_so(tmp_path: Path) -> None:
    folder = training(tmp_path / "run", updates=2)
    report_command(folder, console=Console(quiet=True))
    assert "not finished (2 of 4 updates)" in (folder / "report.html").read_text()


def test_a_training_without_an_update_has_no_report(tmp_path: Path) -> None:
    folder = training(tmp_path / "run", updates=0)
    with pytest.raises(RunError, match=r"metrics\.jsonl: is empty; allowed"):
        report_command(folder, console=Console(quiet=True))


def test_a_folder_of_trainings_is_one_page(tmp_path: Path) -> None:
    training(tmp_path / "first")
    training(tmp_path / "second", updates=2, config=dataclasses.replace(CONFIG, seed=8, gamma=0.97))
    training(tmp_path / "third", updates=0)
    text = io.StringIO()
    page = (report_command(tmp_path, console=Console(file=text, width=140)) or Path()).read_text()
    assert page.count("<svg") == 4
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", page)]
    ninety = "90 (79 to 96)"  # 45 of 50, Wilson
    assert rows[0] == ["first", "<small>squat</small>", "7", "4", "0.0", "0.1", ninety, "31.2", ninety, "31.2"]
    assert rows[1][2:4] == ["8", "2 of 4"]
    assert rows[2][3:] == ["0 of 4", *["-"] * 6]
    assert rows[3:] == [["<code>gamma</code>", "0.985", "0.97", "0.985"]]
    assert "<b>3</b><small>1 finished</small>" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)  # nothing from outside
    assert re.search(r"second\s*│\s*2 of 4\s*│\s*0\.1\s*│\s*90 \(79 to 96\)\s*│\s*31\.2", text.getvalue())


def test_trainings_beside_quadrotors_are_kept_apart(tmp_path: Path) -> None:
    training(tmp_path / "humanoid")
    Run.create(tmp_path / "teachers", "quad-teachers", CONFIG, 0).close()
    material = gather(tmp_path)
    assert material.trackings == (tmp_path / "humanoid",)
    assert material.runs == {"quad-teachers": tmp_path / "teachers"}

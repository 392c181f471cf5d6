"""The report says what a folder holds, says what is missing, and needs nothing from outside."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import pytest
import tiny_policy
from rich.console import Console

from controllers.policy import load_policy
from firmware_export.cli import C, export_c
from sim import report
from sim.cases import CASES
from sim.evaluate import evaluate_command
from sim.page import INK, LINE
from sim.report_flights import EIGHT, STARTS, Track, adaptation_section, chosen, fly, replay
from sim.robots.quadrotors import sample
from sim.run import Run, RunError, compile_first, write_json
from sim.train.learner import StudentConfig
from sim.train.teachers import JUDGED_STARTS, KIND, PUBLISHED, TeacherConfig, Teachers

CONFIG = TeacherConfig(count=4, preset="wide", judged=16)
SILENT = Console(quiet=True)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> Iterator[None]:
    """Compiled by others, so that tests of repeatability in this process meet the same machine code, from the cache."""
    compile_first("sim.train.teachers:compile_judgement")
    threads = nb.get_num_threads()
    nb.set_num_threads(1)  # as the command does
    yield
    nb.set_num_threads(threads)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FLOWN", 16)


def teachers_run(folder: Path, finished: bool = True) -> None:
    """A run whose teachers are regulators."""
    quads = sample(CONFIG.preset, CONFIG.count, CONFIG.seed)
    with Run.create(folder, KIND, CONFIG, CONFIG.seed) as run:
        quads.save(folder / "quadrotors.npz", preset=CONFIG.preset, seed=CONFIG.seed)
        for i in range(4):
            run.log(round=0, updates=i, terminated=0.1 / (i + 1), **{"return": 600.0 + i}, core_seconds=float(i))
    if finished:
        Teachers(quads, CONFIG).save(folder / "teachers.npz")
        judged = {"terminated": 0.0123, "return": 612.0}
        summary = {"teachers": 4, "core_seconds": 65.0, "published": PUBLISHED}
        write_json(folder / "metrics" / "summary.json", summary | dict.fromkeys(JUDGED_STARTS, judged))


def student_run(folder: Path, finished: bool = True) -> None:
    with Run.create(folder, "quad-student", StudentConfig(), 0) as run:
        line: dict[str, Any] = {"phase": "imitation", "update": 1, "core_seconds": 3.0, "imitation": 2.0, "cost": 0.0}
        run.log(**line, survived=0.0)  # nothing survived, so there is no hover error
        run.log(**line | {"update": 2, "core_seconds": 6.0}, survived=0.5, hover=0.1, hover_force=0.2)
        tuning = {"phase": "tuning", "update": 1, "core_seconds": 9.0, "cost": 4.0}
        run.log(**tuning, survived=0.987, hover=0.0123, hover_force=0.03)
    if finished:
        tiny_policy.write(folder / "policy.onnx", tiny_policy.random_weights(0))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All parts, as a demonstration leaves them."""
    folder = tmp_path_factory.mktemp("runs") / "demo"
    folder.mkdir()
    teachers_run(folder / "teachers")
    student_run(folder / "student")
    policy = folder / "student" / "policy.onnx"
    export_c(C(policy, folder / "c", name="student", shared=True))
    seconds = {"training distribution": 0.5, "no force": 0.5, "figure eight of 5.5 s": 3.5}
    cases = [dataclasses.replace(case, seconds=seconds[case.name]) for case in CASES if case.name in seconds]
    evaluate_command((policy, folder / "c" / "student.so"), folder / "eval.json", 16, console=SILENT, cases=cases)
    return folder


@pytest.fixture(scope="module")
def page(demo: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "FLOWN", 16)
        path = report.report_command(demo, console=SILENT)
    assert path == demo / "report.html"
    return (demo / "report.html").read_text()


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    assert not re.findall(r"<(?:script|link|iframe|img|image)\b", page)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!#)", page)
    assert not re.findall(r"url\((?!#)|@import", page)


def test_every_plot_says_that_it_is_simulated(page: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 3 + 3 + 3 + 3 + 1 + 1  # teachers, student, errors, paths, C, readouts
    assert "too few flights stay within 1 m" in page  # of a random policy, so there is no plot of its memory
    assert all("simulated" in plot for plot in plots)


def test_plots_take_their_ink_from_the_page(page: str) -> None:
    assert INK not in page and LINE not in page
    assert "currentColor" in page and "prefers-color-scheme:dark" in page


def test_the_page_tells_how_teachers_and_student_improve(page: str) -> None:
    assert "1.23 %" in page and "65 core-seconds" in page
    assert f"{PUBLISHED['core_hours'] * 4 / 1000:.3g} core-hours" in page
    assert "0 % → 98.7 %" in page and "1.23 cm" in page and "no survivor" in page


def test_the_page_names_machine_versions_seeds_and_commands(page: str, demo: Path) -> None:
    facts = json.loads((demo / "student" / "facts.json").read_text())
    for text in (facts["cpu"], f"numba {facts['numba']}", facts["started"], "teachers: 0", "evaluation: 1"):
        assert text in page


def test_every_line_of_the_evaluation_is_in_the_page_and_misses_are_marked(page: str, demo: Path) -> None:
    content = json.loads((demo / "eval.json").read_text())
    measures = [m for case in content["results"]["student"]["realign"].values() for m in case.values()]
    body = page[page.index("<h2>Evaluation</h2>") :]
    assert body.count("<tr>") >= len(measures)
    missed = sum(m["met"] is False for m in measures)
    assert missed and body.count("✗") == missed
    assert f"misses {missed} of {sum(m['met'] is not None for m in measures)} targets" in body


def test_the_compiled_policy_is_compared_and_gets_no_column_of_its_own(page: str) -> None:
    assert "Crosses: the same policy as C code" in page
    assert "gives the same number, as printed" in page
    assert "student.so<br>" not in page


def test_the_terminal_gets_a_table(demo: Path) -> None:
    console = Console(record=True, file=io.StringIO(), width=100)
    report.report_command(demo, console=console)
    text = console.export_text()
    assert "teachers: episodes terminated" in text and "C code against ONNX" in text and "report.html" in text


def test_a_student_alone_is_reported_with_what_is_missing(tmp_path: Path) -> None:
    student_run(tmp_path / "student")
    report.report_command(tmp_path / "student", console=SILENT)
    page = (tmp_path / "student" / "report.html").read_text()
    for sentence in ("no run of teachers here", "No compiled policy was evaluated", "There is no evaluation here"):
        assert sentence in page
    assert "Eight from above" in page


def test_unfinished_runs_are_reported_as_such(tmp_path: Path) -> None:
    teachers_run(tmp_path / "teachers", finished=False)
    student_run(tmp_path / "student", finished=False)
    report.report_command(tmp_path, console=SILENT)
    page = (tmp_path / "report.html").read_text()
    assert page.count("Their training is not finished") == 1 and page.count("Its training is not finished") == 1
    assert f"sim resume {tmp_path / 'student'}" in page
    assert "no finished policy here to fly" in page


def test_a_metrics_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    student_run(tmp_path / "student", finished=False)
    with (tmp_path / "student" / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "tuning", "upda')
    report.report_command(tmp_path, console=SILENT)
    assert "98.7 %" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_folder_with_nothing_to_report_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "eval.json").write_text(content)
    with pytest.raises(RunError, match="nothing to report" if content is None else "not an evaluation"):
        report.report_command(tmp_path, console=SILENT)
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to report"):
        report.report_command(tmp_path / "absent", console=SILENT)


def test_markdown_has_one_row_for_each_target_and_the_origin_of_the_figures(demo: Path) -> None:
    content = json.loads((demo / "eval.json").read_text())
    measures = [m for case in content["results"]["student"]["realign"].values() for m in case.values()]
    lines = report.markdown(content).splitlines()
    rows = lines[2 : lines.index("")]
    assert len(rows) == sum(m["target"] is not None for m in measures)
    assert all(row.count("|") == 6 for row in rows)
    assert sum("**miss**" in row for row in rows) == sum(m["met"] is False for m in measures)
    origin = " ".join(lines[lines.index("") :])
    for text in ("simulated", "16 quadrotors", "seed 1", content["facts"]["cpu"], "numba"):
        assert text in origin


def test_markdown_puts_a_peer_that_was_measured_in_the_same_run_beside_ours(demo: Path) -> None:
    content = json.loads((demo / "eval.json").read_text())
    ours = content["results"]["student"]["realign"]
    content["results"]["student"]["l2f"] = ours
    entry = ours["training distribution"]["survive"] | {"value": 0.4321, "low": 0.4, "high": 0.5}
    content["results"]["published"] = {"l2f": {"training distribution": {"survive": entry}}}
    row = report.markdown(content).splitlines()[2]
    assert "| 43.2 % (40.0 to 50.0) |" in row and "- |" not in row


def test_markdown_of_an_unknown_policy_lists_those_that_were_evaluated(demo: Path) -> None:
    content = json.loads((demo / "eval.json").read_text())
    with pytest.raises(RunError, match=r"absent: was not evaluated; allowed: student, student\.so"):
        report.markdown(content, "absent")


def test_four_different_quadrotors_are_drawn_and_the_lightest_is_first() -> None:
    quads = sample("wide", 40, 3)
    picks = chosen(quads)
    assert len(set(picks.tolist())) == 4
    assert quads.mass[picks[0]] == quads.mass.min() and quads.mass[picks[1]] == quads.mass.max()


def test_a_replayed_flight_has_the_same_actions(demo: Path) -> None:
    policy = load_policy(demo / "student" / "policy.onnx")
    course = dataclasses.replace(EIGHT, seconds=0.5)
    track = fly(policy, sample("wide", 16, 3), course)
    assert replay(policy, track).max() == 0
    compiled = replay(load_policy(demo / "c" / "student.so"), track)
    assert 0 < compiled.max() < 1e-5
    assert np.array_equal(track.reference[0], np.zeros((16, 3)))


def test_memory_is_drawn_where_flights_stay() -> None:
    quads, rng = sample("wide", 16, 3), np.random.default_rng(0)
    still, hidden = np.zeros((501, 16, 3)), rng.normal(size=(500, 16, 4))
    track = Track(still, still, np.zeros((500, 16, 22)), np.zeros((500, 16, 4)), hidden)
    section = adaptation_section({}, quads, {"some policy": {STARTS.name: track}})
    assert section.body.count("<svg") == 2 and "some policy: memory over time" in section.body
    assert "no readouts" in section.body

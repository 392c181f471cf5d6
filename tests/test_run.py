"""A run folder survives crashes and full disks, refuses what it is not, and says so in one sentence."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from rich.console import Console

from controllers.files import WriteError, write_atomically
from sim import run as runs
from sim.run import Run, RunError, progress, write_json


@dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    seed: int = 3


def begin(folder: Path) -> Run:
    return Run.create(folder, "quad-teachers", Settings(), seed=3)


def test_a_new_run_says_what_it_is_and_where_it_comes_from(tmp_path: Path) -> None:
    with begin(tmp_path / "a" / "b") as run:
        facts = json.loads((run.folder / "facts.json").read_text())
        assert {"python", "numpy", "numba", "commit", "dirty", "machine", "cpu", "cores", "command", "seed"} <= set(
            facts
        )
        assert facts["seed"] == 3
        assert run.config(Settings) == Settings()


def test_a_run_goes_on_with_arrays_and_progress_of_its_last_checkpoint(tmp_path: Path) -> None:
    weights = np.arange(5, dtype=np.float32)
    with begin(tmp_path / "r") as run:
        assert run.restore() is None
        run.log(update=1)
        run.checkpoint({"update": 1}, {"weights": weights})
        run.log(update=2)  # after the checkpoint: will be done again
    with (tmp_path / "r" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"upda')  # killed within a line
    with Run.open(tmp_path / "r", "quad-teachers") as run:
        restored = run.restore()
        assert restored is not None
        assert restored[0] == {"update": 1}
        np.testing.assert_array_equal(restored[1]["weights"], weights)
        run.log(update=2)
        assert [json.loads(x) for x in (run.folder / "metrics.jsonl").read_text().splitlines()] == [
            {"update": 1},
            {"update": 2},
        ]


def test_core_seconds_add_up_over_interruptions(tmp_path: Path) -> None:
    with begin(tmp_path / "r") as run:
        sum(range(2_000_000))
        run.checkpoint({}, {})
        spent = run.core_seconds
    with Run.open(tmp_path / "r") as run:
        run.restore()
        assert spent * 0.5 < run.core_seconds < spent + 0.1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "not a run folder"),
        ("{", "not a run folder"),
        ("[]", "not a run folder"),
        ('{"kind": "quad-teachers"}', "not a run folder"),
        ('{"kind": "quad-teachers", "format": 99, "config": {}}', "format 99"),
        (
            '{"kind": "quad-student", "format": 1, "config": {}}',
            "'quad-student'; needed is one of kind 'quad-teachers'",
        ),
    ],
)
def test_a_folder_that_is_no_such_run_is_refused(tmp_path: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=sentence) as caught:
        Run.open(tmp_path, "quad-teachers")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_another_version_are_refused(tmp_path: Path) -> None:
    @dataclass
    class Newer:
        rate: float = 0.1

    with begin(tmp_path / "r") as run, pytest.raises(RunError, match="another version"):
        run.config(Newer)


def test_a_run_never_takes_the_place_of_another_or_of_files(tmp_path: Path) -> None:
    begin(tmp_path / "r").close()
    before = (tmp_path / "r" / "config.json").read_bytes()
    with pytest.raises(RunError, match="sim resume"):
        begin(tmp_path / "r")
    assert (tmp_path / "r" / "config.json").read_bytes() == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    with pytest.raises(RunError, match="new or an empty one"):
        begin(tmp_path / "full")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "r"]
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["note"]


def test_two_processes_cannot_work_on_one_run(tmp_path: Path) -> None:
    with begin(tmp_path / "r"), pytest.raises(RunError, match="another process"):
        Run.open(tmp_path / "r")


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    with begin(tmp_path / "r") as run:
        (run.folder / "checkpoint.npz").write_bytes(b"not a checkpoint")
        with pytest.raises(RunError, match=r"checkpoint\.npz: not a checkpoint"):
            run.restore()


def test_a_failing_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match="No space left on device"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk; in a process of its own, because it cannot be taken
    back."""
    code = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from tests.test_run import Run, RunError, begin
run = begin(Path(sys.argv[1]))
run.checkpoint({"update": 1}, {"x": np.ones(4)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    run.checkpoint({"update": 2}, {"x": np.ones(100_000)})
except RunError as error:
    print(error)
"""
    root = Path(__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "r")], cwd=root, capture_output=True, text=True, check=True
    )
    assert "checkpoint.npz: cannot be written" in result.stdout
    assert "sim resume" in result.stdout
    assert result.stdout.count("\n") == 1
    with Run.open(tmp_path / "r") as run:
        restored = run.restore()
        assert restored is not None
        assert restored[0] == {"update": 1}
    assert not list((tmp_path / "r").glob(".*"))


def test_a_kill_at_any_moment_leaves_a_checkpoint_that_can_be_read(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import numpy as np
from tests.test_run import begin
run = begin(Path(sys.argv[1]))
for k in range(1, 10**9):
    run.log(update=k)
    run.checkpoint({"update": k}, {"x": np.full(300_000, k)})
    print(k, flush=True)
"""
    root = Path(__file__).parent.parent
    for k, after in enumerate((3, 7)):
        folder = tmp_path / str(k)
        child = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=root, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(after):
            last = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.wait()
        with Run.open(folder) as run:
            restored = run.restore()
            assert restored is not None
            update = restored[0]["update"]
            assert update >= last
            assert (restored[1]["x"] == update).all()
            assert len((folder / "metrics.jsonl").read_text().splitlines()) == update


def test_numbers_that_are_not_finite_are_named_and_not_saved(tmp_path: Path) -> None:
    with begin(tmp_path / "r") as run:
        with pytest.raises(ValueError, match="loss"):
            run.log(loss=float("nan"))
        with pytest.raises(ValueError):
            write_json(run.folder / "x.json", {"a": float("inf")})
        assert (run.folder / "metrics.jsonl").read_text() == ""
        assert not (run.folder / "x.json").exists()


def test_progress_is_plain_lines_where_output_is_not_a_terminal() -> None:
    stream = io.StringIO()
    with progress("training", 100, 0, "updates", Console(file=stream)) as show:
        for k in range(1, 101):
            show(k)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("training: 10 %,")
    assert "updates/s" in lines[0]
    assert lines[-1].startswith("training: 100 %")


def test_progress_is_a_bar_on_a_terminal() -> None:
    stream = io.StringIO()
    with progress("training", 10, 0, "updates", Console(file=stream, force_terminal=True, width=120)) as show:
        show(10, "done")
    assert "training" in stream.getvalue()
    assert "━" in stream.getvalue()


def test_functions_are_compiled_in_other_processes() -> None:
    assert runs.compile_first("os:getpid") > 0
    with pytest.raises(RuntimeError, match="os:nothing"):
        runs.compile_first("os:nothing")

"""What the README, the notes on tracking and the Makefile tell people to type is understood, and what they point to is
there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from tiny_policy import random_weights, write

import deploy.cli
import firmware_export.cli
import sim.cli
from firmware_export.cli import C, export_c

ROOT = Path(__file__).parent.parent
README, MAKEFILE = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
NOTES = (ROOT / "sim" / "tasks" / "TRACKING.md").read_text()
MADE = ("runs/", "build/", ".venv/")  # what commands make


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def typed() -> list[str]:
    """Lines of shell blocks, indented commands, and commands between backticks."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(r"^    (make .*)$", README, re.MULTILINE)
    programs = ("make ", "sim ", "deploy ", "firmware-export ")
    lines += [text for text in re.findall(r"`([^`\n]+)`", README + NOTES) if text.startswith(programs) and " -" in text]
    return [line for line in lines if line.strip()]


def in_makefile() -> list[str]:
    """Commands of the demonstration as make would run them."""
    dry = subprocess.run(
        ["make", "--no-print-directory", "-n", "-B", "demo", "DEMO=runs/never"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return re.findall(r"\.venv/bin/((?:sim|firmware-export) [^;\n]+)", dry)


def understand(line: str) -> None:
    """Raises SystemExit, ValueError or AssertionError where a command cannot be understood."""
    program, *words = shlex.split(line, comments=True)
    if program == "make":
        for target in words:
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), f"make {target}: there is no such target"
    elif program == "sim":
        sim.cli.parse(words)
    elif program == "deploy":
        deploy.cli.parse(words)
    elif program == "firmware-export":
        firmware_export.cli.parse(words)
    else:
        raise AssertionError(f"{line}: no command of this project")


@pytest.mark.parametrize("line", typed())
def test_a_command_of_the_readme_is_understood(line: str) -> None:
    understand(line)


def test_the_demonstration_does_all_that_it_says_in_commands_that_are_understood() -> None:
    lines = in_makefile()
    for line in lines:
        understand(line)
    text = "\n".join(lines)
    for part in ("quad-teachers --count 1000", "quad-student", "eval quad", "firmware-export c", "report"):
        assert part in text
    assert text.count("resume") == 2  # each of the two trainings


def test_a_command_that_does_not_exist_is_not_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        "sim train quad-everything",
        "sim eval quad policy.onnx --absent 1",
        "make absent",
        "deploy fly",
        "reboot",
    ):
        with pytest.raises((SystemExit, AssertionError, ValueError)):
            understand(line)
    capsys.readouterr()


def test_every_path_in_the_readme_exists() -> None:
    shell = [word for block in blocks("sh") for word in block.split()]
    quoted = re.findall(r"`([^`\s]+)`", README + NOTES) + re.findall(r"\]\(([^)\s]+)\)", README)
    code = re.findall(r"\"([^\"\s]+/[^\"\s]+)\"", "".join(blocks("python")))
    paths = {word for word in (*shell, *quoted, *code) if re.fullmatch(r"[\w.-]+/[\w./-]*|[A-Z]+(?:\.md)?", word)}
    assert len(paths) > 5
    missing = [path for path in paths if not path.startswith(MADE) and not (ROOT / path).exists()]
    assert not missing


def test_the_layout_table_lists_the_packages() -> None:
    packages = sorted(p.parent.name for p in ROOT.glob("*/__init__.py"))
    table = README[README.index("## Layout") :]
    assert packages and all(f"`{package}/`" in table for package in packages)


def test_results_go_between_two_marks() -> None:
    assert README.count("<!-- results -->") == README.count("<!-- /results -->") == 1
    assert README.index("<!-- results -->") < README.index("<!-- /results -->")


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_example_flies(code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    distance = float(capsys.readouterr().out.split()[0])
    assert distance < 5  # [cm]


@pytest.mark.parametrize("code", blocks("c"))
def test_the_c_example_compiles(code: str, tmp_path: Path) -> None:
    policy = write(tmp_path / "quad-foundation.onnx", random_weights(0))
    export_c(C(policy, tmp_path))
    (tmp_path / "control.c").write_text(code)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c", "control.c"]
    subprocess.run(["cc", *flags], cwd=tmp_path, check=True)


def test_text_that_people_read_keeps_to_the_line_length() -> None:
    for name in ("README.md", "CHANGELOG.md", "sim/tasks/TRACKING.md"):
        long = [line for line in (ROOT / name).read_text().splitlines() if len(line) > 120 and not line.startswith("|")]
        assert not long, f"{name}: {long[0]}"

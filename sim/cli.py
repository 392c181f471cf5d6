"""Train and judge in simulation.

sim train quad-teachers --count 1000 --out runs/teachers
sim train quad-student --teachers runs/teachers --out runs/student
sim train g1-track --clip sim/motions/library/squat.npz --out runs/squat
sim train g1-track --clip sim/motions/library/squat.npz --out runs/squat-4 --robots 2048 --devices 4
sim resume runs/student
sim eval quad controllers/policies/quad-foundation.onnx
sim eval quad-teachers runs/teachers
sim eval g1 kick.onnx --clip kick.npz --spec controllers/policies/asap.json
sim wrap kick.onnx --spec controllers/policies/asap.json -o policy.onnx
sim play policy.onnx --clip sim/motions/library/squat.npz
sim robot g1_29dof --out runs/robots --picture
sim motions import walk.pkl -o clips
sim bench quadrotor
sim bench students losses --teachers runs/teachers
sim report runs/student
sim report runs/eval.json --markdown
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from sim.tasks.tracking_config import Setting

if TYPE_CHECKING:
    from sim.run import Run


@dataclass(frozen=True)
class Resume:
    """Go on with an interrupted training where its last checkpoint is."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    threads: int | None = None
    """Threads to use; all cores that this process may use when absent."""


@dataclass(frozen=True)
class Evaluate:
    """Fly policies on quadrotors that they have never seen and print a table of what they reach."""

    policies: tyro.conf.Positional[tuple[Path, ...]]
    """One or more policy.onnx."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/eval.json")
    """File for the numbers (.json), or a folder."""
    count: int = 1024
    """Quadrotors per case."""
    seed: int = 1
    """Seed of quadrotors, starts and noise."""
    peer: Literal["none", "raptor"] = "none"
    """Measure this published policy on the same quadrotors, in our simulator and in its own; needs the extra
    [peers]."""
    bound: bool = False
    """Also say from how many starts of the survival cases not even optimal control survives; takes minutes."""
    threads: int | None = None
    """Threads to use; all cores that this process may use when absent."""


@dataclass(frozen=True)
class Bound:
    """Say how many of the teachers' lost flights an optimal-control bound shows to be unavoidable."""

    run: tyro.conf.Positional[Path]
    """The run folder of `sim train quad-teachers`."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File for the numbers (.json)."""
    tilt: float = math.pi / 2
    """Largest tilt of the starts [rad]."""
    episodes: int = 128
    """Episodes per teacher."""
    threads: int | None = None
    """Threads to use; all cores that this process may use when absent."""


@dataclass(frozen=True)
class EvaluateG1:
    """Track motions with policies on the simulated G1 and print a table of the errors."""

    policies: tyro.conf.Positional[tuple[Path, ...]]
    """One or more policy.onnx, or networks in ONNX whose specification is in --spec."""
    clip: tuple[Path, ...]
    """One motion for each policy, or one for all: clip.npz, or a file that `sim motions import` reads."""
    spec: Path | None = None
    """Specification (JSON) of the policies that do not hold one; controllers/policies/asap.json for ASAP's."""
    setting: Annotated[Setting, tyro.conf.arg(name="")] = Setting()  # noqa: RUF009 (frozen)
    """In what they are judged."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/eval_g1.json")
    """File for the numbers (.json)."""


@dataclass(frozen=True, kw_only=True)
class Play:
    """Watch a policy track motions on the simulated G1, in the browser, and push it; needs the extra [view]."""

    policy: tyro.conf.Positional[Path | None] = None
    """policy.onnx; absent with --zero and --random."""
    zero: bool = False
    """Answer nothing but zeros instead: joints follow the motion by themselves."""
    random: bool = False
    """Answer random numbers from -1 to 1 instead."""
    clip: tuple[Path, ...]
    """clip.npz to track; of several, each episode picks one."""
    robot: str | None = None
    """Revision of the G1; the policy's own when absent."""
    robots: int = 1
    """How many, side by side."""
    seed: int = 0
    """Of random answers, worlds and pushes."""
    randomised: bool = False
    """Worlds, noise, delays, starts and random pushes as in a training; the robot on paper, undisturbed, when off."""
    port: int = 8080
    """Of the page on this machine."""
    video: Path | None = None
    """Write a video (.mp4) of each motion once instead; needs a graphics library that draws off-screen (EGL; or OSMesa
    with MUJOCO_GL=osmesa) or a display."""
    fps: int = 25
    """Pictures per second of the video."""


@dataclass(frozen=True)
class Wrap:
    """Make a policy.onnx of a published network and the specification that it lacks."""

    network: tyro.conf.Positional[Path]
    """ONNX file with one input and one output, without memory."""
    spec: Path
    """Specification (JSON); controllers/policies/asap.json for the G1 policies of ASAP."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("policy.onnx")
    """The policy file."""


@dataclass(frozen=True)
class Robot:
    """Write the model of a G1 for other programs: MJCF and URDF, and a picture of it."""

    name: tyro.conf.Positional[str]
    """Revision, such as g1_29dof or g1_23dof_asap."""
    out: Path = Path("runs/robots")
    """Folder for the files."""
    picture: bool = False
    """Also draw it; needs a graphics driver that draws off-screen (EGL) or a display."""


@dataclass(frozen=True)
class Bench:
    """Time the simulator on this machine, one core and all."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File for the numbers (.json), or a folder."""


@dataclass(frozen=True)
class Compare:
    """Train students in several ways at equal cost and compare them over seeds."""

    study: tyro.conf.Positional[Literal["losses", "sizes"]]
    """losses: imitation, tuning, or both; sizes: memory 16, 24, 32, and with the reference's acceleration."""
    teachers: Path = Path("runs/teachers")
    """Run folder of the teachers (for losses)."""
    out: Path = Path("runs/study")
    """Folder for the runs and study.json."""
    updates: int = 2500
    """Updates of each training."""
    seeds: int = 3
    """Trainings of each kind."""
    count: int = 512
    """Quadrotors per case."""
    threads: int | None = None
    """Threads to use; all cores that this process may use when absent."""


@dataclass(frozen=True)
class Report:
    """Write the report of a run, or of a folder of runs and their evaluation, as one HTML page into the folder."""

    run: tyro.conf.Positional[Path]
    """The folder; or, with --markdown, the file of `sim eval`."""
    markdown: bool = False
    """Print the evaluation as a Markdown table, and write nothing."""


def main() -> None:
    """The command `sim`. Exit status 2 with one sentence for what the user can put right, 130 after an interrupt."""
    try:
        _perform(parse(sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(_failed(str(error)))


def parse(words: list[str]) -> Any:
    """The command that these words ask for. Settings of a training come from modules that load slowly: only `train`
    loads them."""
    group, rest = words[:1], words[1:] or ["--help"]
    if group == ["train"]:
        return _choose("sim train", _trainings(_preset(rest) if rest[0] == "g1-track" else "realign"), rest)
    if group == ["eval"]:
        return _choose("sim eval", {"quad": Evaluate, "quad-teachers": Bound, "g1": EvaluateG1}, rest)
    if group == ["bench"]:
        from sim.bench_g1 import BenchG1

        return _choose("sim bench", {"quadrotor": Bench, "g1": BenchG1, "students": Compare}, rest)
    if group == ["motions"]:
        from sim.motions.commands import COMMANDS

        return _choose("sim motions", COMMANDS, rest)
    groups = {
        "train": _group("Train policies."),
        "eval": _group("Judge policies."),
        "bench": _group("Time the simulator, compare trainings."),
        "motions": _group("Import, retarget, repair and judge motions of the humanoid."),
    }
    return _choose(
        "sim",
        groups | {"resume": Resume, "play": Play, "report": Report, "robot": Robot, "wrap": Wrap},
        words or ["--help"],
    )


def _choose(name: str, commands: dict[str, Any], words: list[str]) -> Any:
    return tyro.extras.subcommand_cli_from_dict(
        commands, prog=name, args=words, description="Simulate, train and judge."
    )


def _group(description: str) -> Callable[[], None]:
    """A line of `sim --help`; what follows the group's name is parsed elsewhere."""

    def group() -> None: ...

    group.__doc__ = description
    return group


def _preset(words: list[str]) -> str:
    """The preset of the tracking task that these words ask for: it decides what the defaults of all others are."""
    for index, word in enumerate(words):
        name, _, value = word.partition("=")
        if name == "--preset":
            return value or (words[index + 1] if index + 1 < len(words) else "")
    return "realign"


def _trainings(preset: str) -> dict[str, Any]:
    from sim.train.learner import StudentConfig
    from sim.train.teachers import QUICK, TeacherConfig
    from sim.train.track_config import TRAININGS, TrackConfig

    if preset not in TRAININGS:
        raise ValueError(f"--preset is {preset!r}; allowed: {', '.join(TRAININGS)}")

    def quad_teachers(
        config: TeacherConfig = TeacherConfig(),  # noqa: B008 (frozen)
        out: Path = Path("runs/teachers"),
        quick: bool = False,
        threads: int | None = None,
    ) -> Callable[[], None]:
        """Train one teacher for each of many sampled quadrotors, and judge all of them.

        Args:
            config: The training.
            out: Run folder to make.
            quick: A short training, an eighth of the updates: replaces the settings of updates, window, extra, rounds,
                judged and edge_end.
            threads: Threads to use; all cores that this process may use when absent.
        """
        chosen = dataclasses.replace(config, **QUICK) if quick else config
        return lambda: _begin("quad-teachers", chosen.check(), chosen.seed, out, threads)

    def quad_student(
        config: StudentConfig = StudentConfig(),  # noqa: B008 (frozen)
        out: Path = Path("runs/student"),
        threads: int | None = None,
    ) -> Callable[[], None]:
        """Distil the teachers of a run into one small recurrent policy, and tune it through the simulator.

        Args:
            config: The training.
            out: Run folder to make.
            threads: Threads to use; all cores that this process may use when absent.
        """
        return lambda: _begin("quad-student", config, config.seed, out, threads)

    def g1_track(
        config: TrackConfig = TRAININGS[preset],
        out: Path = Path("runs/track"),
        preset: Literal["realign", "asap"] = "realign",
        threads: int | None = None,
    ) -> Callable[[], None]:
        """Train a policy that tracks motions on the simulated G1; needs the extra [train].

        Args:
            config: The training.
            out: Run folder to make.
            preset: Where the settings start from: what we found best, or what the ASAP paper published.
            threads: Threads that simulate, of all devices together; all cores that this process may use when absent.
                On a busy machine one thread can be faster than two.
        """
        return lambda: _begin("g1-track", config.check(), config.seed, out, threads)

    # Annotations are text in this module, and text is looked up where these names are not.
    quad_teachers.__annotations__["config"] = tyro.conf.OmitArgPrefixes[TeacherConfig]
    quad_student.__annotations__["config"] = tyro.conf.OmitArgPrefixes[StudentConfig]
    g1_track.__annotations__["config"] = Annotated[TrackConfig, tyro.conf.arg(name="")]  # its parts have equal names
    return {"quad-teachers": quad_teachers, "quad-student": quad_student, "g1-track": g1_track}


def _perform(command: Any) -> None:
    if isinstance(command, Resume):
        from sim.run import Run

        _use(command.threads)
        _continue(Run.open(command.run))
    elif isinstance(command, Evaluate):
        from sim.evaluate import evaluate_command

        _use(command.threads)
        evaluate_command(
            command.policies, command.output, command.count, command.seed, command.peer, bound=command.bound
        )
    elif isinstance(command, Bound):
        from sim.train.bound import bound_command

        _use(command.threads)
        bound_command(command.run, command.output, command.tilt, command.episodes)
    elif isinstance(command, EvaluateG1):
        from sim.tracking import evaluate_g1_command

        evaluate_g1_command(command.policies, command.clip, command.output, command.spec, command.setting)
    elif isinstance(command, Play):
        _play(command)
    elif isinstance(command, Wrap):
        from sim.wrap import read_spec, wrap_policy

        wrap_policy(command.network, read_spec(command.spec), command.output)
        print(command.output)
    elif isinstance(command, Robot):
        from sim.robots.g1_files import robot_command

        print(*robot_command(command.name, command.out, command.picture), sep="\n")
    elif isinstance(command, Compare):
        from sim.train.study import study_command

        _use(command.threads)
        study_command(command.study, command.teachers, command.out, command.updates, command.seeds, command.count)
    elif isinstance(command, Bench):
        from sim.bench import bench_command

        bench_command(command.output)
    elif isinstance(command, Report):
        from sim.report import report_command

        _use(1)  # a step of a few hundred flights is too short to share: a second thread mostly waits
        report_command(command.run, command.markdown)
    elif callable(command):
        command()
    else:
        from sim.bench_g1 import bench_g1_command

        bench_g1_command(command)


def _play(command: Play) -> None:
    given = (command.policy is not None) + command.zero + command.random
    if given != 1:
        raise ValueError(f"{given} of a policy, --zero and --random are given; allowed: one of them")
    if command.video is not None:
        from sim.robots.g1_files import load_drawing

        load_drawing()
    from sim.play import play_command

    play_command(
        command.policy or ("zero" if command.zero else "random"),
        command.clip,
        command.robot,
        command.robots,
        command.seed,
        command.randomised,
        command.port,
        command.video,
        command.fps,
    )


def _use(threads: int | None) -> None:
    import numba

    if threads is None:
        return
    most = numba.get_num_threads()  # numba's own limit, before anything lowers it
    if not 1 <= threads <= most:
        raise ValueError(f"--threads is {threads}: allowed are 1 to {most} on this machine")
    numba.set_num_threads(threads)


def _begin(kind: str, config: Any, seed: int, folder: Path, threads: int | None) -> None:
    from sim.run import Run

    _use(threads)
    _continue(Run.create(folder, kind, config, seed))


def _continue(run: Run) -> None:
    """Train what the run folder asks for, up to its end."""
    import json

    from rich.console import Console

    try:
        if run.kind == "quad-teachers":
            from sim.train.teachers import TeacherConfig, summary_table, train_teachers

            train_teachers(run, run.config(TeacherConfig))
            Console().print(summary_table(json.loads((run.folder / "metrics" / "summary.json").read_text())))
        elif run.kind == "quad-student":
            from sim.train.distill import train_student
            from sim.train.learner import StudentConfig

            train_student(run, run.config(StudentConfig))
        elif run.kind == "g1-track":
            from sim.train.track import train_tracking
            from sim.train.track_config import TrackConfig

            train_tracking(run, run.config(TrackConfig))
        else:
            kinds = "quad-teachers, quad-student, g1-track"
            raise ValueError(f"{run.folder}: kind {run.kind!r} is not known: allowed are {kinds}")
    except KeyboardInterrupt:
        print(f"sim: interrupted; `sim resume {run.folder}` goes on where the last checkpoint is", file=sys.stderr)
        sys.exit(130)
    finally:
        run.close()
    print(run.folder)


def _failed(message: str) -> int:
    print(f"sim: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()

"""The commands below `sim motions`.

sim motions import walk.pkl dance.csv -o clips
sim motions repair clips -o repaired
sim motions retarget dance.bvh -o retargeted
sim motions report repaired -o runs/motions
sim motions author squat kick -o runs/authored
sim motions play repaired/walk.npz clips/walk.npz
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sim.motions.formats import Angles, Format, JointOrder, Length, Order

Output = tyro.conf.arg(aliases=["-o"])


@dataclass(frozen=True)
class Import:
    """Make clips of motion files: ASAP, PBHC, human2humanoid, GMR, GMT, TWIST2, LAFAN and kimodo CSV, BONES-SEED,
    BeyondMimic, mjlab, holosoma, any npz with qpos. What a file means is detected and said; overrule it below."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Files, or folders of files."""
    out: Annotated[Path, Output] = Path("runs/clips")
    """Folder for the clips."""
    format: Format | None = None
    """Take only files of this format."""
    quaternion: Order | None = None
    """Order of the root's quaternions."""
    angles: Angles | None = None
    """Unit of joint and root angles."""
    length: Length | None = None
    """Unit of the root's position."""
    joints: JointOrder | None = None
    """Order of 29 joints: Unitree's, or Isaac Lab's."""
    fps: float | None = None
    """Frames per second."""
    source: str | None = None
    """Where the motions come from, to be kept in the clips."""
    licence: str | None = None
    """Their licence; that of a LICENSE file beside them when absent."""
    explain: bool = False
    """Print every decision with its evidence."""

    def __call__(self) -> None:
        from sim.motions.detect import Choices
        from sim.motions.importers import import_command

        choices = Choices(self.quaternion, self.angles, self.length, self.joints, self.fps)
        _end(
            import_command(self.paths, self.out, self.format, choices, self.source, self.licence, explain=self.explain),
            self.out,
        )


@dataclass(frozen=True)
class Repair:
    """Take teleports, spikes and limit violations out of clips, put standing feet on the floor and keep them there, and
    leave everything else as near to the reference as that allows."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Clips, or folders of clips."""
    out: Annotated[Path, Output] = Path("runs/repaired")
    """Folder for the repaired clips."""

    def __call__(self) -> None:
        from sim.motions.repair import repair_command

        failures, misses = repair_command(self.paths, self.out)
        for miss in misses:
            print(f"sim: not kept: {miss}", file=sys.stderr)
        _end(failures, self.out, worst=bool(misses))


@dataclass(frozen=True)
class Retarget:
    """Make clips of the G1 from motions of humans: SMPL joints of ASAP and PBHC pickles, BVH, DeepMimic's JSON as in
    the package pybullet. Feet stand on the floor and still, and no part of the robot is in another."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Files, or folders of files."""
    out: Annotated[Path, Output] = Path("runs/retargeted")
    """Folder for the clips."""
    scale: float | None = None
    """Robot length per human length; measured for each motion when absent."""
    compare: bool = False
    """Also print errors and jerk beside those of the robot's motion that the files hold already, as ASAP's do."""

    def __call__(self) -> None:
        from sim.motions.retarget import retarget_command

        _end(retarget_command(self.paths, self.out, self.scale, self.compare), self.out)


@dataclass(frozen=True)
class Report:
    """Print and save the figures of clips, with a contact sheet of each."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Clips, or folders of clips."""
    out: Annotated[Path, Output] = Path("runs/motions")
    """Folder for the figures (.json) and contact sheets (.png)."""
    picture: bool = True
    """Draw contact sheets; needs a graphics driver that draws off-screen (EGL) or a display."""

    def __call__(self) -> None:
        from sim.motions.report import report_command

        _end(report_command(self.paths, self.out, self.picture), self.out)


@dataclass(frozen=True)
class Author:
    """Make the project's own motions from their key numbers: squat, bow, side_step, kick, wave, reach, jump,
    walk_in_place. They ship with the package; this makes them anew."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Motions; all of them when none is named."""
    out: Annotated[Path, Output] = Path("runs/authored")
    """Folder for the clips."""

    def __call__(self) -> None:
        from sim.motions.author import author_command

        print(*author_command(self.names, self.out), sep="\n")


@dataclass(frozen=True)
class Play:
    """Show clips side by side in the browser, or write them as a video. Needs the extra [view]."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Clips."""
    port: int = 8080
    """Of the page; another one is taken where this is in use."""
    video: Path | None = None
    """Write this file (.mp4) in place of a page."""

    def __call__(self) -> None:
        from sim.motions.play import play_command

        play_command(self.paths, self.port, self.video)


COMMANDS = {"import": Import, "repair": Repair, "retarget": Retarget, "report": Report} | {
    "author": Author,
    "play": Play,
}


def _end(failures: list, out: Path, worst: bool = False) -> None:
    """Say what failed, one sentence each; status 2 where anything did."""
    for failure in failures:
        print(f"sim: {failure.reason}", file=sys.stderr)
    if failures or worst:
        sys.exit(2)
    print(out)

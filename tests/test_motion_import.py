"""Importers: every layout, what its numbers mean, and how bad files are refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from controllers.motion import Clip, load_clip, make_clip
from controllers.rotation_vectors import to_vector
from controllers.rotations import from_axis_angle, multiply, rotate
from sim.motions.detect import H1, HARDWARE, ISAAC, SHORT, Choices
from sim.motions.formats import FormatError, read
from sim.motions.importers import Failure, import_command
from sim.motions.kinematics import kinematics_of, sweep_clip
from sim.motions.pickles import PickleError, read_pickle

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("REALIGN_DATA", ROOT.parent / "shared" / "data")) / "motions"


def walk(names: tuple[str, ...] = HARDWARE, frames: int = 60, fps: float = 50.0) -> Clip:
    """A robot that turns from north to south with swinging, level-footed legs: no two readings of it look alike."""
    t = np.arange(frames) / fps
    swing = 0.4 * np.sin(2 * np.pi * t)
    joints = np.zeros((frames, len(names)))
    for side, sign in (("left", 1), ("right", -1)):
        joints[:, names.index(f"{side}_hip_pitch_joint")] = sign * swing - 0.2
        joints[:, names.index(f"{side}_knee_joint")] = 0.5
        joints[:, names.index(f"{side}_ankle_pitch_joint")] = -0.3 - sign * swing
        joints[:, names.index(f"{side}_shoulder_roll_joint")] = 0.3 * sign
    heading = from_axis_angle([0, 0, 1], np.linspace(np.pi / 2, 3 * np.pi / 2, frames))
    return make_clip(
        fps,
        names,
        np.stack([t, 0.1 * np.sin(t), 0.75 + 0.01 * np.cos(9 * t)], axis=1),
        multiply(heading, from_axis_angle([0, 1, 0], np.full(frames, 0.05))),
        joints,
    )


def bodies(clip: Clip, order: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Positions and quaternions of pelvis and moved bodies, in the order of the joints (or of these of them)."""
    kinematics, sweep = sweep_clip(clip)
    columns = np.concatenate([[0], 1 + (np.arange(len(clip.joint_names)) if order is None else order)])
    names = ["pelvis", *(joint.body for joint in kinematics.robot.joints)]
    quaternions = np.tile(clip.root_quaternion[:, None], (1, len(columns), 1))  # only the root's are read
    return sweep.origins[:, columns], quaternions, [names[i] for i in columns]


def xyzw(clip: Clip) -> np.ndarray:
    return np.roll(clip.root_quaternion, -1, axis=1)


def write_asap(path: Path, clip: Clip, **more: Any) -> None:
    motion = {
        "root_trans_offset": clip.root_position.astype(np.float32),
        "root_rot": xyzw(clip),
        "dof": clip.joint_position.astype(np.float32),
        "pose_aa": np.concatenate(
            [to_vector(clip.root_quaternion)[:, None], np.zeros((clip.frames, 26, 3))], axis=1
        ).astype(np.float32),
        "fps": 50,
    }
    path.write_bytes(pickle.dumps({"a motion": motion | more}))


def write_gmr(path: Path, clip: Clip) -> None:
    motion = {
        "fps": np.float64(clip.fps),
        "root_pos": clip.root_position,
        "root_rot": xyzw(clip),
        "dof_pos": clip.joint_position,
        "local_body_pos": None,
        "link_body_list": None,
    }
    path.write_bytes(pickle.dumps(motion, protocol=4))


def write_lafan(path: Path, clip: Clip) -> None:
    np.savetxt(path, np.hstack([clip.root_position, xyzw(clip), clip.joint_position]), delimiter=",")


def write_kimodo(path: Path, clip: Clip) -> None:
    np.savetxt(path, np.hstack([clip.root_position, clip.root_quaternion, clip.joint_position]), delimiter=",")


def write_bones(path: Path, clip: Clip) -> None:
    """Extrinsic XYZ of R = Rz Ry Rx: yaw, then pitch, in degrees; centimetres; joints in another order."""
    heading = np.linspace(np.pi / 2, 3 * np.pi / 2, clip.frames)
    turns = np.degrees(np.stack([0 * heading, 0 * heading + 0.05, heading], axis=1))
    order = np.arange(len(clip.joint_names))[::-1]
    names = [clip.joint_names[i].removesuffix("_joint") + "_joint_dof" for i in order]
    header = ["Frame", *(f"root_{kind}{axis}" for kind in ("translate", "rotate") for axis in "XYZ"), *names]
    table = np.hstack(
        [
            np.arange(clip.frames)[:, None],
            100 * clip.root_position,
            turns,
            np.degrees(clip.joint_position[:, order]),
        ]
    )
    np.savetxt(path, table, delimiter=",", header=",".join(header), comments="")


def write_mjlab(path: Path, clip: Clip) -> None:
    positions, quaternions, _ = bodies(clip)
    np.savez(
        path,
        fps=np.array([50]),
        joint_pos=clip.joint_position,
        joint_vel=clip.joint_velocity,
        body_pos_w=positions,
        body_quat_w=quaternions,
    )


def write_beyondmimic(path: Path, clip: Clip) -> None:
    order = np.array(ISAAC)
    positions, quaternions, _ = bodies(clip, order)
    np.savez(
        path,
        fps=np.array([50]),
        joint_pos=clip.joint_position[:, order],
        joint_vel=clip.joint_velocity[:, order],
        body_pos_w=positions,
        body_quat_w=quaternions,
    )


def write_holosoma(path: Path, clip: Clip) -> None:
    positions, quaternions, names = bodies(clip)
    np.savez(
        path,
        fps=50,
        joint_pos=np.hstack([clip.root_position, clip.root_quaternion, clip.joint_position]),
        joint_vel=np.zeros((clip.frames, 6 + len(clip.joint_names))),
        body_pos_w=np.concatenate([np.zeros((clip.frames, 1, 3)), positions], axis=1),
        body_quat_w=np.concatenate([quaternions[:, :1], quaternions], axis=1),
        joint_names=np.array(clip.joint_names),
        body_names=np.array(["world", *names]),
    )


def write_qpos(path: Path, clip: Clip) -> None:
    np.savez(path, qpos=np.hstack([clip.root_position, clip.root_quaternion, clip.joint_position]), dt=0.02)


def imported(path: Path, **choices: Any) -> Clip:
    failures = import_command((path,), path.parent / "out", console=Console(file=io.StringIO()), **choices)
    assert not failures, failures
    return load_clip(path.parent / "out" / f"{path.stem}.npz")


LAYOUTS = {
    "asap.pkl": (write_asap, "asap", "xyzw", 50),
    "gmr.pkl": (write_gmr, "gmr", "xyzw", 50),
    "lafan.csv": (write_lafan, "csv", "xyzw", 30),
    "kimodo.csv": (write_kimodo, "csv", "wxyz", 30),
    "bones.csv": (write_bones, "bones-seed", "none", 120),
    "mjlab.npz": (write_mjlab, "beyondmimic", "wxyz", 50),
    "beyondmimic.npz": (write_beyondmimic, "beyondmimic", "wxyz", 50),
    "holosoma.npz": (write_holosoma, "holosoma", "wxyz", 50),
    "qpos.npz": (write_qpos, "qpos", "wxyz", 50),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_motion(tmp_path: Path, name: str) -> None:
    write, layout, order, fps = LAYOUTS[name]
    clip = walk()
    write(tmp_path / name, clip)
    back = imported(tmp_path / name)
    np.testing.assert_allclose(back.root_position, clip.root_position, atol=1e-6)
    np.testing.assert_allclose(back.joint_position, clip.joint_position, atol=1e-6)
    np.testing.assert_allclose(
        rotate(back.root_quaternion, [1, 0, 0]), rotate(clip.root_quaternion, [1, 0, 0]), atol=1e-6
    )
    assert (back.joint_names, back.fps) == (HARDWARE, fps)
    said = back.report["import"]
    assert (said["format"]["answer"], said["quaternion"]["answer"]) == (layout, order)
    assert all(each["evidence"] for each in said.values())


def test_23_joints_are_the_robot_without_wrists_and_19_an_h1(tmp_path: Path) -> None:
    write_gmr(tmp_path / "a.pkl", walk(SHORT))
    assert imported(tmp_path / "a.pkl").joint_names == SHORT
    clip = walk()
    write_asap(tmp_path / "b.pkl", clip, dof=np.zeros((clip.frames, 19)))
    assert imported(tmp_path / "b.pkl").joint_names == H1


def test_contacts_of_the_source_are_kept_where_it_is_sure(tmp_path: Path) -> None:
    clip = walk()
    mask = np.full((clip.frames, 2), 0.5)
    mask[:10, 0] = 1
    write_asap(tmp_path / "a.pkl", clip, contact_mask=mask)
    back = imported(tmp_path / "a.pkl")
    assert back.contacts.sum() == 10
    assert back.contacts[:10, 0].all()


def test_the_user_may_overrule(tmp_path: Path) -> None:
    write_gmr(tmp_path / "a.pkl", walk())
    chosen = imported(tmp_path / "a.pkl", choices=Choices(quaternion="wxyz", fps=25.0))
    assert chosen.fps == 25
    assert chosen.report["import"]["quaternion"] == {"answer": "wxyz", "evidence": "you said so"}


def test_degrees_and_millimetres_are_seen(tmp_path: Path) -> None:
    clip = walk()
    table = np.hstack([1000 * clip.root_position, xyzw(clip), np.degrees(clip.joint_position)])
    np.savetxt(tmp_path / "a.csv", table, delimiter=",")
    back = imported(tmp_path / "a.csv")
    np.testing.assert_allclose(back.joint_position, clip.joint_position, atol=1e-9)
    np.testing.assert_allclose(back.root_position, clip.root_position, atol=1e-9)


@pytest.mark.parametrize(("way", "evidence"), [(2.0, "100 % of its way forwards"), (0.0, "faces along x")])
def test_a_robot_that_never_turns_is_read_as_facing_forwards(tmp_path: Path, way: float, evidence: str) -> None:
    clip = walk()
    position = np.stack([np.linspace(0, way, clip.frames), np.zeros(clip.frames), np.full(clip.frames, 0.75)], axis=1)
    straight = make_clip(
        clip.fps, clip.joint_names, position, np.tile([1.0, 0, 0, 0], (clip.frames, 1)), clip.joint_position
    )
    for write, order in ((write_lafan, "xyzw"), (write_kimodo, "wxyz")):
        write(tmp_path / f"{order}.csv", straight)
        said = imported(tmp_path / f"{order}.csv").report["import"]["quaternion"]
        assert said["answer"] == order
    write_lafan(tmp_path / "a.csv", straight)
    assert evidence in imported(tmp_path / "a.csv").report["import"]["quaternion"]["evidence"]


def test_rate_and_names_of_bare_positions_come_from_the_manifest_or_from_the_user(tmp_path: Path) -> None:
    clip = walk()
    qpos = np.hstack([clip.root_position, clip.root_quaternion, clip.joint_position[:, ::-1]])
    np.savez(tmp_path / "a.npz", qpos=qpos)
    (failure,) = import_command((tmp_path / "a.npz",), tmp_path / "out", console=Console(file=io.StringIO()))
    assert "fps is not in the file: give it with --fps" in failure.reason
    assert imported(tmp_path / "a.npz", choices=Choices(fps=60.0)).fps == 60
    manifest = {"timestep": 0.02, "qpos_names": ["root"] * 7 + list(HARDWARE[::-1])}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    back = imported(tmp_path / "a.npz")
    assert (back.fps, back.joint_names) == (50, HARDWARE)
    np.testing.assert_allclose(back.joint_position, clip.joint_position)


class Hostile:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch hostile",))


def bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be imported, and what must be said about them."""
    clip = walk()
    write_gmr(folder / "cut.pkl", clip)
    (folder / "cut.pkl").write_bytes((folder / "cut.pkl").read_bytes()[:2000])
    (folder / "hostile.pkl").write_bytes(pickle.dumps({"root_pos": Hostile()}))
    (folder / "object.pkl").write_bytes(pickle.dumps({"root_pos": np.array([None, {}])}))
    (folder / "text.csv").write_text("1,2,3\n4,x,6\n")
    (folder / "ragged.csv").write_text("1,2,3\n4,5\n")
    (folder / "empty.csv").write_text("")
    (folder / "zip.npz").write_bytes(b"PK nonsense")
    (folder / "walk.mp4").write_bytes(b"")
    rotation, joints = xyzw(clip), clip.joint_position.copy()
    joints[7, 3] = np.nan
    changes = {
        "nan": ({"dof": joints}, "joints is not finite at frame 7"),
        "length": ({"root_rot": 2 * rotation}, "root rotation has a quaternion of length 2 at frame 0: needed is 1"),
        "count": ({"dof": clip.joint_position[:, :28]}, "joints are 28: known are 29 and 23 (G1) and 19 (H1)"),
        "none": ({"dof": joints[:0]}, "joints has shape (0, 29) where the root position has 60 frames"),
        "fps": ({"fps": -1}, "fps is -1: needed is one positive number"),
    }
    for name, (change, _) in changes.items():
        write_asap(folder / f"{name}.pkl", clip, **change)
    one = {"root_trans_offset": np.zeros((1, 3)), "root_rot": rotation[:1], "dof": clip.joint_position[:1], "fps": 30}
    (folder / "one.pkl").write_bytes(pickle.dumps({"a": one}))
    zero = {"root_trans_offset": np.zeros((0, 3)), "root_rot": rotation[:0], "dof": clip.joint_position[:0], "fps": 30}
    (folder / "zero.pkl").write_bytes(pickle.dumps({"a": zero}))
    return {
        "cut.pkl": "is not a",
        "hostile.pkl": "asks for posix.system, which is refused",
        "object.pkl": "holds an array of 'O8': only numbers and text are admitted",
        "text.csv": "line 2, column 2 is 'x': needed is a number",
        "ragged.csv": "line 2 has 2 columns where the first has 3",
        "empty.csv": "holds no rows",
        "zip.npz": "cannot be read as npz",
        "walk.mp4": "has the ending '.mp4'",
        "one.pkl": "the motion has 1 frames: needed are 2 or more",
        "zero.pkl": "the motion has 0 frames: needed are 2 or more",
    } | {f"{name}.pkl": sentence for name, (_, sentence) in changes.items()}


def test_bad_files_are_named_and_the_good_ones_done(tmp_path: Path) -> None:
    expected = bad_files(tmp_path)
    write_gmr(tmp_path / "good.pkl", walk())
    paths = tuple(tmp_path / name for name in (*expected, "good.pkl"))
    failures = import_command(paths, tmp_path / "out", console=Console(file=io.StringIO()))
    assert [failure.path.name for failure in failures] == list(expected)
    for failure, sentence in zip(failures, expected.values(), strict=True):
        assert sentence in failure.reason, failure
        assert failure.reason.startswith(str(failure.path))
        assert "\n" not in failure.reason
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.npz"]
    assert not Path("hostile").exists()


def test_two_motions_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_gmr(tmp_path / folder / "walk.pkl", walk())
    failures = import_command((tmp_path,), tmp_path / "out", console=Console(file=io.StringIO()))
    assert [failure.path.parent.name for failure in failures] == ["b"]
    assert isinstance(failures[0], Failure)
    assert "has that name already" in failures[0].reason


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read_without_numpys_help(tmp_path: Path, protocol: int) -> None:
    content = {
        "floats": np.arange(6.0).reshape(2, 3).T,
        "ints": np.arange(4, dtype=">i2"),
        "flag": np.array([True, False]),
        "scalar": np.float32(2.5),
        "list": [1, "two", (3.0, None)],
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    back = read_pickle(tmp_path / "a.pkl")
    for key in ("floats", "ints", "flag"):
        np.testing.assert_array_equal(back[key], content[key])
    assert (back["scalar"], back["list"]) == (2.5, [1, "two", (3.0, None)])
    (tmp_path / "b.pkl").write_bytes(zlib.compress(pickle.dumps(content, protocol=protocol)))
    np.testing.assert_array_equal(read_pickle(tmp_path / "b.pkl")["floats"], content["floats"])


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'touch hostile'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1000000000000\ntNI00\nS''\ntb.",
        b"(dS'a'\n(lp0\ng0\nas.",
        b"\x80\x04\x8c\x03a\nb\x8c\x01c\x93.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ],
)
def test_hostile_pickles_are_refused_in_one_sentence(tmp_path: Path, code: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(code)
    with pytest.raises(PickleError, match=r"a\.pkl: ") as caught:
        read_pickle(tmp_path / "a.pkl")
    assert "\n" not in str(caught.value)
    assert not Path("hostile").exists()


def test_formats_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    write_gmr(tmp_path / "a.pkl", walk())
    with pytest.raises(FormatError, match="is not of the format asap"):
        read(tmp_path / "a.pkl", "asap")


def test_a_body_placed_by_hand_is_where_the_joints_put_it() -> None:
    """Hip, knee and ankle pitch alone bend a leg in its plane: the known lengths of thigh and shin give the ankle."""
    kinematics = kinematics_of(HARDWARE)
    straight = kinematics.sweep(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), np.zeros((1, 29)))
    joints = np.zeros((1, 29))
    joints[0, 0] = -np.pi / 2
    raised = kinematics.sweep(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), joints)
    hip = straight.origins[0, 1]
    ankle = straight.origins[0, 6] - hip
    np.testing.assert_allclose(raised.origins[0, 6] - hip, [-ankle[2], ankle[1], ankle[0]], atol=1e-12)


@pytest.mark.skipif(not DATA.is_dir(), reason="the public motions are not here (REALIGN_DATA)")
def test_every_public_motion_is_read_as_its_makers_document(tmp_path: Path) -> None:
    failures = import_command((DATA,), tmp_path, console=Console(file=io.StringIO()))
    assert not failures
    clips = {path.stem: load_clip(path) for path in tmp_path.iterdir()}
    assert len(clips) == 44
    for clip in clips.values():
        said = {what: each["answer"] for what, each in clip.report["import"].items()}
        assert (said["quaternion"], said["angles"], said["length"]) == ("xyzw", "rad", "m")
    assert len(clips["walk_001"].joint_names) == 29
    assert len(clips["squat"].joint_names) == 23

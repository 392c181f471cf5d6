"""Readers of human motions: hand-worked places, units and axes, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from sim.motions.human import NEEDED, SMPL, HumanError, read_human
from tests.shared_data import shared

# A person of centimetres, y up, facing z, left is +x: the usual layout of BVH.
BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT LeftUpLeg
  { OFFSET 10 -5 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT LeftLeg
    { OFFSET 0 -40 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      JOINT LeftFoot
      { OFFSET 0 -40 0
        CHANNELS 3 Zrotation Xrotation Yrotation
        End Site { OFFSET 0 -5 10 } } } }
  JOINT RightUpLeg
  { OFFSET -10 -5 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT RightLeg
    { OFFSET 0 -40 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      JOINT RightFoot
      { OFFSET 0 -40 0
        CHANNELS 3 Zrotation Xrotation Yrotation } } }
  JOINT Spine
  { OFFSET 0 20 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT Head
    { OFFSET 0 50 0
      CHANNELS 3 Zrotation Xrotation Yrotation }
    JOINT LeftArm
    { OFFSET 18 30 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      JOINT LeftForeArm
      { OFFSET 28 0 0
        CHANNELS 3 Zrotation Xrotation Yrotation
        JOINT LeftHand
        { OFFSET 25 0 0
          CHANNELS 3 Zrotation Xrotation Yrotation } } }
    JOINT RightArm
    { OFFSET -18 30 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      JOINT RightForeArm
      { OFFSET -28 0 0
        CHANNELS 3 Zrotation Xrotation Yrotation
        JOINT RightHand
        { OFFSET -25 0 0
          CHANNELS 3 Zrotation Xrotation Yrotation } } } }
}
MOTION
Frames: 2
Frame Time: 0.04
"""
CHANNELS = 6 + 3 * 14
ARM = 6 + 3 * 8  # first channel of LeftArm


def bvh(tmp_path: Path, text: str = BVH, second: dict[int, float] | None = None) -> Path:
    """The file with a first frame at rest, the pelvis 90 cm up, and a second that differs in these channels."""
    rows = np.zeros((2, CHANNELS))
    rows[:, 1] = 90
    for channel, value in (second or {}).items():
        rows[1, channel] = value
    path = tmp_path / "person.bvh"
    path.write_text(text + "\n".join(" ".join(f"{value:g}" for value in row) for row in rows))
    return path


def test_a_bvh_at_rest_stands_where_its_offsets_say(tmp_path: Path) -> None:
    (human,) = read_human(bvh(tmp_path))
    assert human.format == "BVH in cm"
    assert human.fps == pytest.approx(25)
    assert set(NEEDED) <= set(human.points)
    # The file's x, y, z become our y, z, x: forward x, left y, up z.
    np.testing.assert_allclose(human.points["pelvis"][0], [0, 0, 0.9], atol=1e-12)
    np.testing.assert_allclose(human.points["left_ankle"][0], [0, 0.10, 0.05], atol=1e-12)
    np.testing.assert_allclose(human.points["right_wrist"][0], [0, -0.71, 1.40], atol=1e-12)
    np.testing.assert_allclose(human.points["head"][0], [0, 0, 1.6], atol=1e-12)
    np.testing.assert_allclose(human.points["left_toe"][0], [0.1, 0.10, 0], atol=1e-12)  # the end of the foot
    assert "right_toe" not in human.points  # that foot has none


def test_rotations_of_a_bvh_turn_what_hangs_below_and_in_their_order(tmp_path: Path) -> None:
    down = {ARM: -90.0}  # about z: the left arm, along +x, comes down
    human = read_human(bvh(tmp_path, second=down))[0]
    np.testing.assert_allclose(human.points["left_shoulder"][1], [0, 0.18, 1.40], atol=1e-12)
    np.testing.assert_allclose(human.points["left_elbow"][1], [0, 0.18, 1.12], atol=1e-12)
    np.testing.assert_allclose(human.points["left_wrist"][1], [0, 0.18, 0.87], atol=1e-12)
    both = {ARM: -90.0, ARM + 2: -90.0}  # first about y in the arm's own frame: forward, which z leaves alone
    human = read_human(bvh(tmp_path, second=both))[0]
    np.testing.assert_allclose(human.points["left_elbow"][1], [0.28, 0.18, 1.40], atol=1e-12)


def test_a_root_turn_and_way_carry_the_whole_body(tmp_path: Path) -> None:
    human = read_human(bvh(tmp_path, second={2: 100.0, 5: 90.0}))[0]  # 1 m forward, then left becomes backwards
    np.testing.assert_allclose(human.points["pelvis"][1], [1, 0, 0.9], atol=1e-12)
    np.testing.assert_allclose(human.points["left_hip"][1], [0.9, 0, 0.85], atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("HIERARCHY", "SOMETHING", "does not begin with HIERARCHY"),
        ("Frames: 2", "Frames: 3", "3 frames of 48 need 144"),
        ("Frame Time: 0.04", "Frame Time: 0", "Frame Time is 0 s"),
        ("LeftUpLeg", "Tail", "no joint was recognised as left_hip"),
        ("RightForeArm", "Wing", "has no joint for right_elbow"),
        ("Zrotation", "Wrotation", "has a channel 'wrotation'"),
        ("MOTION", "", "has the word .Frames:. in its hierarchy"),
        ("OFFSET 0 -40 0", "OFFSET 0 -400000 0", "in no unit"),
    ],
)
def test_a_damaged_bvh_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    path = bvh(tmp_path, BVH.replace(old, new))
    with pytest.raises(HumanError, match=sentence) as caught:
        read_human(path)
    assert str(caught.value).startswith(str(path))


def deepmimic_frame(**turns: list) -> list[float]:
    """A frame of 1/30 s at rest, 0.9 m up, but for these joints."""
    order = ("chest", "neck", "right_hip", "right_knee", "right_ankle", "right_shoulder", "right_elbow")
    order += ("left_hip", "left_knee", "left_ankle", "left_shoulder", "left_elbow")
    values = [1 / 30, 0.5, 0.9, -0.25, *turns.get("root", [1, 0, 0, 0])]
    for name in order:
        values += turns.get(name, [0.0] if name.endswith(("knee", "elbow")) else [1, 0, 0, 0])
    return values


def deepmimic(tmp_path: Path, *frames: list) -> Path:
    path = tmp_path / "person.txt"
    path.write_text(json.dumps({"Loop": "none", "Frames": frames}))
    return path


def test_a_deepmimic_motion_is_turned_to_z_up_and_its_hinges_bend_the_right_way(tmp_path: Path) -> None:
    bent = deepmimic_frame(left_knee=[-np.pi / 2], right_elbow=[np.pi / 2])
    (human,) = read_human(deepmimic(tmp_path, deepmimic_frame(), bent))
    assert human.fps == pytest.approx(30)
    # The file's x, y, z become our x, z, -y; right is its +z.
    np.testing.assert_allclose(human.points["pelvis"][0], [0.5, 0.25, 0.9], atol=1e-12)
    np.testing.assert_allclose(human.points["left_hip"][0], [0.5, 0.25 + 0.084887, 0.9], atol=1e-12)
    knee, ankle = human.points["left_knee"][1], human.points["left_ankle"][1]
    np.testing.assert_allclose(ankle - knee, [-0.40987, 0, 0], atol=1e-12)  # the heel comes up behind
    elbow, wrist = human.points["right_elbow"][1], human.points["right_wrist"][1]
    np.testing.assert_allclose(wrist - elbow, [0.258947, 0, 0], atol=1e-12)  # the hand comes up in front
    assert human.points["right_shoulder"][0, 1] < human.points["left_shoulder"][0, 1]


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ([[1.0, 2.0]], "frame 0 has not 44 numbers"),
        ([deepmimic_frame()], "has 1 frames"),
        ([deepmimic_frame(), deepmimic_frame(chest=[2, 0, 0, 0])], "the quaternion of chest has length 2 at frame 1"),
        ([deepmimic_frame(), deepmimic_frame(left_knee=["bent"])], "no number"),
        ([deepmimic_frame(), deepmimic_frame(left_knee=[float("nan")])], "finite"),
        ([[0.1, *deepmimic_frame()[1:]], deepmimic_frame(), deepmimic_frame()], "not all last equally long"),
    ],
)
def test_a_damaged_deepmimic_motion_is_refused(tmp_path: Path, frames: list, sentence: str) -> None:
    with pytest.raises(HumanError, match=sentence):
        read_human(deepmimic(tmp_path, *frames))
    (tmp_path / "person.txt").write_text("[")
    with pytest.raises(HumanError, match="is no JSON"):
        read_human(tmp_path / "person.txt")


def smpl(tmp_path: Path, **motion: object) -> Path:
    path = tmp_path / "person.pkl"
    path.write_bytes(pickle.dumps({"walk": motion}))
    return path


def test_smpl_joints_are_named_by_their_places(tmp_path: Path) -> None:
    joints = np.zeros((3, 24, 3))
    joints[:, :, 2] = np.arange(24) / 10
    joints[:, [4, 7], 2] = [[0.3, 0.5]]
    (human,) = read_human(smpl(tmp_path, smpl_joints=joints, fps=30))
    assert human.points["left_hand"][0, 2] == pytest.approx(2.2)
    assert human.points["head"][0, 2] == pytest.approx(1.5)
    assert len([name for name in SMPL if name]) == len(human.points)
    assert human.cut(1).frames == 2


@pytest.mark.parametrize(
    ("motion", "sentence"),
    [
        ({"fps": 30}, "has no smpl_joints"),
        ({"smpl_joints": np.zeros((3, 10, 3)), "fps": 30}, r"shape \(3, 10, 3\)"),
        ({"smpl_joints": np.zeros((3, 24, 3))}, "has no fps"),
        ({"smpl_joints": np.full((3, 24, 3), np.nan), "fps": 30}, "not finite at frame 0"),
        ({"smpl_joints": np.zeros((1, 24, 3)), "fps": 30}, "has 1 frames"),
        ({"smpl_joints": np.zeros((3, 24, 3)), "fps": 30}, "legs of 0 m"),
    ],
)
def test_smpl_joints_that_are_none_are_refused(tmp_path: Path, motion: dict, sentence: str) -> None:
    with pytest.raises(HumanError, match=sentence):
        read_human(smpl(tmp_path, **motion))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HumanError, match=r"ends in \.fbx"):
        read_human(tmp_path / "dance.fbx")


def test_a_published_clip_is_read_in_metres() -> None:
    (human,) = read_human(shared("motions/asap/walk_level1.pkl"))
    thigh = np.linalg.norm(human.points["left_knee"] - human.points["left_hip"], axis=1)
    assert human.frames == 152
    np.testing.assert_allclose(thigh, thigh[0], atol=1e-5)  # bones do not stretch
    assert 0.3 < thigh[0] < 0.5

"""What happens to the virtual G1: scripts, faults of what it says, delays."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from controllers.g1 import revision
from deploy.unitree_hg import SLOTS, new_state
from deploy.virtual_events import (
    FAULTS,
    KINDS,
    DelayLine,
    Event,
    FaultySensors,
    ScriptError,
    Timeline,
    parse_event,
    read_script,
)

G1 = revision("g1_29dof")
KNEE = G1.joint_names.index("left_knee_joint")


def test_a_delay_line_keeps_order_delay_and_share() -> None:
    line = DelayLine(0.01, 0.02, 0.3, np.random.default_rng(1))
    for index in range(5000):
        line.put(index, index * 1e-3)
    arrived = {index: now for now in np.arange(0, 5.1, 1e-3) for index in line.due(now)}
    assert list(arrived) == sorted(arrived)
    assert len(arrived) == pytest.approx(3500, abs=150)
    waits = [now - index * 1e-3 for index, now in arrived.items()]
    assert min(waits) >= 0.01 - 1e-9
    assert max(waits) <= 0.031 + 1e-9
    with pytest.raises(ScriptError, match=r"loss is 1\.5"):
        DelayLine(0, 0, 1.5, np.random.default_rng(1))


def faulty(events: Sequence[Event], seconds: float = 0.1) -> list[np.ndarray]:
    """States of 1 ms with made-up motion, as these events leave them."""
    slots = {name: index for index, name in enumerate(G1.joint_names)}
    faults, timeline = FaultySensors(slots, np.random.default_rng(0)), Timeline(events)
    states = []
    for index in range(round(1000 * seconds)):
        state = new_state()
        state["tick"] = index
        state["motor_state"]["q"][:29] = 1e-3 * index
        state["motor_state"]["dq"][:29] = 1.0
        state["motor_state"]["temperature"] = 35
        state["imu_state"]["gyroscope"] = 1e-2 * index
        timeline.advance(index * 1e-3)
        faults.alter(state, timeline, index * 1e-3)
        states.append(state)
    return states


@pytest.mark.parametrize(
    ("kind", "joint", "value", "read", "expected"),
    [
        ("tick_frozen", None, None, lambda s: s["tick"], 50),
        ("tick_jump", None, 100.0, lambda s: s["tick"], 160),
        ("wrong_mode_machine", None, 6.0, lambda s: s["mode_machine"], 6),
        ("nan", "left_knee_joint", None, lambda s: s["motor_state"]["q"][KNEE], math.nan),
        ("nan_imu", None, None, lambda s: s["imu_state"]["quaternion"][0], math.nan),
        ("zero_imu", None, None, lambda s: s["imu_state"]["quaternion"][0], 0.0),
        ("imu_frozen", None, None, lambda s: s["imu_state"]["gyroscope"][0], 0.5),
        ("imu_tilt", None, 1.2, lambda s: s["imu_state"]["quaternion"][2], math.sin(0.6)),
        ("gyro_spike", None, 15.0, lambda s: s["imu_state"]["gyroscope"][0], 15.6),
        ("encoder_jump", "left_knee_joint", 0.5, lambda s: s["motor_state"]["q"][KNEE], 0.56),
        ("encoder_frozen", "left_knee_joint", None, lambda s: s["motor_state"]["q"][KNEE], 0.05),
        ("velocity_spike", "left_knee_joint", 50.0, lambda s: s["motor_state"]["dq"][KNEE], 51.0),
        ("overheating", "left_knee_joint", 400.0, lambda s: s["motor_state"]["temperature"][KNEE, 0], 39),
        ("motor_fault", "left_knee_joint", 7.0, lambda s: s["motor_state"]["motorstate"][KNEE], 7),
    ],
)
def test_a_fault_of_states_is_seen_while_it_lasts_and_only_then(
    kind: str, joint: str | None, value: float | None, read: Callable, expected: float
) -> None:
    healthy, ill = faulty([]), faulty([Event(0.05, kind, 0.02, value, joint)])
    assert float(read(ill[60])) == pytest.approx(expected, rel=1e-5, nan_ok=True)
    changed = [index for index in range(100) if ill[index] != healthy[index] or np.isnan(read(ill[index]))]
    assert set(changed) <= set(range(50, 70))
    assert len(changed) >= 17


def test_other_joints_are_left_alone() -> None:
    healthy = faulty([])[60]["motor_state"]
    ill = faulty([Event(0.05, "encoder_jump", value=0.5, joint="left_knee_joint")])[60]["motor_state"]
    assert [slot for slot in range(SLOTS) if healthy[slot] != ill[slot]] == [KNEE]


def test_faults_of_the_same_kind_on_two_joints_overlap() -> None:
    events = [
        Event(0.03, "encoder_frozen", joint="left_knee_joint"),
        Event(0.05, "encoder_frozen", joint="right_knee_joint"),
    ]
    last = faulty(events)[-1]["motor_state"]["q"]
    np.testing.assert_allclose([last[3], last[9], last[0]], [0.03, 0.05, 0.099], rtol=1e-5)


def test_the_campaign_has_at_least_twenty_kinds_of_fault() -> None:
    assert len(FAULTS) >= 20
    assert all(KINDS[kind].text for kind in FAULTS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"kind": "earthquake"}, "kind 'earthquake'; allowed: state_frozen"),
        ({"kind": "nan"}, "joint None; nan has a joint"),
        ({"kind": "push", "joint": "left_knee_joint"}, "push has no joint"),
        ({"kind": "nan", "joint": "tail"}, "joint 'tail'; allowed: left_hip_pitch_joint"),
        ({"kind": "push", "at": -1}, "at -1; allowed: a number of seconds"),
        ({"kind": "push", "value": "hard"}, "value 'hard'; allowed: a number"),
        ({"kind": "press", "value": "C"}, "presses 'C'; allowed: R1"),
        ({"kind": "sticks", "value": [2, 0, 0, 0]}, "each from -1 to 1"),
        ({"kind": "push", "when": 1}, "allowed: an object of at, duration"),
    ],
)
def test_an_event_that_does_not_exist_is_refused_in_one_sentence(row: dict, message: str) -> None:
    with pytest.raises(ScriptError) as refused:
        parse_event(row, "event 0", G1)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_script_is_read_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps([{"at": 2, "kind": "press", "value": "Start", "duration": 0.2}, {"kind": "push"}]))
    assert read_script(path, G1) == (Event(2.0, "press", 0.2, "Start"), Event(0.0, "push"))
    path.write_text("[")
    with pytest.raises(ScriptError, match=r"script.json: is not JSON"):
        read_script(path, G1)
    with pytest.raises(ScriptError, match=r"cannot be read \(No such file"):
        read_script(tmp_path / "none.json", G1)

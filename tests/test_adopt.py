"""What was said about a published network is believed only when it flies: joints and terms in another order leave every
size right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controllers.g1 import revision
from controllers.motion import save_clip
from controllers.policy import Policy, load_policy
from controllers.spec import PolicyError
from deploy.adopt import AdoptConfig, adopt_command
from deploy.fit import fit
from sim.motions.detect import Choices
from sim.motions.importers import import_file
from tests.shared_data import shared
from tests.test_wrap import ASAP, network


@pytest.fixture(scope="module")
def kick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A published network and its motion."""
    folder = tmp_path_factory.mktemp("kick")
    policy, motion = shared("policies/asap/kick_level1.onnx"), shared("motions/asap/kick_level1.pkl")
    save_clip(folder / "kick.npz", import_file(motion, None, Choices(), None, None)[0][1])
    return policy, folder / "kick.npz"


def test_a_network_that_flies_as_its_specification_says_is_adopted_and_fits(
    kick: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adopt_command(AdoptConfig(kick[0], ASAP, kick[1], output=tmp_path / "policy.onnx"))
    assert "tracks kick.npz in simulation, " in capsys.readouterr().out
    policy = load_policy(tmp_path / "policy.onnx")
    assert isinstance(policy, Policy)
    fit(policy, revision("g1_29dof"), 3.0)


@pytest.mark.parametrize("lie", ["terms", "joints"])
def test_a_specification_whose_sizes_are_right_and_whose_order_is_wrong_is_refused(
    lie: str, kick: tuple[Path, Path], tmp_path: Path
) -> None:
    raw = json.loads(ASAP.read_text())
    if lie == "terms":
        raw["observation"][2], raw["observation"][3] = raw["observation"][3], raw["observation"][2]
    else:  # legs and arms in another order, with all that belongs to them
        for part in (raw["joints"], raw["action"]):
            for name, values in part.items():
                if isinstance(values, list) and len(values) == 23:
                    part[name] = values[::-1]
    (tmp_path / "spec.json").write_text(json.dumps(raw))
    with pytest.raises(PolicyError, match=r"kick_level1.onnx: (loses kick.npz|is \d+ mm off)"):
        adopt_command(AdoptConfig(kick[0], tmp_path / "spec.json", kick[1], output=tmp_path / "policy.onnx"))
    assert not (tmp_path / "policy.onnx").exists()


def test_gains_that_are_exchanged_are_refused_before_anything_flies(tmp_path: Path) -> None:
    raw = json.loads(ASAP.read_text())
    raw["joints"]["stiffness"], raw["joints"]["damping"] = raw["joints"]["damping"], raw["joints"]["stiffness"]
    (tmp_path / "spec.json").write_text(json.dumps(raw))
    with pytest.raises(PolicyError, match=r"policy_spec.joints.damping of .* \(are the two exchanged\?\)|Nm s/rad"):
        adopt_command(AdoptConfig(network(tmp_path / "a.onnx"), tmp_path / "spec.json", output=tmp_path / "p.onnx"))


def test_without_a_clip_it_says_that_nothing_was_flown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adopt_command(AdoptConfig(network(tmp_path / "a.onnx"), ASAP, output=tmp_path / "p.onnx"))
    assert "not flown: no clip was given" in capsys.readouterr().out

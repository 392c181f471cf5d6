"""`deploy adopt`: a published network and what its authors say about it become a policy that may be given to a robot.

What they say may be wrong. Sizes, tables and rates are compared with the network and the robot; and, with a clip, the
policy must track it in simulation, because joints in another order or a scale that is missing leave all sizes right.
Only then is the file written, with golden states of the robot that hold every later reader to the same meaning.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from controllers.g1 import revision
from controllers.policy import load_policy
from controllers.spec import PolicyError
from deploy.fit import fit_tables


@dataclass(frozen=True)
class AdoptConfig:
    """Make a policy.onnx of a published network and the specification that it lacks."""

    network: tyro.conf.Positional[Path]
    """ONNX file with one input and one output, without memory."""
    spec: Path
    """Specification (JSON); controllers/policies/asap.json for the G1 policies of ASAP."""
    clip: Path | None = None
    """Motion that it tracks; it must do so in simulation. Without, nothing shows that the specification means what it
    says."""
    error: float = 0.1
    """Largest mean distance of the bodies from the clip's, relative to the pelvis [m]."""
    robot: str | None = None
    """Revision; the policy's own when absent."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("policy.onnx")
    """The policy file."""


def adopt_command(config: AdoptConfig) -> None:
    """Write the file, and say what was flown; or raise PolicyError with the field that does not fit."""
    from sim.wrap import read_spec, wrap_policy  # the simulator: adopting is a workstation's business

    spec = read_spec(config.spec)
    fit_tables(spec, revision(config.robot or spec.robot))
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / config.network.name
        wrap_policy(config.network, spec, candidate)
        said = "not flown: no clip was given" if config.clip is None else prove(candidate, config)
        config.output.parent.mkdir(parents=True, exist_ok=True)
        wrap_policy(config.network, spec, config.output)
    print(f"{config.output}: {said}")


def prove(policy_path: Path, config: AdoptConfig) -> str:
    """Fly it; raise PolicyError unless it tracks the clip."""
    from controllers.motion import load_clip
    from controllers.policy import Policy
    from sim.tracking import errors, track

    assert config.clip is not None
    policy = load_policy(policy_path)
    assert isinstance(policy, Policy)
    flown = track(policy, load_clip(config.clip), revision(config.robot or policy.spec.robot))
    if flown.completed < 1.0:
        raise PolicyError(
            f"{config.network}: loses {config.clip.name} after {flown.completed:.0%} in simulation; allowed: all of it "
            "(is the order of joints or terms, a scale, a history or a gain another?)"
        )
    found = errors(flown, policy.spec.rates.control_hz)["e_mpjpe_bodies"]
    if found is None or found > 1000 * config.error:
        raise PolicyError(
            f"{config.network}: is {found:.0f} mm off {config.clip.name} in simulation; allowed: "
            f"{1000 * config.error:.0f} mm (--error)"
        )
    return f"tracks {config.clip.name} in simulation, {found:.0f} mm off (E_mpjpe of the bodies)"

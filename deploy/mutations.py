"""Specifications that lie: one change each, of the kinds that users have met, to prove that `fit` refuses them all.

A mutation is a file whose network and golden sequences are right and whose specification (or, for the quaternion's
order, whose golden states) has one thing wrong. Each says which field a good message names.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from controllers.evidence import KEY, Evidence, make_evidence
from controllers.g1 import G1
from controllers.policy import Policy, load_policy
from controllers.spec import PolicyError, PolicySpec
from deploy.fit import fit


@dataclass(frozen=True)
class Mutation:
    """One lie."""

    kind: str
    field: str
    """What a good message names: a part of it."""
    spec: str
    """JSON."""
    evidence: str
    """JSON."""


CLIP = 5.0  # [s] that the clip lasts which the operator would name
TRUTHS = 4  # one other policy that says the truth for that many lies

Change = Callable[[dict[str, Any], np.random.Generator], str]
"""Changes the specification in place; returns the field that a good message names."""


def _swap(values: list[Any], rng: np.random.Generator) -> None:
    """Exchange two that differ."""
    while True:
        i, j = rng.choice(len(values), 2, replace=False)
        if values[i] != values[j]:
            values[i], values[j] = values[j], values[i]
            return


def _term(raw: dict[str, Any], rng: np.random.Generator, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """One of the observation's terms of which `good` holds."""
    terms = [term for term in raw["observation"] if good(term)]
    return terms[int(rng.integers(len(terms)))]


def _joint_order(raw: dict[str, Any], rng: np.random.Generator) -> str:
    _swap(raw["joints"]["names"], rng)
    return "policy_spec.joints"


def _action_order(raw: dict[str, Any], rng: np.random.Generator) -> str:
    _swap(raw["action"]["names"], rng)
    return "policy_spec.action"


def _all_orders(raw: dict[str, Any], rng: np.random.Generator) -> str:
    """Another robot's order everywhere, gains and pose left where they were."""
    order = rng.permutation(len(raw["joints"]["names"]))
    names = [raw["joints"]["names"][i] for i in order]
    raw["joints"]["names"], raw["action"]["names"] = names, list(names)
    return "policy_spec."


def _sides(raw: dict[str, Any], rng: np.random.Generator) -> str:
    """Left for right in all names."""

    def other(name: str) -> str:
        return name.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right")

    for part in ("joints", "action"):
        raw[part]["names"] = [other(name) for name in raw[part]["names"]]
    return "policy_spec."


def _strange_joint(raw: dict[str, Any], rng: np.random.Generator) -> str:
    i = int(rng.integers(len(raw["action"]["names"])))
    old = raw["action"]["names"][i]
    for part in ("joints", "action"):
        raw[part]["names"] = [f"{name}_2" if name == old else name for name in raw[part]["names"]]
    return "policy_spec.joints.names"


def _fewer_joints(raw: dict[str, Any], rng: np.random.Generator) -> str:
    """One joint less everywhere, as between the robots of 29 and 23."""
    i = int(rng.integers(len(raw["action"]["names"])))
    for part, names in (("joints", ("names", "default_position", "stiffness", "damping")),
                        ("action", ("names", "scale", "offset"))):  # fmt: skip
        for name in names:
            del raw[part][name][i]
    return "allowed"


def _gains_exchanged(raw: dict[str, Any], rng: np.random.Generator) -> str:
    joints = raw["joints"]
    joints["stiffness"], joints["damping"] = joints["damping"], joints["stiffness"]
    return "policy_spec.joints.damping"


def _one_gain_exchanged(raw: dict[str, Any], rng: np.random.Generator) -> str:
    joints, i = raw["joints"], int(rng.integers(len(raw["joints"]["names"])))
    joints["stiffness"][i], joints["damping"][i] = joints["damping"][i], joints["stiffness"][i]
    return "policy_spec.joints."


def _gain_scaled(raw: dict[str, Any], rng: np.random.Generator) -> str:
    name = str(rng.choice(["stiffness", "damping"]))
    i = int(rng.integers(len(raw["joints"]["names"])))
    raw["joints"][name][i] *= float(rng.choice([0.5, 1.1, 2.0, 100.0]))
    return "policy_spec.joints."


def _gain_order(raw: dict[str, Any], rng: np.random.Generator) -> str:
    name = str(rng.choice(["stiffness", "damping"]))
    _swap(raw["joints"][name], rng)
    return "policy_spec.joints."


def _default_pose(raw: dict[str, Any], rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        _swap(raw["joints"]["default_position"], rng)
    else:
        raw["joints"]["default_position"] = [0.0] * len(raw["joints"]["names"])
    return "policy_spec."


def _observation_size(raw: dict[str, Any], rng: np.random.Generator) -> str:
    """154 inputs for 160: a history of another length."""
    _term(raw, rng, lambda term: term["history"] > 1)["history"] -= 1
    return "allowed"


def _term_missing(raw: dict[str, Any], rng: np.random.Generator) -> str:
    del raw["observation"][int(rng.integers(len(raw["observation"])))]
    return "allowed"


def _term_size(raw: dict[str, Any], rng: np.random.Generator) -> str:
    """The numbers of two terms wrong by the same, so that their sum is right."""
    first, second = (raw["observation"][i] for i in rng.choice(len(raw["observation"]), 2, replace=False))
    first["size"] += second["history"]
    second["size"] -= first["history"]
    return "allowed"


def _scale(raw: dict[str, Any], rng: np.random.Generator) -> str:
    """Another factor, among them degrees for radians and none at all."""
    term = _term(raw, rng, lambda term: True)
    term["scale"] *= float(rng.choice([0.25, 4.0, 20.0, np.pi / 180, 1.05, -1.0, 0.0]))
    return "policy_spec.observation"


def _clip(raw: dict[str, Any], rng: np.random.Generator) -> str:
    term = _term(raw, rng, lambda term: term["name"].startswith(("joint", "angular")))
    term["clip"] = float(rng.choice([1.0, 5.0, 50.0]))
    return f"policy_spec.observation term {term['name']}"


def _term_order(raw: dict[str, Any], rng: np.random.Generator) -> str:
    _swap(raw["observation"], rng)
    return "policy_spec.observation"


def _alphabetical(raw: dict[str, Any], rng: np.random.Generator) -> str:
    """Terms sorted by name backwards, a habit of one stack that others do not have."""
    raw["observation"].sort(key=lambda term: term["name"], reverse=True)
    return "policy_spec.observation"


def _history_order(raw: dict[str, Any], rng: np.random.Generator) -> str:
    term = _term(raw, rng, lambda term: term["history"] > 1)
    newest = term.get("order", "newest first") == "newest first"
    term["order"] = "oldest first" if newest else "newest first"
    return f"policy_spec.observation term {term['name']}"


def _history_age(raw: dict[str, Any], rng: np.random.Generator) -> str:
    term = _term(raw, rng, lambda term: term["history"] > 1)
    term["age"] = 0 if term.get("age", 0) else 1
    return f"policy_spec.observation term {term['name']}"


def _history_fill(raw: dict[str, Any], rng: np.random.Generator) -> str:
    # A history of actions begins with the reset value, here zero, so both ways to fill it are the same.
    term = _term(raw, rng, lambda term: term["history"] > 1 and "action" not in term["name"])
    term["fill"] = "first sample" if term.get("fill", "zeros") == "zeros" else "zeros"
    return f"policy_spec.observation term {term['name']}"


def _sampled(raw: dict[str, Any], rng: np.random.Generator) -> str:
    """Angles for angles relative to the default position, or angles for velocities."""
    term = _term(raw, rng, lambda term: term.get("quantity", term["name"]).startswith("joint_"))
    now = term.get("quantity", term["name"])
    term["quantity"] = "joint_position" if now == "joint_offset" else "joint_offset"
    return f"policy_spec.observation term {term['name']}"


def _rate(raw: dict[str, Any], rng: np.random.Generator) -> str:
    raw["rates"]["control_hz"] = float(rng.choice([20.0, 25.0, 100.0, 125.0, 200.0, 60.0, 500.0]))
    if rng.random() < 0.5:
        raw["rates"]["native_hz"] = raw["rates"]["control_hz"]
    return "policy_spec.rates."


def _other_rate(raw: dict[str, Any], rng: np.random.Generator) -> str:
    name, value = [("native_hz", 100.0), ("physics_hz", 130.0), ("physics_hz", 20.0)][int(rng.integers(3))]
    raw["rates"][name] = value
    return f"policy_spec.rates.{name}"


def _action_scale(raw: dict[str, Any], rng: np.random.Generator) -> str:
    factor = float(rng.choice([0.0, 0.5, 4.0, -1.0, 180 / np.pi]))
    raw["action"]["scale"] = [factor * scale for scale in raw["action"]["scale"]]
    return "policy_spec.action"


def _action_offset(raw: dict[str, Any], rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        _swap(raw["action"]["offset"], rng)
    else:
        raw["action"]["offset"] = [0.0] * len(raw["action"]["offset"])
    return "policy_spec.action"


def _action_clip(raw: dict[str, Any], rng: np.random.Generator) -> str:
    limit = float(rng.choice([1.0, 10.0, 1000.0]))
    raw["action"]["clip"] = [-limit, limit]
    return "policy_spec.action"


def _reset_value(raw: dict[str, Any], rng: np.random.Generator) -> str:
    raw["action"]["reset_value"] = float(rng.choice([0.5, -1.0]))
    return "policy_spec.observation"


def _phase(raw: dict[str, Any], rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        raw["motion"]["lead"] = float(rng.choice([0.0, 0.04, 0.5]))
    else:
        raw["motion"]["duration"] = float(rng.choice([1.0, 7.0]))
    return "phase"


def _robot(raw: dict[str, Any], rng: np.random.Generator) -> str:
    raw["robot"] = str(rng.choice(["h1", "g1", "G1_29DOF", ""]))
    return "policy_spec.robot"


def _torque_policy(raw: dict[str, Any], rng: np.random.Generator) -> str:
    raw["action"]["meaning"] = "joint torque, scale * action [Nm]"
    return "policy_spec.action.meaning"


KINDS: dict[str, Change] = {
    "joints permuted": _joint_order,
    "actions permuted": _action_order,
    "another joint order": _all_orders,
    "left and right exchanged": _sides,
    "a joint that the robot has not": _strange_joint,
    "a joint less": _fewer_joints,
    "kp and kd exchanged": _gains_exchanged,
    "kp and kd of one joint exchanged": _one_gain_exchanged,
    "a gain scaled": _gain_scaled,
    "gains permuted": _gain_order,
    "default pose": _default_pose,
    "154 for 160 inputs": _observation_size,
    "a term missing": _term_missing,
    "sizes of terms": _term_size,
    "observation scale": _scale,
    "observation clip": _clip,
    "terms exchanged": _term_order,
    "terms sorted": _alphabetical,
    "history order": _history_order,
    "history age": _history_age,
    "history fill": _history_fill,
    "another quantity": _sampled,
    "control rate": _rate,
    "other rates": _other_rate,
    "action scale": _action_scale,
    "action offset": _action_offset,
    "action clip": _action_clip,
    "reset value": _reset_value,
    "phase": _phase,
    "robot": _robot,
    "torques for targets": _torque_policy,
}


def mutations(spec: PolicySpec, evidence: Evidence, count: int, rng: np.random.Generator) -> Iterator[Mutation]:
    """That many lies about this policy, all kinds in turn; the last kind is a quaternion in the order xyzw."""
    kinds = [*KINDS, "xyzw for wxyz"]
    for number in range(count):
        kind = kinds[number % len(kinds)]
        raw, shown = json.loads(spec.to_json()), evidence
        if kind in KINDS:
            field = KINDS[kind](raw, rng)
        else:
            shown = dataclasses.replace(evidence, quaternion=np.roll(evidence.quaternion, -1, axis=-1))
            field = "projected_gravity"
        yield Mutation(kind, field, json.dumps(raw), shown.to_json())


def truth(spec: PolicySpec, robot: G1, rng: np.random.Generator) -> Mutation:
    """Another policy of the same size that says the truth: joints in another order with all that belongs to them, other
    gains, scales and histories, and golden states that are its own."""
    raw = json.loads(spec.to_json())
    order = rng.permutation(len(raw["joints"]["names"]))
    for name, values in raw["joints"].items():
        raw["joints"][name] = [values[i] for i in order]
    for name in ("stiffness", "damping"):
        raw["joints"][name] = [float(rng.uniform(0.7, 1.4)) * value for value in raw["joints"][name]]
    order = rng.permutation(len(raw["action"]["names"]))
    for name in ("names", "scale", "offset"):
        raw["action"][name] = [raw["action"][name][i] for i in order]
    for term in raw["observation"]:
        term["scale"] *= float(rng.uniform(0.1, 4.0))
        term["order"] = str(rng.choice(["newest first", "oldest first"]))
        term["fill"] = str(rng.choice(["zeros", "first sample"]))
    rng.shuffle(raw["observation"])
    made = PolicySpec.from_json(json.dumps(raw))
    return Mutation("truth", "", made.to_json(), make_evidence(made, robot, int(rng.integers(1 << 31))).to_json())


def write(path: Path, original: Path, mutation: Mutation) -> None:
    """The file `original` with that specification and evidence in the place of its own."""
    model = onnx.load(original)
    said = {"policy_spec": mutation.spec, KEY: mutation.evidence}
    helper.set_model_props(model, {entry.key: said.get(entry.key, entry.value) for entry in model.metadata_props})
    path.write_bytes(model.SerializeToString())


def refusal(path: Path, robot: G1) -> str | None:
    """What the robot's runtime says to that file; None where it takes it."""
    try:
        policy = load_policy(path)
        if not isinstance(policy, Policy):
            raise PolicyError(f"{path}: a compiled policy; allowed: policy.onnx")
        fit(policy, robot, CLIP)
    except PolicyError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class MutationReport:
    """What became of the lies, and of files that say the truth."""

    told: int
    refused: int
    unnamed: tuple[str, ...]
    """Refusals whose message does not hold the field that lies."""
    accepted: tuple[str, ...]
    """Kinds of lies that were taken for true."""
    true_files: int
    falsely_refused: tuple[str, ...]
    """Messages to files that say the truth."""
    by_evidence: dict[str, int]
    """Refusals that only the golden states, the golden actions, or the tables and sizes give."""


def campaign(policies: Sequence[Path], robots: Sequence[G1], count: int, seed: int, folder: Path) -> MutationReport:
    """Lie `count` times about those policy files, in turn; say the truth about each to every robot, and about
    `count / TRUTHS` others to the first.

    Args:
        policies: Files of `deploy adopt`.
        robots: Revisions that have the joints of the policies; the first hears the lies.
        count: Lies.
        seed: Of everything that is drawn.
        folder: For the files.
    """
    rng = np.random.default_rng(seed)
    false: list[str] = []
    for path in policies:
        false += [message for robot in robots if (message := refusal(path, robot)) is not None]
    drawn = []
    for path in policies:
        policy = load_policy(path)
        assert isinstance(policy, Policy) and policy.golden_robot is not None
        drawn.append(mutations(policy.spec, Evidence.from_json(policy.golden_robot), count, rng))
    accepted: list[str] = []
    unnamed: list[str] = []
    by: dict[str, int] = {"golden states": 0, "golden actions": 0, "tables and sizes": 0}
    file = folder / "mutated.onnx"
    for number in range(count // TRUTHS):
        original = policies[number % len(policies)]
        write(file, original, truth(load_policy(original).spec, robots[0], rng))
        if (message := refusal(file, robots[0])) is not None:
            false.append(message)
    for number in range(count):
        which = number % len(policies)
        mutation = next(drawn[which])
        write(file, policies[which], mutation)
        message = refusal(file, robots[0])
        if message is None:
            accepted.append(mutation.kind)
            continue
        if mutation.field not in message:
            unnamed.append(f"{mutation.kind}: {message}")
        found = "golden states" if KEY in message else "golden actions" if "golden" in message else "tables and sizes"
        by[found] += 1
    return MutationReport(
        told=count,
        refused=count - len(accepted),
        unnamed=tuple(unnamed),
        accepted=tuple(accepted),
        true_files=len(policies) * len(robots) + count // TRUTHS,
        falsely_refused=tuple(false),
        by_evidence=by,
    )

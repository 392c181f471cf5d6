"""The G1 as a MuJoCo model, built in code from the figures in `controllers/g1.py` and the shapes in `g1_shapes.py`.

Actuators are position servos: MuJoCo evaluates `stiffness * (target - q) - damping * qdot` and cuts it at the torque
limit at every physics step, as the robot's motor boards do far faster than any policy runs. Armature stands in the
model before it is compiled; written into a compiled model it would leave wrong contact stiffness behind.

`to_mjcf` writes the model as MJCF; `g1_urdf.py` writes the same robot as URDF.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from controllers.g1 import FOOT_BODIES, G1, KEY_POINTS, SOLE_RADIUS, Axis, GainRecipe, default_pose, gains
from controllers.motion import Clip

from .g1_shapes import SHAPES, Shape, excluded_pairs

PHYSICS_STEP = 0.005  # [s]; ASAP's, and stable with implicit damping
FRICTION = 1.0  # sliding, between anything and the floor: ASAP's

AXES: dict[Axis, tuple[int, int, int]] = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1)}

# contype, conaffinity: bit 1 is "the floor touches it", bit 2 "parts of the robot touch each other"
_FLOOR_BITS = (1, 0)
_SHAPE_BITS = {"all": (2, 3), "robot": (2, 2), "floor": (0, 1), "nothing": (0, 0)}

_COLOURS = {"shell": (0.86, 0.87, 0.89, 1.0), "joint": (0.16, 0.17, 0.20, 1.0), "face": (0.05, 0.06, 0.08, 1.0)}


def build_spec(
    robot: G1,
    recipe: GainRecipe = "reflected",
    stiffness: np.ndarray | None = None,
    damping: np.ndarray | None = None,
    timestep: float = PHYSICS_STEP,
    floor: bool = True,
    scenery: bool = True,
) -> mujoco.MjSpec:
    """The robot on a floor, ready to compile; qpos is root position, root quaternion (wxyz), then the joints in order.

    Args:
        robot: The revision.
        recipe: Gains of the joint controllers.
        stiffness: Gains in their place [Nm/rad], (joints,).
        damping: The same for damping [Nm s/rad], (joints,).
        timestep: Physics step [s].
        floor: Whether there is one; leave it out to put the robot into another scene.
        scenery: Whether the floor has a pattern, lights and a sky; two megabytes that only a picture needs.
    """
    recipe_stiffness, recipe_damping = gains(robot, recipe)
    stiffness = recipe_stiffness if stiffness is None else np.asarray(stiffness, dtype=float)
    damping = recipe_damping if damping is None else np.asarray(damping, dtype=float)
    for name, values in (("stiffness", stiffness), ("damping", damping)):
        if values.shape != (len(robot.joints),):
            raise ValueError(f"{name} has shape {values.shape}; allowed: ({len(robot.joints)},), one per joint")

    spec = mujoco.MjSpec()
    spec.modelname = robot.name
    spec.compiler.degree = False
    spec.compiler.inertiafromgeom = int(mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_FALSE)
    spec.option.timestep = timestep
    spec.option.integrator = int(mujoco.mjtIntegrator.mjINT_IMPLICITFAST)  # damping of 5 Nm s/rad on 0.01 kg m^2
    _add_bodies(spec, robot)
    for shape in SHAPES:
        _add_shape(spec, shape)
    for first, second in excluded_pairs(robot):
        spec.add_exclude(name=f"{first}-{second}", bodyname1=first, bodyname2=second)
    for joint, kp, kd in zip(robot.joints, stiffness, damping, strict=True):
        limit = joint.torque_limit
        actuator = spec.add_actuator(
            name=joint.name,
            target=joint.name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            forcelimited=True,
            forcerange=[-limit, limit],
        )
        actuator.set_to_position(kp=float(kp), kv=float(kd))
    if floor:
        if scenery:
            _add_scenery(spec)
        spec.worldbody.add_geom(
            name="floor",
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[0, 0, 0.05],
            contype=_FLOOR_BITS[0],
            conaffinity=_FLOOR_BITS[1],
            friction=[FRICTION, 0.005, 0.0001],
            **({"material": "floor"} if scenery else {}),
        )
    return spec


def build_model(robot: G1, **settings: Any) -> mujoco.MjModel:
    """`build_spec`, compiled."""
    return build_spec(robot, **settings).compile()


def to_mjcf(spec: mujoco.MjSpec) -> str:
    """That model as MJCF text."""
    spec.compile()
    return spec.to_xml()


def joint_addresses(model: mujoco.MjModel, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Where those joints' angles stand in qpos, and their velocities in qvel, (names,) each."""
    joints = [model.joint(name).id for name in names]
    return model.jnt_qposadr[joints].copy(), model.jnt_dofadr[joints].copy()


def standing(model: mujoco.MjModel, robot: G1, pose: str = "upright") -> np.ndarray:
    """qpos of that default pose, upright at the origin with the lowest point of its soles on the floor."""
    qpos = np.zeros(model.nq)
    qpos[3] = 1.0
    qpos[joint_addresses(model, robot.joint_names)[0]] = default_pose(robot, pose)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    qpos[2] = -sole_heights(model, data).min()
    return qpos


def states_of(clip: Clip, model: mujoco.MjModel, robot: G1, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The motion as qpos (N, nq) and qvel (N, nv) of that model; joints that the clip does not have are at zero."""
    unknown = [name for name in clip.joint_names if name not in robot.joint_names]
    still = [name for name in unknown if not clip.joint_position[:, clip.joint_names.index(name)].any()]
    if set(unknown) - set(still):
        raise ValueError(f"the motion moves {sorted(set(unknown) - set(still))}, which {robot.name} does not have")
    shared = [index for index, name in enumerate(clip.joint_names) if name in robot.joint_names]
    qpos_at, dof_at = joint_addresses(model, tuple(clip.joint_names[index] for index in shared))
    at = clip.at(times)
    qpos, qvel = np.zeros((len(times), model.nq)), np.zeros((len(times), model.nv))
    qpos[:, :3], qpos[:, 3:7], qpos[:, qpos_at] = at.root_position, at.root_quaternion, at.joint_position[:, shared]
    qvel[:, :3], qvel[:, dof_at] = at.root_linear_velocity, at.joint_velocity[:, shared]
    for row, angular_velocity_w in enumerate(at.root_angular_velocity):  # MuJoCo wants it in the body frame
        inverse = at.root_quaternion[row] * np.array([1.0, -1.0, -1.0, -1.0])
        mujoco.mju_rotVecQuat(qvel[row, 3:6], angular_velocity_w, inverse)
    return qpos, qvel


def sole_geoms(model: mujoco.MjModel) -> np.ndarray:
    """The contact spheres under the feet, left before right, (8,)."""
    names = [shape.name for shape in SHAPES if shape.touches == "floor" and shape.body in FOOT_BODIES]
    return np.array([model.geom(name).id for name in names])


def sole_heights(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """Height of the lowest point of each contact sphere above z = 0 [m], (8,)."""
    return data.geom_xpos[sole_geoms(model), 2] - SOLE_RADIUS


def _add_bodies(spec: mujoco.MjSpec, robot: G1) -> None:
    joints = {joint.body: joint for joint in robot.joints}
    made = {"world": spec.worldbody}
    for body in robot.bodies:
        made[body.name] = element = made[body.parent].add_body(
            name=body.name,
            pos=body.position,
            quat=body.quaternion,
            mass=body.mass,
            ipos=body.center_of_mass,
            iquat=body.inertia_quaternion,
            inertia=body.inertia,
            explicitinertial=True,
        )
        if body.parent == "world":
            element.add_freejoint(name="root")
        elif body.name in joints:
            joint = joints[body.name]
            element.add_joint(
                name=joint.name,
                type=mujoco.mjtJoint.mjJNT_HINGE,
                axis=AXES[joint.axis],
                limited=True,
                range=[joint.lower, joint.upper],
                armature=joint.armature,
            )
    for site in (*robot.sites, *KEY_POINTS):
        made[site.body].add_site(name=site.name, pos=site.position, size=[0.01, 0, 0], group=4)


def _add_shape(spec: mujoco.MjSpec, shape: Shape) -> None:
    contype, conaffinity = _SHAPE_BITS[shape.touches]
    kinds = {
        "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
        "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
        "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
        "box": mujoco.mjtGeom.mjGEOM_BOX,
    }
    if shape.kind in ("capsule", "cylinder"):
        where: dict[str, Any] = {"fromto": [*shape.start, *shape.end], "size": [shape.radius, 0, 0]}
    else:
        size = shape.end if shape.kind == "box" else (shape.radius, 0, 0)
        where = {"pos": shape.start, "size": size}
    spec.body(shape.body).add_geom(
        name=shape.name,
        type=kinds[shape.kind],
        contype=contype,
        conaffinity=conaffinity,
        friction=[
            FRICTION,
            0.005,
            0.0001,
        ],  # turning and rolling: MuJoCo's defaults, unused by three-dimensional contact
        rgba=_COLOURS[shape.colour],
        mass=0.0,
        group=2 if shape.touches == "nothing" else 1,
        **where,
    )


def _add_scenery(spec: mujoco.MjSpec) -> None:
    """A pattern for the floor, two lights and a sky."""
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=int(mujoco.mjtBuiltin.mjBUILTIN_GRADIENT),
        rgb1=[0.75, 0.82, 0.90],
        rgb2=[0.97, 0.98, 1.0],
        width=256,
        height=1536,
    )
    spec.add_texture(
        name="tiles",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=int(mujoco.mjtBuiltin.mjBUILTIN_CHECKER),
        mark=int(mujoco.mjtMark.mjMARK_EDGE),
        rgb1=[0.62, 0.65, 0.69],
        rgb2=[0.56, 0.59, 0.63],
        markrgb=[0.75, 0.77, 0.80],
        width=300,
        height=300,
    )
    floor = spec.add_material(name="floor", texrepeat=[2, 2], texuniform=True, reflectance=0.05)
    floor.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "tiles"
    spec.worldbody.add_light(
        name="sun", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, dir=[-0.4, 0.3, -1], diffuse=[0.7, 0.7, 0.7]
    )
    spec.worldbody.add_light(
        name="lamp",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        dir=[0.6, -0.6, -0.6],
        diffuse=[0.25, 0.25, 0.25],
        castshadow=False,
    )
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.2, 0.2, 0.2]
    spec.visual.quality.shadowsize = 4096
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1920, 1080

"""`sim motions play`: clips side by side in the browser, with a time slider. Needs the extra [view].

Feet are blue while they swing, green while they stand, red where they are in the floor."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.g1 import FOOT_BODIES
from controllers.motion import Clip, ClipError, load_clip
from sim.motions.drawing import COLOURS, MARK, foot_state, sole_states, video, viewing
from sim.motions.kinematics import kinematics_of
from sim.robots.g1_files import draw_without_display

Array = NDArray[np.floating]

APART = 1.3  # [m] between two robots
TICK = 1 / 30  # [s] between two pictures while it plays
ROUNDNESS = 16  # edges of a cylinder


def play_command(paths: tuple[Path, ...], port: int, video_path: Path | None) -> None:
    """Show the clips until the user interrupts, or write them as a video."""
    clips = [load_clip(path) for path in paths]
    if not clips:
        raise ClipError("no clip is named: give one or more clip.npz")
    if video_path is not None:
        video(clips, video_path)
        print(video_path)
        return
    viewer = Viewer(clips, [path.stem for path in paths], port)
    print(f"http://localhost:{viewer.port}")
    try:
        viewer.run()
    except KeyboardInterrupt:
        viewer.stop()


@dataclass
class Shown:
    """One robot in the scene, and where everything of it is in each of T frames."""

    clip: Clip
    bodies: list[Any]
    """B handles."""
    positions: Array
    """(T, B, 3) world, beside the other robots [m]."""
    quaternions: Array
    """(T, B, 4)."""
    marks: list[Any]
    """8 handles of the sole points."""
    mark_positions: Array
    """(T, 8, 3)."""
    feet: list[list[Any]]
    """Handles of the solids of the left and of the right foot."""
    states: NDArray[np.str_]
    """(T, 8) keys of COLOURS."""


class Viewer:
    """A server on `port` (0 takes any) that shows clips; `run` plays them."""

    def __init__(self, clips: list[Clip], names: list[str], port: int = 8080):
        viser = viewing("viser")
        self._server = viser.ViserServer(port=port, verbose=False)
        self.port = self._server.get_port()
        scene, gui = self._server.scene, self._server.gui
        scene.set_up_direction("+z")
        scene.add_grid("/floor", width=20, height=20, cell_size=0.5, position=(0, 0, 0))
        self.shown = [self._add(index, clip, name) for index, (clip, name) in enumerate(zip(clips, names, strict=True))]
        middle = APART * (len(clips) - 1) / 2
        self._server.initial_camera.position = (2.0 + middle, middle + 0.9, 1.0)
        self._server.initial_camera.look_at = (0.0, middle, 0.55)
        self.duration = max(clip.duration for clip in clips)
        self.time = gui.add_slider("time [s]", 0.0, self.duration, 0.01, 0.0)
        self.playing = gui.add_checkbox("play", True)
        self.speed = gui.add_slider("speed", 0.1, 2.0, 0.1, 1.0)
        gui.add_markdown(
            "feet: "
            + ", ".join(f'<span style="color:rgb{_bytes(colour)}">{state}</span>' for state, colour in COLOURS.items())
        )
        self.time.on_update(lambda _: self.show(self.time.value))
        self.show(0.0)

    def run(self) -> None:
        """Play until interrupted."""
        last = time.monotonic()
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            if self.playing.value:
                self.time.value = (self.time.value + (now - last) * self.speed.value) % max(self.duration, TICK)
            last = now

    def stop(self) -> None:
        self._server.stop()

    def show(self, seconds: float) -> None:
        """Put all robots where they are at that time; a shorter clip waits at its end."""
        with self._server.atomic():
            for shown in self.shown:
                frame = min(round(seconds * shown.clip.fps), shown.clip.frames - 1)
                for body, handle in enumerate(shown.bodies):
                    handle.position, handle.wxyz = shown.positions[frame, body], shown.quaternions[frame, body]
                for point, handle in enumerate(shown.marks):
                    handle.position = shown.mark_positions[frame, point]
                    handle.color = _bytes(COLOURS[shown.states[frame, point]])
                for foot, handles in enumerate(shown.feet):
                    colour = _bytes(COLOURS[foot_state(shown.states[frame], foot)])
                    for handle in handles:
                        handle.color = colour

    def _add(self, index: int, clip: Clip, name: str) -> Shown:
        draw_without_display()  # nothing is drawn here, but MuJoCo chooses when it is loaded
        import mujoco

        from sim.robots.g1 import build_model, joint_addresses, sole_geoms

        model = build_model(kinematics_of(clip.joint_names).robot, floor=False)
        data, columns, soles = mujoco.MjData(model), joint_addresses(model, clip.joint_names)[0], sole_geoms(model)
        # Robots stand side by side, the first frame of each over its own place.
        place = np.array([0, APART * index, 0]) - clip.root_position[0] * [1, 1, 0]
        positions = np.empty((clip.frames, model.nbody, 3))
        quaternions = np.empty((clip.frames, model.nbody, 4))
        marks = np.empty((clip.frames, len(soles), 3))
        for frame in range(clip.frames):
            data.qpos[:3], data.qpos[3:7] = clip.root_position[frame], clip.root_quaternion[frame]
            data.qpos[columns] = clip.joint_position[frame]
            mujoco.mj_kinematics(model, data)
            positions[frame], quaternions[frame] = data.xpos + place, data.xquat
            marks[frame] = data.geom_xpos[soles] + place
        scene, root = self._server.scene, f"/{index}_{name}"
        bodies, solids = add_robot(scene, model, root, without=soles)
        feet = [
            [solids[geom] for geom in solids if model.body(model.geom_bodyid[geom]).name == foot]
            for foot in FOOT_BODIES
        ]
        spheres = [scene.add_icosphere(f"{root}/sole_{i}", MARK, subdivisions=2) for i in range(len(soles))]
        scene.add_label(f"{root}/name", name, position=(0.0, APART * index, 1.5))
        return Shown(clip, bodies, positions, quaternions, spheres, marks, feet, sole_states(clip))


def add_robot(scene: Any, model: Any, root: str, without: Any = ()) -> tuple[list[Any], dict[int, Any]]:
    """Put the solids of a model's bodies into a viser scene; what belongs to the world, such as a floor, is left out.

    Args:
        scene: Of a viser server.
        model: Of MuJoCo.
        root: Name under which they stand.
        without: Solids to leave out too.

    Returns:
        A handle of each body, to be moved, and of each solid by its number.
    """
    bodies = [scene.add_frame(f"{root}/{model.body(body).name}", show_axes=False) for body in range(model.nbody)]
    solids = {}
    for geom in range(model.ngeom):
        if geom in without or model.geom_bodyid[geom] == 0:
            continue
        vertices, faces = _solid(int(model.geom_type[geom]), model.geom_size[geom])
        solids[geom] = scene.add_mesh_simple(
            f"{root}/{model.body(model.geom_bodyid[geom]).name}/{geom}",
            vertices,
            faces,
            color=_bytes(model.geom_rgba[geom, :3]),
            position=model.geom_pos[geom],
            wxyz=model.geom_quat[geom],
        )
    return bodies, solids


def _bytes(colour: Any) -> tuple[int, int, int]:
    red, green, blue = (round(255 * float(part)) for part in colour)
    return red, green, blue


def _solid(kind: int, size: Array) -> tuple[Array, NDArray[np.integer]]:
    """Vertices (V, 3) and faces (F, 3) of one of MuJoCo's primitive shapes."""
    import mujoco

    trimesh = viewing("trimesh")

    shapes = mujoco.mjtGeom
    if kind == shapes.mjGEOM_CAPSULE:
        mesh = trimesh.creation.capsule(2 * size[1], size[0], count=[ROUNDNESS, ROUNDNESS])
        mesh.apply_translation([0, 0, -mesh.bounds.mean(axis=0)[2]])
    elif kind == shapes.mjGEOM_CYLINDER:
        mesh = trimesh.creation.cylinder(size[0], 2 * size[1], sections=ROUNDNESS)
    elif kind == shapes.mjGEOM_SPHERE:
        mesh = trimesh.creation.icosphere(2, size[0])
    elif kind == shapes.mjGEOM_BOX:
        mesh = trimesh.creation.box(2 * size)
    else:
        raise ClipError(f"the viewer cannot draw MuJoCo's shape {kind}")
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)

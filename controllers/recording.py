"""recording.mcap: one run of a robot, simulated or real. Opens in Foxglove and PlotJuggler, reads back as arrays.

Every channel holds records of one fixed layout, a numpy structured dtype. Its fields are laid out as CDR lays them out,
so a record on disk is its memory behind four header bytes, and the schema is written as a ROS 2 message definition,
which viewers know. The file describes itself: the reader takes the layout from the file and not from this module.

Records are grouped in indexed chunks, which go to the operating system every `FLUSH_PERIOD`, so a process that is
killed loses no more than that. A file without its end is read up to where it breaks off.

Times are nanoseconds: `log_time` when the record was received or made, `publish_time` when its source says it was.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from mcap.exceptions import EndOfFile, McapError
from mcap.records import Channel, Footer, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer

FORMAT = "realign.recording/1"
FLUSH_PERIOD = 0.2  # [s] between two writes to the operating system
CHUNK_SIZE = 1 << 20  # [bytes]
CDR_HEADER = bytes((0, 1, 0, 0))  # plain CDR, little-endian

_ROS_TYPES = {
    "bool": "?", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4", "int64": "<i8",
    "uint64": "<u8", "float32": "<f4", "float64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _ROS_TYPES.items()}


class RecordingError(ValueError):
    """A recording cannot be written or read."""


def layout(**fields: tuple[str, int] | str) -> np.dtype:
    """The record with these fields, each a ROS 2 type such as `float32`, or a type and the length of an array."""
    pairs = []
    for name, field in fields.items():
        kind, length = (field, None) if isinstance(field, str) else field
        if kind not in _ROS_TYPES:
            raise RecordingError(f"field {name} has type {kind!r}; allowed: {', '.join(_ROS_TYPES)}")
        pairs.append((name, _ROS_TYPES[kind]) if length is None else (name, _ROS_TYPES[kind], (length,)))
    return np.dtype(pairs, align=True)


def g1_channels(joints: int, policies: tuple[tuple[int, int], ...] = ()) -> dict[str, np.dtype]:
    """What a run of the G1 records.

    Args:
        joints: Number of joints of the robot; arrays per joint are in the order of `facts["joint_names"]`.
        policies: Inputs and outputs of each policy that may run.
    """
    per_joint, floats = ("float32", joints), lambda size: ("float32", size)
    channels = {
        "state": layout(  # one per message of the robot
            tick="uint32",  # [ms] of the robot's clock
            mode_machine="uint8",
            quaternion=floats(4),  # of the pelvis, wxyz, body to world
            angular_velocity=floats(3),  # body frame [rad/s]
            linear_acceleration=floats(3),  # as the accelerometer measures it, body frame [m/s^2]
            joint_position=per_joint,  # [rad]
            joint_velocity=per_joint,  # [rad/s]
            joint_torque=per_joint,  # estimated by the motors [Nm]
            temperature=("int16", 2 * joints),  # two per motor [degrees Celsius]
            motor_fault=("uint32", joints),
            remote=("uint8", 40),
        ),
        "command": layout(  # one per message to the robot
            tick="uint32",  # of the state that it answers
            mode="uint8",
            position=per_joint,  # [rad]
            velocity=per_joint,  # [rad/s]
            torque=per_joint,  # [Nm]
            stiffness=per_joint,  # [Nm/rad]
            damping=per_joint,  # [Nm s/rad]
        ),
        "mode": layout(tick="uint32", mode="uint8", policy="int16"),  # at every change; facts["modes"] names them
        "fault": layout(  # at every change of a check's level; facts["checks"] names them
            tick="uint32",
            check="uint8",
            level="uint8",  # 0 fine, 1 warning, 2 trip
            where="int16",  # joint, -1 where it is about none
            value="float64",
            limit="float64",
        ),
        "latency": layout(  # one per control step [s]
            tick="uint32",
            state_age="float32",  # of the state when the policy saw it
            lateness="float32",  # of the step against its deadline
            observe="float32",
            inference="float32",
            write_lateness="float32",  # largest of the writer's ticks since the last step
        ),
        "base_pose": layout(  # where someone measures it: motion capture, odometry
            position=("float64", 3),  # world [m]
            quaternion=("float64", 4),
            linear_velocity=("float64", 3),  # world [m/s]
            angular_velocity=("float64", 3),  # body frame [rad/s]
        ),
    }
    for index, (inputs, outputs) in enumerate(policies):  # one per control step in which it runs
        channels[f"policy_{index}"] = layout(
            tick="uint32", time="float64", observation=floats(inputs), action=floats(outputs)
        )
    return channels


class Recorder:
    """Writes one recording. Not for several threads."""

    def __init__(self, path: Path, channels: Mapping[str, np.dtype], facts: Mapping[str, Any]) -> None:
        """
        Args:
            path: The file to make; one that exists is refused.
            channels: Layout of each, of `layout`.
            facts: Plain JSON about the run: robot, joint names, policies, versions.
        """
        text = json.dumps({"format": FORMAT, **facts}, allow_nan=False)
        for name, dtype in channels.items():
            if dtype.names is None:
                raise RecordingError(f"channel {name} has dtype {dtype}; allowed: one with fields, of `layout`")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = path.open("xb")
        except FileExistsError as error:
            raise RecordingError(f"{path}: exists; allowed: a file that does not") from error
        self.path, self._dtypes, self._ids = path, dict(channels), {}
        self._writer = Writer(self._file, chunk_size=CHUNK_SIZE, compression=CompressionType.NONE)
        self._writer.start(profile="ros2", library="realign")
        self._writer.add_metadata("realign", {"facts": text})
        for name, dtype in channels.items():
            schema = self._writer.register_schema(_message_name(name), "ros2msg", definition(dtype).encode())
            self._ids[name] = self._writer.register_channel(f"/{name}", "cdr", schema)
        self._first_time: int | None = None  # log time of the first record that is not handed over
        self.flush()

    def dtype(self, channel: str) -> np.dtype:
        """Of that channel's records."""
        return self._dtypes[channel]

    def write(self, channel: str, record: np.ndarray, log_time: int, publish_time: int | None = None) -> None:
        """Add one record of that channel's dtype, times in [ns]."""
        if record.dtype != self._dtypes[channel] or record.shape:
            raise RecordingError(
                f"{channel}: a record of {record.dtype} and shape {record.shape}; allowed: one of "
                f"{self._dtypes[channel]}"
            )
        source = log_time if publish_time is None else publish_time
        self._writer.add_message(self._ids[channel], log_time, CDR_HEADER + record.tobytes(), source)
        if self._first_time is None:
            self._first_time = log_time
        if log_time - self._first_time >= FLUSH_PERIOD * 1e9:  # by the record's clock: equal runs give equal files
            self.flush()

    def flush_when_due(self) -> None:
        """Hand over what is older than `FLUSH_PERIOD`, for a writer in real time that may have nothing to write."""
        if time.monotonic() - self._flushed >= FLUSH_PERIOD:
            self.flush()

    def flush(self) -> None:
        """Hand to the operating system what was written: from now on it survives this process."""
        self._writer.flush()
        self._flushed, self._first_time = time.monotonic(), None

    def close(self) -> None:
        """Write the index and the end."""
        if not self._file.closed:
            self._writer.finish()
            self._file.close()


def _message_name(channel: str) -> str:
    """Of the message definition, as ROS 2 spells names."""
    return "realign/msg/" + "".join(word.capitalize() for word in channel.split("_"))


def definition(dtype: np.dtype) -> str:
    """The ROS 2 message definition of that record."""
    lines = []
    for name in dtype.names or ():
        field = dtype[name]
        kind, shape = field.base, field.shape
        lines.append(f"{_NAMES[kind]}{f'[{shape[0]}]' if shape else ''} {name}")
    return "\n".join(lines)


def dtype_of(text: str) -> np.dtype:
    """The record that a message definition of `definition` describes."""
    fields: dict[str, tuple[str, int] | str] = {}
    for line in text.splitlines():
        kind, name = line.split()
        base, bracket, length = kind.partition("[")
        fields[name] = (base, int(length.rstrip("]"))) if bracket else base
    return layout(**fields)


@dataclass(frozen=True)
class Recording:
    """What a file holds."""

    facts: dict[str, Any]
    """What the writer said about the run."""
    channels: dict[str, np.ndarray]
    """Records of each channel in the order of the file, structured arrays (N,); empty where nothing was recorded."""
    log_times: dict[str, np.ndarray]
    """[ns] of the records of each channel, (N,) int64."""
    publish_times: dict[str, np.ndarray]
    """[ns] by the source's clock, (N,) int64."""
    complete: bool
    """Whether the file has its end; without, its writer was killed and the last `FLUSH_PERIOD` is missing."""


def read_recording(path: Path) -> Recording:
    """The recording in that file, up to where it breaks off."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    found: dict[int, list[Message]] = {}
    facts: dict[str, Any] | None = None
    complete = False
    try:
        with path.open("rb") as file:
            for record in StreamReader(
                cast(IO[bytes], _Whole(file)), validate_crcs=True, record_size_limit=1 << 28
            ).records:
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    channels[record.id] = record
                    found.setdefault(record.id, [])
                elif isinstance(record, Message):
                    found[record.channel_id].append(record)
                elif isinstance(record, Metadata) and record.name == "realign":
                    facts = json.loads(record.metadata["facts"])
                complete |= isinstance(record, Footer)
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror or error})") from error
    except EndOfFile:
        complete = False  # the writer was killed: all that was whole is there
    except (McapError, ValueError, struct.error) as error:
        raise RecordingError(f"{path}: is no sound recording ({error})") from error
    if facts is None or facts.get("format") != FORMAT:
        kind = None if facts is None else facts.get("format")
        raise RecordingError(f"{path}: is of format {kind!r}; allowed: {FORMAT!r}")
    arrays, log_times, publish_times = {}, {}, {}
    for number, channel in channels.items():
        name, dtype = channel.topic.lstrip("/"), dtype_of(schemas[channel.schema_id].data.decode())
        data = b"".join(message.data[len(CDR_HEADER) :] for message in found[number])
        arrays[name] = np.frombuffer(data, dtype=dtype)
        log_times[name] = np.array([message.log_time for message in found[number]], dtype=np.int64)
        publish_times[name] = np.array([message.publish_time for message in found[number]], dtype=np.int64)
    return Recording(facts, arrays, log_times, publish_times, complete)


class _Whole:
    """A file whose reads are whole or raise EndOfFile; the package passes on what is left of a record."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise EndOfFile
        return data

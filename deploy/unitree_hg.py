"""The low-level messages of the Unitree G1, byte for byte: layouts, CRC, CDR, wireless remote. Numpy only.

A message is a numpy structured array of the C layout, because the robot's CRC is computed over the C structure:

    command = new_command(mode_machine=state["mode_machine"])   # zeros; every motor disabled
    command["motor_cmd"]["q"][:29] = ...                        # mode, q, dq, tau, kp, kd, reserve
    payload = encode(command)                                   # CDR as it travels; `sealed` sets the CRC before
    state = decode(LOW_STATE, payload)                          # read-only, shape ()
    crc_is_right(state)
    remote = Remote.from_bytes(state["wireless_remote"])        # remote.buttons, .lx, .ly, .rx, .ry

Layouts: LOW_COMMAND, LOW_STATE, IMU_STATE, BATTERY_STATE and their parts MOTOR_COMMAND, MOTOR_STATE. Field names are
Unitree's, since DDS hashes them into the type; a misspelt one raises. What carries these messages is `wire.py`:

    link = G1Link(Network())                    # loopback, domain 1; a real interface needs on_robot=True
    message = link.wait_state(timeout=0.1)      # newest Message or None; take_state() does not wait
    message.data["motor_state"]["q"][:29]       # .source_ns and .received_ns (Unix), .monotonic_ns (for ages)
    link.publish_command(command)               # seals it with the CRC
    link.states.received, link.states.crc_errors, link.states.crc_errors_in_a_row   # bad ones are never returned
    link.take_torso_imu(), link.take_battery()  # newest Message or None
    link.foreign_publishers()                   # [Peer] that can also write rt/lowcmd
    link.participant.peers()                    # every other DDS process: host, process name, pid
    link.close()

and the motion switcher is `motion_switcher.MotionSwitcher(link.participant)`: `check_mode()`, `release_mode()`,
`release(timeout)`. Wrong settings raise `WireError`, one sentence.

Sources: field order, topics and CRC as in Unitree's public SDKs; CRC and CDR were compared with the vendor's binaries.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

SLOTS = 35
"""Motors of a message; the G1 uses the first 29, in the order of `controllers/g1.py`."""


def _layout(*fields: tuple) -> np.dtype:
    """A C structure: every member at a multiple of its own size, as the compiler of the robot's firmware places it."""
    return np.dtype(list(fields), align=True)


MOTOR_COMMAND = _layout(
    ("mode", "u1"),  # 1 enables, 0 disables
    ("q", "<f4"),  # [rad]
    ("dq", "<f4"),  # [rad/s]
    ("tau", "<f4"),  # feed-forward [Nm]
    ("kp", "<f4"),  # [Nm/rad]
    ("kd", "<f4"),  # [Nm s/rad]
    ("reserve", "<u4"),
)
LOW_COMMAND = _layout(
    ("mode_pr", "u1"),  # 0: ankles and waist as pitch and roll; 1: as the two motors behind them
    ("mode_machine", "u1"),  # must repeat the state's
    ("motor_cmd", MOTOR_COMMAND, SLOTS),
    ("reserve", "<u4", 4),  # [0]: in lock-step, the tick of the state that this answers
    ("crc", "<u4"),
)
IMU_STATE = _layout(
    ("quaternion", "<f4", 4),  # wxyz, body to world
    ("gyroscope", "<f4", 3),  # body frame [rad/s]
    ("accelerometer", "<f4", 3),  # body frame, +g when at rest [m/s^2]
    ("rpy", "<f4", 3),  # [rad]
    ("temperature", "<i2"),  # [degC]
)
MOTOR_STATE = _layout(
    ("mode", "u1"),
    ("q", "<f4"),  # [rad]
    ("dq", "<f4"),  # [rad/s]
    ("ddq", "<f4"),  # [rad/s^2]
    ("tau_est", "<f4"),  # [Nm]
    ("temperature", "<i2", 2),  # casing and winding, in an order on which public sources disagree [degC]
    ("vol", "<f4"),  # [V]
    ("sensor", "<u4", 2),
    ("motorstate", "<u4"),  # 0, or a fault code
    ("reserve", "<u4", 4),
)
LOW_STATE = _layout(
    ("version", "<u4", 2),
    ("mode_pr", "u1"),
    ("mode_machine", "u1"),  # revision of the robot
    ("tick", "<u4"),  # [ms]
    ("imu_state", IMU_STATE),  # of the pelvis
    ("motor_state", MOTOR_STATE, SLOTS),
    ("wireless_remote", "u1", 40),
    ("reserve", "<u4", 4),
    ("crc", "<u4"),
)
BATTERY_STATE = _layout(
    ("version_high", "u1"),
    ("version_low", "u1"),
    ("fn", "u1"),
    ("cell_vol", "<u2", 40),  # [mV]
    ("bmsvoltage", "<u4", 3),  # [mV]
    ("current", "<i4"),  # [mA]
    ("soc", "u1"),  # [%]
    ("soh", "u1"),  # [%]
    ("temperature", "<i2", 12),  # [degC]
    ("cycle", "<u2"),
    ("manufacturer_date", "<u2"),
    ("bmsstate", "<u4", 5),
    ("reserve", "<u4", 3),
)

CDR_HEADER = b"\x00\x01\x00\x00"  # XCDR1, little-endian


def _cdr_of_c(layout: np.dtype) -> np.ndarray:
    """For each byte of the CDR payload, which byte of the C structure it is, or -1 for padding.

    CDR aligns every number to its own size and knows nothing of structures, so where C pads the end of one or its
    start, CDR does not: payload and structure differ in length and place.
    """
    places: list[int] = []

    def walk(part: Any, offset: int) -> None:
        if part.subdtype is not None:
            item, shape = part.subdtype
            for index in range(int(np.prod(shape))):
                walk(item, offset + index * item.itemsize)
        elif part.fields is not None:
            for name in part.names or ():
                walk(part.fields[name][0], offset + part.fields[name][1])
        else:
            places.extend([-1] * (-len(places) % part.itemsize))
            places.extend(range(offset, offset + part.itemsize))

    walk(layout, 0)
    return np.array(places)


class _Codec:
    """Both directions of one layout as a few slices; the runs of bytes that C and CDR share are long."""

    def __init__(self, layout: np.dtype):
        self.layout = layout
        places = _cdr_of_c(layout)
        self.size = len(places)
        """Bytes of the payload, without the header."""
        self.mask = np.zeros(layout.itemsize, np.uint8)
        """255 where the C structure has data, 0 where it has padding."""
        self.mask[places[places >= 0]] = 255
        for at in np.flatnonzero(places < 0):
            follower = places[at - 1] + 1
            if self.mask[follower] == 0:  # padding in both: let the run go on
                places[at] = follower
        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
        ends = np.append(starts[1:], len(places))
        self.runs = [(int(places[a]), int(a), int(b - a)) for a, b in zip(starts, ends, strict=True)]
        """(place in C, or -1 for padding that only the payload has; place in the payload; length)."""

    def without_padding(self, message: np.ndarray) -> np.ndarray:
        """The bytes of its C structure, padding zero: numpy leaves there what the memory held before, (size,)."""
        return np.frombuffer(message.tobytes(), np.uint8) & self.mask

    def to_cdr(self, c: bytes) -> bytes:
        return CDR_HEADER + b"".join(c[at : at + n] if at >= 0 else bytes(n) for at, _, n in self.runs)

    def to_c(self, payload: bytes) -> bytes:
        c = bytearray(self.layout.itemsize)
        for at, start, n in self.runs:
            if at >= 0:
                c[at : at + n] = payload[4 + start : 4 + start + n]
        return bytes(c)


_CODECS = {layout: _Codec(layout) for layout in (LOW_COMMAND, LOW_STATE, IMU_STATE, BATTERY_STATE)}


def encode(message: np.ndarray) -> bytes:
    """The message as CDR with its header, as it travels; padding is zero. Costs a few microseconds."""
    codec = _CODECS[message.dtype]
    return codec.to_cdr(codec.without_padding(message).tobytes())


def decode(layout: np.dtype, payload: bytes) -> np.ndarray:
    """The message of that CDR payload, shape (), read-only.

    Raises:
        ValueError: The payload is not of this layout.
    """
    codec = _CODECS[layout]
    if payload[:2] != CDR_HEADER[:2] or len(payload) - 4 < codec.size:
        raise ValueError(
            f"a message of {len(payload)} bytes with header {payload[:4].hex()} arrived; "
            f"expected {codec.size + 4} bytes with header {CDR_HEADER.hex()}"
        )
    return np.frombuffer(codec.to_c(payload), layout)[0:1].reshape(())


_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc(message: np.ndarray) -> int:
    """The robot's CRC: polynomial 0x04C11DB7, initial value and no final XOR as MPEG-2, over all 32-bit words of the
    C structure but the last, each fed from its most significant bit; padding counts as zero.

    zlib's CRC has the same polynomial with every bit order reversed, so reverse the bits of each word before and those
    of the result after, and undo its final XOR.
    """
    words = (
        _CODECS[message.dtype].without_padding(message)[:-4].view("<u4").byteswap().tobytes().translate(_REVERSED_BITS)
    )
    reversed_crc = zlib.crc32(words) ^ 0xFFFFFFFF
    return int.from_bytes(reversed_crc.to_bytes(4, "little").translate(_REVERSED_BITS), "big")


def sealed(message: np.ndarray) -> np.ndarray:
    """The same array, its CRC set."""
    message["crc"] = crc(message)
    return message


def crc_is_right(message: np.ndarray) -> bool:
    return crc(message) == int(message["crc"])


def new_command(mode_machine: int = 0) -> np.ndarray:
    """A command of zeros, every motor disabled; shape ()."""
    command = np.zeros((), LOW_COMMAND)
    command["mode_machine"] = mode_machine
    return command


def new_state() -> np.ndarray:
    """A state of zeros with an upright quaternion; shape ()."""
    state = np.zeros((), LOW_STATE)
    state["imu_state"]["quaternion"][0] = 1.0
    return state


BUTTONS = ("R1", "L1", "Start", "Select", "R2", "L2", "F1", "F2", "A", "B", "X", "Y", "Up", "Right", "Down", "Left")
"""Of the wireless remote, by bit."""


@dataclass(frozen=True)
class Remote:
    """What the wireless remote says; sticks in [-1, 1], right and up positive."""

    buttons: frozenset[str] = frozenset()
    """Those held down, of BUTTONS."""
    lx: float = 0.0
    ly: float = 0.0
    rx: float = 0.0
    ry: float = 0.0

    @classmethod
    def from_bytes(cls, remote: np.ndarray) -> Remote:
        """Of the 40 bytes in a state: bits of the buttons at 2, then floats lx at 4, rx at 8, ry at 12, ly at 20."""
        bits, lx, rx, ry, ly = struct.unpack_from("<2xHfff4xf", remote.tobytes())
        return cls(frozenset(name for bit, name in enumerate(BUTTONS) if bits >> bit & 1), lx, ly, rx, ry)

    def to_bytes(self, connected: bool = True) -> np.ndarray:
        """The 40 bytes; all are zero when the robot does not hear the remote."""
        remote = bytearray(40)
        if connected:
            for name in self.buttons:
                if name not in BUTTONS:
                    raise ValueError(f"the remote has no button {name!r}; it has {', '.join(BUTTONS)}")
            bits = sum(1 << BUTTONS.index(name) for name in self.buttons)
            # The head is not zero, or an idle remote could not be told from a lost one.
            struct.pack_into("<BBHfff4xf", remote, 0, 0x55, 0x51, bits, self.lx, self.rx, self.ry, self.ly)
        return np.frombuffer(bytes(remote), np.uint8)

"""The G1's messages: layouts, CRC, CDR against the stock serialiser, types that do not crash the robot, the network."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from deploy import wire
from deploy.bench import BenchWire, round_trips
from deploy.motion_switcher import Mode, MotionSwitcher, MotionSwitcherService
from deploy.unitree_hg import (
    BATTERY_STATE,
    BUTTONS,
    IMU_STATE,
    LOW_COMMAND,
    LOW_STATE,
    MOTOR_COMMAND,
    MOTOR_STATE,
    Remote,
    crc,
    crc_is_right,
    decode,
    encode,
    new_command,
    new_state,
    sealed,
)
from deploy.wire import G1Link, Network, Participant, WireError

DOMAIN = 2 + os.getpid() % 49  # tests that run at the same time do not hear each other
LOOPBACK = Network(domain=DOMAIN)
NEVER_JOINED = 230  # above every domain that a test joins: this process stays in a domain that it has joined once

LAYOUTS = [LOW_COMMAND, LOW_STATE, IMU_STATE, BATTERY_STATE]
needs_dds = pytest.mark.usefixtures("cyclonedds")


@pytest.fixture(scope="module")
def cyclonedds() -> None:
    pytest.importorskip("cyclonedds", reason="CycloneDDS is not installed: pip install 'realign[g1]'")


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> bool:
    """Whether it comes true; discovery takes a moment that nothing promises."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def filled(layout: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """A message whose members all have random values, and whose padding is zero."""
    message = np.zeros((), layout)

    def fill(part: np.ndarray) -> None:
        if part.dtype.names is None:
            kind, size = part.dtype.kind, part.dtype.itemsize
            part[...] = rng.normal(size=part.shape) if kind == "f" else rng.integers(0, 2 ** (8 * size - 1), part.shape)
        else:
            for name in part.dtype.names:
                fill(part[name])

    fill(message)
    return message


def crc_by_bits(structure: bytes) -> int:
    """The robot's CRC as its polynomial division, bit for bit."""
    remainder = 0xFFFFFFFF
    for (word,) in struct.iter_unpack("<I", structure):
        for bit in range(31, -1, -1):
            carry = remainder >> 31 ^ (word >> bit & 1)
            remainder = (remainder << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if carry else 0)
    return remainder


def test_structures_have_the_sizes_and_places_of_the_robots_compiler() -> None:
    def places(layout: np.dtype) -> dict[str, int]:
        return {name: place for name, (_, place, *_) in (layout.fields or {}).items()}

    assert [dtype.itemsize for dtype in (LOW_COMMAND, LOW_STATE, MOTOR_COMMAND, MOTOR_STATE)] == [1004, 2092, 28, 56]
    assert places(LOW_COMMAND) == {"mode_pr": 0, "mode_machine": 1, "motor_cmd": 4, "reserve": 984, "crc": 1000}
    assert places(MOTOR_COMMAND) == {"mode": 0, "q": 4, "dq": 8, "tau": 12, "kp": 16, "kd": 20, "reserve": 24}
    assert places(LOW_STATE) == {
        "version": 0,
        "mode_pr": 8,
        "mode_machine": 9,
        "tick": 12,
        "imu_state": 16,
        "motor_state": 72,
        "wireless_remote": 2032,
        "reserve": 2072,
        "crc": 2088,
    }
    assert places(IMU_STATE) == {
        "quaternion": 0,
        "gyroscope": 16,
        "accelerometer": 28,
        "rpy": 40,
        "temperature": 52,
    }
    assert places(MOTOR_STATE) == {
        "mode": 0,
        "q": 4,
        "dq": 8,
        "ddq": 12,
        "tau_est": 16,
        "temperature": 20,
        "vol": 24,
        "sensor": 28,
        "motorstate": 36,
        "reserve": 40,
    }


def test_payloads_are_four_bytes_shorter_than_structures_because_cdr_pads_members_only() -> None:
    assert len(encode(new_command())) == 4 + 1000
    assert len(encode(new_state())) == 4 + 2088
    command = new_command()
    command["motor_cmd"]["mode"][:2] = 7, 9
    command["motor_cmd"]["q"][0] = 1.0
    payload = encode(command)[4:]
    assert payload[2] == 7, "mode of the first motor follows mode_machine at once"
    assert payload[4:8] == struct.pack("<f", 1.0)
    assert payload[28] == 9


@pytest.mark.parametrize("layout", LAYOUTS, ids=wire.TYPE_NAMES.get)
def test_what_is_encoded_is_decoded_exactly(layout: np.dtype) -> None:
    message = filled(layout, np.random.default_rng(1))
    assert decode(layout, encode(message)) == message
    assert decode(layout, encode(message)).tobytes() == message.tobytes()


@needs_dds
@pytest.mark.parametrize("layout", LAYOUTS, ids=wire.TYPE_NAMES.get)
def test_the_codec_writes_what_the_stock_serialiser_writes(layout: np.dtype) -> None:
    def stock(part: np.ndarray) -> Any:
        """The same values as objects of CycloneDDS's message classes."""
        if part.shape:
            return [stock(item) for item in part]
        if part.dtype.names is None:
            return part.item()
        return wire.message_class(part.dtype)(**{name: stock(part[name]) for name in part.dtype.names})

    message = filled(layout, np.random.default_rng(2))
    assert encode(message) == bytes(stock(message).serialize())


def test_a_payload_of_another_size_or_byte_order_is_refused() -> None:
    payload = encode(new_state())
    with pytest.raises(ValueError, match=r"1004 bytes .* expected 2092 bytes"):
        decode(LOW_STATE, encode(new_command()))
    with pytest.raises(ValueError, match="header 00000000"):
        decode(LOW_STATE, bytes(4) + payload[4:])


def test_the_bit_by_bit_reference_gives_the_published_check_value() -> None:
    # CRC-32/MPEG-2 of "123456789" is 0x0376E6E7 (Greg Cook's catalogue). Words are fed from their most significant
    # byte, so the text is reversed within words; its ninth character is divided by hand.
    remainder = crc_by_bits(b"43218765")
    for bit in range(7, -1, -1):
        carry = remainder >> 31 ^ (ord("9") >> bit & 1)
        remainder = (remainder << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if carry else 0)
    assert remainder == 0x0376E6E7


@pytest.mark.parametrize("layout", [LOW_COMMAND, LOW_STATE], ids=wire.TYPE_NAMES.get)
def test_the_crc_is_that_of_the_structure_bit_by_bit(layout: np.dtype) -> None:
    message = filled(layout, np.random.default_rng(3))
    assert crc(message) == crc_by_bits(message.tobytes()[:-4])


def test_padding_does_not_enter_the_crc() -> None:
    message = filled(LOW_COMMAND, np.random.default_rng(4))
    dirty = bytearray(message.tobytes())
    dirty[2], dirty[5] = 0xFF, 0xFF
    assert crc(np.frombuffer(bytes(dirty), LOW_COMMAND).reshape(())) == crc(message)


def test_any_flipped_bit_is_noticed() -> None:
    message = sealed(filled(LOW_COMMAND, np.random.default_rng(5)))
    assert crc_is_right(message)
    for name in ("mode_pr", "mode_machine"):
        broken = message.copy()
        broken[name] ^= 1
        assert not crc_is_right(broken)
    broken = message.copy()
    broken["motor_cmd"]["q"][34] = np.nextafter(broken["motor_cmd"]["q"][34], np.float32(9))
    assert not crc_is_right(broken)


def test_a_misspelt_member_raises() -> None:
    with pytest.raises(ValueError, match="qd"):
        new_command()["motor_cmd"]["qd"] = 0.0


def test_the_remote_reads_back_what_it_wrote_and_each_button_is_one_bit() -> None:
    remote = Remote(frozenset({"R1", "B", "Left"}), lx=-1.0, ly=0.5, rx=0.25, ry=-0.75)
    raw = remote.to_bytes()
    assert Remote.from_bytes(raw) == remote
    assert struct.unpack_from("<H", raw.tobytes(), 2) == (1 << 0 | 1 << 9 | 1 << 15,)
    assert struct.unpack_from("<f", raw.tobytes(), 20) == (0.5,)
    for bit, name in enumerate(BUTTONS):
        assert int.from_bytes(Remote(frozenset({name})).to_bytes().tobytes()[2:4], "little") == 1 << bit
    with pytest.raises(ValueError, match="no button 'C'; it has R1"):
        Remote(frozenset({"C"})).to_bytes()


def test_an_idle_remote_differs_from_a_lost_one() -> None:
    assert Remote().to_bytes().any()
    assert not Remote(frozenset({"A"})).to_bytes(connected=False).any()


def test_a_real_interface_is_refused_until_the_operator_says_so() -> None:
    with pytest.raises(WireError, match="'eth0' may lead to a real robot"):
        Participant(Network(interface="eth0"))
    assert Network(interface="eth0", on_robot=True).check().interface == "eth0"
    with pytest.raises(WireError, match="domain 233 does not exist"):
        Participant(Network(domain=233))


@needs_dds
def test_our_types_have_the_hashes_of_the_vendors() -> None:
    for layout, name in wire.TYPE_NAMES.items():
        assert wire.type_hashes(wire.message_class(layout)) == wire.TYPE_HASHES[name]
        assert wire.type_hashes(wire.fast_class(layout)) == wire.TYPE_HASHES[name]
    for name in ("Request_", "Response_"):
        assert wire.type_hashes(wire.rpc_classes()[name]) == wire.TYPE_HASHES[name]


@needs_dds
def test_types_with_uint8_for_byte_are_refused_before_joining(monkeypatch: pytest.MonkeyPatch) -> None:
    from cyclonedds.idl import types

    monkeypatch.setattr(types, "byte", types.uint8)
    for made in (wire.message_class, wire.fast_class, wire.rpc_classes):
        made.cache_clear()
    try:
        with pytest.raises(WireError, match=r"type LowCmd_ has hashes .* the robot's are .* could crash"):
            Participant(Network(domain=NEVER_JOINED))
        assert NEVER_JOINED not in wire._domains, "the domain was not joined"
    finally:
        monkeypatch.undo()
        for made in (wire.message_class, wire.fast_class, wire.rpc_classes):
            made.cache_clear()


@needs_dds
def test_an_interface_that_does_not_exist_is_named() -> None:
    with pytest.raises(WireError, match=r"'nonesuch0'.*does the interface exist"):
        Participant(Network(interface="nonesuch0", domain=NEVER_JOINED, on_robot=True))


@pytest.fixture
def link() -> Iterator[G1Link]:
    made = G1Link(LOOPBACK)
    yield made
    made.close()


@pytest.fixture
def robot() -> Iterator[Participant]:
    made = Participant(LOOPBACK)
    yield made
    made.close()


@needs_dds
def test_states_and_commands_arrive_as_they_were_sent(link: G1Link, robot: Participant) -> None:
    states = robot.writer(wire.LOW_STATE_TOPIC, LOW_STATE)
    commands = robot.reader(wire.LOW_COMMAND_TOPIC, LOW_COMMAND)
    assert eventually(lambda: states.readers() and commands.publishers())
    state, command = filled(LOW_STATE, np.random.default_rng(6)), filled(LOW_COMMAND, np.random.default_rng(7))
    before = time.time_ns()
    states.write(sealed(state))
    message = link.wait_state(5.0)
    assert message is not None and message.data == state
    assert before <= message.source_ns <= message.received_ns <= time.time_ns()
    assert link.take_state() is None, "a message is taken once"
    link.publish_command(command)
    assert commands.wait(5.0)
    taken = commands.take()
    assert taken is not None and taken.data == command and crc_is_right(taken.data)
    with pytest.raises(ValueError, match="allowed: one LowCmd_"):
        link.publish_command(state)


@needs_dds
def test_messages_with_a_wrong_crc_are_counted_and_never_returned(link: G1Link, robot: Participant) -> None:
    states = robot.writer(wire.LOW_STATE_TOPIC, LOW_STATE)
    assert eventually(states.readers)
    state = sealed(new_state())
    for good in (False, False, True, False):
        broken = state.copy()
        broken["tick"] += not good
        states.write(broken)
        message = link.wait_state(5.0)
        assert (message is not None) == good
        assert link.states.crc_errors_in_a_row == 0 if good else link.states.crc_errors_in_a_row > 0
    assert (link.states.received, link.states.crc_errors) == (4, 3)


@needs_dds
def test_another_master_of_the_robot_is_seen_and_its_leaving_too(link: G1Link, robot: Participant) -> None:
    assert eventually(link.participant.peers)
    assert link.foreign_publishers() == [], "one's own commands are not foreign"
    other = G1Link(LOOPBACK)
    assert eventually(link.foreign_publishers)
    (peer,) = link.foreign_publishers()
    assert peer.pid == str(os.getpid())
    other.close()
    del other
    assert eventually(lambda: not link.foreign_publishers())


@needs_dds
def test_the_motion_controller_is_released_and_selected(robot: Participant) -> None:
    service, ended = MotionSwitcherService(robot, "ai"), threading.Event()

    def serve() -> None:
        while not ended.wait(0.002):
            service.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    client = Participant(LOOPBACK)
    try:
        switcher = MotionSwitcher(client, timeout=5.0)
        assert switcher.check_mode() == Mode("0", "ai")
        assert switcher.release() == [Mode("0", "ai")]
        assert service.active == ""
        assert switcher.release() == []
        switcher.select_mode("ai")
        assert service.active == "ai"
    finally:
        ended.set()
        thread.join()
        client.close()


@needs_dds
def test_a_missing_motion_switcher_is_said(robot: Participant) -> None:
    with pytest.raises(WireError, match=r"motion_switcher is not there: nobody offers it within 0.05 s"):
        MotionSwitcher(robot, timeout=0.05).check_mode()


@needs_dds
def test_two_processes_lose_nothing_at_500_hz() -> None:
    measured = round_trips(BenchWire(rate=500.0, seconds=2.0, domain=DOMAIN))
    assert measured.sent == measured.answered == 1000

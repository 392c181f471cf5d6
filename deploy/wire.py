"""The G1's messages on CycloneDDS 11 (extra [g1]); `unitree_hg.py` explains them and shows how to use this module.

The message classes are generated from the layouts, with three departures from what one would write first:

1. One-byte members are `byte`. Declared as `uint8`, which version 11 encodes with a type kind that 0.10 does not know,
   our mere presence crashes every process with CycloneDDS 0.10 that discovers us, and the robot's own are such.
   The hashes of all types are compared with those in the vendor's headers before anything joins the network.
2. Serialising goes through `unitree_hg.encode` and `decode`, 2 us instead of the 1.1 ms of the stock serialiser, which
   loses four samples of ten at 500 Hz.
3. The domain's configuration is ours (`Network.configuration`). On the loopback, which has no multicast, versions 11
   and 0.10 find each other only when the peer `localhost` is named.

A domain has one configuration per process. Tests and programs that must not hear each other take different domains.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.unitree_hg import (
    BATTERY_STATE,
    IMU_STATE,
    LOW_COMMAND,
    LOW_STATE,
    MOTOR_COMMAND,
    MOTOR_STATE,
    crc_is_right,
    decode,
    encode,
    sealed,
)

LOW_COMMAND_TOPIC = "rt/lowcmd"
LOW_STATE_TOPIC = "rt/lowstate"
SLOW_STATE_TOPIC = "rt/lf/lowstate"
TORSO_IMU_TOPIC = "rt/secondary_imu"
BATTERY_TOPIC = "rt/lf/bmsstate"

LOOPBACK = "lo"
WRITER_DEPTH = 128  # messages kept for retransmission: a quarter of a second at 500 Hz
LOSSLESS_DEPTH = 1000  # messages kept for a reader that asks for all of them: two seconds at 500 Hz

TYPE_NAMES = {
    LOW_COMMAND: "LowCmd_",
    LOW_STATE: "LowState_",
    MOTOR_COMMAND: "MotorCmd_",
    MOTOR_STATE: "MotorState_",
    IMU_STATE: "IMUState_",
    BATTERY_STATE: "BmsState_",
}
TYPE_HASHES = {
    # Minimal and complete XTypes equivalence hash: the first five from the vendor's C++ headers (unitree_sdk2), the
    # others computed by CycloneDDS 0.10.2 from the vendor's Python types (unitree-sdk2 1.0.1).
    "LowCmd_": ("6569fc15f0d47aa8600b9e91fbbc", "42b0283aa7e1bb592ec898a0dbed"),
    "LowState_": ("2f38296b52aa0230b92d378b1e39", "2be9706c9587e8d8afd8bfc6de7b"),
    "MotorCmd_": ("827f55de9b9de38c62bacd1e56c9", "a2d9ced50a7956e2a607613a13f1"),
    "MotorState_": ("7cc584ed940b8f3018f18de0ed24", "a86cbab3ae0aa98a1e746643a099"),
    "IMUState_": ("fc687176651206558473df442280", "7d4166754177d86fa27cd25b0403"),
    "BmsState_": ("4b98d809a63f63c7cb31a818506b", "0cdba6862498f554ba927ba18de0"),
    "Request_": ("cba4dc965d393ada76b4de081925", "c47a4429fcbf539486498753c48f"),
    "Response_": ("48c997d379c3e18c530b5f8fe946", "d1c32cc02214901a464a6c51325d"),
}


class WireError(ValueError):
    """The network cannot be joined as asked, or a service does not answer."""


@dataclass(frozen=True)
class Network:
    """Which network a program joins. The default cannot reach a robot."""

    interface: str = LOOPBACK
    """Network interface; any other than lo needs on_robot."""
    domain: int = 1
    """DDS domain; the robot is in domain 0."""
    on_robot: bool = False
    """Said by the operator: a real robot may be on this interface."""

    def check(self) -> Network:
        """Itself, if it may be joined."""
        if not 0 <= self.domain <= 232:
            raise WireError(f"DDS domain {self.domain} does not exist; allowed: 0 to 232")
        if self.interface != LOOPBACK and not self.on_robot:
            raise WireError(
                f"interface {self.interface!r} may lead to a real robot: say so with --on-robot, or use {LOOPBACK!r}"
            )
        return self

    def configuration(self) -> str:
        """Of CycloneDDS, as XML."""
        peers = '<Peers><Peer Address="localhost"/></Peers>' if self.interface == LOOPBACK else ""
        return (
            f'<CycloneDDS><Domain Id="{self.domain}">'
            f'<General><Interfaces><NetworkInterface name="{self.interface}"/></Interfaces></General>'
            f"<Discovery><ParticipantIndex>auto</ParticipantIndex>{peers}</Discovery>"
            "</Domain></CycloneDDS>"
        )


@dataclass(frozen=True)
class Peer:
    """Another DDS process, as far as it tells about itself."""

    key: str
    """Of its participant."""
    host: str = "unknown"
    process: str = "unknown"
    pid: str = "unknown"

    def __str__(self) -> str:
        return f"{self.process} (pid {self.pid} on {self.host})"


@dataclass(frozen=True, slots=True)
class Message:
    """One sample and its times."""

    data: np.ndarray
    """Shape (), of the topic's layout, read-only."""
    source_ns: int
    """When it was written, by the writer's clock (Unix)."""
    received_ns: int
    """When it was taken here (Unix)."""
    monotonic_ns: int
    """The same instant by `time.monotonic_ns`: ages are computed from this."""


def dds() -> Any:
    """CycloneDDS, or one sentence about how to get it."""
    try:
        import cyclonedds.idl.types
    except ImportError as error:
        raise WireError(f"CycloneDDS cannot be loaded ({error}): install it with pip install 'realign[g1]'") from error
    if not hasattr(cyclonedds.idl.types, "byte"):
        raise WireError("this CycloneDDS has no type `byte`, without which robots crash: install 11.0.1 or newer")
    return cyclonedds


def structure(name: str, package: str, **members: Any) -> Any:
    """A message class of CycloneDDS: final, members numbered in order."""
    from cyclonedds.idl import annotations, make_idl_struct

    made = make_idl_struct(name, f"{package}.msg.dds_.{name}", members)
    return annotations.final(annotations.autoid("sequential")(made))


@functools.cache
def message_class(layout: np.dtype) -> Any:
    """The message class of that layout, a stock one; `Reader` and `Writer` use `fast_class`."""
    return structure(TYPE_NAMES[layout], "unitree_hg", **_members(layout))


@functools.cache
def fast_class(layout: np.dtype) -> Any:
    """The same type with the codec of `unitree_hg`; its only attribute is `payload`, the CDR with its header."""
    made = structure(TYPE_NAMES[layout], "unitree_hg", **_members(layout))
    made.serialize = _serialize
    made.deserialize = classmethod(_deserialize)
    return made


def _serialize(sample: Any, **_: Any) -> bytes:
    return sample.payload


def _deserialize(cls: Any, data: bytes, **_: Any) -> Any:
    sample = object.__new__(cls)
    sample.payload = bytes(data)
    return sample


def _members(layout: Any) -> dict[str, Any]:
    from cyclonedds.idl import types

    numbers = {
        "|u1": types.byte,
        "<u2": types.uint16,
        "<i2": types.int16,
        "<u4": types.uint32,
        "<i4": types.int32,
        "<f4": types.float32,
    }

    def member(part: Any) -> Any:
        if part.subdtype is not None:
            item, shape = part.subdtype
            return types.array[member(item), shape[0]]
        return message_class(part) if part.fields is not None else numbers[part.str]

    return {name: member(layout.fields[name][0]) for name in layout.names}


@functools.cache
def rpc_classes() -> dict[str, Any]:
    """The message classes of the robot's services by name: Request_, Response_ and their parts."""
    from cyclonedds.idl import types

    made: dict[str, Any] = {}

    def add(name: str, **members: Any) -> None:
        made[name] = structure(name, "unitree_api", **members)

    binary = types.sequence[types.byte]
    add("RequestIdentity_", id=types.int64, api_id=types.int64)
    add("RequestLease_", id=types.int64)
    add("RequestPolicy_", priority=types.int32, noreply=bool)
    add(
        "RequestHeader_",
        identity=made["RequestIdentity_"],
        lease=made["RequestLease_"],
        policy=made["RequestPolicy_"],
    )
    add("Request_", header=made["RequestHeader_"], parameter=str, binary=binary)
    add("ResponseStatus_", code=types.int32)
    add("ResponseHeader_", identity=made["RequestIdentity_"], status=made["ResponseStatus_"])
    add("Response_", header=made["ResponseHeader_"], data=str, binary=binary)
    return made


def type_hashes(message: Any) -> tuple[str, str]:
    """Minimal and complete equivalence hash of a message class, by which DDS tells types apart."""
    information = message.__idl__.get_type_info()
    minimal, complete = (part.typeid_with_size.type_id.value for part in (information.minimal, information.complete))
    return minimal.hex(), complete.hex()


def check_types() -> None:
    """Raise unless our types are the vendor's: with any other we must not join, see the module's docstring."""
    rpc = rpc_classes()
    for made in (*map(message_class, TYPE_NAMES), *map(fast_class, TYPE_NAMES), rpc["Request_"], rpc["Response_"]):
        name = made.__name__
        if type_hashes(made) != TYPE_HASHES[name]:
            raise WireError(
                f"type {name} has hashes {type_hashes(made)} with this CycloneDDS, the robot's are "
                f"{TYPE_HASHES[name]}: joining could crash the robot's programs; install cyclonedds 11.0.1"
            )


_domains: dict[int, tuple[Network, Any]] = {}  # DDS configures a domain once per process


class Participant:
    """One member of a DDS domain; readers and writers are made from it."""

    def __init__(self, network: Network):
        network.check()
        dds()
        check_types()
        from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant
        from cyclonedds.core import DDSException
        from cyclonedds.domain import Domain, DomainParticipant

        known = _domains.get(network.domain)
        if known is not None and known[0].interface != network.interface:
            raise WireError(f"this process is in domain {network.domain} on interface {known[0].interface!r} already")
        try:
            if known is None:
                _domains[network.domain] = (network, Domain(network.domain, network.configuration()))
            self.entity: Any = DomainParticipant(network.domain)
        except DDSException as error:
            raise WireError(
                f"cannot join DDS domain {network.domain} on interface {network.interface!r} ({error.msg}): "
                "does the interface exist and is it up?"
            ) from error
        self.network = network
        self._topics: dict[str, Any] = {}
        self._participants: Any = BuiltinDataReader(self.entity, BuiltinTopicDcpsParticipant)

    def topic(self, name: str, made: Any) -> Any:
        """The DDS topic of that name, made once."""
        from cyclonedds.topic import Topic

        if name not in self._topics:
            self._topics[name] = Topic(self.entity, name, made)
        return self._topics[name]

    def reader(self, topic: str, layout: np.dtype, lossless: bool = False) -> Reader:
        return Reader(self, topic, layout, lossless)

    def writer(self, topic: str, layout: np.dtype) -> Writer:
        return Writer(self, topic, layout)

    def peers(self) -> list[Peer]:
        """All other processes of the domain."""
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState

        alive = ReadCondition(self._participants, ViewState.Any | SampleState.Any | InstanceState.Alive)
        own = self.entity.get_guid()
        return [_peer(sample) for sample in self._participants.read(1000, condition=alive) if sample.key != own]

    def close(self) -> None:
        """Leave the domain; readers and writers of this participant end with it."""
        self._topics.clear()
        self._participants = None
        self.entity = None


def _peer(sample: Any) -> Peer:
    from cyclonedds.qos import Policy

    said = {policy.key: policy.value for policy in sample.qos if isinstance(policy, Policy.Property)}
    return Peer(
        str(sample.key),
        *(said.get(key, "unknown") for key in ("__Hostname", "__ProcessName", "__Pid")),
    )


class Reader:
    """Of one topic: the newest message, or all of them.

    By default as control wants it: best effort, and an unread message is replaced by a newer one. `lossless` asks for
    retransmission and keeps LOSSLESS_DEPTH.
    """

    def __init__(self, participant: Participant, topic: str, layout: np.dtype, lossless: bool = False):
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.sub import DataReader
        from cyclonedds.util import duration

        if lossless:
            kept = (Policy.Reliability.Reliable(duration(milliseconds=100)), Policy.History.KeepLast(LOSSLESS_DEPTH))
        else:
            kept = (Policy.Reliability.BestEffort, Policy.History.KeepLast(1))
        self._participant = participant
        self._layout = layout
        self._entity = DataReader(
            participant.entity,
            participant.topic(topic, fast_class(layout)),
            Qos(*kept, Policy.IgnoreLocal.Participant),
        )
        # Instances without a writer too: what a process wrote before it died still counts.
        unread = ViewState.Any | SampleState.NotRead | InstanceState.Any
        self._condition = ReadCondition(self._entity, unread)
        self._waiting = WaitSet(participant.entity)
        self._waiting.attach(self._condition)
        self._has_crc = "crc" in (layout.names or ())
        self.received = 0
        """Messages taken, good and bad."""
        self.crc_errors = 0
        """Those whose CRC was wrong; they are never returned."""
        self.crc_errors_in_a_row = 0
        """Since the last good one."""

    def take_all(self) -> list[Message]:
        """Every message not taken yet, oldest first."""
        taken, received_ns, monotonic_ns = [], time.time_ns(), time.monotonic_ns()
        for sample in self._entity.take(LOSSLESS_DEPTH, condition=self._condition):
            if not sample.sample_info.valid_data:
                continue  # says that a writer left
            data = decode(self._layout, sample.payload)
            self.received += 1
            if self._has_crc and not crc_is_right(data):
                self.crc_errors += 1
                self.crc_errors_in_a_row += 1
                continue
            self.crc_errors_in_a_row = 0
            taken.append(Message(data, sample.sample_info.source_timestamp, received_ns, monotonic_ns))
        return taken

    def take(self) -> Message | None:
        """The newest message not taken yet; older ones are dropped."""
        taken = self.take_all()
        return taken[-1] if taken else None

    def wait(self, timeout: float) -> bool:
        """Whether a message is there within that time [s]."""
        return self._waiting.wait(max(int(timeout * 1e9), 0)) > 0

    def publishers(self) -> list[Peer]:
        """The processes that can write to this topic, this participant excepted."""
        handles = self._entity.get_matched_publications()
        known = {peer.key: peer for peer in self._participant.peers()} if handles else {}
        found = {}
        for handle in handles:
            endpoint = self._entity.get_matched_publication_data(handle)
            if endpoint is not None:  # it may leave between the two calls
                key = str(endpoint.participant_key)
                found[key] = known.get(key, Peer(key))
        return list(found.values())


class Writer:
    """Of one topic. Never blocks on a reader that lags or has died: it keeps the newest WRITER_DEPTH messages."""

    def __init__(self, participant: Participant, topic: str, layout: np.dtype):
        from cyclonedds.pub import DataWriter
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.util import duration

        self._layout = layout
        self._class = fast_class(layout)
        self._entity = DataWriter(
            participant.entity,
            participant.topic(topic, self._class),
            Qos(Policy.Reliability.Reliable(duration(milliseconds=1)), Policy.History.KeepLast(WRITER_DEPTH)),
        )

    def write(self, message: np.ndarray, source_ns: int | None = None) -> None:
        """Send the message as it is; `unitree_hg.sealed` sets its CRC.

        Args:
            message: Of the topic's layout, shape ().
            source_ns: When it was written; by this computer's clock when absent.

        Raises:
            ValueError: It is not one message of the topic's layout.
        """
        if message.dtype != self._layout or message.shape != ():
            raise ValueError(
                f"message has type {message.dtype} and shape {message.shape}; allowed: one {TYPE_NAMES[self._layout]}"
            )
        sample = object.__new__(self._class)
        sample.payload = encode(message)
        self._entity.write(sample, source_ns)

    def readers(self) -> int:
        """How many readers are matched."""
        return len(self._entity.get_matched_subscriptions())


class G1Link:
    """What a controller of the robot holds: states in, commands out."""

    def __init__(self, network: Network, lossless: bool = False):
        self.participant = Participant(network)
        self.states = self.participant.reader(LOW_STATE_TOPIC, LOW_STATE, lossless)
        self.torso_imus = self.participant.reader(TORSO_IMU_TOPIC, IMU_STATE)
        self.batteries = self.participant.reader(BATTERY_TOPIC, BATTERY_STATE)
        self.others = self.participant.reader(LOW_COMMAND_TOPIC, LOW_COMMAND)
        """Hears the commands of others: a robot with two masters obeys both in turn."""
        self.commands = self.participant.writer(LOW_COMMAND_TOPIC, LOW_COMMAND)

    def publish_command(self, command: np.ndarray) -> None:
        """Set the command's CRC and send it."""
        self.commands.write(sealed(command))

    def take_state(self) -> Message | None:
        """The newest state not taken yet."""
        return self.states.take()

    def wait_state(self, timeout: float) -> Message | None:
        """The same, waiting up to that time [s]; None also when all that came had a wrong CRC."""
        return self.states.take() if self.states.wait(timeout) else None

    def take_torso_imu(self) -> Message | None:
        return self.torso_imus.take()

    def take_battery(self) -> Message | None:
        return self.batteries.take()

    def foreign_publishers(self) -> list[Peer]:
        """Others who can send commands to this robot."""
        return self.others.publishers()

    def close(self) -> None:
        self.participant.close()

"""A recording reads back as it was written, survives the death of its writer, and opens in other programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from controllers.recording import (
    FLUSH_PERIOD,
    Recorder,
    RecordingError,
    definition,
    dtype_of,
    g1_channels,
    layout,
    read_recording,
)

CHANNELS = {
    "state": layout(tick="uint32", position=("float32", 3), mode="uint8", value="float64"),
    "quiet": layout(level="uint8"),
}


def records(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    made = np.zeros(count, CHANNELS["state"])
    made["tick"], made["mode"] = np.arange(count), np.arange(count) % 7
    made["position"], made["value"] = rng.normal(size=(count, 3)), rng.normal(size=count)
    return made


def recorded(path: Path, count: int = 5) -> np.ndarray:
    made = records(count)
    recorder = Recorder(path, CHANNELS, {"robot": "g1_29dof", "joint_names": ["a", "b", "c"]})
    for index, record in enumerate(made):
        recorder.write("state", record, log_time=1000 + index, publish_time=index)
    recorder.close()
    return made


def test_a_recording_reads_back_as_arrays_with_its_facts_and_both_clocks(tmp_path: Path) -> None:
    made = recorded(tmp_path / "run" / "recording.mcap")
    found = read_recording(tmp_path / "run" / "recording.mcap")
    assert found.complete
    assert found.facts["robot"] == "g1_29dof"
    for name in made.dtype.names or ():
        np.testing.assert_array_equal(found.channels["state"][name], made[name])
    np.testing.assert_array_equal(found.log_times["state"], 1000 + np.arange(5))
    np.testing.assert_array_equal(found.publish_times["state"], np.arange(5))
    assert len(found.channels["quiet"]) == 0


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    recorded(tmp_path / "a.mcap")
    recorded(tmp_path / "b.mcap")
    assert (tmp_path / "a.mcap").read_bytes() == (tmp_path / "b.mcap").read_bytes()


def test_a_layout_is_described_by_its_own_definition() -> None:
    assert definition(CHANNELS["state"]) == "uint32 tick\nfloat32[3] position\nuint8 mode\nfloat64 value"
    for dtype in (*CHANNELS.values(), *g1_channels(29, ((380, 23), (154, 29))).values()):
        assert dtype_of(definition(dtype)) == dtype


def test_what_breaks_off_in_any_place_is_read_up_to_there(tmp_path: Path) -> None:
    made = recorded(tmp_path / "whole.mcap")
    whole = (tmp_path / "whole.mcap").read_bytes()
    counts = set()
    for length in range(len(whole) - 1, 300, -37):
        cut = tmp_path / "cut.mcap"
        cut.write_bytes(whole[:length])
        try:
            found = read_recording(cut)
        except RecordingError as error:
            assert "is of format None" in str(error)  # not even the facts are there
            continue
        assert not found.complete
        state = found.channels.get("state", made[:0])
        np.testing.assert_array_equal(state["value"], made["value"][: len(state)])
        counts.add(len(state))
    assert counts == {0, 5}  # one chunk: all of it or nothing


def test_a_killed_writer_loses_at_most_a_second(tmp_path: Path) -> None:
    """A process writes at 500 Hz, says what it has written, and gets kill -9 at a moment that it does not know."""
    path = tmp_path / "recording.mcap"
    program = (
        "import sys, time, numpy as np\n"
        "from pathlib import Path\n"
        "from controllers.recording import Recorder, layout\n"
        "recorder = Recorder(Path(sys.argv[1]), {'state': layout(tick='uint32')}, {})\n"
        "record = np.zeros((), layout(tick='uint32'))\n"
        "while True:\n"
        "    record['tick'] += 1\n"
        "    recorder.write('state', record, time.monotonic_ns())\n"
        "    time.sleep(0.002)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=Path(__file__).parent.parent)
    while not path.exists() or path.stat().st_size < 20_000:
        assert writer.poll() is None
        time.sleep(0.01)
    time.sleep(0.5 * FLUSH_PERIOD)
    os.kill(writer.pid, signal.SIGKILL)
    killed = time.monotonic_ns()
    writer.wait()
    found = read_recording(path)
    ticks = found.channels["state"]["tick"]
    assert not found.complete
    np.testing.assert_array_equal(ticks, np.arange(1, len(ticks) + 1))
    assert killed - found.log_times["state"][-1] < 1_000_000_000


def test_what_is_no_recording_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "text.mcap").write_bytes(b"not a recording, but long enough to be one")
    with pytest.raises(RecordingError, match=r"text.mcap: is no sound recording \(not a valid MCAP file"):
        read_recording(tmp_path / "text.mcap")
    with pytest.raises(RecordingError, match=r"none.mcap: cannot be read \(No such file"):
        read_recording(tmp_path / "none.mcap")


def test_a_damaged_chunk_is_not_read_as_data(tmp_path: Path) -> None:
    recorded(tmp_path / "a.mcap", 50)
    content = bytearray((tmp_path / "a.mcap").read_bytes())
    content[len(content) // 3] ^= 1
    (tmp_path / "a.mcap").write_bytes(content)
    with pytest.raises(RecordingError, match=r"a.mcap: is no sound recording"):
        read_recording(tmp_path / "a.mcap")


def test_a_file_that_exists_and_a_record_of_another_layout_are_refused(tmp_path: Path) -> None:
    recorded(tmp_path / "a.mcap")
    with pytest.raises(RecordingError, match=r"a.mcap: exists; allowed: a file that does not"):
        Recorder(tmp_path / "a.mcap", CHANNELS, {})
    recorder = Recorder(tmp_path / "b.mcap", CHANNELS, {})
    with pytest.raises(RecordingError, match=r"state: a record of .*; allowed: one of"):
        recorder.write("state", np.zeros((), CHANNELS["quiet"]), 0)
    recorder.close()


@pytest.mark.peers
def test_the_ros_decoder_reads_the_same_numbers(tmp_path: Path) -> None:
    """`mcap-ros2-support` is the decoder that Foxglove's Python tools use; PlotJuggler follows the same definition."""
    from mcap.reader import make_reader

    decoder = pytest.importorskip("mcap_ros2.decoder")
    made = recorded(tmp_path / "a.mcap")
    with (tmp_path / "a.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[decoder.DecoderFactory()])
        found = [message for _, _, _, message in reader.iter_decoded_messages()]
    assert len(found) == len(made)
    for one, record in zip(found, made, strict=True):
        assert (one.tick, one.mode, one.value) == (record["tick"], record["mode"], record["value"])
        np.testing.assert_array_equal(np.float32(one.position), record["position"])

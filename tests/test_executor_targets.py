"""The executor gives the same bits on every processor that is here to try: natively, and in qemu."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_executor import OUTSIDE, CExecutor, cc, rough_flight, sources

from firmware_export.executor import Config
from firmware_export.executor_to_c import NUMBERS, bits
from firmware_export.toolchains import TOOLCHAINS, Toolchain, link_program, run_program

CALLS = 300
TEMPLATES = Path(__file__).parent.parent / "firmware_export" / "templates" / "check"

MAIN = """
#include "hover_executor.c"
#include "calls.h"
#if defined(ON_HOST) || defined(ON_RISCV)
#include <stdio.h>
#include <stdlib.h>
static void print(const char *text) { fputs(text, stdout); }
static void leave(void) { exit(0); }
#else
static int semihost(int operation, const void *argument)
{
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
static void print(const char *text) { semihost(4, text); }
static void leave(void)
{
    static const uint32_t done[2] = {0x20026u, 0u};
    semihost(0x20, done);
}
#endif
static uint32_t sum = 2166136261u;
static void add(uint32_t word) { sum = (sum ^ word) * 16777619u; }
static void fill(hover_exec_input *input, int call)
{
    const uint32_t *word = call_input[call];
    float *groups[7] = {input->position, input->velocity, input->quaternion, input->angular_velocity,
        input->target_position, input->target_velocity, input->target_acceleration};
    input->position_us = call_time[call][1];
    input->attitude_us = call_time[call][2];
    input->angular_velocity_us = call_time[call][3];
    input->setpoint_us = call_time[call][4];
    for (int g = 0; g < 7; g++) {
        for (int i = 0; i < (g == 2 ? 4 : 3); i++) {
            hover_exec_bits x;
            x.bits = *word++;
            groups[g][i] = x.number;
        }
    }
    hover_exec_bits x;
    x.bits = *word;
    input->target_yaw = x.number;
}
static hover_exec exec;
int main(void)
{
    static char text[10];
    print(hover_exec_boot_test(&exec) ? "boot good\\n" : "boot bad\\n");
    hover_exec_config config = hover_exec_defaults();
    config.ratio = 4u;
    hover_exec_init(&exec, &config);
    for (int call = 0; call < CALLS; call++) {
        hover_exec_input input;
        float action[4];
        if (call_reset[call]) {
            hover_exec_reset(&exec);
        }
        fill(&input, call);
        const hover_exec_status s = hover_exec_step(&exec, call_time[call][0], &input, action);
        add(s.verdict), add(s.step), add(s.fault), add(s.answer), add(s.hovering), add(s.timing);
        for (int i = 0; i < 4 && s.verdict != HOVER_EXEC_HAND_BACK; i++) {
            hover_exec_bits x;
            x.number = action[i];
            add(x.bits);
        }
    }
    for (int i = 0; i < 8; i++) {
        text[i] = "0123456789abcdef"[sum >> (28 - 4 * i) & 15u];
    }
    text[8] = '\\n';
    print(text);
    leave();
    return 0;
}
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the program's sources, and the sum that the twin in Python comes to."""
    folder = tmp_path_factory.mktemp("targets")
    probe = sources(folder, "outside")
    cc("-std=c99", "-O2", "-fPIC", "-shared", probe, "-o", folder / "probe.so")
    config = Config(ratio=4)
    twin = CExecutor(folder / "probe.so", config).twin(OUTSIDE, config)
    times, inputs, resets, words, reset = [], [], [], [], 0
    for call in rough_flight(21, config.step_us, CALLS):
        if call is None:
            twin.reset()
            reset = 1
            continue
        now, seen = call
        status, action = twin.step(now, seen)
        words += [int(x) for x in vars(status).values()]
        words += [] if action is None else action.view(np.uint32).tolist()
        stamps = (now, seen.position_us, seen.attitude_us, seen.angular_velocity_us, seen.setpoint_us)
        times.append("{" + ", ".join(f"{stamp}u" for stamp in stamps) + "}")
        inputs.append(
            "{" + ", ".join(bits([*(x for name in NUMBERS for x in getattr(seen, name)), seen.target_yaw])) + "}"
        )
        resets.append(str(reset))
        reset = 0
    (folder / "calls.h").write_text(
        f"#define CALLS {len(times)}\n"
        f"static const uint64_t call_time[CALLS][5] = {{{', '.join(times)}}};\n"
        f"static const uint32_t call_input[CALLS][23] = {{{', '.join(inputs)}}};\n"
        f"static const uint8_t call_reset[CALLS] = {{{', '.join(resets)}}};\n"
    )
    (folder / "main.c").write_text(MAIN)
    for name in ("start_arm.c", "link_arm.ld"):
        shutil.copy(TEMPLATES / name, folder)
    total = 2166136261
    for word in words:
        total = (total ^ word) * 16777619 % 2**32
    return folder, f"{total:08x}"


@pytest.mark.parametrize("toolchain", TOOLCHAINS, ids=lambda toolchain: toolchain.name)
def test_a_rough_flight_has_the_same_bits_as_in_python(script: tuple[Path, str], toolchain: Toolchain) -> None:
    if toolchain.missing:
        pytest.skip(f"{toolchain.missing} is not installed")
    folder, expected = script
    program = link_program(toolchain, folder, f"program_{TOOLCHAINS.index(toolchain)}")
    assert run_program(toolchain, program)[:2] == ["boot good", expected]

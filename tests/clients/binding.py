"""Checks that pynvml, NVIDIA's Python binding, reads the values of the scenario from the mock.

usage: binding.py LIBRARY SCENARIO_FILE

Creates a mock environment for the scenario with LIBRARY, then reads it with pynvml in a new process, where the dynamic
linker finds the mock, and compares the values with the scenario file.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
import tomllib

MODELS = {
    "T4": "Tesla T4",
    "L20": "NVIDIA L20",
    "A100": "NVIDIA A100-SXM4-80GB",
    "H100": "NVIDIA H100 80GB HBM3",
    "B200": "NVIDIA B200",
    "RTX 4090": "NVIDIA GeForce RTX 4090",
}
HAS_MEMORY_SENSOR = {"A100", "H100", "B200"}
# Boards that return process utilization only through the newer call (nvmlDeviceGetProcessesUtilizationInfo).
NEWER_CALL_ONLY = {"B200"}
MIB = 1024 * 1024
UNITS = {"MiB": MIB, "GiB": 1024 * MIB}


def run_with_mock(library, scenario, script=__file__):
    """Runs a script again in a new process that loads the mock as libnvidia-ml. Returns its exit code."""
    with tempfile.TemporaryDirectory() as directory:
        error = ctypes.create_string_buffer(4096)
        mock = ctypes.CDLL(library)
        code = mock.mockNvmlEnvironment(
            scenario.encode(), directory.encode(), error, len(error)
        )
        if code != 0:
            sys.exit(error.value.decode())
        environment = dict(os.environ, LD_LIBRARY_PATH=directory)
        command = [sys.executable, script, "--in-mock-env", scenario]
        return subprocess.run(command, env=environment, check=False).returncode


def expected(path):
    """The scenario, and its GPUs with their running processes (pid → process) at its fixed time `now`."""
    with open(path, "rb") as file:
        scenario = tomllib.load(file)
    now = scenario["now"]
    gpus = []
    for entry in scenario["gpu"]:
        lost = any(w.get("from", 0) <= now < w.get("to", 1e9) for w in entry.get("lost", []))
        gpu = {"model": entry["model"], "lost": lost}
        gpus += [dict(gpu, processes={}) for _ in range(entry.get("count", 1))]
    for process in scenario.get("process", []):
        if not process.get("start", 0) <= now < process.get("end", 1e9):
            continue
        for clone in range(process.get("count", 1)):
            on = [clone % len(gpus)] if process["gpus"] == "spread" else process["gpus"]
            for index in on:
                gpus[index]["processes"][process["pid"] + clone] = process
    return scenario, gpus


def check_gpu(nvml, handle, gpu):
    """Checks that the values of one healthy GPU match the scenario and are consistent."""
    assert nvml.nvmlDeviceGetName(handle) == MODELS[gpu["model"]]
    uuid = nvml.nvmlDeviceGetUUID(handle)
    same = nvml.nvmlDeviceGetHandleByUUID(uuid)
    assert nvml.nvmlDeviceGetIndex(same) == nvml.nvmlDeviceGetIndex(handle)

    v1 = nvml.nvmlDeviceGetMemoryInfo(handle)
    v2 = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    assert v2.used + v2.free + v2.reserved == v2.total == v1.total
    assert v1.used == v2.used + v2.reserved
    used = sum(memory(process) for process in gpu["processes"].values())
    assert used <= v2.used < used + 512 * MIB, (used, v2.used)

    power = nvml.nvmlDeviceGetPowerUsage(handle)
    assert 0 < power <= nvml.nvmlDeviceGetEnforcedPowerLimit(handle)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(handle) > 0

    field = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_MEMORY_TEMP])[0]
    if gpu["model"] in HAS_MEMORY_SENSOR:
        assert field.nvmlReturn == nvml.NVML_SUCCESS and 20 < field.value.uiVal < 110
    else:
        assert field.nvmlReturn == nvml.NVML_ERROR_NOT_SUPPORTED
    check_processes(nvml, handle, gpu["model"], gpu["processes"])


def check_processes(nvml, handle, model, processes):
    """Checks that the three process lists contain exactly the scenario's processes, with their memory."""
    lists = {
        "C": nvml.nvmlDeviceGetComputeRunningProcesses(handle),
        "G": nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
        "M": nvml.nvmlDeviceGetMPSComputeRunningProcesses(handle),
    }
    for letter, listed in lists.items():
        expected_memory = {
            pid: memory(process)
            for pid, process in processes.items()
            if letter in process.get("type", "C").split("+")
        }
        assert {entry.pid: entry.usedGpuMemory for entry in listed} == expected_memory, letter

    steady = {
        pid: process["sm"]
        for pid, process in processes.items()
        if isinstance(process.get("sm"), int) and "zombie" not in process
    }
    if model in NEWER_CALL_ONLY:
        assert_raises(lambda: nvml.nvmlDeviceGetProcessUtilization(handle, 0), nvml.NVMLError_NotSupported)
        return
    oversubscribed = len(processes) > 4
    rows = {row.pid: row.smUtil for row in utilization(nvml, handle)}
    for pid, percent in steady.items():
        read = rows.get(pid, 0)
        assert read <= percent if oversubscribed else abs(read - percent) <= 1, (pid, read, percent)
    assert nvml.nvmlDeviceGetUtilizationRates(handle).gpu <= 100


def utilization(nvml, handle):
    """The valid process utilization samples; NVMLError_NotFound means that no process ran."""
    try:
        rows = nvml.nvmlDeviceGetProcessUtilization(handle, 0)
    except nvml.NVMLError_NotFound:
        return []
    return [row for row in rows if row.smUtil <= 100]


def memory(process):
    """GPU memory of a scenario's process in bytes."""
    amount, unit = process["memory"].split()
    return int(amount) * UNITS[unit]


def assert_raises(call, error):
    try:
        call()
    except error:
        return
    raise AssertionError(f"{call} did not raise {error.__name__}")


def check(path):
    import pynvml as nvml

    scenario, gpus = expected(path)
    nvml.nvmlInit()
    driver = scenario.get("driver", {}).get("version")
    assert driver is None or nvml.nvmlSystemGetDriverVersion() == driver
    assert nvml.nvmlDeviceGetCount() == len(gpus)
    faulty = {f["gpu"] for f in scenario.get("fault", []) if "gpu" in f}
    for index, gpu in enumerate(gpus):
        if gpu["lost"]:
            assert_raises(lambda i=index: nvml.nvmlDeviceGetHandleByIndex(i), nvml.NVMLError_GpuIsLost)
        elif index not in faulty:
            check_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index), gpu)
    nvml.nvmlShutdown()
    assert_raises(nvml.nvmlDeviceGetCount, nvml.NVMLError_Uninitialized)
    return 0


if __name__ == "__main__":
    first, second = sys.argv[1:]
    sys.exit(check(second) if first == "--in-mock-env" else run_with_mock(first, second))

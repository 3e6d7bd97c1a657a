"""NVIDIA's own Python binding, loading the mock, has to tell what the scenario says.

usage: binding.py LIBRARY SCENARIO_FILE

Stages the scenario with LIBRARY, then asks through pynvml in a fresh process whose loader finds the
stage, and compares with the scenario's text as Python reads it.
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
# Boards of which only the newer call tells the utilization of processes.
NEWER_CALL_ONLY = {"B200"}
MIB = 1024 * 1024
UNITS = {"MiB": MIB, "GiB": 1024 * MIB}


def stage(library, scenario, script=__file__):
    """Runs a file of ours again in a process that finds the staged library as the driver's."""
    with tempfile.TemporaryDirectory() as directory:
        complaint = ctypes.create_string_buffer(4096)
        mock = ctypes.CDLL(library)
        code = mock.mockNvmlStage(
            scenario.encode(), directory.encode(), complaint, len(complaint)
        )
        if code != 0:
            sys.exit(complaint.value.decode())
        environment = dict(os.environ, LD_LIBRARY_PATH=directory)
        command = [sys.executable, script, "--staged", scenario]
        return subprocess.run(command, env=environment, check=False).returncode


def expected(path):
    """The scenario's GPUs and, for each, its living processes, at the time it is held at."""
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
    """What is said of one healthy GPU agrees with the scenario and with itself."""
    assert nvml.nvmlDeviceGetName(handle) == MODELS[gpu["model"]]
    uuid = nvml.nvmlDeviceGetUUID(handle)
    again = nvml.nvmlDeviceGetHandleByUUID(uuid)
    assert nvml.nvmlDeviceGetIndex(again) == nvml.nvmlDeviceGetIndex(handle)

    v1 = nvml.nvmlDeviceGetMemoryInfo(handle)
    v2 = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    assert v2.used + v2.free + v2.reserved == v2.total == v1.total
    assert v1.used == v2.used + v2.reserved
    held = sum(memory(process) for process in gpu["processes"].values())
    assert held <= v2.used < held + 512 * MIB, (held, v2.used)

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
    """The three lists hold the scenario's processes with their memory, and nobody else."""
    lists = {
        "C": nvml.nvmlDeviceGetComputeRunningProcesses(handle),
        "G": nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
        "M": nvml.nvmlDeviceGetMPSComputeRunningProcesses(handle),
    }
    for letter, listed in lists.items():
        truth = {
            pid: memory(process)
            for pid, process in processes.items()
            if letter in process.get("type", "C").split("+")
        }
        assert {entry.pid: entry.usedGpuMemory for entry in listed} == truth, letter

    steady = {
        pid: process["sm"]
        for pid, process in processes.items()
        if isinstance(process.get("sm"), int) and "zombie" not in process
    }
    if model in NEWER_CALL_ONLY:
        refused(lambda: nvml.nvmlDeviceGetProcessUtilization(handle, 0), nvml.NVMLError_NotSupported)
        return
    oversubscribed = len(processes) > 4
    rows = {row.pid: row.smUtil for row in utilization(nvml, handle)}
    for pid, percent in steady.items():
        told = rows.get(pid, 0)
        assert told <= percent if oversubscribed else abs(told - percent) <= 1, (pid, told, percent)
    assert nvml.nvmlDeviceGetUtilizationRates(handle).gpu <= 100


def utilization(nvml, handle):
    """The ring's believable rows; nothing found means that nothing ran."""
    try:
        rows = nvml.nvmlDeviceGetProcessUtilization(handle, 0)
    except nvml.NVMLError_NotFound:
        return []
    return [row for row in rows if row.smUtil <= 100]


def memory(process):
    amount, unit = process["memory"].split()
    return int(amount) * UNITS[unit]


def refused(call, error):
    try:
        call()
    except error:
        return
    raise AssertionError(f"{call} was answered")


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
            refused(lambda i=index: nvml.nvmlDeviceGetHandleByIndex(i), nvml.NVMLError_GpuIsLost)
        elif index not in faulty:
            check_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index), gpu)
    nvml.nvmlShutdown()
    refused(nvml.nvmlDeviceGetCount, nvml.NVMLError_Uninitialized)
    return 0


if __name__ == "__main__":
    first, second = sys.argv[1:]
    sys.exit(check(second) if first == "--staged" else stage(first, second))

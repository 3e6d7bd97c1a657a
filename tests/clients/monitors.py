"""Checks that third-party monitors, loading the mock, show the values of the scenario.

usage: monitors.py LIBRARY SCENARIO_FILE

nvitop through its API and its command, gpustat through its command: names, memory, utilization,
temperature, power and processes of each GPU. The expected load of a GPU is computed here from the scenario
file; the monitors have to agree with it and with each other.
"""

import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys

import binding

PERIODIC = {"sine", "square"}


def value_at(curve, time):
    """The value of a number or a curve of the scenario at a time in seconds."""
    if isinstance(curve, (int, float)):
        return curve
    if "points" in curve:
        return interpolate(curve["points"], curve.get("repeat", False), time)
    assert curve["wave"] in PERIODIC
    low, high, period = curve.get("low", 0), curve["high"], curve["period"]
    cycles = (time + curve.get("phase", 0)) / period
    if curve["wave"] == "square":
        return high if cycles % 1 < curve.get("duty", 0.5) else low
    return low + (high - low) * (math.sin(math.tau * cycles) + 1) / 2


def interpolate(points, repeat, time):
    first, last = points[0][0], points[-1][0]
    if repeat:
        time = first + (time - first) % (last - first)
    if time <= first:
        return points[0][1]
    for (start, low), (end, high) in zip(points, points[1:]):
        if time < end:
            return low + (high - low) * (time - start) / (end - start)
    return points[-1][1]


def load(gpu, engine, time):
    """The load of a GPU's engine in percent: the sum over its processes, at most 100."""
    return min(100, sum(value_at(p.get(engine, 0), time) for p in gpu["processes"].values()))


def assert_near(shown, wanted, name):
    assert abs(shown - wanted) <= 1, (name, shown, wanted)


def of_type(processes, letters):
    """pid → memory in MiB of the processes that are in one of these lists (C, G, M)."""
    return {
        pid: binding.memory(process) // binding.MIB
        for pid, process in processes.items()
        if set(process.get("type", "C").split("+")) & set(letters)
    }


def use_procfs(path):
    """Sets the /proc of psutil, from which the monitors read process names, to that of the mock environment."""
    import psutil

    psutil.PROCFS_PATH = path


def gpustat():
    """The output of `gpustat --json`."""
    from gpustat import __main__ as command

    out, argv = io.StringIO(), sys.argv
    sys.argv = ["gpustat", "--json"]
    try:
        with contextlib.redirect_stdout(out):
            command.main()
    finally:
        sys.argv = argv
    return json.loads(out.getvalue())


def check_gpustat(output, scenario, gpus):
    driver = scenario.get("driver", {}).get("version", "550.54.15")
    assert output["driver_version"] == driver
    assert len(output["gpus"]) == len(gpus)
    for shown, gpu in zip(output["gpus"], gpus):
        now = scenario["now"]
        assert shown["name"] == binding.MODELS[gpu["model"]]
        assert_near(shown["utilization.gpu"], load(gpu, "sm", now), "gpustat sm")
        assert_near(shown["utilization.dec"], load(gpu, "dec", now), "gpustat dec")
        used = sum(binding.memory(process) for process in gpu["processes"].values()) // binding.MIB
        assert used <= shown["memory.used"] < used + 16, (used, shown["memory.used"])
        assert 0 < shown["power.draw"] <= shown["enforced.power.limit"]
        # gpustat does not read the list of MPS clients.
        processes = {p["pid"]: p["gpu_memory_usage"] for p in shown["processes"]}
        assert processes == of_type(gpu["processes"], "CG"), processes
        for process in shown["processes"]:
            expected = gpu["processes"][process["pid"]]
            program = expected.get("command", [expected["name"]])[0]
            assert process["command"] == os.path.basename(program), process


def check_nvitop(scenario, gpus, others):
    import nvitop

    now = scenario["now"]
    devices = nvitop.Device.all()
    assert len(devices) == len(gpus)
    for device, gpu, other in zip(devices, gpus, others):
        assert device.name() == binding.MODELS[gpu["model"]] == other["name"]
        assert device.uuid() == other["uuid"]
        assert_near(device.gpu_utilization(), load(gpu, "sm", now), "nvitop sm")
        assert_near(device.memory_utilization(), load(gpu, "mem", now), "nvitop mem")
        assert_near(device.encoder_utilization(), load(gpu, "enc", now), "nvitop enc")
        assert device.memory_used() // binding.MIB == other["memory.used"]
        assert device.memory_total() // binding.MIB == other["memory.total"]
        assert device.temperature() == other["temperature.gpu"]
        assert_near(device.power_usage() / 1000, other["power.draw"], "power")
        assert device.power_limit() == other["enforced.power.limit"] * 1000
        check_processes(device.processes(), gpu)


def check_processes(processes, gpu):
    shown = {pid: process.gpu_memory() // binding.MIB for pid, process in processes.items()}
    expected = of_type(gpu["processes"], "CG")
    mps_clients = of_type(gpu["processes"], "M")
    # Depending on its version, nvitop also shows the MPS clients, but no other process.
    assert expected.items() <= shown.items() <= (expected | mps_clients).items(), (shown, expected)
    oversubscribed = len(gpu["processes"]) > 4
    for pid, process in processes.items():
        percent = gpu["processes"][pid].get("sm", 0)
        if gpu["model"] in binding.NEWER_CALL_ONLY:
            # nvitop uses the older call.
            percent = 0
        if isinstance(percent, int) and not oversubscribed:
            assert_near(process.gpu_sm_utilization(), percent, f"nvitop sm of {pid}")


def check_screen(scenario, gpus):
    """Checks the output of `nvitop --once`."""
    command = [os.path.join(os.path.dirname(sys.executable), "nvitop"), "--once", "--ascii"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "ERROR" not in run.stderr, run.stderr
    shown = re.findall(r"\|\s+[\d.]+[MG]iB\s+/\s+[\d.]+[MG]iB\s+\|\s+(\d+)%", run.stdout)
    assert len(shown) == len(gpus), run.stdout
    for percent, gpu in zip(shown, gpus):
        assert_near(int(percent), load(gpu, "sm", scenario["now"]), "nvitop's screen")


def check(path):
    scenario, gpus = binding.expected(path)
    directory = os.environ["LD_LIBRARY_PATH"]
    check_screen(scenario, gpus)
    use_procfs(os.path.join(directory, "proc"))
    output = gpustat()
    check_gpustat(output, scenario, gpus)
    check_nvitop(scenario, gpus, output["gpus"])
    return 0


if __name__ == "__main__":
    first, second = sys.argv[1:]
    sys.exit(check(second) if first == "--in-mock-env" else binding.run_with_mock(first, second, __file__))

"""Monitors that other people wrote, loading the mock, have to show what the scenario says.

usage: monitors.py LIBRARY SCENARIO_FILE

nvitop through its API and its command, gpustat through its command: names, memory, utilization,
temperature, power and processes of each GPU. The load of a GPU is worked out here from the scenario's
text, and the monitors have to agree with it and with one another.
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


def at(curve, time):
    """The load that a number or a curve means at a time."""
    if isinstance(curve, (int, float)):
        return curve
    if "points" in curve:
        return between(curve["points"], curve.get("repeat", False), time)
    assert curve["wave"] in PERIODIC
    low, high, period = curve.get("low", 0), curve["high"], curve["period"]
    turn = (time + curve.get("phase", 0)) / period
    if curve["wave"] == "square":
        return high if turn % 1 < curve.get("duty", 0.5) else low
    return low + (high - low) * (math.sin(math.tau * turn) + 1) / 2


def between(points, repeat, time):
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
    """The load of a GPU's engine: what its processes ask, and no more than all of it."""
    return min(100, sum(at(p.get(engine, 0), time) for p in gpu["processes"].values()))


def near(told, truth, what):
    assert abs(told - truth) <= 1, (what, told, truth)


def of_type(processes, letters):
    """Pid and MiB of the processes that are in one of these lists."""
    return {
        pid: binding.memory(process) // binding.MIB
        for pid, process in processes.items()
        if set(process.get("type", "C").split("+")) & set(letters)
    }


def with_tree(path):
    """Has psutil, from which the monitors have the names of processes, look at the stage's tree."""
    import psutil

    psutil.PROCFS_PATH = path


def gpustat():
    """What `gpustat --json` prints."""
    from gpustat import __main__ as command

    out, argv = io.StringIO(), sys.argv
    sys.argv = ["gpustat", "--json"]
    try:
        with contextlib.redirect_stdout(out):
            command.main()
    finally:
        sys.argv = argv
    return json.loads(out.getvalue())


def check_gpustat(told, scenario, gpus):
    driver = scenario.get("driver", {}).get("version", "550.54.15")
    assert told["driver_version"] == driver
    assert len(told["gpus"]) == len(gpus)
    for shown, gpu in zip(told["gpus"], gpus):
        now = scenario["now"]
        assert shown["name"] == binding.MODELS[gpu["model"]]
        near(shown["utilization.gpu"], load(gpu, "sm", now), "gpustat sm")
        near(shown["utilization.dec"], load(gpu, "dec", now), "gpustat dec")
        held = sum(binding.memory(process) for process in gpu["processes"].values()) // binding.MIB
        assert held <= shown["memory.used"] < held + 16, (held, shown["memory.used"])
        assert 0 < shown["power.draw"] <= shown["enforced.power.limit"]
        # It does not ask for the clients of MPS.
        processes = {p["pid"]: p["gpu_memory_usage"] for p in shown["processes"]}
        assert processes == of_type(gpu["processes"], "CG"), processes
        for process in shown["processes"]:
            truth = gpu["processes"][process["pid"]]
            program = truth.get("command", [truth["name"]])[0]
            assert process["command"] == os.path.basename(program), process


def check_nvitop(scenario, gpus, others):
    import nvitop

    now = scenario["now"]
    devices = nvitop.Device.all()
    assert len(devices) == len(gpus)
    for device, gpu, other in zip(devices, gpus, others):
        assert device.name() == binding.MODELS[gpu["model"]] == other["name"]
        assert device.uuid() == other["uuid"]
        near(device.gpu_utilization(), load(gpu, "sm", now), "nvitop sm")
        near(device.memory_utilization(), load(gpu, "mem", now), "nvitop mem")
        near(device.encoder_utilization(), load(gpu, "enc", now), "nvitop enc")
        assert device.memory_used() // binding.MIB == other["memory.used"]
        assert device.memory_total() // binding.MIB == other["memory.total"]
        assert device.temperature() == other["temperature.gpu"]
        near(device.power_usage() / 1000, other["power.draw"], "power")
        assert device.power_limit() == other["enforced.power.limit"] * 1000
        check_processes(device.processes(), gpu)


def check_processes(processes, gpu):
    told = {pid: one.gpu_memory() // binding.MIB for pid, one in processes.items()}
    truth = of_type(gpu["processes"], "CG")
    clients = of_type(gpu["processes"], "M")
    # A version of it may or may not ask for the clients of MPS, but for nobody else.
    assert truth.items() <= told.items() <= (truth | clients).items(), (told, truth)
    oversubscribed = len(gpu["processes"]) > 4
    for pid, one in processes.items():
        percent = gpu["processes"][pid].get("sm", 0)
        if gpu["model"] in binding.NEWER_CALL_ONLY:
            # It asks by the older call.
            percent = 0
        if isinstance(percent, int) and not oversubscribed:
            near(one.gpu_sm_utilization(), percent, f"nvitop sm of {pid}")


def check_screen(scenario, gpus):
    """The screen that the command prints once."""
    command = [os.path.join(os.path.dirname(sys.executable), "nvitop"), "--once", "--ascii"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "ERROR" not in run.stderr, run.stderr
    shown = re.findall(r"\|\s+[\d.]+[MG]iB\s+/\s+[\d.]+[MG]iB\s+\|\s+(\d+)%", run.stdout)
    assert len(shown) == len(gpus), run.stdout
    for percent, gpu in zip(shown, gpus):
        near(int(percent), load(gpu, "sm", scenario["now"]), "nvitop's screen")


def check(path):
    scenario, gpus = binding.expected(path)
    directory = os.environ["LD_LIBRARY_PATH"]
    check_screen(scenario, gpus)
    with_tree(os.path.join(directory, "proc"))
    told = gpustat()
    check_gpustat(told, scenario, gpus)
    check_nvitop(scenario, gpus, told["gpus"])
    return 0


if __name__ == "__main__":
    first, second = sys.argv[1:]
    sys.exit(check(second) if first == "--staged" else binding.stage(first, second, __file__))

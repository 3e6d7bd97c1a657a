#!/usr/bin/env python3
"""Resource usage of the exporter, as Markdown tables. Start it with benches/footprint/run, which builds the release.

The release binary is measured from outside: /proc for memory and CPU time, HTTP for scrapes. With --peers,
other exporters are measured on the same mock library in the same run.
"""

import argparse
import collections
import gzip
import http.client
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPORTER = ROOT / "target/dist/nvml-exporter"
LIBRARY = ROOT / "target/dist/libmock_nvml.so"
# The mock writes its own /proc. It is put into tmpfs, since the real /proc is in memory too.
TMPFS = pathlib.Path("/dev/shm")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """A running exporter and its resource usage, from /proc."""

    def __init__(self, command, port, environment=None, path="/metrics"):
        self.port, self.path = port, path
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, **({"TMPDIR": str(TMPFS)} if TMPFS.is_dir() else {}), **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.first_scrape = self.wait()

    def wait(self):
        """Seconds from the start to the first successful scrape."""
        while time.monotonic() - self.started < 60:
            if self.process.poll() is not None:
                sys.exit(f"{self.process.args[0]} exited with {self.process.returncode}")
            try:
                self.scrape()
                return time.monotonic() - self.started
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.002)
        sys.exit(f"{self.process.args[0]}: no successful scrape within 60 s")

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def scrape(self, connection=None, encoding="gzip"):
        """One scrape: its duration in seconds, and the body as received."""
        connection = connection or self.connection()
        started = time.monotonic()
        connection.request("GET", self.path, headers={"Accept-Encoding": encoding})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise http.client.HTTPException(f"{response.status} {body[:200]}")
        return time.monotonic() - started, body

    def cpu_seconds(self):
        """CPU seconds since the start, by thread name (/proc/PID/task/TID/schedstat)."""
        spent = collections.Counter()
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                name = (task / "comm").read_text().strip()
                spent[name] += int((task / "schedstat").read_text().split()[0]) / 1e9
            except OSError:
                pass
        return spent

    def memory(self):
        """Resident KiB by kind of mapping (/proc/PID/smaps): mock library, other files, anonymous."""
        kinds, kind = collections.Counter(), None
        for line in open(f"/proc/{self.process.pid}/smaps"):
            head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)$", line)
            if head:
                name = head[1]
                if "libmock_nvml" in name or "libnvidia-ml" in name:
                    kind = "mock"
                else:
                    kind = "files" if name.startswith("/") else "anonymous"
            elif line.startswith("Rss:"):
                kinds[kind] += int(line.split()[1])
        return kinds

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=20)

    def observe(self, seconds):
        """Scrapes once per second. Returns CPU seconds per minute by thread, and the sorted scrape durations."""
        connection, times = self.connection(), []
        time.sleep(3)
        before, started = self.cpu_seconds(), time.monotonic()
        for second in range(seconds):
            time.sleep(max(0, started + second + 0.5 - time.monotonic()))
            times.append(self.scrape(connection)[0])
        took = time.monotonic() - started
        spent = self.cpu_seconds()
        spent.subtract(before)
        return {name: value * 60 / took for name, value in spent.items()}, sorted(times)


def quantile_ms(times, share):
    """A quantile of sorted durations in seconds, in milliseconds."""
    return times[min(len(times) - 1, int(len(times) * share))] * 1000


def exporter(scenario, *flags, environment=None):
    port = free_port()
    command = [EXPORTER, f"--mock={scenario}", "--address", f"127.0.0.1:{port}", *flags]
    return Program(command, port, environment)


def exporter_without_gpu(folder):
    """The exporter without the mock, on a PCI bus with a host bridge only."""
    device = pathlib.Path(folder) / "bus/pci/devices/0000:00:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x8086\n")
    (device / "class").write_text("0x060000\n")
    port = free_port()
    command = [EXPORTER, "--sysfs", folder, "--address", f"127.0.0.1:{port}", "--collect-interval", "1000"]
    return Program(command, port)


def calls(scenario):
    """NVML calls per GPU and collection cycle."""
    with tempfile.TemporaryDirectory() as folder:
        counts = pathlib.Path(folder) / "calls"
        program = exporter(scenario, "--collect-interval", "1000",
                           environment={"MOCK_NVML_CALLS": str(counts)})
        def read():
            lines = counts.read_text().splitlines()
            return {name: int(n) for n, name in (line.split(" ", 1) for line in lines)}
        time.sleep(4)
        before = read()
        time.sleep(20)
        after = read()
        program.stop()
    grown = {name: n - before.get(name, 0) for name, n in after.items()}
    # nvmlDeviceGetMemoryInfo_v2 is called once per GPU and cycle.
    return sum(grown.values()) / grown["nvmlDeviceGetMemoryInfo_v2"]


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def exporter_usage(seconds):
    row("scenario", "resident MiB", "of which mock files", "own files", "anonymous",
        "CPU s/min", "of which NVML threads", "threads", "exposition KiB", "gzip KiB", "scrape p50 ms",
        "p99 ms", "first scrape ms")
    row(*["---"] * 13)
    folder = tempfile.TemporaryDirectory()
    for scenario in ["idle-t4", "demo", "huge", "faulty", "no GPU"]:
        if scenario == "no GPU":
            program = exporter_without_gpu(folder.name)
        else:
            program = exporter(scenario, "--collect-interval", "1000")
        spent, times = program.observe(seconds)
        memory = program.memory()
        plain, packed = program.scrape(encoding="identity")[1], program.scrape()[1]
        # Threads that only call NVML, and the mock's own threads.
        nvml = sum(value for name, value in spent.items()
                   if name.startswith(("gpu-", "events", "driver", "mock")))
        mib = lambda kib: f"{kib / 1024:.1f}"
        row(scenario, mib(sum(memory.values())), mib(memory["mock"]), mib(memory["files"]),
            mib(memory["anonymous"]), f"{sum(spent.values()):.2f}", f"{nvml:.2f}",
            program.threads(), f"{len(plain) / 1024:.0f}", f"{len(packed) / 1024:.0f}",
            f"{quantile_ms(times, 0.5):.2f}", f"{quantile_ms(times, 0.99):.2f}",
            f"{program.first_scrape * 1000:.0f}")
        program.stop()


def peers(seconds, tools):
    print()
    row("exporter", "series", "resident MiB", "CPU s/min", "scrape p50 ms", "p99 ms",
        "memory", "CPU", "scrape p50")
    row(*["---"] * 9)
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder) / "libnvidia-ml.so.1"
        shutil.copy(LIBRARY, library)
        # all-smi runs nvidia-smi to detect GPUs before it loads NVML.
        listing = pathlib.Path(folder) / "nvidia-smi"
        listing.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n")
        listing.chmod(0o755)
        environment = {"LD_LIBRARY_PATH": folder, "MOCK_NVML_SCENARIO": "demo",
                       "PATH": f"{folder}:{os.environ['PATH']}"}
        ports = [free_port() for _ in range(3)]
        address = f"127.0.0.1:{ports[0]}"
        programs = [
            # All of them read the same mock library and the machine's own /proc.
            ("nvml-exporter", [EXPORTER, "--require-gpu", "--nvml-library", library, "--address", address,
                               "--collect-interval", "1000"], ports[0]),
            ("nvitop-exporter", [tools / "peers/python/bin/nvitop-exporter", "--bind-address",
                                 "127.0.0.1", "--port", ports[1], "--interval", "1"], ports[1]),
            ("all-smi", [tools / "peers/bin/all-smi", "api", "--port", ports[2],
                         "--interval", "1", "--processes"], ports[2]),
        ]
        base = None
        for name, command, port in programs:
            if not pathlib.Path(command[0]).exists():
                row(name, *["not installed"] + ["–"] * 7)
                continue
            program = Program(command, port, environment)
            spent, times = program.observe(seconds)
            body = program.scrape(encoding="identity")[1]
            if body[:2] == b"\x1f\x8b":
                body = gzip.decompress(body)
            series = sum(1 for line in body.splitlines() if line and not line.startswith(b"#"))
            figures = [sum(program.memory().values()) / 1024, sum(spent.values()), quantile_ms(times, 0.5)]
            program.stop()
            base = base or figures
            ratios = [f"{figure / own:.1f}×" for figure, own in zip(figures, base)]
            row(name, series, f"{figures[0]:.1f}", f"{figures[1]:.2f}", f"{figures[2]:.2f}",
                f"{quantile_ms(times, 0.99):.2f}", *ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="measurement time per exporter and scenario")
    parser.add_argument("--peers", action="store_true", help="also measure other exporters")
    args = parser.parse_args()
    size = lambda path: f"{path.stat().st_size / 1e6:.1f} MB"
    print(f"Binary {size(EXPORTER)}, mock library {size(LIBRARY)}, {os.cpu_count()} cores; "
          f"one cycle and one scrape (gzip, keep-alive) per second, for {args.seconds} s.\n")
    exporter_usage(args.seconds)
    print()
    for scenario in ["demo", "huge"]:
        print(f"NVML calls per GPU and cycle, {scenario}: {calls(scenario):.1f}")
    if args.peers:
        peers(args.seconds, ROOT / ".tools")


main()

#!/usr/bin/env python3
"""What the exporter costs, as tables in Markdown: benches/footprint/run brings what it needs.

Everything is measured on the real program, from outside: /proc for memory and processor time, HTTP for
pages. With --peers, other exporters run on the same mock library in the same run.
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
EXPORTER = ROOT / "target/release/nvml-exporter"
LIBRARY = ROOT / "target/release/libmock_nvml.so"
# The mock writes a /proc of its own, which is to be in memory as the real one is.
MEMORY = pathlib.Path("/dev/shm")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """An exporter that runs, and what the kernel says of it."""

    def __init__(self, command, port, environment=None, path="/metrics"):
        self.port, self.path = port, path
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, **({"TMPDIR": str(MEMORY)} if MEMORY.is_dir() else {}), **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.first_page = self.wait()

    def wait(self):
        """Seconds from its start to its first page."""
        while time.monotonic() - self.begun < 60:
            if self.process.poll() is not None:
                sys.exit(f"{self.process.args[0]} ended with {self.process.returncode}")
            try:
                self.scrape()
                return time.monotonic() - self.begun
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.002)
        sys.exit(f"{self.process.args[0]} has no page after a minute")

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def scrape(self, connection=None, encoding="gzip"):
        """One scrape: its seconds, and its page as it came."""
        connection = connection or self.connection()
        begun = time.monotonic()
        connection.request("GET", self.path, headers={"Accept-Encoding": encoding})
        answer = connection.getresponse()
        page = answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"{answer.status} {page[:200]}")
        return time.monotonic() - begun, page

    def seconds(self):
        """Processor time so far, by thread name."""
        spent = collections.Counter()
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                name = (task / "comm").read_text().strip()
                spent[name] += int((task / "schedstat").read_text().split()[0]) / 1e9
            except OSError:
                pass
        return spent

    def memory(self):
        """Resident KiB by what is mapped: the mock library, other files, the rest."""
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
        """One scrape a second, for a while: processor time a minute by thread, and scrapes' times."""
        connection, times = self.connection(), []
        time.sleep(3)
        before, begun = self.seconds(), time.monotonic()
        for turn in range(seconds):
            time.sleep(max(0, begun + turn + 0.5 - time.monotonic()))
            times.append(self.scrape(connection)[0])
        took = time.monotonic() - begun
        spent = self.seconds()
        spent.subtract(before)
        return {name: value * 60 / took for name, value in spent.items()}, sorted(times)


def at(times, share):
    return times[min(len(times) - 1, int(len(times) * share))] * 1000


def exporter(scenario, *flags, environment=None):
    port = free_port()
    command = [EXPORTER, f"--mock={scenario}", "--address", f"127.0.0.1:{port}", *flags]
    return Program(command, port, environment)


def calls(scenario):
    """NVML calls for each GPU and cycle."""
    with tempfile.TemporaryDirectory() as folder:
        counts = pathlib.Path(folder) / "calls"
        program = exporter(scenario, "--collect-interval", "1000",
                           environment={"MOCK_NVML_CALLS": str(counts)})
        def read():
            lines = counts.read_text().splitlines()
            return {name: int(n) for n, name in (line.split() for line in lines)}
        time.sleep(4)
        before = read()
        time.sleep(20)
        after = read()
        program.stop()
    grown = {name: n - before.get(name, 0) for name, n in after.items()}
    # Every GPU is asked for its fields once a cycle.
    return sum(grown.values()) / grown["nvmlDeviceGetFieldValues"]


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def own(seconds):
    row("scenario", "resident MiB", "of it the mock's files", "own files", "anonymous",
        "CPU s a minute", "of it NVML", "threads", "page KiB", "gzip KiB", "scrape p50 ms",
        "p99 ms", "first page ms")
    row(*["---"] * 13)
    for scenario in ["idle-t4", "demo", "huge", "faulty"]:
        program = exporter(scenario, "--collect-interval", "1000")
        spent, times = program.observe(seconds)
        memory = program.memory()
        plain, packed = program.scrape(encoding="identity")[1], program.scrape()[1]
        # Threads that do nothing but ask NVML, or are the mock's own.
        nvml = sum(value for name, value in spent.items()
                   if name.startswith(("gpu-", "events", "driver", "mock")))
        mib = lambda kib: f"{kib / 1024:.1f}"
        row(scenario, mib(sum(memory.values())), mib(memory["mock"]), mib(memory["files"]),
            mib(memory["anonymous"]), f"{sum(spent.values()):.2f}", f"{nvml:.2f}",
            program.threads(), f"{len(plain) / 1024:.0f}", f"{len(packed) / 1024:.0f}",
            f"{at(times, 0.5):.2f}", f"{at(times, 0.99):.2f}", f"{program.first_page * 1000:.0f}")
        program.stop()


def peers(seconds, tools):
    print()
    row("exporter", "series", "resident MiB", "CPU s a minute", "scrape p50 ms", "p99 ms",
        "memory", "CPU", "scrape p50")
    row(*["---"] * 9)
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder) / "libnvidia-ml.so.1"
        shutil.copy(LIBRARY, library)
        # all-smi asks this program whether there are GPUs before it loads NVML.
        listing = pathlib.Path(folder) / "nvidia-smi"
        listing.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n")
        listing.chmod(0o755)
        environment = {"LD_LIBRARY_PATH": folder, "MOCK_NVML_SCENARIO": "demo",
                       "PATH": f"{folder}:{os.environ['PATH']}"}
        ports = [free_port() for _ in range(3)]
        address = f"127.0.0.1:{ports[0]}"
        programs = [
            # All of them see the same library and the machine's own processes.
            ("nvml-exporter", [EXPORTER, "--nvml-library", library, "--address", address,
                               "--collect-interval", "1000"], ports[0]),
            ("nvitop-exporter", [tools / "python/bin/nvitop-exporter", "--bind-address",
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
            page = program.scrape(encoding="identity")[1]
            if page[:2] == b"\x1f\x8b":
                page = gzip.decompress(page)
            series = sum(1 for line in page.splitlines() if line and not line.startswith(b"#"))
            figures = [sum(program.memory().values()) / 1024, sum(spent.values()), at(times, 0.5)]
            program.stop()
            base = base or figures
            ratios = [f"{figure / own:.1f}×" for figure, own in zip(figures, base)]
            row(name, series, f"{figures[0]:.1f}", f"{figures[1]:.2f}", f"{figures[2]:.2f}",
                f"{at(times, 0.99):.2f}", *ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long each is observed")
    parser.add_argument("--peers", action="store_true", help="other exporters, too")
    asked = parser.parse_args()
    size = lambda path: f"{path.stat().st_size / 1e6:.1f} MB"
    print(f"Binary {size(EXPORTER)}, mock library {size(LIBRARY)}, {os.cpu_count()} cores; "
          f"one cycle and one scrape (gzip, keep-alive) a second, for {asked.seconds} s.\n")
    own(asked.seconds)
    print()
    for scenario in ["demo", "huge"]:
        print(f"NVML calls for each GPU and cycle, {scenario}: {calls(scenario):.1f}")
    if asked.peers:
        peers(asked.seconds, ROOT / ".tools")


main()

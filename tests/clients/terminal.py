"""Runs `top` in a terminal emulator.

Reads a command and its environment as JSON, `{"command": [...], "environment": {...}, "scenario": "…"}`, runs it in a
terminal of 80 by 24 and in one of 200 by 60, and prints as JSON, for each size, the screens and the exit code.
Scenarios: `keys` presses every key, on the node `demo`; `mig` folds and unfolds MIG devices; `refresh` waits for other
numbers; `exit` waits for the end of the program; `close` closes the terminal.
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

import pyte

TIMEOUT = 30


class Terminal:
    def __init__(self, command, environment, columns, rows):
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.child, self.file = pty.fork()
        if self.child == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(command[0], command, environment)

    def read(self):
        ready, _, _ = select.select([self.file], [], [], 0.1)
        try:
            data = os.read(self.file, 65536) if ready else b""
        except OSError:
            data = b""
        self.raw += data
        # pyte has no alternate screen, which is empty at first.
        self.stream.feed(data.replace(b"\x1b[?1049h", b"\x1b[2J\x1b[H"))
        return data

    def wait(self, name, found):
        end = time.monotonic() + TIMEOUT
        while not found():
            if time.monotonic() > end:
                sys.exit(f"no {name} within {TIMEOUT} s:\n" + "\n".join(self.screen.display))
            self.read()
        return self.text()

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def shows(self, text):
        return lambda: any(text in line for line in self.screen.display)

    def coloured(self):
        cells = (cell for row in self.screen.buffer.values() for cell in row.values())
        return any(cell.fg != "default" for cell in cells)

    def press(self, keys):
        os.write(self.file, keys)

    def exit_code(self, meanwhile):
        end = time.monotonic() + TIMEOUT
        while (status := os.waitpid(self.child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.kill(self.child, signal.SIGKILL)
                sys.exit(f"the program did not exit within {TIMEOUT} s")
            meanwhile()
        return os.waitstatus_to_exitcode(status[1])

    def end(self):
        exit_code = self.exit_code(self.read)
        while self.read():
            pass
        return exit_code


def every_key(terminal):
    """Presses each key and waits for its effect; returns what was on the screen."""
    shows, press, wait = terminal.shows, terminal.press, terminal.wait
    hides = lambda text: lambda: not shows(text)()
    found = {"compact": wait("GPUs that are judged", shows("8 GPUs: 8 ok"))}
    found["coloured"] = terminal.coloured()
    press(b"f")
    found["full"] = wait("processes", shows("torchrun"))
    press(b"\x1b[F")
    found["end"] = wait("end", shows("pod_resources"))
    press(b"\x1b[H")
    wait("begin", shows("GPU 0"))
    if terminal.screen.lines < 40:
        wait("position", shows("1-23 of "))
        for down, up in [(b"\x1b[B", b"\x1b[A"), (b"j", b"k"), (b"\x1b[6~", b"\x1b[5~"), (b" ", b"\x1b[5~")]:
            press(down)
            wait(f"after {down}", hides("1-23 of "))
            press(up)
            wait(f"after {up}", shows("1-23 of "))
    press(b"f")
    wait("compact view", hides("torchrun"))
    for order in ["name", "SM", "memory", "power", "status"]:
        press(b"s")
        wait("next order", shows(f"sort {order}"))
        found[f"sort {order}"] = terminal.text()
    press(b"/trainer")
    wait("filter", shows("/trainer_"))
    found["filter"] = wait("filtered GPUs", hides("GPU 7"))
    press(b"\x7f")
    wait("shorter filter", shows("/traine_"))
    press(b"\r")
    wait("accepted filter", shows("filter traine"))
    press(b"\x1b")
    wait("no filter", shows("GPU 7"))
    press(b"/nothing")
    wait("no GPU", shows("no GPU matches the filter"))
    press(b"\x1b")
    wait("no filter", shows("GPU 7"))
    press(b"p")
    found["pods"] = wait("pods", shows("ALLOCATED"))
    for order in ["name", "SM", "memory"]:
        press(b"s")
        wait("order of pods", shows(f"sort {order}"))
    press(b"/ml")
    wait("filter", shows("/ml_"))
    found["filtered pods"] = wait("pods of a namespace", hides("serving/"))
    press(b"\x1b")
    wait("all pods", shows("serving/"))
    press(b"p")
    wait("GPUs", shows("STATUS"))
    for key in [b"?", b"h"]:
        press(key)
        found["help"] = wait("help", shows("Keys"))
        press(b"x")
        wait("no help", hides("Keys"))
    # Esc does not quit: the screen is still updated.
    press(b"\x1b")
    for _ in range(2):
        before = terminal.text()
        wait("other numbers after Esc", lambda: terminal.text() != before)
    press(b"q")
    found["exit"] = terminal.end()
    found["restored"] = b"\x1b[?1049l" in terminal.raw and b"\x1b[?25h" in terminal.raw
    return found


def mig(terminal):
    found = {"folded": terminal.wait("GPU", terminal.shows("GPU 0"))}
    terminal.press(b"m")
    found["unfolded"] = terminal.wait("MIG devices", terminal.shows("MIG 2g"))
    terminal.press(b"m")
    terminal.wait("no MIG devices", lambda: not terminal.shows("MIG 2g")())
    terminal.press(b"q")
    return {**found, "exit": terminal.end()}


def refresh(terminal):
    first = terminal.wait("GPU", terminal.shows("GPU 0"))
    for _ in range(2):
        first = terminal.wait("other numbers", lambda: terminal.text() != first)
    # Without colour.
    found = {"coloured": terminal.coloured()}
    terminal.press(b"\x03")
    return {**found, "exit": terminal.end()}


def run_to_end(terminal):
    exit_code = terminal.end()
    return {"exit": exit_code, "text": terminal.raw.decode(errors="replace"), "screen": terminal.text()}


def close(terminal):
    terminal.wait("GPU", terminal.shows("GPU 0"))
    os.close(terminal.file)
    return {"exit": terminal.exit_code(lambda: time.sleep(0.05))}


def main(command, environment, scenario):
    environment["TERM"] = "xterm-256color"
    run = {"keys": every_key, "mig": mig, "refresh": refresh, "exit": run_to_end, "close": close}[scenario]
    found = {}
    for columns, rows in [(80, 24), (200, 60)]:
        found[f"{columns}x{rows}"] = run(Terminal(command, environment, columns, rows))
    json.dump(found, sys.stdout)


main(**json.load(sys.stdin))

"""Runs `top` in a terminal emulator.

Reads a command and its environment as JSON, `{"command": [...], "environment": {...}}`. Prints as JSON the screen of
an 80 by 24 terminal after each step, and the exit code of the program.
"""

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time

import pyte

TIMEOUT = 30


class Terminal:
    def __init__(self, command, environment):
        self.screen = pyte.Screen(80, 24)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.child, self.file = pty.fork()
        if self.child == 0:
            os.execvpe(command[0], command, environment)
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def read(self):
        ready, _, _ = select.select([self.file], [], [], 0.1)
        try:
            data = os.read(self.file, 65536) if ready else b""
        except OSError:
            data = b""
        self.raw += data
        self.stream.feed(data)

    def wait(self, name, found):
        end = time.monotonic() + TIMEOUT
        while not found():
            if time.monotonic() > end:
                sys.exit(f"no {name} within {TIMEOUT} s:\n" + "\n".join(self.screen.display))
            self.read()
        return "\n".join(line.rstrip() for line in self.screen.display)

    def shows(self, text):
        return lambda: any(text in line for line in self.screen.display)

    def coloured(self):
        cells = (cell for row in self.screen.buffer.values() for cell in row.values())
        return any(cell.fg != "default" for cell in cells)

    def press(self, keys):
        os.write(self.file, keys)

    def end(self):
        end = time.monotonic() + TIMEOUT
        while (status := os.waitpid(self.child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                sys.exit(f"the program did not exit within {TIMEOUT} s")
            self.read()
        self.read()
        return os.waitstatus_to_exitcode(status[1])


def main(command, environment):
    environment["TERM"] = "xterm-256color"
    terminal = Terminal(command, environment)
    found = {}
    found["first"] = terminal.wait("GPU", terminal.shows("ml/train"))
    terminal.press(b"\x1b[F")
    found["end"] = terminal.wait("end", terminal.shows("pod_resources"))
    terminal.press(b"\x1b[H")
    terminal.wait("begin", terminal.shows("GPU 0"))
    terminal.wait("processes", terminal.shows("torchrun"))
    found["coloured"] = terminal.coloured()
    terminal.press(b"p")
    found["without"] = terminal.wait("no processes", lambda: not terminal.shows("torchrun")())
    terminal.press(b"q")
    found["exit"] = terminal.end()
    found["restored"] = b"\x1b[?1049l" in terminal.raw and b"\x1b[?25h" in terminal.raw

    plain = Terminal(command, {**environment, "NO_COLOR": "1"})
    plain.wait("GPU", plain.shows("GPU 0"))
    found["plain_coloured"] = plain.coloured()
    plain.press(b"\x03")
    found["plain_exit"] = plain.end()
    json.dump(found, sys.stdout)


main(**json.load(sys.stdin))

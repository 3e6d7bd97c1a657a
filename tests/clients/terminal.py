"""Runs `top` in a terminal emulator.

Reads a command and its environment as JSON, `{"command": [...], "environment": {...}, "scenario": "…"}`, and presses
every key, in a terminal of 80 by 24 and in one of 200 by 60. Prints as JSON the screens and the exit codes. The
command has a node with MIG devices if `scenario` is `mig`, and no driver if it is `none`; the terminal is closed if it
is `closed`.
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
    def __init__(self, command, environment, columns=80, rows=24):
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

    def exit_code(self, meanwhile=lambda: time.sleep(0.05)):
        end = time.monotonic() + TIMEOUT
        while (status := os.waitpid(self.child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.kill(self.child, signal.SIGKILL)
                sys.exit(f"the program did not exit within {TIMEOUT} s")
            meanwhile()
        return os.waitstatus_to_exitcode(status[1])

    def end(self):
        exit_code = self.exit_code(self.read)
        self.read()
        return exit_code


def every_key(command, environment, columns, rows):
    """Presses each key and waits for its effect; returns what was on the screen."""
    terminal = Terminal(command, environment, columns, rows)
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
    if rows < 40:
        wait("position", shows("1-"))
        for down, up in [(b"\x1b[B", b"\x1b[A"), (b"j", b"k"), (b"\x1b[6~", b"\x1b[5~"), (b" ", b"\x1b[5~")]:
            press(down)
            wait(f"after {down}", hides("1-23"))
            press(up)
            wait(f"after {up}", shows("1-23"))
    press(b"f")
    wait("compact view", hides("torchrun"))
    press(b"s")
    wait("next order", shows("sort name"))
    press(b"ssss")
    wait("first order", shows("sort status"))
    press(b"/")
    press(b"trainer")
    wait("filter", hides("GPU 7"))
    press(b"\x7f")
    wait("shorter filter", shows("/traine_"))
    press(b"\r")
    wait("accepted filter", shows("filter traine"))
    press(b"\x1b")
    wait("no filter", shows("GPU 7"))
    press(b"/nothing\x1b")
    wait("no filter", shows("GPU 7"))
    press(b"p")
    found["pods"] = wait("pods", shows("ALLOCATED"))
    press(b"s")
    wait("order of pods", shows("sort name"))
    press(b"p")
    wait("GPUs", shows("STATUS"))
    press(b"?")
    found["help"] = wait("help", shows("Keys"))
    press(b"x")
    wait("no help", hides("Keys"))
    press(b"m\x1b")
    press(b"q")
    found["exit"] = terminal.end()
    found["restored"] = b"\x1b[?1049l" in terminal.raw and b"\x1b[?25h" in terminal.raw
    return found


def main(command, environment, scenario="demo"):
    environment["TERM"] = "xterm-256color"
    if scenario == "none":
        terminal = Terminal(command, environment)
        exit_code = terminal.end()
        return json.dump({"exit": exit_code, "text": terminal.raw.decode(errors="replace")}, sys.stdout)
    if scenario == "closed":
        terminal = Terminal(command, environment)
        terminal.wait("GPU", terminal.shows("GPU 0"))
        os.close(terminal.file)
        return json.dump({"exit": terminal.exit_code()}, sys.stdout)
    if scenario == "mig":
        terminal = Terminal(command, environment)
        found = {"folded": terminal.wait("GPU", terminal.shows("GPU 0"))}
        terminal.press(b"m")
        found["unfolded"] = terminal.wait("MIG devices", terminal.shows("MIG 2g"))
        terminal.press(b"q")
        found["exit"] = terminal.end()
        return json.dump(found, sys.stdout)
    found = {f"{columns}x{rows}": every_key(command, environment, columns, rows) for columns, rows in [(80, 24), (200, 60)]}
    plain = Terminal(command, {**environment, "NO_COLOR": "1"})
    plain.wait("GPU", plain.shows("GPU 0"))
    found["plain_coloured"] = plain.coloured()
    plain.press(b"\x03")
    found["plain_exit"] = plain.end()
    json.dump(found, sys.stdout)


main(**json.load(sys.stdin))

"""Runs one command and kills it when the process that asked for it is gone, however that ended.

Run as a script of its own, with nothing but the standard library: `watchdog.py FOLDER COMMAND...`.
The asking process holds the write end of standard input and never writes: end of file means that it has
died. The command's process id is the one line on standard output; its output goes to standard error.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import threading


def main(arguments: list[str]) -> int:
    """Run the command; exit with its status, or remove FOLDER when the asking process dies first."""
    folder, *command = arguments
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr)
    print(child.pid, flush=True)
    threading.Thread(target=_exit_with, args=(child,), daemon=True).start()
    while os.read(0, 1024):
        pass
    child.kill()
    child.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return 1


def _exit_with(child: subprocess.Popen[bytes]) -> None:
    code = child.wait()
    # Only when it ended by itself or by a test: after a kill from `main` there is still clearing up to do.
    if not _parent_is_gone():
        os._exit(code if code >= 0 else 128 - code)


def _parent_is_gone() -> bool:
    readable, _, _ = select.select([0], [], [], 0)
    return bool(readable)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

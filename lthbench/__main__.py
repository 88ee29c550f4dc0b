"""The process of the command `lthbench`, which `python -m lthbench` is too: its streams, and Ctrl-C at any moment."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

_SAME_WISH = 1.0  # seconds


def main() -> None:
    """Run the command line."""
    open_streams()
    pressed = _Interrupt()
    signal.signal(signal.SIGINT, pressed)
    try:
        from lthbench.cli import main as command  # takes a second, in which Ctrl-C may be pressed

        command()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        if pressed.is_heard:  # in a library whose loading was interrupted, and which says something else of it
            sys.exit(130)
        raise


def open_streams() -> None:
    """Open what was closed of standard input, output and error on the null device.

    Else a file that is opened later gets such a number, and is written to by whoever prints.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    null = Path(os.devnull)
    sys.stdin = sys.stdin or null.open()
    sys.stdout = sys.stdout or null.open("w")
    sys.stderr = sys.stderr or null.open("w")


class _Interrupt:
    """Ctrl-C; pressed again at once it is heard once, so that what it began (workers end, say) is not interrupted."""

    def __init__(self) -> None:
        self._last: float | None = None

    @property
    def is_heard(self) -> bool:
        """Whether it has been pressed."""
        return self._last is not None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        before, self._last = self._last, time.monotonic()
        if before is None or self._last - before >= _SAME_WISH:
            raise KeyboardInterrupt


if __name__ == "__main__":
    main()

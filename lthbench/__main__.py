"""Entry point of `lthbench` and `python -m lthbench`: the standard streams, and Ctrl-C at any moment."""

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
        if pressed.is_heard:  # an interrupted import may raise something else
            sys.exit(130)
        raise


def open_streams() -> None:
    """Open those of standard input, output and error that are closed, on the null device.

    Otherwise a file opened later would get their descriptor, and prints would go into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    null = Path(os.devnull)
    sys.stdin = sys.stdin or null.open()
    sys.stdout = sys.stdout or null.open("w")
    sys.stderr = sys.stderr or null.open("w")


class _Interrupt:
    """Ctrl-C; a second press within a second is ignored, so that it does not interrupt the shutdown of workers."""

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

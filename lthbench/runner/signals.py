"""`Signals`: a cluster's signals to a job that is about to end, passed on to the training at its next step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Literal

from lthbench.tasks.context import Interrupted


class Signals:
    """Handles the signals of a job while its tasks run; submitit's own handlers are called afterwards.

    submitit would requeue the job at any point of the program. Here the user signal (before the time limit, or at
    preemption) makes the running training write its checkpoint and stop at its next step; a task without checkpoints is
    abandoned after `grace` seconds, to be done again. Then `requeue` lets submitit requeue the job. SIGTERM, after
    which anything may follow, makes the training write a checkpoint and continue.
    """

    def __init__(self, grace: float) -> None:
        from submitit.core.job_environment import JobEnvironment

        self.grace = grace
        self._user_signal = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
        self._asked: Literal["save", "stop"] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        for number, handler in (
            (self._user_signal, self._stop),
            (signal.SIGTERM, self._save),
            (signal.SIGALRM, self._give_up),
        ):
            self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> Literal["save", "stop"] | None:
        """What a training must do at this step (Context.asked)."""
        asked = self._asked
        if asked == "save":
            self._asked = None
        return asked

    def requeue(self) -> None:
        """Do what submitit does at the user signal: requeue the job and exit, or raise if it gives up."""
        handler = self._before[self._user_signal]
        if callable(handler):
            handler(self._user_signal, None)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._asked = "stop"
        signal.setitimer(signal.ITIMER_REAL, self.grace)

    def _save(self, number: int, frame: FrameType | None) -> None:
        self._asked = self._asked or "save"

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"not at a step within {self.grace:g} s")

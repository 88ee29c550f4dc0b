"""What a job does at the signals of its cluster."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

import pytest

from lthbench.runner.signals import Signals
from lthbench.tasks.context import Interrupted


def test_a_signal_before_the_end_stops_a_training_at_its_step_and_is_then_handed_on() -> None:
    handed: list[int] = []

    def submitit_does(number: int, frame: FrameType | None) -> None:
        handed.append(number)

    before = signal.signal(signal.SIGUSR2, submitit_does)
    try:
        with Signals(grace=60) as signals:
            assert signals.asked() is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert (signals.asked(), signals.asked()) == ("save", None), "one checkpoint, and on"
            os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGTERM)
            assert (signals.asked(), signals.asked()) == ("stop", "stop")
            assert not handed, "not before the training has written its checkpoint"
            signals.requeue()
        assert handed == [signal.SIGUSR2]
        assert signal.getsignal(signal.SIGUSR2) is submitit_does
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_task_without_a_checkpoint_is_given_up_after_a_while() -> None:
    with Signals(grace=0.05), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(10)

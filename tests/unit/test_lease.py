"""Leases: one holder at a time, whoever dies, on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from lthbench.runner.lease import Lease, LeaseLostError


def test_a_lease_is_one_process_at_a_time_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    with Lease(path) as lease:
        lease.check()
        assert not Lease(path).try_acquire()
    with Lease(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_many_contenders_never_hold_it_together(tmp_path: Path) -> None:
    inside = most = 0
    guard = threading.Lock()

    def contend() -> None:
        nonlocal inside, most
        for _ in range(5):
            with Lease(tmp_path / "lease"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.001)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == (1, 0)


def test_the_lease_of_a_killed_process_of_this_machine_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    program = (
        "import os, signal, sys; from pathlib import Path; from lthbench.runner.lease import Lease\n"
        "Lease(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert path.exists()
    begun = time.monotonic()
    with Lease(path) as lease:
        lease.check()
    assert time.monotonic() - begun < 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [json.dumps({"owner": "x", "machine": "far away", "pid": 1}), "", "{", "[]"])
def test_the_lease_of_another_machine_is_free_when_it_is_not_touched_any_more(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lease"
    path.write_text(content)
    # Its clock may be years ahead: only that nothing changes counts.
    os.utime(path, (time.time() + 1e8, time.time() + 1e8))
    waiting = Lease(path, patience=0.3)
    begun = time.monotonic()
    while time.monotonic() - begun < 0.6:
        assert not waiting.try_acquire()
        os.utime(path)
        time.sleep(0.02)
    with waiting as lease:
        lease.check()
    assert time.monotonic() - begun > 0.6 + 0.3 - 0.1
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_wait_for_a_dead_holder_one_takes_over(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.write_text(json.dumps({"owner": "dead", "machine": "far away"}))
    holders: list[Lease] = []

    def wait() -> None:
        lease = Lease(path, patience=0.1)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            if lease.try_acquire():
                holders.append(lease)
                return
            time.sleep(0.001)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Its heartbeat comes every 15 s, which the others do not wait for: they go by their patience of 0.1 s.
    alive = [lease for lease in holders if not _lost(lease)]
    assert len(alive) == 1
    for lease in holders:
        lease.release()


def test_a_process_that_slept_too_long_learns_that_its_lease_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    sleeper = Lease(path)
    assert sleeper.try_acquire()
    holder = json.loads(path.read_text()) | {"machine": "far away"}  # as another machine sees it
    path.write_text(json.dumps(holder))
    with Lease(path, patience=0.1):
        with pytest.raises(LeaseLostError):
            sleeper.check()
        sleeper.release()
        assert path.exists(), "what is another's is not released"


def test_a_holder_that_beats_keeps_its_lease(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    with Lease(path, beat=0.05) as lease:
        waiting = Lease(path, patience=0.5)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert not waiting.try_acquire()
            time.sleep(0.02)
        lease.check()


def _lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLostError:
        return True
    return False


def test_a_clock_that_jumps_makes_no_live_holder_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lease"
    with Lease(path) as lease:
        real = psutil.Process.create_time
        # What a process' start is told to be where the clock was set by an hour since.
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + 3600)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert not Lease(path).try_acquire()
        lease.check()


@pytest.mark.parametrize(
    "content", ['{"owner": 5}', '{"pid": "x"}', '{"owner": "../../x", "machine": "far"}', '{"pid": -1}', "[1]", "\\xff"]
)
def test_whatever_stands_in_a_lease_it_is_waited_for_and_then_taken(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lease"
    path.write_bytes(content.encode().decode("unicode_escape").encode("latin1"))
    assert not Lease(path).try_acquire()
    with Lease(path, patience=0.05) as lease:
        lease.check()
    assert list(tmp_path.iterdir()) == []

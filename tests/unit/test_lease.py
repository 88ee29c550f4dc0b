"""Leases: one holder at a time, whoever dies, on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lthbench import lease as lease_module
from lthbench.lease import Lease, LeaseLostError
from lthbench.tasks.scratch import Scratch


def test_one_process_at_a_time_has_a_lease_and_it_leaves_nothing_behind(tmp_path: Path) -> None:
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
        "import os, signal, sys; from pathlib import Path; from lthbench.lease import Lease\n"
        "Lease(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert path.exists()
    begun = time.monotonic()
    with Lease(path) as lease:
        lease.check()
    assert time.monotonic() - begun < lease_module.PATIENCE / 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [json.dumps({"owner": "x", "machine": "far away", "pid": 1}), "", "{", "[]"])
def test_the_lease_of_another_machine_is_free_when_it_is_no_longer_touched(tmp_path: Path, content: str) -> None:
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
        while time.monotonic() < until or not holders:
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


def test_a_holder_that_beats_keeps_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lease"
    clock = [0.0]
    monkeypatch.setattr(lease_module, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=time.sleep))
    with Lease(path, beat=0.01) as lease:
        waiting = Lease(path, patience=0.5)
        for _ in range(10):
            before = path.stat().st_mtime_ns
            while path.stat().st_mtime_ns == before:  # a beat, whenever this machine comes to it
                time.sleep(0.01)
            clock[0] += 0.4
            assert not waiting.try_acquire()
        assert clock[0] > 3
        lease.check()


def _lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLostError:
        return True
    return False


def test_a_clock_that_jumps_declares_no_live_holder_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_process_of_another_user_that_proc_does_not_show_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lease"

    def hidden(pid: int) -> psutil.Process:
        raise psutil.NoSuchProcess(pid)

    def not_permitted(pid: int, number: int) -> None:
        raise PermissionError

    with Lease(path) as lease:
        monkeypatch.setattr(psutil, "Process", hidden)
        monkeypatch.setattr(os, "kill", not_permitted)
        assert not Lease(path).try_acquire()
        lease.check()


def test_a_contender_that_was_suspended_together_with_the_holder_lets_it_wake_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(lease_module, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=time.sleep))
    path = tmp_path / "lease"
    path.write_text(json.dumps({"owner": "suspended", "machine": "far away"}))
    waiting = Lease(path)
    assert not waiting.try_acquire()
    clock[0] = 1000.0  # as Ctrl-Z and fg have it, or a virtual machine that was paused
    assert not waiting.try_acquire(), "it has not watched since"
    for clock[0] in range(1002, 1090, 2):
        assert not waiting.try_acquire()
    clock[0] = 1092.0
    assert waiting.try_acquire()
    waiting.release()


def test_a_holder_that_wakes_while_its_lease_is_being_taken_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lease"
    sleeper = Lease(path)
    assert sleeper.try_acquire()
    taker = Lease(path)
    create = taker._create

    def create_and_let_it_wake(gate: Path) -> bool:
        created = create(gate)
        os.utime(path)
        return created

    monkeypatch.setattr(lease_module, "_died_here", lambda who: True)
    monkeypatch.setattr(taker, "_create", create_and_let_it_wake)
    assert not taker.try_acquire()
    sleeper.check()
    sleeper.release()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_taken_for_dead_on_its_way_to_a_lease_does_not_believe_that_it_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lease"
    first, second = Lease(path), Lease(path)
    create = first._create

    def sleep_after_creating(name: Path) -> bool:
        created = create(name)
        name.unlink()  # who waited in vain for 90 s
        assert second.try_acquire()
        return created

    monkeypatch.setattr(first, "_create", sleep_after_creating)
    assert not first.try_acquire()
    second.check()
    second.release()


def test_a_process_that_lost_a_task_before_it_changed_anything_takes_nothing_from_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lease"
    sleeper, successor = Lease(path), Lease(path)
    assert sleeper.try_acquire()
    check = sleeper.check

    def check_and_sleep() -> None:
        check()
        path.unlink()  # who waited in vain for 90 s
        assert successor.try_acquire()
        Scratch(tmp_path, successor).__enter__()

    monkeypatch.setattr(sleeper, "check", check_and_sleep)
    with Scratch(tmp_path, sleeper) as scratch:
        monkeypatch.setattr(sleeper, "check", check)
        (tmp_path / "file").touch()
        with pytest.raises(LeaseLostError):
            scratch.remove("file")
        with pytest.raises(LeaseLostError):
            scratch.rename("file", "other")
    successors = Scratch(tmp_path, successor)
    assert successors.path.exists() and (tmp_path / "file").exists()
    successors.rename("file", "other")
    assert (tmp_path / "other").exists()
    successor.release()

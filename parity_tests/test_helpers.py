"""The threads that PyTorch's front keeps between calls: how many there are, in forked processes, and at the end."""

import subprocess
import sys
from pathlib import Path

import pytest

from bandhess_common import kernels

pytestmark = [
    pytest.mark.skipif(bool(kernels.why_not()), reason=kernels.why_not() or "built"),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them"),
]

# Each program runs in a process of its own, whose threads are all known.
BEGIN = """
import os, signal, threading, time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from bandhess_common.kernels import call, view

signal.alarm(100)  # which ends a program that hangs
rng = np.random.default_rng(0)
ab = rng.normal(size=(60, 4, 500))
ab[:, 0] += 16
b = rng.normal(size=(60, 500))

def solve(threads):
    x, info = np.empty_like(b), np.empty(60, np.int32)
    call("solve", [view(ab), view(b)], [view(x), view(info)], threads=threads)
    assert not info.any()
    return x

def threads_now():
    return len(os.listdir("/proc/self/task"))

def most(threads, solve=solve):
    # After some calls: one that finds its helper ready again needs no other.
    def now():
        assert (solve(threads) == alone).all()
        return threads_now()
    return max(now() for _ in range(30))

alone, first = solve(1), threads_now()
"""


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_as_many_as_a_call_asks_for() -> None:
    """They stay, and serve the calls of all threads of the user."""
    run("""
for threads, helpers in ((1, 0), (2, 1), (4, 3), (3, 3), (1, 3)):
    assert most(threads) == first + helpers, (threads, threads_now())
with ThreadPoolExecutor(6) as pool:
    for x in pool.map(solve, [2, 3, 4] * 200):
        assert (x == alone).all()
    callers = len(pool._threads)
    assert threads_now() == first + callers + 3, threads_now()
""")


def test_a_forked_process_starts_its_own() -> None:
    """Also where other threads are within calls, and hold what a call locks, as the process forks."""
    run("""
def forked():
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    try:
        signal.alarm(50)
        good = threads_now() == 1 and most(3) == 3
    except BaseException:
        good = False
    os._exit(0 if good else 1)

solve(3)
assert forked()
ended = threading.Event()

def busy():
    while not ended.is_set():
        solve(3)

callers = [threading.Thread(target=busy) for _ in range(3)]
for caller in callers:
    caller.start()
try:
    assert all([forked() for _ in range(20)])
finally:
    ended.set()
for caller in callers:
    caller.join()
assert (solve(3) == alone).all()
""")


def test_they_sleep_between_calls() -> None:
    run("""
solve(4)
time.sleep(0.1)
before = time.process_time()
time.sleep(1)
assert time.process_time() - before < 0.1, time.process_time() - before
""")


def test_a_process_ends_within_a_call() -> None:
    run("""
def busy():
    while True:
        solve(3)

for _ in range(2):
    threading.Thread(target=busy, daemon=True).start()
time.sleep(0.2)
assert threads_now() > first + 2
""")


def test_torch_says_how_many() -> None:
    pytest.importorskip("torch")
    run("""
import torch
import bandhess_torch

band, rhs = torch.from_numpy(ab), torch.from_numpy(b)
assert ab.size >= bandhess_torch.framework.kernels.LONG
solve_all = torch.func.vmap(bandhess_torch.solve)
before = threads_now()

def solve_by_torch(threads):
    torch.set_num_threads(threads)
    return solve_all(band, rhs).numpy()

for threads, helpers in ((1, 0), (3, 2), (2, 2)):
    assert most(threads, solve_by_torch) == before + helpers, (threads, threads_now() - before)
""")

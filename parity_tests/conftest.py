"""Settings of the test session, and the `backend` fixture. A missing framework fails the suite: it is never skipped."""

import atexit
import contextlib
import gc
import os
import shutil
import tempfile
from collections.abc import Generator
from typing import Any

import jax
import pytest
from backends import BACKENDS, Backend
from hypothesis import settings

from bandhess_common.diagonals import fallback
from bandhess_common.kernels import why_not

# For the tests alone: the library reads and changes no configuration (test_api.py checks that it does not).
jax.config.update("jax_enable_x64", True)

# For every test but those marked `promotes`: the library mixes neither dtypes nor ranks, so that users may forbid it.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

fallback.strict = True  # what a rule of the diagonals raises by mistake is seen, and not left to probing

CACHE = "BANDHESS_TEST_CACHE"

# XLA translates the tests' programs, each run once or twice on small arrays, with the least work: by its older
# emitters, LLVM optimising nothing, each program in one piece. The graph of operations is what a user's program has;
# the machine code is not. `XLA_FLAGS= pytest ...` runs what users run, and so do the legs `make docs`, with examples of
# everything, and `make newest`, with a test file a room.
QUICK_TO_COMPILE = (
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
    " --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_prefer_vector_width=128"
)

# PyTorch's threads sleep between two operations: those of two workers that wait awake take each other's cores.
SLEEPING = "PASSIVE"

# JAX compiles for every new shape, so examples are few and sizes come from small sets.
settings.register_profile("parity", deadline=None, derandomize=True, max_examples=3)
settings.load_profile("parity")


def pytest_addoption(parser: pytest.Parser) -> None:
    default = os.environ.get("BANDHESS_TEST_DEVICE", "cpu")
    parser.addoption("--device", choices=("cpu", "cuda"), default=default, help="where the backends' arrays live")


def pytest_configure(config: pytest.Config) -> None:
    device = config.getoption("--device")
    share_compiled_programs()
    save_time(device)
    jax.config.update("jax_platforms", "cpu" if device == "cpu" else f"{device},cpu")  # it fails where there is none
    for backend in BACKENDS.values():
        backend.device = device


def share_compiled_programs() -> None:
    """The workers and the files of one run share what XLA has compiled, in a folder that goes with the run."""
    if CACHE not in os.environ:
        os.environ[CACHE] = tempfile.mkdtemp(prefix="bandhess_compiled_")  # the workers inherit it
        atexit.register(shutil.rmtree, os.environ[CACHE], ignore_errors=True)
    jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


def save_time(device: str) -> None:
    """What is set, be it empty, stands. Workers inherit both; without them PyTorch has started its threads before."""
    os.environ.setdefault("OMP_WAIT_POLICY", SLEEPING)
    if device == "cpu":
        os.environ.setdefault("XLA_FLAGS", QUICK_TO_COMPILE)  # before jax starts its first backend
    jax.config.update("jax_traceback_in_locations_limit", 0)  # no operation is told which line it comes from
    gc.set_threshold(100_000, 10, 10)  # tracing makes many objects that live, and no garbage


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") != "cpu":
        for item in items:
            for mark in item.iter_markers("cpu_only"):
                item.add_marker(pytest.mark.skip(reason=mark.args[0]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """JAX's defaults for a test, and the fixtures made for it, whose own code needs them."""
    with contextlib.ExitStack() as settings:
        if item.get_closest_marker("promotes"):
            settings.enter_context(jax.numpy_dtype_promotion("standard"))
            settings.enter_context(jax.numpy_rank_promotion("allow"))
        return (yield)


@pytest.fixture(autouse=True, scope="module")
def collect_what_is_new() -> None:
    """What lives at the start of a file, programs and caches, lives on: collections need not look at it again.
    torch.compiler.reset(), jax.clear_caches() and the search for leaked tracers each collect everything."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def compiled_kernels() -> None:
    """Needed by tests of the kernels. Where a compiler exists a silent failure to build is a failure of the suite."""
    if any(map(shutil.which, ("c++", "g++", "clang++"))):
        assert not why_not()
    elif why_not():
        pytest.skip(why_not())


@pytest.fixture(scope="module")
def untimed_guards() -> Generator[None, None, None]:
    """torch.compile empties the processor's caches to time the guards of each program, for a log that none reads."""
    from torch._dynamo import guards  # a second to import

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guards, "profile_guard_manager", lambda *_: 0.0, raising=False)  # torch 2.13
        yield


@pytest.fixture(scope="session", params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]

"""Settings of the test session, and the `backend` fixture. A missing framework fails the suite: it is never skipped."""

import os

import jax
import pytest
import torch
from backends import BACKENDS, Backend, TorchBackend
from hypothesis import settings

from bandhess_common.diagonals import fallback

# For the tests alone: the library reads and changes no configuration (test_api.py checks that it does not).
jax.config.update("jax_enable_x64", True)

fallback.strict = True  # what a rule of the diagonals raises by mistake is seen, and not left to probing

# JAX compiles for every new shape, so examples are few and sizes come from small sets.
settings.register_profile("parity", deadline=None, derandomize=True, max_examples=3)
settings.load_profile("parity")


def pytest_addoption(parser: pytest.Parser) -> None:
    default = os.environ.get("BANDHESS_TEST_DEVICE", "cpu")
    parser.addoption("--device", choices=("cpu", "cuda"), default=default, help="where the backends' arrays live")


def pytest_configure(config: pytest.Config) -> None:
    device = config.getoption("--device")
    jax.config.update("jax_platforms", "cpu" if device == "cpu" else f"{device},cpu")  # fails where there is none
    TorchBackend.device = torch.device(device)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") != "cpu":
        for item in items:
            for mark in item.iter_markers("cpu_only"):
                item.add_marker(pytest.mark.skip(reason=mark.args[0]))


@pytest.fixture(scope="session", params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]

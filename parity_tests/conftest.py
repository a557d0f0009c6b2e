"""Settings of the test session, and the `backend` fixture. A missing framework fails the suite: it is never skipped."""

import jax
import pytest
from backends import BACKENDS, Backend
from hypothesis import settings

# For the tests alone: the library reads and changes no configuration (test_api.py checks that it does not).
jax.config.update("jax_enable_x64", True)

# JAX compiles for every new shape, so examples are few and sizes come from small sets.
settings.register_profile("parity", deadline=None, derandomize=True, max_examples=3)
settings.load_profile("parity")


@pytest.fixture(scope="session", params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]

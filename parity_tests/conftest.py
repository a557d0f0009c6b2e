"""Settings of the test session, and the `backend` fixture. A missing framework fails the suite: it is never skipped."""

import jax
import pytest
from backends import BACKENDS, Backend
from hypothesis import settings

from bandhess_common.diagonals import fallback

# For the tests alone: the library reads and changes no configuration (test_api.py checks that it does not).
jax.config.update("jax_enable_x64", True)

fallback.strict = True  # what a rule of the diagonals raises by mistake is seen, and not left to probing

# JAX compiles for every new shape, so examples are few and sizes come from small sets.
settings.register_profile("parity", deadline=None, derandomize=True, max_examples=3)
settings.load_profile("parity")


@pytest.fixture(scope="session", params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]

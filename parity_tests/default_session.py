"""Run as a program: JAX as it comes, with x64 off, warnings as errors, and two devices. Prints one JSON line.

The suite itself runs with x64 on, so what most users run would go untested. `outcomes()` gives the line to the tests.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable

PROBINGS = ("direct", "substitution", "fourier", "random")


@functools.cache
def outcomes() -> dict[str, dict]:
    """For each case its dtype, devices and values, or its error."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("JAX_")},
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np

    before = dict(jax.config.values)
    import bandhess_jax as package

    x = jax.device_put(np.linspace(0, 1, 20), jax.devices()[1])
    matrix = package.hessian(lambda x: chain(x), 1)

    def chain(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(x[1:] * x[:-1])) + jnp.sum(x**2)

    cases: dict[str, Callable] = {
        **{f"hessian {name}": lambda name=name: package.hessian(chain, 1, probing=name)(x) for name in PROBINGS},
        "from_matvec": lambda: package.from_matvec(lambda v: 2 * v, x, 1),
        "gauss_newton": lambda: package.gauss_newton(lambda x: x[1:] * x[:-1], 1)(x),
        "solve": lambda: package.solve(matrix(x), x),
        "detect_bandwidth": lambda: package.detect_bandwidth(chain)(x),
        "reorder_bandwidth": lambda: package.reorder_bandwidth(chain)(x)[1],
        "band_error": lambda: package.band_error(chain)(matrix(x), x),
        "newton": lambda: package.newton(chain, x, 1).x,
        "newton detects": lambda: package.newton(chain, x, None).x,
    }
    report = {}
    for name, case in cases.items():
        try:
            out = case()
        except Exception as error:
            report[name] = {"error": f"{type(error).__name__}: {error}"}
            continue
        report[name] = {"values": np.asarray(out).tolist(), "error": None}
        if isinstance(out, jax.Array):
            report[name] |= {"dtype": str(out.dtype), "devices": sorted(device.id for device in out.devices())}
    after = dict(jax.config.values)
    report["configuration"] = {
        "changed": sorted(name for name in after if name not in before or before[name] is not after[name]),
        "x64": after["jax_enable_x64"],
        "devices": [device.id for device in jax.devices()],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

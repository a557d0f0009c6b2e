"""A process with several CPU devices: their number is fixed when JAX starts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(name: str, devices: int) -> Any:
    """What a program of this folder prints, in a process with so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    program = [sys.executable, str(Path(__file__).with_name(name))]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

"""Ray on this machine's loopback: apart from any other, for as long as a block lasts. Does not know its actors."""

import contextlib
import io
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

STORE_BYTES = 100 * 2**20
"""Ray's shared memory; it refuses less than 75 MiB."""
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: every port on 127.0.0.1 only
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment of Ray, with a token of this process: who else is on the machine cannot talk to our workers."""


def import_ray() -> Any:
    """Return Ray, set up for this process if nobody has imported it yet: it reads its environment only then.

    Raises:
        ImportError: Ray is not installed.
    """
    if "ray" not in sys.modules:
        os.environ.update(SETTINGS)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    return ray


@contextlib.contextmanager
def local_ray(num_cpus: int, num_gpus: int = 0) -> Iterator[Any]:
    """Start Ray in a folder of its own and yield it; at the end nothing of it stays.

    Raises:
        ImportError: Ray is not installed.
    """
    # Ray reports on stdout what becomes of its workers. The answer belongs there.
    with contextlib.ExitStack() as undo:
        undo.enter_context(contextlib.redirect_stdout(io.StringIO()))
        ray = import_ray()
        folder = tempfile.mkdtemp(prefix="bebop-ray-")
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        undo.callback(ray.shutdown)
        ray.init(
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=STORE_BYTES,
            _temp_dir=folder,
            _node_ip_address="127.0.0.1",
        )
        yield ray

"""Ray on this machine's loopback: apart from any other, for as long as a block lasts. Does not know its actors."""

import contextlib
import io
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STORE_BYTES = 100 * 2**20
"""Ray's shared memory; it refuses less than 75 MiB."""
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: every port on 127.0.0.1 only
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment of Ray, with a token of this process: who else is on the machine cannot talk to our workers."""

_WATCH = """
import os, shutil, sys, time
sys.stdin.read()
folder, driver = sys.argv[1:]

def end_marked():
    count = 0
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        try:
            files = [os.readlink(f"/proc/{entry}/fd/{each}") for each in os.listdir(f"/proc/{entry}/fd")]
            if entry.isdigit() and entry != driver and any(file.startswith(folder + "/") for file in files):
                count += 1
                os.kill(int(entry), 9)
        except OSError:
            continue
    return count

# Processes begin and end while others are listed, so that one may be missed: none is left where none was found twice.
quiet = 0
while quiet < 2:
    quiet = 0 if end_marked() else quiet + 1
    time.sleep(0.05)
shutil.rmtree(folder, ignore_errors=True)
"""
"""What waits for the end of a driver, however it ends: Ray's agents outlive a killed one by a minute.

Known by their logs, which lie in the folder: Ray writes other titles over their arguments, and over their environment.
"""


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
def local_ray(num_cpus: int, num_gpus: int = 0) -> Iterator[tuple[Any, Path]]:
    """Start Ray in a folder of its own and yield both; at the end nothing of them stays, also where we are killed.

    Raises:
        ImportError: Ray is not installed.
    """
    # Ray reports on stdout what becomes of its workers. The answer belongs there.
    with contextlib.ExitStack() as undo:
        undo.enter_context(contextlib.redirect_stdout(io.StringIO()))
        ray = import_ray()
        folder = tempfile.mkdtemp(prefix="bebop-ray-")
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        undo.callback(_watched(folder))
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
        yield ray, Path(folder)


def _watched(folder: str) -> Callable[[], None]:
    """Have whatever Ray leaves in this folder and in memory ended with this process; return what does it at once."""
    argv = [sys.executable, "-S", "-E", "-c", _WATCH, folder, str(os.getpid())]
    watcher = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)

    def end() -> None:
        watcher.communicate()

    return end

"""Sweep on a disk that is too small, then go on with room: `python -m` this KIND FOLDER ARGUMENT... prints both codes.

KIND is `quota` (no file may grow beyond, EFBIG) or `tmpfs` (a file system of a few pages, ENOSPC; needs the right to
mount, as `unshare -rm` gives it).
"""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import bebop

SMALL, LARGE = 96 * 1024, 64 * 1024 * 1024


def quota(size: int, _folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def tmpfs(size: int, folder: Path) -> None:
    options = f"size={size}" if size == SMALL else f"remount,size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)


def main(kind: str, folder: Path, arguments: list[str]) -> None:
    make = {"quota": quota, "tmpfs": tmpfs}[kind]
    folder.mkdir()
    command = ["sweep", *arguments, "--out", str(folder / "out")]
    make(SMALL, folder)
    print(bebop.main(command), flush=True)
    make(LARGE, folder)
    print(bebop.main([*command, "--resume"]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])

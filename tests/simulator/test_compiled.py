"""Machine code on disk never outlives the text it was made from."""

from pathlib import Path

import simulator
from simulator import kernels
from simulator.compiled import COMPILED_FILES

FOLDER = Path(simulator.__file__).parent


def test_every_file_with_compiled_functions_is_part_of_the_fingerprint() -> None:
    importers = {path.name for path in FOLDER.glob("*.py") if "from simulator.compiled import" in path.read_text()}
    assert importers <= set(COMPILED_FILES)
    assert {name for name in COMPILED_FILES if not (FOLDER / name).exists()} == set()


def test_the_cache_of_a_kernel_is_bound_to_the_text_and_not_to_a_date() -> None:
    stamp = kernels.advance._cache._cache_file._source_stamp  # type: ignore[attr-defined]
    assert isinstance(stamp, str)
    assert len(stamp) == 64

"""The scorecard: every public measured row beside its prediction, and what moved since it was stored.

    python benchmarks/scorecard.py [--fit]

Prints what `bebop scorecard --check` prints. `--fit` fits the engines' habits again and stores them
(traces/data/kernels/engine_habits.json); run `bebop scorecard --write docs/scorecard.md` afterwards.
"""

import argparse
import sys

from simulator.scorecard.cli import main as scorecard
from simulator.scorecard.fit import fit_habits, write_habits
from simulator.scorecard.rows import published_rows


def main() -> int:
    """Fit again, or print the scorecard; 3 where a stored prediction moved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the engines' habits again and store them")
    if parser.parse_args().fit:
        write_habits(fit_habits(published_rows()))
        return 0
    return scorecard(["--check"])


if __name__ == "__main__":
    sys.exit(main())

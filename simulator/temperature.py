"""Temperature: what sampling hotter or colder than T = 1 does to a law of accept length, as fig. 12a shows it.

The figure is of one model, so its effect holds the change of entropy with T: give entropies as they are at T = 1.
"""

import numpy as np

from traces.acceptance import VerifyRule

TEMPERATURES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)
ACCEPT_LENGTH_REJECTION = (
    *(3.36, 3.37, 3.355, 3.36, 3.34, 3.336, 3.319, 3.311, 3.281, 3.25, 3.225, 3.139, 3.065, 2.817),
)
ACCEPT_LENGTH_GREEDY_DRAFT = (
    *(3.359, 3.342, 3.32, 3.27, 3.239, 3.208, 3.151, 3.108, 3.04, 2.98, 2.907, 2.683, 2.287, 1.668),
)
SOURCE = "arXiv 2606.12370 fig. 12a, k = 3, read off to +-0.01"
"""At T = 0.1 the rejection marker is hidden by the greedy one; 3.36 is where they coincide."""

LOWEST, HIGHEST = TEMPERATURES[0], TEMPERATURES[-1]


def accepted_drafts_ratio(verify_rule: VerifyRule, temperature: float) -> float:
    """Return accepted drafts per step at this temperature over those at T = 1; exactly 1 at T = 1.

    Linear between the figure's points, flat beyond them. Rejection decided over the block counts as rejection.
    """
    if temperature == 1.0:
        return 1.0
    greedy = verify_rule is VerifyRule.GREEDY_DRAFT
    accepted = np.array(ACCEPT_LENGTH_GREEDY_DRAFT if greedy else ACCEPT_LENGTH_REJECTION) - 1.0
    return float(np.interp(temperature, TEMPERATURES, accepted) / accepted[TEMPERATURES.index(1.0)])


def covers(temperature: float) -> bool:
    """Return whether the figure holds this temperature."""
    return LOWEST <= temperature <= HIGHEST

"""State: the keys under which the page keeps widgets and the last run. Does not know what they mean."""

SCENARIO = "scenario"
UPLOAD = "upload"
RUN = "run"
EXPLAINED_ARM = "explained_arm"
LAST_RUN = "last_run"
"""The last (request, report) that was shown."""

MAX_RUNNING_SEQS = "max_running_seqs"
NUM_DRAFT_TOKENS = "num_draft_tokens"
ACCEPTANCE = "acceptance"
RATES = "rates"


def keyed(key: str, scenario_id: str, arm: str = "") -> str:
    """Return the key of a widget that belongs to one scenario (and one arm), so that each has its own defaults."""
    return f"{key}/{scenario_id}/{arm}"

"""Block verification: rates that were counted token by token, lifted by a stated gain of accept length.

Rejection decided jointly over the drafted block (Sun et al., arXiv 2403.10444) accepts the first j drafts with
probability E[P_j], P_j = min(P_{j-1} p / q, 1), where token by token it is E[prod min(p / q, 1)]. From this follows:

- c_1 is the same, and no c_j falls (P_j >= the product);
- c_j <= c_{j-1}, so no c_j rises above c_1, and k = 1 gains nothing;
- c_j does not depend on k: more drafts lift the earlier ones no further;
- a greedy draft has q = 1 at its token, so P_j is the product and nothing is gained.

How much is gained inside these bounds is no function of the token-wise c_j: p = (1/3, 2/3), q = (2/3, 1/3) and
p = (2/3, 1/3, 0), q = (2/3, 0, 1/3) both have c = (2/3, 4/9), but by block the one has c_2 = 5/9, the other 4/9. It
is therefore a stated number. Published: 5-8 % of wall-clock time on PaLM-2 and Vicuna (the paper's abstract); accept
length 3.174 -> 3.277 with the MTP layer of Qwen3.5-9B, k = 3, T = 1, GSM8K (sgl-project/sglang #36516).
"""

import numpy as np

from simulator.speculation import FloatArray


def most_gain(cumulative: FloatArray) -> float:
    """Return the tokens of accept length that block verification adds at most: every c_j as large as c_1."""
    return float(np.sum(cumulative[:1] - cumulative)) if len(cumulative) else 0.0


def lifted(cumulative: FloatArray, share: float) -> FloatArray:
    """Return c_j + share (c_1 - c_j), 0 <= share <= 1: inside the bounds, never increasing, c_1 as it was."""
    rates: FloatArray = cumulative + share * (cumulative[:1] - cumulative)
    return rates


def share_of_most(cumulative: FloatArray, gain_tokens: float) -> float:
    """Return the share of the greatest gain that is this gain; above 1 it is impossible."""
    most = most_gain(cumulative)
    return gain_tokens / most if most > 0 else 0.0 if gain_tokens == 0 else float("inf")

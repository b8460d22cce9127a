"""Whether a chain can be believed: split R-hat and bulk effective sample size (Vehtari et al. 2021, Sections 3 and 4).

For Bayesian networks they are taken of predictive quantities: weights of a hidden layer may be permuted and never
mix, while what the networks predict does (Izmailov et al. 2021, Section 5).
"""

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from scipy.special import ndtri
from scipy.stats import rankdata

FEWEST = 8  # transitions: four in each half


def rhat_and_ess(trace: np.ndarray) -> tuple[float, float] | None:
    """Largest split R-hat and smallest bulk ESS of one chain's quantities [transitions, q].

    A quantity that never changes says nothing and is left out: R-hat of a chain that does not move is about 1.
    None where none changes, or the chain is too short to be halved.
    """
    if len(trace) < FEWEST:
        return None
    trace = trace[len(trace) % 2 :].astype(np.float64)
    trace = trace[:, np.ptp(trace, axis=0) > 0]
    if not trace.size:
        return None
    count = len(trace)
    # "Bulk": of the ranks' normal scores, which exist whatever the tails (Equation 14).
    scores = ndtri((rankdata(trace, axis=0) - 3 / 8) / (count + 1 / 4))
    with np.errstate(divide="ignore", invalid="ignore"):  # half a chain may stand still
        r_hat = split_gelman_rubin(trace[None])
        size = effective_sample_size(scores.reshape(2, count // 2, -1))
    # Estimates of anticorrelated chains have no upper end, and turn negative beyond it.
    most = count * np.log10(count)
    size = np.where(size > 0, np.minimum(size, most), most)
    return float(np.nan_to_num(r_hat, nan=np.inf).max()), float(size.min())

"""Do the slopes' intervals cover the truth as often as they say? Simulated studies with errors clustered by trajectory.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/coverage.py [SIMULATIONS]

Each row is a number of clusters and a design: how the regressor varies, and whether clusters are of one size. Printed
are the shares of simulations (1,000 by default) whose 95 % interval holds the true slope: of what `clustered.slope`
chooses, of CR1 with Student's t, and of least squares that takes rows for independent. A `!` marks a share that is
more than three Monte-Carlo standard errors below nominal.
"""

import sys
import time

import numpy as np
from scipy import stats

from deltaball.analysis import clustered

CLUSTERS = (5, 6, 8, 12, 20, 29, 30, 40, 60, 200)
SIMULATIONS, REPLICATES = 1000, 999
TRUTH = 0.5


def simulated(
    count: int, varies: str, unequal: bool, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Response, regressor and clusters of one study, the errors of a cluster correlated by a half."""
    sizes = generator.integers(1, 13, count) if unequal else np.full(count, 5)
    clusters = np.repeat(np.arange(count), sizes)
    own = generator.normal(size=len(clusters))
    if varies == "between and within":
        term = generator.normal(size=count)[clusters] + 0.5 * own
    elif varies == "within":
        term = own
    else:
        term = (np.arange(count) < max(4, count // 5))[clusters].astype(float)
    error = generator.normal(size=count)[clusters] + generator.normal(size=len(clusters))
    return TRUTH * term + error, term, clusters


def covered(count: int, varies: str, unequal: bool, simulations: int = SIMULATIONS, seed: int = 0) -> np.ndarray:
    """Shares of simulations covered by [the chosen interval, CR1's, that of independent rows]."""
    generator, hits = np.random.default_rng([seed, count]), np.zeros(3)
    for run in range(simulations):
        response, term, clusters = simulated(count, varies, unequal, generator)
        chosen = clustered.slope(response, term, None, clusters, replicates=REPLICATES, seed=run)
        sandwich = clustered.Student(chosen.estimate, chosen.error, count - 1)  # `error` is CR1's, whichever is chosen
        naive = stats.linregress(term, response)
        student = clustered.Student(naive.slope, naive.stderr, len(term) - 2)
        hits += [one.p(TRUTH) > 0.05 for one in (chosen, sandwich, student)]
    return hits / simulations


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else SIMULATIONS
    least = 0.95 - 3 * np.sqrt(0.95 * 0.05 / simulations)
    print(f"{simulations} simulations each; nominal 0.95, three Monte-Carlo standard errors below it {least:.3f}")
    print(f"{'clusters':>8}  {'the regressor varies':22} {'sizes':8}  {'chosen':>8} {'CR1':>8} {'rows':>8}")
    started = time.process_time()
    for count in CLUSTERS:
        for varies in ("between and within", "within", "between, two levels"):
            for unequal in (False, True):
                shares = covered(count, varies, unequal, simulations)
                marked = [f"{share:.3f}{'!' if share < least else ' '}" for share in shares]
                print(f"{count:8}  {varies:22} {'1 to 12' if unequal else '5':8}  {'  '.join(marked)}", flush=True)
    print(f"{time.process_time() - started:.0f} s")


if __name__ == "__main__":
    main()

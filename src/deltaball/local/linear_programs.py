"""Linear programs over a ball whose facets are planes (L∞ and L1), solved by HiGHS."""

from collections.abc import Sequence

import highspy
import numpy as np
import torch

from deltaball.local.neighbourhoods import Neighbourhood

# Of the scale of the logits: where the margin is constant, the objective is zero and has no price of its own.
LEAST_PRICE = 1e-3
CONSTANT = 1e-9  # of the offset: rows with smaller weights are as good as constant
PENALTY = 1e4  # the largest multiplier of a program whose rows and objective are scaled to 1

OPTIONS = {
    "output_flag": False,
    "threads": 1,
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}


def solve(
    around: Neighbourhood,
    objective: torch.Tensor,
    rows: torch.Tensor,
    offset: torch.Tensor,
    seconds: float,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multipliers [m] of rows [m, d] · z + offset ≥ 0 in min objective · z over the displacements z [d], and z.

    The rows may be violated at a price, in units of the objective or of `scale` (of the logits' weights), so that there
    is a solution where they contradict each other. Not to be trusted: the solver may err, or be stopped after so many
    `seconds`.
    """
    (m, d), (low, high) = rows.shape, (bound[0].cpu().numpy() for bound in around.box)
    price = torch.maximum(objective.abs().amax(), LEAST_PRICE * scale).clamp(min=1e-30)
    heights = rows.abs().amax(1)
    # What hardly depends on z, as the input of a unit before which all units are off, is measured by its offset.
    heights = torch.where(heights > CONSTANT * offset.abs(), heights, offset.abs()).clamp(min=1e-30)
    objective, rows, offset = (
        scaled.cpu().numpy() for scaled in (objective / price, rows / heights[:, None], offset / heights)
    )
    least, most = -offset, np.full(m, np.inf)
    if not around.is_box:  # L1
        # z = u - v with u, v ≥ 0 of sum at most δ.
        objective, rows = np.concatenate([objective, -objective]), np.concatenate([rows, -rows], 1)
        low, high = np.zeros(2 * d), np.concatenate([high, -low])
        rows = np.concatenate([rows, np.ones((1, 2 * d))])
        least, most = np.append(least, -np.inf), np.append(most, around.radius)
    matrix = np.concatenate([rows, np.eye(len(rows), m)], 1)
    height, width = matrix.shape
    solver = highspy.Highs()
    for option, value in OPTIONS.items():
        solver.setOptionValue(option, value)
    solver.setOptionValue("time_limit", max(0.0, seconds))
    solver.addVars(width, np.append(low, np.zeros(m)), np.append(high, np.full(m, np.inf)))
    solver.changeColsCost(width, np.arange(width), np.append(objective, np.full(m, PENALTY)))
    starts, columns = np.arange(height) * width, np.tile(np.arange(width), height)
    solver.addRows(height, least, most, matrix.size, starts, columns, matrix.ravel())
    solver.run()
    solution = solver.getSolution()
    z, dual = _first(solution.col_value, len(low)), _first(solution.row_dual, m)
    z = z[:d] - z[d:] if len(z) > d else z
    z, dual = (torch.from_numpy(values).to(heights) for values in (z, dual))
    return dual.clamp(min=0) * price / heights, z


def _first(values: Sequence[float], count: int) -> np.ndarray:
    """The first of a solution's values; zeros where the solver has none."""
    return np.array(values[:count]) if len(values) >= count else np.zeros(count)

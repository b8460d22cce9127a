"""Potential energy along the chains of Bayesian networks: a chain that still falls has not reached its posterior."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deltaball.analysis.bayes import ESS, RHAT, converged
from deltaball.figures import readings, style
from deltaball.figures.panels import empty, finish
from deltaball.tables import columns

ACROSS = 4
FAR = 20  # energies further apart than this are drawn on a log scale
FATES = {True: (style.colour("hmc", "fcn"), "-"), False: ("0.35", (0, (4, 1.5)))}


def draw(name: str, networks: pd.DataFrame, folder: Path) -> None:
    """Draw figure ``chains_DATASET`` to `folder` as PNG, SVG and CSV: a panel per step size, a line per chain.

    Energies are divided by the number of weights and biases, which makes chains of all widths comparable.
    """
    dataset = name.removeprefix("chains_")
    planned = networks[(networks["dataset"] == dataset) & (networks["method"] == "hmc")]
    longest = planned.sort_values("posterior_samples").drop_duplicates("trajectory_id", keep="last")
    shown = longest[longest["energies"].notna()].sort_index()
    shown = shown.assign(converged=converged(shown))
    note = (
        f"{len(shown)} of {len(longest)} planned chains, each up to its last sample. Potential energy: minus the log "
        "posterior, without its constant; of independent draws from the prior alone it would be 1/2 per weight. "
        f"Converged: split R-hat ≤ {RHAT} and bulk ESS ≥ {ESS} of every predictive "
        "quantity that is watched."
    )
    figure = _panels(shown) if len(shown) else empty()
    diagnosed = ["acceptance", "divergences", "ess_min", "rhat_max", "status", "converged", "energies"]
    axes = ["parameters", "depth", "width", "activation", "step_size", "leapfrog_steps", "posterior_samples"]
    told = readings.chains(shown) if len(shown) else readings.NOTHING
    finish(figure, name, f"{dataset}: the chains", note, shown[[*columns.IDENTITY, *axes, *diagnosed]], folder, told)


def _panels(shown: pd.DataFrame) -> Figure:
    sizes = sorted(shown["step_size"].unique(), reverse=True)
    rows = -(-len(sizes) // ACROSS)
    figure, panels = plt.subplots(
        rows,
        min(ACROSS, len(sizes)),
        figsize=(9.2, 1.9 * rows + 1.1),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    everything = np.concatenate([_per_weight(chain) for chain in shown.itertuples()])
    if everything.max() > FAR * everything.min():
        panels[0][0].set_yscale("log")
    for panel, size in zip(panels.flat, sizes, strict=False):
        panel.set_title(f"step size {size:g}", loc="left")
        _lines(panel, shown[shown["step_size"] == size])
    for panel in panels.flat[len(sizes) :]:
        panel.set_visible(False)
    for row in panels:
        row[0].set_ylabel("energy per weight")
    for column in range(panels.shape[1]):
        lowest = panels[(len(sizes) - 1 - column) // ACROSS][column]
        lowest.set_xlabel("transition")
        lowest.tick_params(labelbottom=True)
    labels = {True: "converged", False: "not converged"}
    handles = [
        Line2D([], [], color=colour, linestyle=line, label=labels[fate]) for fate, (colour, line) in FATES.items()
    ]
    figure.legend(handles=handles, loc="upper right", ncols=2)
    return figure


def _lines(panel: Axes, chains: pd.DataFrame) -> None:
    for chain in chains.itertuples():
        colour, line = FATES[chain.converged]
        energies = _per_weight(chain)
        transitions = np.linspace(1, chain.posterior_samples, len(energies))
        panel.plot(
            transitions,
            energies,
            color=colour,
            linestyle=line,
            linewidth=1,
            alpha=max(0.2, 1 / len(chains) ** 0.5),
        )


def _per_weight(chain: Any) -> np.ndarray:
    return np.array(chain.energies.split(), float) / chain.parameters

"""What the Snakefile asks of a plan: which files come out, what makes them stale. Light, like the plan."""

import hashlib
from pathlib import Path
from typing import Any

from deltaball.base.errors import InputError
from deltaball.plan.networks import Shard
from deltaball.plan.plan import Plan
from deltaball.study.constraints import CONSTRAINTS
from deltaball.study.grids import Grid, count_matching
from deltaball.study.judges import JUDGES
from deltaball.study.notions import NOTIONS
from deltaball.study.objectives import DEFAULT
from deltaball.study.transfers import NONE

# The statistical tables, `analysis.writing` makes them, and what each holds.
TABLES = {
    "scorecard": "every claim of the paper, part by part",
    "completeness": "networks planned, trained, diverged, failed and measured, per grid",
    "correlations": "of test accuracy with each measure, among all networks and those that learned",
    "regressions": "of each measure, errors clustered by trajectory",
    "mixed": "mixed models, the architecture as random effect",
    "partial_correlations": "of accuracy with each measure, the hyper-parameters held fixed",
    "learned": "every trend among all networks, those that learned, and bands of accuracy",
    "importances": "which hyper-parameters matter: permutation importance beside standardised effects",
    "replicates": "variance over seeds",
    "diagnostics": "of the regressions: collinearity, leverage, residuals",
    "monotonicity": "exceptions to what the truth would do as the ball grows",
    "pruning": "pruned networks against their dense trunks",
    "pruning_tests": "whether the share of weights removed matters",
    "bayes": "trends among Bayesian networks, converged and not",
    "enclosures": "what is proven of each network",
    "convergence": "draws of the test points, and how far they scatter",
    "jobs": "every run of a job",
}

# The tables that studies of one paper have beside these.
PAPERS_TABLES = {
    "000": {"comparison": "trainings side by side: accuracy, R2, which attack is the closest, corruptions, R4"},
    "001": {"metrics": "constraint security, accuracy and satisfaction of every training, side by side"},
}

# The table of studies that have exact answers.
MISSES = {"misses": "of the points that an exact answer violates, how many each attack missed, and what was left open"}

# That of studies with branch and bound of balls.
SETTLING = {
    "settling": "what each attack, certificate and exact answer settles of what is open before it, and its cost"
}

# That of studies in which a grid chooses a value of an axis.
CHOICES = {"choices": "which value of an axis was chosen, by accuracy on training images that were held out"}

# Those of studies that measure distances to the closest violation.
DISTANCES = {
    "distances": "adversarial frequency and severity of every network, by each judge",
    "distance_curves": "adversarial frequency over all distances, with a band around the whole curve",
}

# That of studies with exact distances.
OVERESTIMATES = {"overestimates": "how far above exact distances those of attacks are"}

# The table of studies with kernels or distances.
SCORES = {"scores": "robustness scores in the words of papers 000 and 003: kernel, shape, range"}

# Those of studies with corruptions.
CORRUPTED = {
    "corruptions": "agreement and accuracy by corruption and severity",
    "corruption_errors": "mean corruption error (mCE) beside a reference, and the plain mean of accuracies",
}

# The figures of each paper, each a target of Snakemake, and what a study lacks that has no such figure.
PAPERS_FIGURES = {
    "004": {
        "figure1": "`convergence:` experiment on any of its networks",
        "figure2": "attacked networks of `method: sgd`",
        "figure3": "attacked networks of `method: imp`",
        "figure4": "attacked networks of `method: hmc`",
    },
    "001": {
        "trainings": '`paper: "001"` and networks of several objectives, attacked by a constraint',
        "constraints": '`paper: "001"` and networks of `objective: constrained`, attacked by a constraint',
        "attacks": '`paper: "001"` and networks of several objectives, attacked by a constraint',
        "sizes": '`paper: "001"` and networks of several sizes, attacked by a constraint',
    },
    "002": {},  # its Figure 3 is drawn of every study that seeks distances
    "000": {},  # and so is its Figure 4, margin curves
    "003": {},  # its tables are drawn of every study of corruptions
}

# The kinds of figures, one per data set, that stand beside those of a paper on the page's first screen.
BESIDE_PAPERS = {"001": ("metrics",), "002": ("distances",), "000": ("margins",), "003": ("corruptions", "adaptations")}

METHODS = {"figure2": "sgd", "figure3": "imp", "figure4": "hmc"}

# The kinds of figures, `figures.drawing` draws them; a figure is named after its kind, and most after a data set too.
FIGURES = (
    *PAPERS_FIGURES["004"],
    *PAPERS_FIGURES["001"],
    "metrics",
    "tradeoff",
    "hyperparameters",
    "bayes",
    "chains",
    "pruning",
    "enclosure",
    "settling",
    "convergence",
    "distances",
    "margins",
    "overestimates",
    "corruptions",
    "severities",
    "adaptations",
    "diagnostics",
)

# What estimation collects from the shards.
MEASURED = ("robustness", "outcomes", "curves", "convergence")


def figures(plan: Plan) -> list[str]:
    """The names of the study's figures.

    Those of the study's paper that it has networks for, and of paper 001 its three metrics per data set. Then per data
    set and notion that is attacked a trade-off (but for paper 001), the measure over each hyper-parameter, the effect
    of pruning if any is, Bayesian beside deterministic networks if there are any, an enclosure where certificates are
    asked too, and what each judge settles where branch and bound is one of them; per data set the traces of its chains,
    the convergence of its experiments, the curves of distances to violations and of margins, attacks beside exact
    distances, networks under corruptions, over severities and over the images that they were adapted with, and the
    residuals of its regressions.
    """
    found = [name for name in PAPERS_FIGURES[plan.study.paper] if _has(plan, name)]
    if plan.study.paper == "001":
        found += [f"metrics_{dataset}" for dataset in plan.facts if _constraints(plan, {dataset})]
    for dataset in plan.facts:
        grids = [grid for grid in plan.study.grids if grid.dataset == dataset]
        pruned = [grid for grid in grids if grid.is_pruning]
        averaged = [grid for grid in grids if grid.averages_samples]

        def notions(grids: list[Grid], attacked: bool) -> list[str]:
            asked = [one for one in plan.measures if any(count_matching(one.wanted, grid) for grid in grids)]
            return list(dict.fromkeys(one.notion for one in asked if (one.attack if attacked else one.certificate)))

        # A line through networks of several trainings would tell the trainings apart, and no trade-off.
        found += [f"tradeoff_{dataset}_{notion}" for notion in notions(grids, True) if plan.study.paper != "001"]
        found += [f"hyperparameters_{dataset}_{notion}" for notion in notions(grids, True)]
        found += [f"bayes_{dataset}_{notion}" for notion in notions(averaged, True)]
        found += [f"chains_{dataset}"] if averaged else []
        found += [f"pruning_{dataset}_{notion}" for notion in notions(pruned, True)]
        found += [f"enclosure_{dataset}_{one}" for one in notions(grids, True) if one in notions(grids, False)]
        branched = dict.fromkeys(notion for grid in grids for notion in _branches(plan, grid))
        found += [f"settling_{dataset}_{one}" for one in branched]
        if any(network.dataset == dataset for experiment in plan.experiments for network in experiment.networks):
            found.append(f"convergence_{dataset}")
        if _seeks_distances(plan, grids):
            found += [f"distances_{dataset}", f"margins_{dataset}"]
        if _knows_distances(plan, grids):
            found.append(f"overestimates_{dataset}")
        if _severities(plan, grids):
            found.append(f"corruptions_{dataset}")
        if any(len(one) > 1 for one in _severities(plan, grids).values()):
            found.append(f"severities_{dataset}")
        adapted = any(grid.adapts or grid.transfer != [NONE] for grid in grids)
        if adapted and "mnist_c" in {name for _, name in _severities(plan, grids)}:
            found.append(f"adaptations_{dataset}")
        if notions(grids, True):
            found.append(f"diagnostics_{dataset}")
    return found


def figure_kind(name: str) -> str:
    """The kind, of FIGURES, of a figure."""
    return name.partition("_")[0]


def paper_kinds(plan: Plan) -> tuple[str, ...]:
    """The kinds of figures that belong to the study's paper, as the page's first screen shows them."""
    paper = plan.study.paper
    return (*PAPERS_FIGURES[paper], *BESIDE_PAPERS.get(paper, ()))


def pictures(plan: Plan) -> bool:
    """Whether the page waits for images of networks: not where there are tables alone, and no store to draw from."""
    return plan.study.store.exists() or not (plan.study.folder / "networks.parquet").exists()


def tables(plan: Plan) -> dict[str, str]:
    """The statistical tables of a study, and what each holds."""
    decided = {NOTIONS[one.notion].is_distance for one in plan.measures if JUDGES[one.judge].says == "decides"}
    found = TABLES | (MISSES if False in decided else {})
    found |= SETTLING if any(_branches(plan, grid) for grid in plan.study.grids) else {}
    found |= DISTANCES if _seeks_distances(plan, plan.study.grids) else {}
    found |= OVERESTIMATES if _knows_distances(plan, plan.study.grids) else {}
    scored = any(one.kernel or NOTIONS[one.notion].is_distance for one in plan.measures)
    corrupted = CORRUPTED if _severities(plan, plan.study.grids) else {}
    found |= CHOICES if any(grid.choose for grid in plan.study.grids) else {}
    return found | (SCORES if scored else {}) | corrupted | PAPERS_TABLES.get(plan.study.paper, {})


def _branches(plan: Plan, grid: Grid) -> list[str]:
    """The notions, but for distances, by which branch and bound judges networks of the grid."""
    asked = [one for one in plan.measures if JUDGES[one.judge].branches and not NOTIONS[one.notion].is_distance]
    return list(dict.fromkeys(one.notion for one in asked if count_matching(one.wanted, grid)))


def _seeks_distances(plan: Plan, grids: list[Grid]) -> bool:
    """Whether the distance to the closest violation is sought for networks of these grids."""
    seeking = [one for one in plan.measures if NOTIONS[one.notion].is_distance and JUDGES[one.judge].says != "proves"]
    return any(count_matching(one.wanted, grid) for one in seeking for grid in grids)


def _knows_distances(plan: Plan, grids: list[Grid]) -> bool:
    """Whether exact distances are sought for networks of these grids."""
    exact = [one for one in plan.measures if NOTIONS[one.notion].is_distance and JUDGES[one.judge].says == "decides"]
    return any(count_matching(one.wanted, grid) for one in exact for grid in grids)


def _severities(plan: Plan, grids: list[Grid]) -> dict[tuple[str, str], set[Any]]:
    """The severities at which networks of these grids are measured, by notion and corruption."""
    found: dict[tuple[str, str], set[Any]] = {}
    for one in plan.measures:
        if one.corrupts and any(count_matching(one.wanted, grid) for grid in grids):
            severity = dict(one.kernel.parameters).get("severity")
            found.setdefault((one.notion, one.kernel.name), set()).add(severity)
    return found


def paper_figure(plan: Plan, name: str) -> str:
    """The name of a paper's figure, itself. Raises InputError when the study plans nothing that it could show."""
    lacks = {figure: lacking for figures in PAPERS_FIGURES.values() for figure, lacking in figures.items()}
    if not _has(plan, name):
        raise InputError(f"{name}: the study '{plan.study.study}' has no {lacks[name]}")
    return name


def _has(plan: Plan, name: str) -> bool:
    if name in PAPERS_FIGURES["001"]:
        return plan.study.paper == "001" and _compares(plan, name)
    if name == "figure1":
        return any(experiment.networks for experiment in plan.experiments)
    grids = [grid for grid in plan.study.grids if grid.method == METHODS[name]]
    return any(count_matching(one.wanted, grid) for one in plan.measures if one.attack for grid in grids)


def _compares(plan: Plan, name: str) -> bool:
    """Whether a figure of paper 001 has something to compare."""
    grids = _constraints(plan, set(plan.facts))
    if name == "sizes":
        shapes = {plan.trajectories[one.trajectory_id].parameters for one in plan.networks if one.grid in grids}
        return len(shapes) > 1
    objectives = {grid.objective for grid in plan.study.grids if grid.name in grids}
    return "constrained" in objectives if name == "constraints" else bool(objectives - {DEFAULT})


def _constraints(plan: Plan, datasets: set[str]) -> set[str]:
    """The grids on these data sets of which networks are attacked by a constraint of paper 001."""
    asked = [one for one in plan.measures if one.attack and NOTIONS[one.notion].family in CONSTRAINTS]
    grids = [grid for grid in plan.study.grids if grid.dataset in datasets]
    return {grid.name for grid in grids if any(count_matching(one.wanted, grid) for one in asked)}


def networks_digest(plan: Plan) -> str:
    """Changes when the rows of networks.parquet would be others."""
    return _digest(f"{network.id} {network.grid}" for network in plan.networks)


def shard_digest(plan: Plan, shard: Shard) -> str:
    """Changes when the networks that stand on a shard's checkpoints are others, though the checkpoints are the same."""
    return _digest(one.id for one in plan.networks_of(shard.trajectories))


def measures_digest(plan: Plan, shard: Shard) -> str:
    """Changes when a shard's networks, their measures, or the points they are taken on, are others."""
    asked = [
        f"{network.id} {one.kept_as} {samples} {one.epsilon} {one.confidence}"
        for network in plan.networks_of(shard.trajectories)
        for one, samples in plan.asked_of(network).items()
    ]
    return _digest([shard_digest(plan, shard), *asked, str(plan.study.guarantee.seed)])


def collection_digest(plan: Plan) -> str:
    """Changes when the tables that collect the shards' parts would be others though the parts are the same."""
    experiments = [f"{one.measures} {one.epsilons} {one.draws}" for one in plan.experiments]
    return _digest([networks_digest(plan), *experiments])


def file_digest(path: Path) -> str:
    """Changes with a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _digest(lines: Any) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

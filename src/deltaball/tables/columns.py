"""The columns of a study's tables: the contract between the rooms."""

IDENTITY = ["network_id", "trajectory_id", "grid", "dataset", "method", "architecture"]

RESULTS = {
    "sparsity": "float64",  # of the prunable weights
    "sparsity_total": "float64",  # of all weights and biases
    "empty_layers": "Int64",  # prunable layers of which nothing is left
    "trunk_accuracy": "float64",  # of a pruned or fine-tuned network: the test accuracy of what it began as
    "examples_sought": "Int64",  # of a fine-tuned network: training images whose examples its last round sought
    "examples_found": "Int64",  # of these, those that have one
    "examples_lost": "Int64",  # and those that had one until it was rounded to 256 levels
    "examples_learned": "Int64",  # examples among its training images, of earlier rounds too where they are kept
    "train_accuracy": "float64",
    "test_accuracy": "float64",
    "test_loss": "float64",
    "chosen_epoch": "Int64",  # the best on training images that were held out; null where none were
    "validation_accuracy": "float64",  # on these, in that epoch
    "acceptance": "float64",  # of a chain, like the next three: mean acceptance probability of its transitions
    "divergences": "Int64",  # transitions whose energy error exceeds 1,000
    "ess_min": "float64",  # smallest bulk effective sample size of a predictive quantity
    "rhat_max": "float64",  # largest split R-hat of one
    "energies": "str",  # potential energies, with spaces, of at most 100 transitions spread up to its last sample
    "status": "str",
    "reason": "str",  # why it diverged or failed
    "data_sha256": "str",
    "software": "str",
    "device": "str",
}

ROBUSTNESS = {
    "network_id": "str",
    "measure": "str",
    "notion": "str",
    "norm": "str",  # of the ball; null for a kernel
    "delta": "float64",  # its radius
    "perturbation": "str",  # the kernel from where images are drawn; null for a ball
    "perturbation_size": "float64",  # how far a kernel moves them: σ, δ, severity; of a family, at most
    "gamma": "float64",  # the notion's threshold, whatever its symbol: γ, η, L, the bound
    "attack": "str",  # null for others
    "certificate": "str",  # null for others
    "sampling": "str",  # null for others
    "samples": "int64",
    "estimate": "float64",
    "trunk_estimate": "float64",  # of a pruned or fine-tuned network: the estimate of what it began as
    "lower": "float64",
    "upper": "float64",
    "epsilon": "float64",
    "confidence": "float64",
    "inequality": "str",
    "side": "str",
    "tight_lower": "float64",  # the interval that the outcomes themselves make
    "tight_upper": "float64",
    "tight_inequality": "str",
    "undecided": "Int64",  # points that an exact answer left open
    "no_gradient": "Int64",  # points at which the attack had no gradient; null for a certificate
    "found_by": "str",  # of an ensemble: its attacks, each with the number of points at which its image is the closest
    "points_seed": "Int64",  # of the study, which draws the test points
}

CURVES = {
    "network_id": "str",
    "notion": "str",
    "norm": "str",
    "gamma": "float64",
    "delta": "float64",
    "samples": "int64",
    "confidence": "float64",
    "attacked": "float64",
    "certified": "float64",
    "open": "float64",
    "lower": "float64",
    "upper": "float64",
}

CONVERGENCE = {
    "experiment": "int64",
    "network_id": "str",
    "measure": "str",
    "notion": "str",
    "norm": "str",
    "delta": "float64",
    "gamma": "float64",
    "attack": "str",
    "certificate": "str",
    "epsilon": "float64",
    "confidence": "float64",
    "samples": "int64",
    "draw": "int64",
    "estimate": "float64",
    "test_points": "int64",
    "whole": "float64",
    "deviation": "float64",
}

JOBS = {
    "stage": "str",
    "shard": "str",
    "grid": "str",
    "dataset": "str",
    "status": "str",
    "started": "str",
    "host": "str",
    "processor": "str",
    "device": "str",
    "software": "str",
    "code": "str",  # git commit
    "wall_seconds": "float64",
    "device_seconds": "float64",  # of a CPU's work; on a GPU, the time that it was held
    "memory_mb": "float64",  # the largest, of the host
    "device_memory_mb": "float64",
    "failures": "Int64",  # trajectories
    "reason": "str",
}

# Tables of an earlier version lack these columns. Their test points count as drawn by the default seed.
ABSENT_IN_OLD_TABLES = dict.fromkeys(
    ("energies", "sampling", "perturbation", "perturbation_size", "found_by", "chosen_epoch", "validation_accuracy")
)
ABSENT_IN_OLD_TABLES |= dict.fromkeys(name for name in RESULTS if name.startswith("examples_"))
ABSENT_IN_OLD_TABLES |= {"points_seed": 0}

COLUMN_TYPES = {int: "Int64", float: "float64", str: "str"}

# Pictures, not results: test points of a few networks and what attacks made of them.
EXAMPLES = {
    "network_id": "str",
    "dataset": "str",
    "point": "int64",  # its place among the points that every network is measured on
    "label": "int64",
    "measure": "str",
    "attack": "str",
    "delta": "float64",
    "norm": "str",
    "predicted": "int64",  # the class of the image, as the network has it
    "became": "int64",  # the class of its twin
    "height": "int64",
    "width": "int64",
    "channels": "int64",
    "image": "object",  # uint8 [height, width, channels]
    "perturbed": "object",
}

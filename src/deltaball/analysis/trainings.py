"""How networks were trained, as paper 001 names it: what its figures compare and its claims are about."""

import pandas as pd

from deltaball.analysis.judges import display_name
from deltaball.study.corruptions import JOINT, SEVERAL

# How pictures and pages name them.
ARCHITECTURES = {"fcn": "FCN", "cnn": "CNN", "vgg": "VGG", "lenet": "LeNet", "nin": "NiN", "resnet20": "ResNet20"}
ARCHITECTURES |= {"conv5": "Conv5", "mnist_c_cnn": "MNIST-C CNN", "rbf_svm": "RBF-SVM", "file": "file"}
METHODS = {"sgd": "SGD", "imp": "IMP", "finetune": "fine-tuning", "hmc": "HMC", "svm": "SVM", "given": "GIVEN"}
METHODS |= {"adapt": "adapted"}
# How a network was adapted to corruptions, as pictures and pages name it.
ADAPTATIONS = {"batch_norm": "batch statistics", "coral": "CORAL", "transfer": "transfer"}
NONE = "none"
BASELINE = "baseline"
ORIGINAL, NOTHING = "original", "nothing"  # what a network that is not fine-tuned, or without an example, is tuned on
# By objective, the axis that says which training it is.
KINDS = {"augmented": "noise", "adversarial": "against", "constrained": "constraint"}
TITLES = {
    BASELINE: "Baseline",
    "augmented_uniform": "Augmentation (RU)",
    "augmented_fgsm": "Augmentation (FGSM)",
    "augmented_gaussian": "Augmentation (Gaussian)",
    "adversarial_standard_robustness": "Adversarial training",
    "adversarial_label": "Adversarial training (label)",
    "constrained_standard_robustness": "Constraint loss (SR)",
    "constrained_lipschitz_robustness": "Constraint loss (LR)",
    "constrained_strong_classification": "Constraint loss (SCR)",
    "constrained_strong_classification_of_logits": "Constraint loss (SCR of logits)",
    "constrained_classification": "Constraint loss (CR)",
    "trades": "TRADES",
    "cross_lipschitz": "cross-Lipschitz",
    "cotraining": "Co-training",
    "on_manifold": "on the manifold",
    "on_manifold_adversarial": "on-manifold adversarial",
    "mart": "MART",
    "ibp": "IBP training",
    "crown_ibp": "CROWN-IBP training",
}
UNNAMED = ("sgd", "finetune", "svm", "adapt")  # methods that a network's kind tells otherwise, or need not tell
LONGEST = 32  # letters of a constraint that a user wrote


def trainings(networks: pd.DataFrame) -> pd.Series:
    """The training of each row: `baseline` for cross-entropy, else the objective and, where it has kinds, which.

    A support vector machine that saw noisy copies is augmented, though it has no objective to say so.
    """
    found = networks["objective"].astype("str").where(networks["objective"] != "cross_entropy", BASELINE)
    for objective, axis in KINDS.items():
        chosen = networks["objective"] == objective
        found = found.where(~chosen, objective + "_" + networks[axis].astype("str"))
    noisy = networks.get("noise_deviation", pd.Series(0.0, networks.index)).astype(float).fillna(0) > 0
    return found.mask(noisy, "augmented_gaussian")


def title(training: str) -> str:
    """A training as figures call it."""
    if training in TITLES:
        return TITLES[training]
    kind, _, rest = training.partition("_")
    if kind not in KINDS:
        return training
    text = rest if len(rest) <= LONGEST else f"{rest[: LONGEST - 1]}…"
    return f"{'Constraint loss' if kind == 'constrained' else kind.capitalize()} ({text})"


def kinds(networks: pd.DataFrame) -> pd.Series:
    """What each network is, in words: its architecture, its method where that is not SGD, and how it was trained.

    Its size too where some networks of its architecture are fine-tuned, and these have not all the size of the others:
    a fine-tuned network is to stand beside the originals of its own size.
    """
    return pd.Series([_kind(*row) for row in zip(*_told(networks), strict=True)], networks.index, dtype="str")


def tuned_on(networks: pd.DataFrame) -> pd.Series:
    """What each network was fine-tuned on: an attack, `nothing` where no example was found, `original` if it was not.

    Networks of methods that are neither SGD nor fine-tuning are named by it.
    """
    nothing = pd.Series(None, networks.index, dtype="object")
    rounds = networks.get("rounds", nothing).astype(float).fillna(0)
    tuned = (networks["method"] == "finetune") & (rounds > 0)
    names = networks["method"].where(~networks["method"].isin(["sgd", "finetune", "adapt"]), ORIGINAL).astype("object")
    names = names.mask(tuned, networks.get("adversary", nothing))
    return names.mask(tuned & (networks.get("examples_learned", nothing).astype(float) == 0), NOTHING).astype("str")


def adaptations(networks: pd.DataFrame) -> pd.DataFrame:
    """How each network was adapted to corruptions: by which `adaptation` (none: it was not), with how many images.

    `pooled` is joint where these are of all or several corruptions, separate where they are of one, whichever it is.
    """
    nothing = pd.Series(None, networks.index, dtype="object")
    by, corruption = (networks.get(name, nothing).astype("object") for name in ("adaptation", "corruption"))
    there = by.notna()
    pooled = corruption.isin([JOINT, SEVERAL]).map({True: "joint", False: "separate"}).where(there)
    counts = networks.get("corrupted_images", nothing).astype("Int64")
    return pd.DataFrame({"adaptation": by.where(there, NONE), "pooled": pooled, "corrupted_images": counts})


def adapted(networks: pd.DataFrame) -> pd.Series:
    """The same in words; "" where a network was not adapted."""
    found = adaptations(networks)
    names = found["adaptation"].map(ADAPTATIONS).astype("str")
    told = names + ", " + found["pooled"].astype("str") + " " + found["corrupted_images"].astype("str")
    return told.where(found["adaptation"] != NONE, "").astype("str")


def _told(networks: pd.DataFrame) -> list[pd.Series]:
    nothing = pd.Series(None, networks.index, dtype="object")
    tuned = [tuned_on(networks), networks.get("rounds", nothing)]
    found = [networks["architecture"], _sizes(networks), networks["method"], trainings(networks)]
    return [*found, *tuned, adapted(networks)]


def _sizes(networks: pd.DataFrame) -> pd.Series:
    """The size of each network where kinds tell sizes apart, such as 2×64, after a space."""
    sizes = pd.Series("", networks.index, dtype="str")
    if not {"parameters", "depth", "width"} <= {*networks}:
        return sizes
    for _, members in networks.groupby(["dataset", "architecture"]):
        if (members["method"] == "finetune").any() and members["parameters"].nunique() > 1:
            shapes = members[["depth", "width", "parameters"]].itertuples(index=False)
            sizes[members.index] = [
                f" of {weights:,} weights" if pd.isna(depth) or pd.isna(width) else f" {int(depth)}×{int(width)}"
                for depth, width, weights in shapes
            ]
    return sizes


def _kind(
    architecture: str, size: str, method: str, training: str, tuned: str, rounds: int | None, adaptation: str
) -> str:
    parts = [ARCHITECTURES[architecture] + size, *([METHODS[method]] if method not in UNNAMED else [])]
    if training != BASELINE:
        parts.append(title(training))
    if adaptation:
        parts.append(adaptation)
    if tuned == NOTHING:
        parts.append(f"trained on without examples, T = {int(rounds)}")
    elif method == "finetune" and tuned != ORIGINAL:
        parts.append(f"fine-tuned by {display_name(tuned)}, T = {int(rounds)}")
    return ", ".join(parts)


def in_order(found: pd.Series) -> list[str]:
    """The trainings that there are, those of the paper first and in its order."""
    there = list(found.unique())
    return [one for one in TITLES if one in there] + sorted(one for one in there if one not in TITLES)

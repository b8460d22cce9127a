"""One look for every figure: a colour per method, a mark and a shade per architecture."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.style
from matplotlib.ticker import FuncFormatter

from deltaball.analysis import trainings
from deltaball.study import judges as study_judges

# Okabe & Ito's colours, told apart by colour-blind readers; the two shades differ in lightness, so that
# architectures stay apart in grey print too.
SHADES = {"sgd": ("#0072B2", "#56B4E9"), "imp": ("#00664B", "#33C7A0"), "hmc": ("#A0457A", "#E3A3C8")}
SHADES |= {"finetune": ("#8A4B08", "#D9A066")}
SHADES |= {"adapt": ("#7A7A00", "#C2C23D")}
SHADES |= {"svm": ("#8C6BB1", "#8C6BB1")}
SHADES |= {"given": ("#4D4D4D", "#8C8C8C")}
MARKS = {
    "fcn": "o",
    "cnn": "^",
    "vgg": "s",
    "lenet": "<",
    "nin": "v",
    "resnet20": "P",
    "conv5": ">",
    "mnist_c_cnn": "p",
    "rbf_svm": "*",
}
MARKS |= {"file": "D"}
# Shares as they are: where an axis is short, ticks have the digits that tell them apart.
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.4g}%")
# Attacks in blue, certificates warm, the exact answer black; a mark each.
JUDGES = {
    "fgsm": ("#56B4E9", "X"),
    "generator": ("#4EB3D3", ">"),
    "lbfgs": ("#9ECAE1", "d"),
    "linear_region": ("#66A61E", "h"),
    "bg": ("#6BAED6", "P"),
    "ensemble": ("#2B4C7E", "*"),
    "fmn": ("#003F6B", "s"),
    "walk": ("#1B7837", "H"),
    "pgd": ("#0072B2", "o"),
    "ibp": ("#CC79A7", "v"),
    "crown": ("#E69F00", "^"),
    "alpha_crown": ("#D55E00", "<"),
    "branched": ("#8C2D04", ">"),
    "exact": ("#000000", "D"),
    "exact_distance": ("#000000", "D"),
}
UNKNOWN_JUDGES = (("#009E73", "P"), ("#A0457A", "*"), ("#999999", "p"))  # of judges that have no look of their own
SAMPLES = "#A50F15"  # the paper's red line
NAMES, METHODS = trainings.ARCHITECTURES, trainings.METHODS
CAPACITY, DURATION = ("#8F74B8", "#D2C6E6"), ("#5BA37C", "#BFE0CC")  # the paper's purple and green box plots
# Paper 001: trainings, the constraint losses warm; constraints; and its three metrics.
TRAININGS = {
    "baseline": "#000000",
    "augmented_uniform": "#56B4E9",
    "augmented_fgsm": "#0072B2",
    "augmented_gaussian": "#8FB8DE",
    "adversarial_standard_robustness": "#009E73",
    "adversarial_label": "#5BA37C",
    "constrained_standard_robustness": "#E69F00",
    "constrained_lipschitz_robustness": "#D55E00",
    "constrained_strong_classification": "#CC79A7",
    "constrained_strong_classification_of_logits": "#A0457A",
    "constrained_classification": "#E3A3C8",
    "trades": "#6F6F6F",
    "mart": "#9C9C9C",
    "cross_lipschitz": "#8C6D31",
    "cotraining": "#B5446E",
    "on_manifold": "#4D9221",
    "on_manifold_adversarial": "#A6C36F",
    "ibp": "#7A5195",
    "crown_ibp": "#B08FC7",
}
OTHER_TRAINING = "#8F74B8"
CONSTRAINTS = ("#E69F00", "#D55E00", "#CC79A7", "#A0457A", "#0072B2", "#009E73", "#000000")
KINDS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of networks, in one panel
METRICS = {
    "security": {"color": "#0072B2", "marker": "v", "markersize": 5},
    # A ring, through which the others are seen.
    "accuracy": {"color": "#009E73", "marker": "o", "markersize": 8, "fillstyle": "none"},
    "satisfaction": {"color": "#D55E00", "marker": "^", "markersize": 5},
}
STYLE = Path(__file__).with_name("deltaball.mplstyle")


def colour(method: str, architecture: str) -> str:
    """Fully connected networks are dark, convolutional ones light."""
    return SHADES[method][0 if architecture == "fcn" else 1]


def judge(name: str) -> tuple[str, str]:
    """Colour and mark of an attack or certificate."""
    others = [other for other in study_judges.JUDGES if other not in JUDGES]
    return JUDGES[name] if name in JUDGES else UNKNOWN_JUDGES[others.index(name) % len(UNKNOWN_JUDGES)]


def use() -> None:
    """Draw without a screen, in deltaball's style."""
    mpl.use("Agg")
    mpl.style.use(STYLE)

"""What a figure shows, in one sentence that says no more than its data do."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from deltaball.analysis.bayes import converged
from deltaball.analysis.enclosures import ROUNDING
from deltaball.analysis.judges import display_name, titles
from deltaball.analysis.pruning import FEWEST_TRUNKS
from deltaball.analysis.settling import order
from deltaball.figures import style
from deltaball.figures.trends import CONFIDENCE, fitted
from deltaball.study.axes import radius_text
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import NOTIONS

NOTHING = "Nothing is measured yet."
PER = 0.1  # of accuracy, 10 points
COOKS = 0.5  # beyond it a network moves a fit by itself (Cook and Weisberg 1982)


def trends(panels: Iterable[pd.DataFrame], kinds: Sequence[str] = ("method", "architecture")) -> str:
    """What robustness does as accuracy rises, of the panels' networks of each kind, by the lines' own intervals."""
    told: dict[str, list[str]] = {}
    spans = []
    for panel in panels:
        for _, members in panel.groupby(list(kinds), sort=False):
            trend = fitted(members)
            if trend is None or members["estimate"].nunique() < 2:
                continue
            # A rising D is falling robustness.
            sign = -1 if _quantity(members) == "D" else 1
            lower, upper = sorted(sign * end for end in trend.slope())
            verdict = "falls" if upper < 0 else "rises" if lower > 0 else "either"
            told.setdefault(style.METHODS[members["method"].iloc[0]], []).append(verdict)
            spans.append((PER * lower, PER * upper))
    if not spans:
        return "No line can be fitted: too few independent trainings, or all networks are alike."
    if len(spans) == 1:
        return f"Per 10 points of accuracy robustness changes by {_between(*spans[0])} (95 % interval)."
    parts = [f"among {method} networks {_counted(verdicts)}" for method, verdicts in told.items()]
    return f"As accuracy rises, robustness {'; '.join(parts)} (95 % interval of each slope, taken alone)."


def _counted(verdicts: list[str]) -> str:
    words = {"falls": "falls in", "rises": "rises in", "either": "is undecided in"}
    there = [f"{text} {verdicts.count(verdict)}" for verdict, text in words.items() if verdict in verdicts]
    return f"{' and '.join(there)} of {len(verdicts)} fits"


def hyperparameters(panels: dict[str, pd.DataFrame], kinds: list[str]) -> str:
    """Over which hyper-parameter the medians lie furthest apart."""
    spans = []
    for axis, shown in panels.items():
        for (method, architecture), members in shown.groupby(kinds, sort=False):
            medians = members.groupby(axis)["estimate"].median()
            if len(medians) > 1:
                spans.append((medians.max() - medians.min(), axis, method, architecture, medians.min(), medians.max()))
    if not spans:
        return NOTHING
    _, axis, method, architecture, low, high = max(spans, key=lambda span: span[0])
    of = f"{style.NAMES[architecture]} networks by {style.METHODS[method]}"
    if low == high:
        return "The medians are the same over every hyper-parameter."
    digits = next(count for count in (2, 3, 4, 6) if count == 6 or f"{low:.{count}f}" != f"{high:.{count}f}")
    apart = f"from {low:.{digits}f} to {high:.{digits}f}"
    return f"Medians lie furthest apart over {axis.replace('_', ' ')}, of {of}: {apart}."


def pruning(panels: Sequence[pd.DataFrame]) -> str:
    """What the severest pruning did to robustness, by the differences from the networks' own dense trunks."""
    spans = []
    for panel in panels:
        pruned = panel[(panel["method"] == "imp") & panel["trunk_estimate"].notna()]
        severest = pruned[pruned["proportion"] == pruned["proportion"].max()]
        sign = -1 if len(panel) and _quantity(panel) == "D" else 1
        means = (sign * (severest["estimate"] - severest["trunk_estimate"])).groupby(severest["cluster"]).mean()
        if len(means) >= FEWEST_TRUNKS:
            half = stats.t.ppf((1 + CONFIDENCE) / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
            spans.append((severest["proportion"].iloc[0], means.mean() - half, means.mean() + half))
    if not spans:
        return "Too few dense trunks to say what pruning did to robustness."
    # What every interval leaves possible.
    share, lower, upper = spans[0][0], min(span[1] for span in spans), max(span[2] for span in spans)
    every = "" if len(spans) == 1 else " in each panel"
    return (
        f"With {100 * share:g} % of the weights removed, robustness has changed{every} on average by "
        f"{_between(lower, upper)} (95 % intervals)."
    )


def chains(shown: pd.DataFrame) -> str:
    """How many chains have converged."""
    count = int(converged(shown).sum())
    return f"{count} of {len(shown)} chains {'has' if count == 1 else 'have'} converged by the last sample."


def residuals(shown: pd.DataFrame) -> str:
    """How many networks move a fit by themselves."""
    fits = shown.groupby(["method", "architecture", "measure"])["leverage"]
    terms = fits.transform("sum")
    cooks = shown["studentised"] ** 2 * shown["leverage"] / (terms * (1 - shown["leverage"]))
    count = int((cooks > COOKS).sum())
    moved = f"{count} of {len(shown)} points move" if count else f"None of {len(shown)} points moves"
    return f"{moved} a fit by {'themselves' if count else 'itself'} (Cook's distance above {COOKS:g})."


def enclosure(shown: pd.DataFrame) -> str:
    """How much of the networks' robustness is left open."""
    decided, narrow = int((shown["gap"] < ROUNDING).sum()), int((shown["gap"] < shown["epsilon"]).sum())
    return (
        f"Of {len(shown)} pairs of network and ball, {decided} {'is' if decided == 1 else 'are'} decided at every test "
        f"point and {narrow} to within ε; half are known to within {shown['gap'].median():.3f}."
    )


def settling(shown: pd.DataFrame) -> str:
    """What each judge settled of all pairs of network and ball, and what share of the time it took."""
    pairs = len(shown.drop_duplicates(["network_id", "norm", "gamma", "delta"]))
    judges = sorted(shown["judge"].unique(), key=order)
    share = shown.groupby("judge")["settled"].sum() / pairs
    what = "of D's range" if _quantity(shown) == "D" else "of the points"
    names = titles(judges)
    each = [f"{names[one]} {100 * share[one]:.1f} %" for one in judges]
    took = shown.groupby("judge")["seconds"].sum(min_count=1)
    most = f" {100 * took.max() / took.sum():.0f} % of the time went to {names[took.idxmax()]}." if took.any() else ""
    return (
        f"Share {what} that each settled, on average: {', '.join(each)}; {100 * (1 - share.sum()):.1f} % "
        f"{'is' if _quantity(shown) == 'D' else 'are'} left open.{most}"
    )


def distances(shown: pd.DataFrame, within: Sequence[float]) -> str:
    """Between which kinds of networks each judge's frequency lies, at the largest ε of the tables that all reach."""
    reach = shown.groupby(["by", "norm"])["within"].max().min()
    at = max((one for one in within if one <= reach), default=reach)
    near = shown[shown["within"] <= at * (1 + ROUNDING)]
    last = near.sort_values("within").drop_duplicates(["network_id", "by", "norm"], keep="last")
    told = []
    for (by, norm), members in last.groupby(["by", "norm"], sort=False):
        means = members.groupby("kind", sort=False)["frequency"].mean()
        named = f"{display_name(by)}{'' if norm == 'linf' else f' in {NORMS[norm]}'} finds"
        if len(means) == 1:
            told.append(f"{named} {100 * means.iloc[0]:.1f} %")
        else:
            low, high = (f"{100 * means[one]:.1f} % ({one})" for one in (means.idxmin(), means.idxmax()))
            told.append(f"{named} {low} to {high}")
    return f"A violation within {radius_text(last['within'].max())}: {'; '.join(told)}."


def overestimates(table: pd.DataFrame) -> str:
    """How often each attack finds the exact distance, and how far above it is."""
    told = []
    for (attack, norm), members in table.groupby(["attack", "norm"], sort=False):
        share = np.average(members["near"], weights=members["points"])
        missed = np.average(members["missed"], weights=members["points"])
        low, high = members["median"].min(), members["median"].max()
        medians = f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
        named = f"{display_name(attack)}{'' if norm == 'linf' else f' in {NORMS[norm]}'}"
        told.append(
            f"{named} {100 * share:.0f} % (nothing at {100 * missed:.0f} %; what is found is {medians} ρ in the median)"
        )
    return f"The exact distance is found at a share of the points: by {', '.join(told)}."


def margins(shown: pd.DataFrame) -> str:
    """Between which kinds of networks the mean margins lie that each judge finds."""
    told = []
    for (by, norm), members in shown.drop_duplicates(["network_id", "measure"]).groupby(["by", "norm"], sort=False):
        means = members.groupby("kind", sort=False)["r2"].mean()
        named = f"by {display_name(by)}{'' if norm == 'linf' else f' in {NORMS[norm]}'}"
        low, high = (f"{means[one]:.3g} ({one})" for one in (means.idxmin(), means.idxmax()))
        told.append(f"{means.iloc[0]:.3g} {named}" if len(means) == 1 else f"{low} to {high} {named}")
    return f"Mean margin, R2: {'; '.join(told)}."


def corruptions(shown: pd.DataFrame) -> str:
    """Which corruption costs most, on average over kinds, and which kind keeps most."""
    told = []
    single = shown[~shown["corruption"].isin(["identity", "mnist_c"])]
    for quantity, members in single.groupby("quantity", sort=False):
        over = members.groupby(["kind", "title"])["estimate"].mean().unstack()
        by_title, by_kind = over.mean(), over.mean(axis=1)
        told.append(
            f"{quantity} is lowest under {by_title.idxmin()}, {100 * by_title.min():.0f} % on average over kinds; the "
            f"mean over corruptions is highest for {by_kind.idxmax()}, {100 * by_kind.max():.0f} %"
        )
    return f"Under corruption {'; '.join(told)}." if told else NOTHING


def severities(shown: pd.DataFrame) -> str:
    """How much each corruption costs from its least severity that was measured to its greatest."""
    told = []
    for (quantity, title), members in shown.groupby(["quantity", "title"], sort=False):
        means = members.groupby("severity")["estimate"].mean()
        told.append(f"{title} from {100 * means.iloc[0]:.0f} to {100 * means.iloc[-1]:.0f} % {quantity}")
    return f"From the least severity to the greatest, means over networks: {'; '.join(told)}."


def adaptations(shown: pd.DataFrame, unadapted: str) -> str:
    """What each adaptation adds to its classifier, of the most corrupted images that it sees."""
    told = []
    for classifier, members in shown.groupby("classifier", sort=False):
        means = members.groupby(["by", "corrupted_images"], dropna=False)["estimate"].mean().reset_index()
        most = means.groupby("by", sort=False).tail(1).set_index("by")["estimate"]
        if unadapted in most:
            gains = {by: f"{100 * (mean - most[unadapted]):+.1f}" for by, mean in most.drop(unadapted).items()}
            gains = [f"{by} {gain.replace('-', '−')}" for by, gain in gains.items()]
            told.append(f"{classifier}, {100 * most[unadapted]:.1f} % as it is: {', '.join(gains)} points")
    return f"With the most images, on average of the fifteen: {'; '.join(told)}." if told else NOTHING


def convergence(spread: pd.DataFrame) -> str:
    """How many draws kept the promise."""
    draws = int(spread["draws"].sum())
    within = int((spread["within_epsilon"] * spread["draws"]).round().sum())
    return f"{within:,} of {draws:,} draws lie within ε of the mean over all test points."


def _quantity(members: pd.DataFrame) -> str:
    return NOTIONS[members["notion"].iloc[0]].quantity


def _between(lower: float, upper: float) -> str:
    return f"{lower:+.3f} to {upper:+.3f}".replace("-", "−")

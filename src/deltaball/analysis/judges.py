"""Judges by strength, and the one attack that is shown where there is room for one."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from deltaball.study.judges import JUDGES, KEYS, Judge

LEVEL = ["dataset", "notion", "norm", "gamma", "delta"]


def entry(judge: str) -> Judge:
    """What is known of an attack or certificate, as the tables name it: ``pgd``, ``pgd-10x1``."""
    return JUDGES[judge.partition("-")[0]]


def settings(judge: str) -> dict[str, float]:
    """Of an attack or certificate, as the tables name it."""
    known, told = entry(judge), judge.partition("-")[2]
    return dict(known.settings) | (dict(zip(known.settings, map(float, told.split("x")), strict=True)) if told else {})


def judge_of(row: Mapping[str, Any]) -> str:
    """The judge of a row of the tables, as they name it: in its column `attack`, `certificate` or `sampling`."""
    return next(row[key] for key in dict.fromkeys(KEYS.values()) if isinstance(row[key], str))


def strength(judge: str) -> tuple[int, float]:
    """Larger for a stronger attack or certificate, as the tables name it."""
    settings, known = judge.partition("-")[2], entry(judge)
    effort = known.effort(map(float, settings.split("x"))) if settings else known.effort()
    return list(JUDGES).index(known.name), effort


def decides(judges: pd.Series) -> pd.Series:
    """Which of a column's attacks or certificates decide every point, so that their rows are the truth's own."""
    return judges.map(lambda judge: isinstance(judge, str) and entry(judge).says == "decides").astype(bool)


def display_name(judge: str) -> str:
    """As captions name it: PGD, PGD-10×1, CROWN, the exact answer (0.4 s)."""
    _, dash, told = judge.partition("-")
    known = entry(judge)
    if dash and list(known.settings) == ["seconds"]:
        return f"{known.title} ({told} s)"
    return known.title + dash + told.replace("x", "×")


def titles(judges: Iterable[str]) -> dict[str, str]:
    """How pictures name each of these: without settings, where no two differ in nothing else."""
    distinct = set(judges)
    alone = {name for name, count in Counter(entry(one).name for one in distinct).items() if count == 1}
    return {one: entry(one).title if entry(one).name in alone else display_name(one) for one in distinct}


def joined(judges: pd.Series) -> str:
    """The attacks or certificates of a column in words, weakest first."""
    named = [display_name(judge) for judge in sorted(judges.dropna().unique(), key=strength)]
    return " and ".join([*([", ".join(named[:-1])] if named[1:] else []), *named[-1:]])


def worst_cases(measured: pd.DataFrame) -> pd.DataFrame:
    """The rows of attacks and certificates: of the worst images of balls, not of random ones."""
    return measured[measured["attack"].notna() | measured["certificate"].notna()]


def sampled(measured: pd.DataFrame) -> pd.DataFrame:
    """The rows of random images of balls; those of kernels speak of other sets of images."""
    return measured[measured["sampling"].notna() & measured["perturbation"].isna()]


def strongest(rows: pd.DataFrame, side: str, keys: list[str]) -> pd.DataFrame:
    """Of rows that agree in `keys`, that of the strongest attack or certificate (`side` names the column)."""
    return rows.sort_values(side, key=_ranks, kind="stable").drop_duplicates(keys, keep="last").sort_index()


def judged(measured: pd.DataFrame) -> pd.DataFrame:
    """The rows of one attack per data set, notion, norm, γ and δ: of most networks, and of such the strongest.

    Certificates are never chosen. A certified value says as much about the bounds, which loosen with depth and width,
    as about the network, so that a trend of it over hyper-parameters would be one of the certificate.
    """
    attacks = measured[measured["attack"].notna()]
    counted = attacks.groupby([*LEVEL, "attack"], dropna=False)["network_id"].nunique().reset_index(name="count")
    counted = counted.assign(strength=_ranks(counted["attack"])).sort_values(["count", "strength"])
    chosen = counted.drop_duplicates(LEVEL, keep="last")[[*LEVEL, "attack"]]
    return attacks.merge(chosen, on=[*LEVEL, "attack"], how="inner", validate="many_to_one")


def _ranks(judges: pd.Series) -> pd.Series:
    order = {judge: rank for rank, judge in enumerate(sorted(judges.unique(), key=strength))}
    return judges.map(order)

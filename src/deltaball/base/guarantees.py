"""How many test points a guarantee needs (paper 004, Theorems 1 and 2). Standard library only."""

import math


def samples_needed(epsilon: float, confidence: float, low: float = 0.0, high: float = 1.0, estimates: int = 1) -> int:
    """The smallest N for which P(|mean of N points - truth| > ε) ≤ α = 1 - confidence.

    Hoeffding: N = ⌈(B - A)² ln(2/α) / (2 ε²)⌉ for values in [A, B] = [low, high] (paper 004, Equation 5;
    Equation 4, the additive Chernoff bound of R, is the case [0, 1]). ε = 0.05 at 0.95 gives 738.
    For several `estimates` at once, each may fail with α / estimates (union bound).

    Raises ValueError unless ε > 0, 0 < confidence < 1, low < high and estimates ≥ 1.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon = {epsilon} must be above 0")
    needed = _half_log(confidence, low, high, estimates) * ((high - low) / epsilon) * ((high - low) / epsilon)
    if math.isinf(needed):
        raise ValueError(f"epsilon = {epsilon} needs more points than can be counted")
    return math.ceil(needed)


def epsilon_reached(samples: int, confidence: float, low: float = 0.0, high: float = 1.0, estimates: int = 1) -> float:
    """The error ε that N = `samples` points guarantee with this confidence (Equation 5 solved for ε)."""
    if samples < 1:
        raise ValueError(f"samples = {samples} must be at least 1")
    return (high - low) * math.sqrt(_half_log(confidence, low, high, estimates) / samples)


def confidence_each(confidence: float, estimates: int) -> float:
    """The confidence each of `estimates` has when all hold at once with `confidence` (union bound)."""
    if estimates < 1:
        raise ValueError(f"estimates = {estimates} must be at least 1")
    return 1 - (1 - confidence) / estimates


def confidence_text(confidence: float) -> str:
    """A confidence in as many digits as tell it from 1, rounded down: 0.95, 0.99998."""
    digits = max(2, -math.floor(math.log10(1 - confidence))) if confidence < 1 else 17
    return f"{math.floor(confidence * 10**digits + 1e-6) / 10**digits:.{digits}f}"


def _half_log(confidence: float, low: float, high: float, estimates: int) -> float:
    # α / estimates is never turned into a confidence, in which float64 would lose it.
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence} must lie strictly between 0 and 1")
    if not low < high:
        raise ValueError(f"the range [{low}, {high}] is empty")
    if estimates < 1:
        raise ValueError(f"estimates = {estimates} must be at least 1")
    return math.log(2 * estimates / (1 - confidence)) / 2

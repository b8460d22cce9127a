"""Intervals around an estimate."""


def hoeffding(estimate: float, epsilon: float, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """[estimate - ε, estimate + ε] within the range: holds with the confidence that fixed N (Theorems 1 and 2)."""
    return max(low, estimate - epsilon), min(high, estimate + epsilon)

"""Support vector machines as a layer (Cortes & Vapnik 1995). Light: no array library."""

import math
from dataclasses import dataclass

from deltaball.base.errors import InputError
from deltaball.networks.layers import Layer, Shape, Weight

# As many as plans count with; how many there are is found by training.
EXPECTED = 5000


@dataclass(frozen=True)
class SupportVectors(Layer):
    """One against one: for each pair of classes i < j a sum over support vectors v, of numbers [d] that enter.

    g_ij(x) = Σ_v c_ijv exp(-γ |x - v|²) + b_ij, and the pair votes for i where g_ij(x) ≥ 0, else for j. The logit of
    a class is the number of its votes plus s / 3(|s| + 1), where s is the sum of its margins, g_ij and -g_ji: what
    scikit-learn calls the decision function of shape 'ovr'. Its largest is the class, also where votes are tied.

    The arrays are computed in float64, for differences of squares cancel; logits are float32.
    """

    gamma: float
    classes: int

    @property
    def pairs(self) -> int:
        return math.comb(self.classes, 2)

    def output(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise InputError(f"{self} takes [numbers], and what enters it is {[*shape]}")
        return (self.classes,)

    def weights(self, shape: Shape) -> tuple[Weight, ...]:
        """Support vectors, each one's coefficients of the pairs (0 where it is of neither class), and intercepts.

        There are as many vectors as training finds, not EXPECTED.
        """
        return (
            Weight("vectors", (EXPECTED, *shape), "buffer"),
            Weight("coefficients", (EXPECTED, self.pairs), "scale"),
            Weight("intercepts", (self.pairs,), "bias"),
        )

    def macs(self, shape: Shape) -> int:
        return EXPECTED * (shape[0] + self.pairs)

"""Lower bounds made larger by the choice of lines: α-CROWN.

Xu et al. 2021, "Fast and complete: enabling complete verification with rapid and massively parallel incomplete
verifiers": a line below a ReLU may have any slope in [0, 1], so the best is sought, for each row its own. Here every
activation that leaves a choice says so by numbers in [0, 1]: of a leaky ReLU where its lower line lies between its two
pieces, of tanh and sigmoid where their tangents touch, of a max-pool how much each unit of a window counts. Whatever is
chosen is sound, so the search needs no trust; and a row's search sees no other row, point or network.
"""

from collections.abc import Callable, Sequence

import torch

STEPS = 20  # of Adam

RATE = 0.2  # how far a choice moves in the first step; less and less later

Choices = Sequence[torch.Tensor]


@torch.no_grad()
def ascended(lower: Callable[[Choices], torch.Tensor], starts: Choices, rows: int, steps: int = STEPS) -> torch.Tensor:
    """The largest of `lower`, bounds [K, n, rows] by choices [K, n, rows, ...] in [0, 1], within some steps of Adam.

    Choices begin at `starts` [K, n, ...], so what is found is never below their bounds.
    """
    choices = [start[:, :, None].expand(-1, -1, rows, *start.shape[2:]).clone() for start in starts]
    means, squares = ([torch.zeros_like(choice) for choice in choices] for _ in range(2))
    best = None
    for step in range(1, steps + 2):
        with torch.enable_grad():
            bound = lower([choice.requires_grad_() for choice in choices])
        best = bound.detach() if best is None else torch.fmax(best, bound.detach())
        if step > steps or not bound.requires_grad:
            break
        gradients = torch.autograd.grad(bound, choices, torch.ones_like(bound), materialize_grads=True)
        length = RATE * 0.95**step * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        for place, (gradient, mean, square) in enumerate(zip(gradients, means, squares, strict=True)):
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient.square(), 0.001)
            choices[place] = (choices[place].detach() + length * mean / (square.sqrt() + 1e-12)).clamp(0, 1)
    return best

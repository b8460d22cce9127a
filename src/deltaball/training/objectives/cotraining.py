"""Co-training: a classifier, and beside it a generator of the adversarial images that it is trained against."""

from collections.abc import Callable

import torch
from torch.nn import functional

from deltaball.networks.layers import Layers
from deltaball.networks.models import Layered
from deltaball.study.objectives import generator_of
from deltaball.training.objectives.cross_entropy import cross_entropy, cross_entropy_between
from deltaball.training.objectives.objective import Batch, Objective


class CoTraining(Objective):
    """Cross-entropy + beta × CE(f̂(x), f̂(g(x))) / (1 + ‖x - g(x)‖²) (paper 003, Equation 10 and Algorithm 1).

    f̂ is the softmax, g the generator, and CE(p, q) = -Σ p log q. In each step f takes one step, and then g one of its
    own, on a minibatch of its own order, by the same optimizer and learning rate.

    Both papers define f̂ as the output of a softmax layer, in [0, 1]^K, and write g's loss in it too (Equation 9), so
    `margin_of` is softmax if nothing is said. That margin is at most 1, and hardly has a slope where f is certain while
    ½ ‖g(x) - x‖² pulls g back to x. The margin of the logits has neither bound nor flat ends, but is not the papers'.

    What the papers leave open:

    - The target of CE is the whole softmax at x, and gradients flow through it too, as Equation 10 says; none flows
      into g, nor into f in the step of g.
    - In the step of f the images and what g makes of them are one minibatch, by whose joint statistics f normalises:
      they are points of one function. Its moving averages follow both. g normalises as it does after training.
    - In the step of g it is the other way round: f is as it is after training, without dropout, and g normalises by its
      minibatch.
    """

    def generator_layers(self, layers: Layers) -> Layers:
        return generator_of({"objective": "cotraining", **self.axes}, layers.shape)

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            moved = networks.generator(batch.images)
        original, others = networks(torch.cat([batch.images, moved], 1)).chunk(2, 1)
        change = cross_entropy_between(original, others) / (1 + _squares(moved - batch.images))
        return cross_entropy(original, batch.labels) + batch.axes["beta"] * change.mean(1)

    def of_generator(
        self, images: torch.Tensor, moved: torch.Tensor, classify: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """½ ‖g(x) - x‖² + max(f_c - max_{j≠c} f_j, 0) with c the class of x, the mean [K] over images (Equation 9).

        f are the softmax or the logits (`margin_of`) at g(x). `moved` are what the generators make of images
        [K, n, h, w, c], and `classify` gives the logits.
        """
        with torch.no_grad():
            own = classify(images).argmax(-1, keepdim=True)
        scores = classify(moved)
        if self.axes["margin_of"] == "softmax":
            scores = scores.softmax(-1)
        lead = scores.gather(-1, own).squeeze(-1) - scores.scatter(-1, own, -torch.inf).amax(-1)
        return (_squares(moved - images) / 2 + functional.relu(lead)).mean(1)


def _squares(moves: torch.Tensor) -> torch.Tensor:
    """‖·‖² [K, n] of [K, n, h, w, c]."""
    return moves.flatten(2).square().sum(2)

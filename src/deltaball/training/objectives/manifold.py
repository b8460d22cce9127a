"""Training on the manifold of a data set, as an auto-encoder of the study has it (paper 000), and its baseline."""

import math

import torch

from deltaball.networks.autoencoders import AutoEncoder
from deltaball.networks.models import Layered
from deltaball.training.objectives.cross_entropy import cross_entropy, cross_entropy_between
from deltaball.training.objectives.objective import Batch, Objective

# Codes of images are rarely further from 0, and an attack is not to leave them.
FURTHEST_CODE = 2.0


class OnManifold(Objective):
    """Cross-entropy + beta × the change of the softmax at decoded images in balls (paper 000, Equations 7, 9 and 13).

    Of each image `decoded` others are drawn, D(E(x) + σ z) with normal z, and of each network `ball_radii` radii, with
    density ∝ 1/ε on [`least_radius`, d], d the diagonal of the images in L2. The change is the mean over radii of the
    mean CE(f̂(x), f̂(x')) over the x' in the ball around x; a ball that holds none counts as 0. The paper draws ε evenly
    and weighs it by 1/ε down to 0, which has no finite integral; up to a factor of beta this is the same from
    `least_radius` on. It does not say how many images are drawn, nor what an empty ball counts.

    CE is as in co-training: gradients flow through f̂(x) too, and the images and those drawn are one minibatch, by whose
    joint statistics batch normalisation normalises.
    """

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        count, number = batch.images.shape[1], self.axes["decoded"]
        codes = encoded(self.autoencoder, batch.images).repeat(1, number, 1)
        noise = batch.draws.normal(codes.shape[1:]) * self.axes["sigma"]
        images = decoded(self.autoencoder, codes + noise)
        original, others = networks(torch.cat([batch.images, images], 1)).split([count, number * count], 1)
        repeated = batch.images.repeat(1, number, 1, 1, 1)
        distance = (images - repeated).flatten(2).norm(dim=2)
        change = cross_entropy_between(original.repeat(1, number, 1), others)
        share = in_balls(distance.unflatten(1, (number, count)), self._radii(batch))
        change = (share * change.unflatten(1, (number, count))).sum(1).mean(1)
        return cross_entropy(original, batch.labels) + batch.axes["beta"] * change

    def _radii(self, batch: Batch) -> torch.Tensor:
        """[K, radii]."""
        least, most = self.axes["least_radius"], math.sqrt(math.prod(batch.images.shape[2:]))
        return least * (most / least) ** batch.draws.uniform((self.axes["ball_radii"],))


class OnManifoldAdversarial(Objective):
    """Cross-entropy of a minibatch of which half are decoded from codes that an attack moved (Stutz et al. 2019).

    "Disentangling adversarial robustness and generalization", with true labels. The attack begins evenly in the L∞ ball
    of `latent_radius` around the code of an image, and takes `attack_steps` steps of `latent_rate` along the sign of
    the gradient, in the ball and within ± 2. The authors' decoder is that of a VAE-GAN; here it is that of the study's
    auto-encoder. Of an odd minibatch one image more is moved. Both halves are one minibatch of batch normalisation.
    """

    def __call__(self, networks: Layered, batch: Batch) -> torch.Tensor:
        clean = batch.images.shape[1] // 2
        codes = self._attacked(networks, batch, batch.images[:, clean:], batch.labels[:, clean:])
        images = torch.cat([batch.images[:, :clean], decoded(self.autoencoder, codes)], 1)
        return cross_entropy(networks(images), batch.labels)

    def _attacked(self, networks: Layered, batch: Batch, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The codes [K, n, latent] to which the attack leads from those of images."""
        radius, fixed = self.axes["latent_radius"], networks.fixed()
        codes = encoded(self.autoencoder, images)
        low, high = ((codes + side * radius).clamp(-FURTHEST_CODE, FURTHEST_CODE) for side in (-1, 1))
        current = low + (high - low) * batch.draws.uniform(codes.shape[1:])
        for _ in range(self.axes["attack_steps"]):
            leaf = current.detach().requires_grad_()
            raised = cross_entropy(fixed(decoded(self.autoencoder, leaf)), labels)
            (slope,) = torch.autograd.grad(raised.sum(), leaf)
            current = (leaf.detach() + self.axes["latent_rate"] * slope.sign()).clamp(low, high)
        return current


def encoded(autoencoder: AutoEncoder, images: torch.Tensor) -> torch.Tensor:
    """The codes [K, n, latent] of images [K, n, h, w, c]."""
    with torch.no_grad():
        # A call per network, so that none depends on its neighbours.
        return torch.stack([autoencoder.encode(one) for one in images])


def decoded(autoencoder: AutoEncoder, codes: torch.Tensor) -> torch.Tensor:
    """The images [K, n, h, w, c] of codes [K, n, latent]."""
    return torch.stack([autoencoder.decode(one) for one in codes])


def in_balls(distance: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """The weight [K, M, n] of each of M images that are drawn around each of n: the mean over balls of 1 / their number
    there, 0 outside. `distance` [K, M, n] are theirs, and `radii` [K, balls]."""
    inside = (distance[..., None] < radii[:, None, None]).to(distance.dtype)
    return (inside / inside.sum(1, keepdim=True).clamp(min=1)).mean(-1)

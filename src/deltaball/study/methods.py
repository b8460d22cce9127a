"""Methods: how networks come to their weights, and the axes of each way."""

from typing import ClassVar, Literal

from pydantic import Field

from deltaball.study.axes import Count, Counts, Delays, Optimizers, Precisions, Proportions, Rates, Seeds, Strict, axis


class Sgd(Strict):
    """Axes of training by gradient descent; networks that differ in `epochs` alone are one trajectory."""

    ALONG: ClassVar[str] = "epochs"
    INSIDE_PACK: ClassVar[frozenset[str]] = frozenset({"learning_rate", "seed"})

    method: Literal["sgd"]
    optimizer: Optimizers = Field(["sgd"], description="plain SGD, or Adam with Keras' defaults")
    learning_rate: Rates
    epochs: Counts = Field(description="passes over the training split")
    batch_size: Counts = Field([128])
    precision: Precisions = Field(
        ["float32"], description="of products and activations in training; weights, updates and measures are float32"
    )
    seed: Seeds = Field([0], description="draws the initial weights and the order of the data")


class Imp(Strict):
    """Axes of iterative magnitude pruning (paper 004, B.6 and B.7), each round trained by SGD."""

    ALONG: ClassVar[str] = "epochs"
    INSIDE_PACK: ClassVar[frozenset[str]] = frozenset({"learning_rate", "seed", "ranking", "kept"})

    method: Literal["imp"]
    proportion: Proportions = Field(description="share of the prunable weights removed in the end")
    ranking: axis(Literal["global", "layer"]) = Field(
        ["global"], description="smallest magnitudes of all hidden kernels together, or of each"
    )
    iterations: Counts = Field(description="rounds of pruning, each removing an equal share of what remains")
    optimizer: Optimizers = Field(["sgd"])
    learning_rate: Rates
    epochs: Counts = Field(description="passes over the training split in each round")
    batch_size: Counts = Field([128])
    precision: Precisions = Field(["float32"])
    seed: Seeds = Field([0])


class Hmc(Strict):
    """Axes of Hamiltonian Monte Carlo (paper 004, B.8 and B.9); `posterior_samples` counts along one chain."""

    ALONG: ClassVar[str] = "posterior_samples"
    INSIDE_PACK: ClassVar[frozenset[str]] = frozenset(
        {"step_size", "thinning", "prior_scale", "likelihood_scale", "seed"}
    )

    method: Literal["hmc"]
    step_size: Rates = Field(description="step of the leapfrog integrator")
    leapfrog_steps: Counts = Field(description="steps of one trajectory of the integrator")
    posterior_samples: Counts = Field(description="samples of the posterior that the network averages")
    thinning: Counts = Field([1], description="of those samples, average every so many-th only")
    prior_scale: Rates = Field([1.0], description="standard deviation of the normal prior on every weight and bias")
    likelihood_scale: Rates = Field([1.0], description="factor of the log-likelihood; 1 samples the posterior")
    train_points: axis(Count | None) = Field([None], description="training points seen, drawn by seed; null is all")
    burn_in: Delays = Field([0], description="transitions before the first sample")
    start: axis(Literal["glorot", "prior"]) = Field(["glorot"], description="what the first weights are drawn from")
    warm_epochs: Delays = Field([0], description="epochs of SGD between that draw and the chain")
    seed: Seeds = Field([0], description="draws the training points, the start and the chain")

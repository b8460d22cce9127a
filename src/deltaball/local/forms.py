"""What branch and bound is of: one network written as dense layers, in each order of activations and max-pools."""

from collections.abc import Callable
from functools import cache

from deltaball.local.balls import Ball
from deltaball.networks.dense_form import Affine, affine_layers, as_dense, pools_first
from deltaball.networks.layers import Layers
from deltaball.networks.models import Layered
from deltaball.networks.packs import Pack

Form = tuple[Pack, Affine]


def refuse(ball: Ball) -> None:
    """Raises ValueError where there is no branch and bound."""
    if ball.norm == "l2":
        raise ValueError("l2 balls have no exact answer, its programs are linear; possible: linf, l1")


def forms_of(model: Layered) -> list[Callable[[], Form]]:
    """The network as dense layers, in each order of activations and pools; of one network."""
    assert len(model) == 1, f"one network at a time, not {len(model)}"
    swapped = pools_first(model.layers)
    orders = [model.layers] if swapped == model.layers else [model.layers, swapped]
    # The second form is not always needed, and may be large.
    forms = [cache(lambda order=order: _written(model, order)) for order in orders]
    forms[0]()
    return forms


def hidden_units(form: Form) -> int:
    """How many there are."""
    _, affine = form
    return sum(bias.shape[-1] for _, bias in affine[:-1])


def _written(model: Layered, order: Layers) -> Form:
    dense = as_dense(Pack(order, tuple(model.weights)))
    return dense, affine_layers(dense)

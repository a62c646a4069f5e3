"""Learned learning rates: per weight (Meta-SGD, Li et al. 2017), per tensor, per inner step (MAML++, Antoniou 2019).

https://arxiv.org/abs/1707.09835, https://arxiv.org/abs/1810.09502. The gradient is multiplied by minus the rates.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._checks import check_choice, check_number, check_optional_integer
from jaxmeta._learned import Learned
from jaxmeta._types import PyTree
from jaxmeta.display import described, short_repr


class LearnedRateState(NamedTuple):
    """State of `scale_by_learned_rate`."""

    rate: Learned
    """Rates, a tree like the parameters.

    Per weight each leaf has the shape of the parameter, and per tensor it is a scalar. With `steps=K` there is a
    leading axis `[K]`.
    """
    step: jax.Array | None = None
    """Number of updates so far. It is `None` without `steps`."""

    __repr__ = short_repr


@described
def scale_by_learned_rate(
    learning_rate: float | jax.Array = 0.1, *, per: Literal["weight", "tensor"] = "weight", steps: int | None = None
) -> optax.GradientTransformation:
    """Multiplies the gradient by minus a learned rate.

    It turns a gradient into a descent step, so it ends a chain, as `optax.scale_by_learning_rate` does. Rates per
    weight are Meta-SGD. Rates per tensor and inner step are the per-layer per-step rates (LSLR) of MAML++.

    Args:
        learning_rate: initial value of every rate, in units of step per gradient (default: 0.1).
        per: `"weight"` (default) for one rate per weight, or `"tensor"` for one rate per parameter tensor.
        steps: number of inner steps with rates of their own. Later steps use the last rates. With `None` (default) all
            steps share their rates.

    Returns:
        A transformation whose state holds the rates as `Learned`.

    Raises:
        ValueError: if `learning_rate` is not a finite number, `per` is unknown, or `steps` is not an integer of at
            least 1.

    Example:
        >>> transform = scale_by_learned_rate(0.5)
        >>> weights = jnp.array([1.0, 2.0])
        >>> updates, _ = transform.update(jnp.array([2.0, 4.0]), transform.init(weights))
        >>> updates.tolist()
        [-1.0, -2.0]
        >>> scale_by_learned_rate(0.5, per="tensor", steps=3).init({"w": weights}).rate.value["w"].tolist()
        [0.5, 0.5, 0.5]

    References:
        Li et al., *Meta-SGD: Learning to Learn Quickly for Few-Shot Learning*, 2017, https://arxiv.org/abs/1707.09835

        Antoniou, Edwards & Storkey, *How to Train Your MAML*, ICLR 2019, https://arxiv.org/abs/1810.09502
    """
    check_number(learning_rate=learning_rate)
    check_choice("per", per, ("weight", "tensor"))
    check_optional_integer(steps=steps)
    leading = () if steps is None else (steps,)

    def init(params: PyTree) -> Any:
        def rate(param: jax.Array) -> jax.Array:
            own = jnp.shape(param) if per == "weight" else ()
            return jnp.full((*leading, *own), learning_rate, jnp.result_type(param))

        step = None if steps is None else jnp.zeros([], jnp.int32)
        return LearnedRateState(Learned(jax.tree.map(rate, params)), step)

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params
        rates = state.rate.value
        if steps is not None:
            now = jnp.minimum(state.step, steps - 1)
            rates = jax.tree.map(lambda rate: rate[now], rates)
            state = state._replace(step=optax.safe_increment(state.step))
        return jax.tree.map(lambda u, rate: -rate * u, updates, rates), state

    return optax.GradientTransformation(init, update)

"""T-Net: learned layerwise metrics (Lee & Choi 2018, https://arxiv.org/abs/1801.05558), and warp layers.

MAML of a network with layers between the adapted ones that the inner loop leaves alone, and that so precondition it.
Warp-MAML of WarpGrad (Flennerhag et al. 2020, https://arxiv.org/abs/1909.00025) is the same with other such layers.
"""

import optax

from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._common import part_only
from jaxmeta.algorithms._maml import maml
from jaxmeta.meta_gradients import MetaGradient


def tnet(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    warp: str = "warp",
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """T-Net: MAML with an inner optimizer that leaves the warp layers alone.

    A linear layer `W` that is followed by a linear warp layer `T` (inputs are rows: `x W T`) moves by SGD of rate `r`
    as if their product `A = W T` moved by `-r dL/dA T^T T`: the meta-learned `T` is a metric of the inner loop. Layers
    before it feel it too, and a warp layer with a nonlinearity (WarpGrad) gives a metric that depends on the task. The
    binary masks of MT-Net are not here.

    Args:
        loss_fn: see `maml`; of a network with warp layers, such as those of `jaxmeta.models` with `warp=True`, which
            start as the identity, so that the learner starts as `maml`.
        inner: see `maml`.
        steps: inner steps in meta-training.
        warp: name of the warp layers: a key that appears in the path of each of their parameters.
        test_steps: inner steps at test; `None` for the same.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner`; its `init` raises a `ValueError` if no parameter has `warp` in its path, or all have.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `steps` or `test_steps` is less than 1.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmeta
        >>> loss_fn = jaxmeta.regression(lambda p, x: x * p["weight"] * p["warp"])
        >>> learner = tnet(loss_fn, optax.sgd(0.5))
        >>> meta = learner.init({"weight": jnp.array(0.0), "warp": jnp.array(2.0)})
        >>> one = jaxmeta.Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
        >>> jax.tree.map(float, learner.adapt(meta, one, jax.random.key(0)))
        {'warp': 2.0, 'weight': 2.0}

    References:
        Lee & Choi, *Gradient-Based Meta-Learning with Learned Layerwise Metric and Subspace*, ICML 2018,
        https://arxiv.org/abs/1801.05558

        Flennerhag, Rusu, Pascanu, Visin, Yin & Hadsell, *Meta-Learning with Warped Gradient Descent*, ICLR 2020,
        https://arxiv.org/abs/1909.00025
    """
    adapted = part_only(inner, warp, inside=False, argument="warp")
    return maml(loss_fn, adapted, steps, test_steps=test_steps, meta_gradient=meta_gradient)

"""T-Net: learned layerwise metrics (Lee & Choi 2018, https://arxiv.org/abs/1801.05558), and warp layers.

MAML of a network with additional layers between the adapted ones. The inner loop leaves these layers alone, so they
precondition it. Warp-MAML of WarpGrad (Flennerhag et al. 2020, https://arxiv.org/abs/1909.00025) is the same with
nonlinear layers.
"""

import optax

from jaxmeta._types import LossFn, MetaLearner
from jaxmeta.algorithms._inner_loop import inner_loop, model_problem
from jaxmeta.algorithms._part import named
from jaxmeta.display import described
from jaxmeta.losses import Loss
from jaxmeta.meta_gradients import MetaGradient


@described
def tnet(
    loss_fn: LossFn | Loss,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    warp: str = "warp",
    test_steps: int | None = None,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """T-Net: MAML with a learned metric for each layer, which its warp layers hold.

    The inner optimizer leaves the warp layers alone. For a linear layer `W` and a linear warp layer `T` after it, with
    inputs as rows (`x W T`), an inner step of SGD with rate `alpha` changes the product `A = W T` by

        W <- W - alpha * dL/dW,  so that    A <- A - alpha * dL/dA T^T T

    and the meta-learned `T^T T` is a metric of the inner loop. It also acts on the layers before it. A warp layer with
    a nonlinearity (WarpGrad) gives a metric that depends on the task. The binary masks of MT-Net are not implemented.

    Args:
        loss_fn: see `maml`, of a network with warp layers. Those of `jaxmeta.models` with `warp=True` start as the
            identity, so that the learner starts as `maml`.
        inner: see `maml`.
        steps: number of inner steps during meta-training (default: 1).
        warp: name of the warp layers, a key in the path of each of their parameters (default: `"warp"`).
        test_steps: number of inner steps at test. `None` (default) takes `steps`.
        meta_gradient: see `maml`.

    Returns:
        A `MetaLearner`. Its `init` raises a `ValueError` if no parameter or every parameter has `warp` in its path.

    Raises:
        TypeError: if `inner` is not an optax transformation.
        ValueError: if `steps` or `test_steps` is not an integer of at least 0.

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
    problem = model_problem(loss_fn, named(warp, inside=False, argument="warp"))
    return inner_loop(problem, inner, steps, outer_loss=loss_fn, test_steps=test_steps, meta_gradient=meta_gradient)

"""LEO: latent embedding optimization (Rusu et al. 2019, https://arxiv.org/abs/1807.05960).

The support set gives a latent code for each class. The inner loop moves the codes, which a decoder turns into the
weights of a linear classifier, and then moves those weights.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._adapt import adapt
from jaxmeta._checks import check_fraction, check_integer, check_number
from jaxmeta._learned import Learned, combine
from jaxmeta._types import Batch, MetaLearner, MetaParams, Metrics, PyTree
from jaxmeta.algorithms._embedding import one_hot_labels
from jaxmeta.algorithms._heads import mask_absent, present_classes
from jaxmeta.algorithms._inner_loop import InnerProblem, inner_loop
from jaxmeta.algorithms._leo_networks import LEOParams, decode, draw, drop, encode
from jaxmeta.algorithms._objective import whole_loop
from jaxmeta.display import described, short_repr
from jaxmeta.losses import cross_entropy, weighted_mean
from jaxmeta.meta_gradients import MetaGradient


class LinearClassifier(NamedTuple):
    """A linear classifier of features, the result of LEO's `adapt`. Call it for logits `[n, ways]`."""

    weights: jax.Array
    """Weights of each class: `[ways, features]`."""
    present: jax.Array
    """The classes that had support examples, as booleans: `[ways]`. The others have the logit -inf."""

    __repr__ = short_repr

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logits `[n, ways]` of features `x: [n, features]`."""
        return mask_absent(x @ self.weights.T, self.present)


@described
def leo(
    ways: int,
    inner_rate: float | jax.Array = 5.0,
    steps: int = 5,
    *,
    head_rate: float | jax.Array = 5e-3,
    head_steps: int = 5,
    dropout: float | jax.Array = 0.3,
    kl_weight: float | jax.Array = 0.75,
    encoder_weight: float | jax.Array = 5e-6,
    orthogonality_weight: float | jax.Array = 0.2,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """LEO, latent embedding optimization, for classification on given features.

    The features may be those of a network that was trained on the training classes. With codes `z_n`, weights `w_n` of
    class `n` and support loss `L`, a task is adapted by

        z_n ~ N(mu_n, sigma_n^2),     mu_n, u_n = mean over pairs of relation(encoder(x), encoder(x'))
        z_n <- z_n - alpha * dL/dz_n          `steps` times, with w_n ~ decoder(z_n)
        w_n <- w_n - alpha_head * dL/dw_n     `head_steps` times

    and with the codes `z'_n` after their inner steps the outer loss is

        L_query + beta * KL(N(mu, sigma^2) | N(0, I)) + gamma * |stop_gradient(z') - z|^2 + lambda_2 * |C - I|^2

    where `C` holds the correlations between the rows of the decoder. Codes and weights are drawn, and inputs have
    dropout, during meta-training only. At test (`MetaLearner.adapt` and `loss`) the means are taken and nothing is
    random.

    The deviation of a code is `sigma = exp(u) - 1`, at least 1e-10, and that of a weight is larger by Xavier's, as in
    the authors' code. The defaults are close to those of that code for 5-way 1-shot mini-ImageNet, on features that are
    scaled to length 1. Its rates are 1.0 and 1e-3, because its losses are sums over the 5 support examples, and not
    means. Much longer features overflow. For the paper's weight decay choose an outer optimizer such as `optax.adamw`.

    Args:
        ways: number of classes of a task, labeled from 0. A class without support examples has the logit -inf.
        inner_rate: initial value of the learned rate of each latent dimension, the paper's `alpha` (default: 5).
        steps: number of inner steps of the codes, at least 0 (default: 5).
        head_rate: initial value of the learned rate of the weights of each feature, `alpha_head` (default: 5e-3).
        head_steps: number of inner steps of the weights, after those of the codes, at least 0 (default: 5).
        dropout: share of the input features that are zeroed during meta-training, in [0, 1) (default: 0.3).
        kl_weight: weight of the divergence of the codes' distribution from the standard normal distribution, the
            paper's `beta` (default: 0.75).
        encoder_weight: weight of the squared distance of the first codes from the last ones, the paper's `gamma`
            (default: 5e-6). Its derivative pulls only the first codes. Divergence and distance are means over all
            numbers in the codes of the classes with examples.
        orthogonality_weight: weight of the mean squared difference between the correlations of the decoder's rows and
            those of orthogonal rows, the paper's `lambda_2` (default: 0.2).
        meta_gradient: see `maml`. `implicit()` is refused.

    Returns:
        A `MetaLearner`, whose `init` takes `leo_params(...)`, for batches of `x: [n, features]` and `y: [n]`. Its
        `adapt` returns a `LinearClassifier`. The loss that `grad` reports includes the penalties. `MetaParams.learned`
        holds the rates. There is no `follow`, because its steps would be those of the weights alone.

    Raises:
        TypeError: from `init`, if the parameters are not `LEOParams`.
        ValueError: if a number is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmeta
        >>> learner = leo(ways=2)
        >>> meta = learner.init(jaxmeta.leo_params(jax.random.key(0), features=3, latents=4))
        >>> support = Batch(jnp.eye(3)[:2], jnp.array([0, 1]))
        >>> classifier = learner.adapt(meta, support, jax.random.key(1))
        >>> classifier(jnp.eye(3)).shape
        (3, 2)

    References:
        Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero & Hadsell, *Meta-Learning with Latent Embedding Optimization*,
        ICLR 2019, https://arxiv.org/abs/1807.05960
    """
    check_integer(ways=ways)
    check_integer(least=0, steps=steps, head_steps=head_steps)
    check_number(inner_rate=inner_rate, head_rate=head_rate)
    check_number(kl_weight=kl_weight, encoder_weight=encoder_weight, orthogonality_weight=orthogonality_weight)
    check_fraction(below_one=True, dropout=dropout)
    meta_gradient, rates = whole_loop(meta_gradient), {"codes": inner_rate, "weights": head_rate}
    inner = _scale_by_column_rate({"params": rates, "penalty": None, "present": None})

    def problem(training: bool) -> InnerProblem:
        """Returns the inner problem of the weights. They start where the inner loop of the codes ends."""
        rate = dropout if training else None

        def start(meta: MetaParams, support: Batch | None, key: jax.Array) -> PyTree:
            params: LEOParams = meta.params
            if support is None:
                return _shapes(params)
            one_hot = one_hot_labels(support, ways, support.x)
            present, weights_of = present_classes(one_hot), partial(decode, params.decoder, training=training)

            def code_loss(codes: jax.Array, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
                decode_key, loss_key = jax.random.split(key)
                return _loss(LinearClassifier(weights_of(codes, decode_key), present), batch, loss_key, rate)

            encode_key, draw_key, code_key, decode_key = jax.random.split(key, 4)
            mean, deviation = encode(params, drop(encode_key, support.x, rate), one_hot, support.weight)
            first = draw(draw_key, mean, deviation, training)
            learned = combine(meta.learned, inner.init(_shapes(params)))["params"]["codes"]
            # z <- z - alpha * dL/dz
            loop = partial(adapt, steps=steps, learned=learned, meta_gradient=meta_gradient)
            last = loop(code_loss, _scale_by_column_rate(inner_rate), first, support, code_key)
            # beta * KL(N(mu, sigma^2) | N(0, I)) + gamma * |stop_gradient(z') - z|^2 + lambda_2 * |C - I|^2
            of_codes = kl_weight * _divergence(mean, deviation) + encoder_weight * _distance(first, last)
            penalty = weighted_mean(of_codes, present) + orthogonality_weight * _correlation(params.decoder)
            weights = weights_of(last, decode_key)
            return {"params": {"codes": last, "weights": weights}, "penalty": penalty, "present": present}

        def loss(adapted: PyTree, meta: MetaParams, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
            return _loss(_classifier(adapted, meta), batch, key, rate)

        return InnerProblem(start, loss, _with_penalty if training else _classifier)

    # w <- w - alpha_head * dL/dw
    build = partial(inner_loop, inner=inner, steps=head_steps, meta_gradient=meta_gradient)
    training = build(problem(True), outer_loss=partial(_outer_loss, dropout=dropout))
    test = build(problem(False), outer_loss=_loss)
    return MetaLearner(partial(_init, training.init), test.adapt, test.loss, training.grad)


def _init(init: Callable[[PyTree], MetaParams], params: Any) -> MetaParams:
    """Returns the meta-parameters, and raises TypeError unless the parameters are LEO's."""
    if not isinstance(params, LEOParams):
        raise TypeError(f"params must be LEOParams, from leo_params(key, features), got {type(params).__name__}")
    return init(params)


def _shapes(params: LEOParams) -> PyTree:
    """Returns arrays with as many columns as the codes and the weights have, in the place of what adapts."""
    return {"params": {"codes": params.encoder, "weights": params.encoder.T}, "penalty": None, "present": None}


def _classifier(adapted: PyTree, meta: MetaParams) -> LinearClassifier:
    return LinearClassifier(adapted["params"]["weights"], adapted["present"])


def _with_penalty(adapted: PyTree, meta: MetaParams) -> tuple[LinearClassifier, jax.Array]:
    return _classifier(adapted, meta), adapted["penalty"]


def _outer_loss(
    adapted: tuple[LinearClassifier, jax.Array], batch: Batch, key: jax.Array, dropout: float | jax.Array
) -> tuple[jax.Array, Metrics]:
    classifier, penalty = adapted
    loss, metrics = _loss(classifier, batch, key, dropout)
    return loss + penalty, metrics


def _loss(
    classifier: LinearClassifier, batch: Batch, key: jax.Array, dropout: float | jax.Array | None = None
) -> tuple[jax.Array, Metrics]:
    """Returns the cross-entropy and the accuracy of a classifier."""
    return cross_entropy(classifier(drop(key, batch.x, dropout)), batch)


def _divergence(mean: jax.Array, deviation: jax.Array) -> jax.Array:
    """Returns `KL(N(mu, sigma^2) | N(0, 1)) = (sigma^2 + mu^2 - 1) / 2 - log sigma`, in nats."""
    return 0.5 * (deviation**2 + mean**2 - 1) - jnp.log(deviation)


def _distance(first: jax.Array, last: jax.Array) -> jax.Array:
    """Returns `(stop_gradient(z') - z)^2` for the first codes `z` and the last codes `z'`."""
    return (jax.lax.stop_gradient(last) - first) ** 2


def _correlation(matrix: jax.Array) -> jax.Array:
    """Returns the mean squared difference between the correlation matrix of the rows and the identity."""
    rows = matrix / jnp.linalg.norm(matrix, axis=1, keepdims=True)
    return jnp.mean((rows @ rows.T - jnp.eye(rows.shape[0], dtype=rows.dtype)) ** 2)


def _scale_by_column_rate(rates: PyTree) -> optax.GradientTransformation:
    """Multiplies gradients by minus a learned rate of each column. It has one initial rate for each matrix."""

    def init(params: Any) -> Any:
        return jax.tree.map(lambda rate, leaf: Learned(jnp.full((1, leaf.shape[1]), rate, leaf.dtype)), rates, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(lambda leaf, rate: -rate.value * leaf, updates, state), state

    return optax.GradientTransformation(init, update)

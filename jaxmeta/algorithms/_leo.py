"""LEO: latent embedding optimization (Rusu et al. 2019, https://arxiv.org/abs/1807.05960).

The support set gives a latent code for each class. The inner loop moves the codes, which a decoder turns into the
weights of a linear classifier, and then moves those weights.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._adapt import adapt
from jaxmeta._checks import check_fraction, check_integer, check_number
from jaxmeta._learned import Learned, learned_or
from jaxmeta._types import Batch, MetaLearner, MetaParams, Metrics, Task
from jaxmeta.algorithms._embedding import one_hot_labels
from jaxmeta.algorithms._heads import class_means, mask_absent, present_classes
from jaxmeta.algorithms._objective import grad_of, learned_state, whole_loop
from jaxmeta.display import described, short_repr
from jaxmeta.losses import cross_entropy, weighted_mean
from jaxmeta.meta_gradients import MetaGradient


class LEOParams(NamedTuple):
    """Parameters of LEO's networks, linear maps without biases."""

    encoder: jax.Array
    """Map from a feature vector to a code, the paper's `phi_e`: `[features, latents]`."""
    relation: tuple[jax.Array, ...]
    """Layers of a ReLU network on pairs of codes, the paper's `phi_r`: `[2 * latents, 2 * latents]` each."""
    decoder: jax.Array
    """Map from a code to mean and log-deviation of the class's weights, `phi_d`: `[latents, 2 * features]`."""

    __repr__ = short_repr


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


def leo_params(key: jax.Array, features: int, latents: int = 64) -> LEOParams:
    """Draws initial parameters for `leo`, Xavier uniform.

    Args:
        key: random key.
        features: length of the feature vectors.
        latents: length of the codes (default: 64, as in the paper).

    Returns:
        The parameters.

    Raises:
        ValueError: if a size is not an integer of at least 1.

    Example:
        >>> [matrix.shape for matrix in jax.tree.leaves(leo_params(jax.random.key(0), features=640))]
        [(640, 64), (128, 128), (128, 128), (128, 128), (64, 1280)]
    """
    check_integer(features=features, latents=latents)
    sizes = [(features, latents), *[(2 * latents, 2 * latents)] * 3, (latents, 2 * features)]
    xavier = jax.nn.initializers.xavier_uniform()
    encoder, *relation, decoder = (xavier(k, size) for k, size in zip(jax.random.split(key, 5), sizes, strict=True))
    return LEOParams(encoder, tuple(relation), decoder)


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
        holds the rates.

    Raises:
        TypeError: from `init`, if the parameters are not `LEOParams`.
        ValueError: if a number is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> learner = leo(ways=2)
        >>> meta = learner.init(leo_params(jax.random.key(0), features=3, latents=4))
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
    meta_gradient = whole_loop(meta_gradient)
    code_inner, head_inner = inners = _scale_by_column_rate(inner_rate), _scale_by_column_rate(head_rate)

    def run(meta: MetaParams, support: Batch, key: jax.Array, training: bool) -> tuple[LinearClassifier, jax.Array]:
        """Returns the adapted classifier and the penalties."""
        params, rate = meta.params, dropout if training else None
        code_rates, head_rates = learned_or(_init(inners, params).learned, meta.learned, "pair of inner optimizers")
        one_hot = one_hot_labels(support, ways, support.x)
        present, decode = present_classes(one_hot), partial(_decode, params.decoder, training=training)

        def head_loss(weights: jax.Array, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
            return _loss(LinearClassifier(weights, present), batch, key, dropout=rate)

        def code_loss(codes: jax.Array, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
            decode_key, loss_key = jax.random.split(key)
            return head_loss(decode(codes, decode_key), batch, loss_key)

        encode_key, draw_key, code_key, decode_key, head_key = jax.random.split(key, 5)
        mean, deviation = _encode(params, _drop(encode_key, support.x, rate), one_hot, support.weight)
        first = _draw(draw_key, mean, deviation, training)
        loop = partial(adapt, batch=support, meta_gradient=meta_gradient)
        # z <- z - alpha * dL/dz, and after that w <- w - alpha_head * dL/dw
        last = loop(code_loss, code_inner, first, key=code_key, steps=steps, learned=code_rates)
        decoded = decode(last, decode_key)
        weights = loop(head_loss, head_inner, decoded, key=head_key, steps=head_steps, learned=head_rates)

        # beta * KL(N(mu, sigma^2) | N(0, I)) + gamma * |stop_gradient(z') - z|^2 + lambda_2 * |C - I|^2
        of_codes = kl_weight * _divergence(mean, deviation) + encoder_weight * _distance(first, last)
        penalty = weighted_mean(of_codes, present) + orthogonality_weight * _correlation(params.decoder)
        return LinearClassifier(weights, present), penalty

    def objective(task: Task, meta: MetaParams, key: jax.Array) -> tuple[jax.Array, tuple[Metrics, Any]]:
        adapt_key, loss_key = jax.random.split(key)
        classifier, penalty = run(meta, task.support, adapt_key, training=True)
        loss, metrics = _loss(classifier, task.query, loss_key, dropout)
        return loss + penalty, (metrics, ())

    def adapt_at_test(meta: MetaParams, support: Batch, key: jax.Array) -> LinearClassifier:
        return run(meta, support, key, training=False)[0]

    return MetaLearner(partial(_init, inners), adapt_at_test, _loss, grad_of(objective, meta_gradient))


def _init(inners: tuple[optax.GradientTransformation, optax.GradientTransformation], params: Any) -> MetaParams:
    """Returns the meta-parameters, and raises TypeError unless the parameters are LEO's."""
    if not isinstance(params, LEOParams):
        raise TypeError(f"params must be LEOParams, from leo_params(key, features), got {type(params).__name__}")
    arrays = params.encoder, params.encoder.T  # with as many columns as codes and weights have
    return MetaParams(params, tuple(learned_state(inner, array) for inner, array in zip(inners, arrays, strict=True)))


def _loss(
    classifier: LinearClassifier, batch: Batch, key: jax.Array, dropout: float | jax.Array | None = None
) -> tuple[jax.Array, Metrics]:
    """Returns the cross-entropy and the accuracy of a classifier."""
    return cross_entropy(classifier(_drop(key, batch.x, dropout)), batch)


def _encode(
    params: LEOParams, x: jax.Array, one_hot: jax.Array, weight: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Returns mean and standard deviation of the code of each class, `[ways, latents]`.

    `mu_n, u_n` is the mean of `relation([encoder(x_i), encoder(x_j)])` over the examples `i` of class `n` and
    all examples `j`. These means have the weights of the support set.
    """
    codes = x @ params.encoder
    n = codes.shape[0]
    pairs = jnp.concatenate([jnp.repeat(codes, n, axis=0), jnp.tile(codes, (n, 1))], axis=1)
    *hidden, last = params.relation
    for matrix in hidden:
        pairs = jax.nn.relu(pairs @ matrix)
    relations = jax.vmap(lambda pairs: weighted_mean(pairs, weight, 0))((pairs @ last).reshape(n, n, -1))
    mean, u = jnp.split(class_means(relations, one_hot), 2, axis=1)
    return mean, _deviation(u, 0.0)


def _decode(decoder: jax.Array, codes: jax.Array, key: jax.Array, training: bool) -> jax.Array:
    """Draws the weights of the classes, `[ways, features]`. Their deviation starts near Xavier's."""
    mean, u = jnp.split(codes @ decoder, 2, axis=1)
    return _draw(key, mean, _deviation(u, math.sqrt(2.0 / sum(mean.shape))), training)


def _deviation(u: jax.Array, start: float) -> jax.Array:
    """Returns the authors' standard deviation `max(exp(u) - 1 + start, 1e-10)`, which is `start` for `u = 0`."""
    return jnp.maximum(jnp.exp(u) - 1 + start, 1e-10)


def _draw(key: jax.Array, mean: jax.Array, deviation: jax.Array, training: bool) -> jax.Array:
    """Draws `mu + sigma * epsilon` with `epsilon ~ N(0, I)` during meta-training, and returns `mu` at test."""
    if not training:
        return mean
    return mean + deviation * jax.random.normal(key, mean.shape, mean.dtype)


def _drop(key: jax.Array, x: jax.Array, dropout: float | jax.Array | None) -> jax.Array:
    """Zeroes the share `dropout` of the entries of `x` and scales up the others. `None` returns `x`."""
    if dropout is None:
        return x
    kept = jax.random.bernoulli(key, 1 - dropout, x.shape)
    return jnp.where(kept, x / jnp.asarray(1 - dropout, x.dtype), 0)


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


def _scale_by_column_rate(rate: float | jax.Array) -> optax.GradientTransformation:
    """Multiplies the gradient by minus a learned rate of each column."""

    def init(params: Any) -> Any:
        return Learned(jnp.full((1, params.shape[1]), rate, params.dtype))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return -state.value * updates, state

    return optax.GradientTransformation(init, update)

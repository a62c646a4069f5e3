"""LEO: latent embedding optimization (Rusu et al. 2019, https://arxiv.org/abs/1807.05960).

The support set gives a latent code of each class. The inner loop moves the codes, which a decoder turns into the
weights of a linear classifier, and then those weights.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta._adapt import adapt
from jaxmeta._checks import check_integer, check_number
from jaxmeta._learned import Learned
from jaxmeta._losses import classification
from jaxmeta._types import Batch, MetaLearner, MetaParams, Metrics, Task
from jaxmeta.algorithms._common import grad_of, learned_state
from jaxmeta.meta_gradients import MetaGradient, reverse


class LEOParams(NamedTuple):
    """The parameters of LEO's networks, linear maps without biases."""

    encoder: jax.Array
    """From a feature vector to a code, `[features, latents]`."""
    relation: tuple[jax.Array, ...]
    """The layers of a ReLU network on pairs of codes, `[2 * latents, 2 * latents]` each."""
    decoder: jax.Array
    """From a class's code to mean and log-deviation of its weights, `[latents, 2 * features]`."""


def leo_params(key: jax.Array, features: int, latents: int = 64) -> LEOParams:
    """Initial parameters for `leo`, Xavier uniform.

    Args:
        key: of the initialization.
        features: length of the feature vectors.
        latents: length of the codes; the paper's is 64.

    Returns:
        The parameters.

    Raises:
        ValueError: if a size is less than 1.

    Example:
        >>> [matrix.shape for matrix in jax.tree.leaves(leo_params(jax.random.key(0), features=640))]
        [(640, 64), (128, 128), (128, 128), (128, 128), (64, 1280)]
    """
    check_integer(features=features, latents=latents)
    sizes = [(features, latents), *[(2 * latents, 2 * latents)] * 3, (latents, 2 * features)]
    xavier = jax.nn.initializers.xavier_uniform()
    encoder, *relation, decoder = (xavier(k, size) for k, size in zip(jax.random.split(key, 5), sizes, strict=True))
    return LEOParams(encoder, tuple(relation), decoder)


def leo(
    ways: int,
    learning_rate: float = 1.0,
    steps: int = 5,
    *,
    head_rate: float = 1e-3,
    head_steps: int = 5,
    dropout: float = 0.3,
    kl_weight: float = 0.75,
    encoder_weight: float = 5e-6,
    orthogonality_weight: float = 0.2,
    meta_gradient: MetaGradient | None = None,
) -> MetaLearner:
    """LEO for classification on given features, such as those of a network that was trained on the training classes.

    In meta-training codes and weights are drawn from Gaussians and inputs have dropout; at test (`MetaLearner.adapt`
    and `loss`) the means are taken and nothing is random. The defaults are near those of the authors' code for 5-way
    1-shot mini-ImageNet, on features scaled to length 1; much longer ones overflow. Its weight decay is the outer
    optimizer's affair (`optax.adamw`).

    Args:
        ways: classes of a task, labeled from 0; each has examples in the support set, or all results are NaN.
        learning_rate: where the learned rate of each latent dimension starts.
        steps: inner steps of the codes.
        head_rate: where the learned rate of each feature's weights starts.
        head_steps: inner steps of the weights, after those of the codes.
        dropout: share of input features that are zeroed in meta-training.
        kl_weight: of the divergence of the codes' distribution from the standard normal one, the paper's `beta`.
        encoder_weight: of the squared distance of the first codes from the last ones, whose derivative pulls the first
            ones only, the paper's `gamma`. Both are means over all numbers in the codes.
        orthogonality_weight: of the mean squared difference of the correlations between the decoder's rows and those
            of orthogonal ones, the paper's `lambda_2`.
        meta_gradient: see `maml`; not `implicit()`.

    Returns:
        A `MetaLearner`, whose `init` takes `leo_params(...)`. `adapt` returns the weights `[ways, features]`, with
        logits `x @ weights.T`, for batches of `x: [n, features]` and `y: [n]`. The loss that `grad` reports holds the
        penalties. `MetaParams.learned` holds the rates.

    Raises:
        TypeError: in `init`, if the parameters are no `LEOParams`.
        ValueError: if a number is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> learner = leo(ways=2)
        >>> meta = learner.init(leo_params(jax.random.key(0), features=3, latents=4))
        >>> support = Batch(jnp.eye(3)[:2], jnp.array([0, 1]))
        >>> learner.adapt(meta, support, jax.random.key(1)).shape
        (2, 3)

    References:
        Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero & Hadsell, *Meta-Learning with Latent Embedding Optimization*,
        ICLR 2019, https://arxiv.org/abs/1807.05960
    """
    check_integer(ways=ways, steps=steps, head_steps=head_steps)
    check_number(kl_weight=kl_weight, encoder_weight=encoder_weight, orthogonality_weight=orthogonality_weight)
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}")
    meta_gradient = reverse() if meta_gradient is None else meta_gradient
    code_inner, head_inner = _scale_by_column_rate(learning_rate), _scale_by_column_rate(head_rate)

    def init(params: Any) -> MetaParams:
        if not isinstance(params, LEOParams):
            raise TypeError(f"params must be LEOParams, from leo_params(key, features), got {type(params).__name__}")
        codes, weights = params.encoder, params.encoder.T  # in the place of both, whose columns are as many
        return MetaParams(params, (learned_state(code_inner, codes), learned_state(head_inner, weights)))

    def run(meta: MetaParams, support: Batch, key: jax.Array, training: bool) -> tuple[jax.Array, jax.Array]:
        """The weights, and the penalties of the way there."""
        params, (code_rates, head_rates) = meta
        rate = dropout if training else 0.0
        head_loss = partial(_head_loss, dropout=rate)
        decode = partial(_decode, params.decoder, training=training)

        def code_loss(codes: jax.Array, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
            decode_key, loss_key = jax.random.split(key)
            return head_loss(decode(codes, decode_key), batch, loss_key)

        encode_key, draw_key, code_key, decode_key, head_key = jax.random.split(key, 5)
        mean, log_deviation = _encode(params, _drop(encode_key, support.x, rate), support.y, ways)
        first = _draw(draw_key, mean, log_deviation, training)
        loop = partial(adapt, batch=support, meta_gradient=meta_gradient)
        last = loop(code_loss, code_inner, first, key=code_key, steps=steps, learned=code_rates)
        weights = decode(last, decode_key)
        weights = loop(head_loss, head_inner, weights, key=head_key, steps=head_steps, learned=head_rates)

        distance = jnp.mean((jax.lax.stop_gradient(last) - first) ** 2)
        penalty = kl_weight * _divergence(mean, log_deviation) + encoder_weight * distance
        return weights, penalty + orthogonality_weight * _correlation(params.decoder)

    def objective(task: Task, meta: MetaParams, key: jax.Array) -> tuple[jax.Array, Metrics]:
        adapt_key, loss_key = jax.random.split(key)
        weights, penalty = run(meta, task.support, adapt_key, training=True)
        loss, metrics = _head_loss(weights, task.query, loss_key, dropout)
        return loss + penalty, metrics

    def adapt_at_test(meta: MetaParams, support: Batch, key: jax.Array) -> jax.Array:
        return run(meta, support, key, training=False)[0]

    return MetaLearner(init, adapt_at_test, partial(_head_loss, dropout=0.0), grad_of(objective, meta_gradient))


def _head_loss(weights: jax.Array, batch: Batch, key: jax.Array, dropout: float) -> tuple[jax.Array, Metrics]:
    return classification(lambda weights, x: _drop(key, x, dropout) @ weights.T)(weights, batch, key)


def _encode(params: LEOParams, x: jax.Array, y: jax.Array, ways: int) -> tuple[jax.Array, jax.Array]:
    """Mean and log-deviation of each class's code, `[ways, latents]`: means over all pairs of examples."""
    codes = x @ params.encoder
    n = codes.shape[0]
    pairs = jnp.concatenate([jnp.repeat(codes, n, axis=0), jnp.tile(codes, (n, 1))], axis=1)
    *hidden, last = params.relation
    for matrix in hidden:
        pairs = jax.nn.relu(pairs @ matrix)
    relations = jnp.mean((pairs @ last).reshape(n, n, -1), axis=1)
    members = jax.nn.one_hot(y, ways, dtype=relations.dtype)
    mean, log_deviation = jnp.split(members.T @ relations / jnp.sum(members, axis=0)[:, None], 2, axis=1)
    return mean, log_deviation


def _decode(decoder: jax.Array, codes: jax.Array, key: jax.Array, training: bool) -> jax.Array:
    """The weights of the classes, `[ways, features]`; a sample's deviation starts near Xavier's."""
    mean, log_deviation = jnp.split(codes @ decoder, 2, axis=1)
    return _draw(key, mean, log_deviation + 0.5 * math.log(2.0 / sum(mean.shape)), training)


def _draw(key: jax.Array, mean: jax.Array, log_deviation: jax.Array, training: bool) -> jax.Array:
    """A sample of a Gaussian in meta-training, its mean at test."""
    if not training:
        return mean
    return mean + jnp.exp(log_deviation) * jax.random.normal(key, mean.shape, mean.dtype)


def _drop(key: jax.Array, x: jax.Array, dropout: float) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, 1 - dropout, x.shape), x / (1 - dropout), 0) if dropout else x


def _divergence(mean: jax.Array, log_deviation: jax.Array) -> jax.Array:
    """Mean divergence of Gaussians from the standard normal distribution, in nats."""
    return jnp.mean(0.5 * (jnp.exp(2 * log_deviation) + mean**2 - 1) - log_deviation)


def _correlation(matrix: jax.Array) -> jax.Array:
    """Mean squared difference of the correlation matrix of the rows from the identity."""
    rows = matrix / jnp.linalg.norm(matrix, axis=1, keepdims=True)
    return jnp.mean((rows @ rows.T - jnp.eye(rows.shape[0], dtype=rows.dtype)) ** 2)


def _scale_by_column_rate(learning_rate: float) -> optax.GradientTransformation:
    """Multiplies the gradient by minus a learned rate of each column."""
    check_number(learning_rate=learning_rate)

    def init(params: Any) -> Any:
        return Learned(jnp.full((1, params.shape[1]), learning_rate, params.dtype))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return -state.value * updates, state

    return optax.GradientTransformation(init, update)

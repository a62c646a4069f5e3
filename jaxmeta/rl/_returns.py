"""Returns, advantages and the linear baseline for a batch of episodes: `T` steps of `E` episodes."""

import jax
import jax.numpy as jnp

from jaxmeta._checks import check_not_negative


def discounted_returns(reward: jax.Array, ended: jax.Array, *, discount: float | jax.Array) -> jax.Array:
    """Returns the discounted sum of the rewards from each step to the end of its episode.

    Args:
        reward: rewards, `[T, ...]`.
        ended: whether an episode ended with the step, bool `[T, ...]`.
        discount: `gamma`, the discount per step, in [0, 1].

    Returns:
        `R_t = r_t + gamma * R_{t+1}`, `[T, ...]`.

    Example:
        >>> reward, ended = jnp.array([1.0, 2.0, 4.0]), jnp.array([False, True, False])
        >>> discounted_returns(reward, ended, discount=0.5).tolist()
        [2.0, 2.0, 4.0]
    """
    zero = jnp.zeros_like(reward)
    return gae(reward, zero, zero, ended, ended, discount=discount, trace_decay=1.0)


def gae(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    *,
    discount: float | jax.Array,
    trace_decay: float | jax.Array,
) -> jax.Array:
    """Generalized advantage estimation (GAE): an exponentially weighted sum of temporal-difference errors.

    With the critic `V`, the errors `delta` and the advantages `A` are::

        delta_t = r_t + gamma * V(s_{t+1}) - V(s_t)
        A_t = delta_t + gamma * lambda * A_{t+1}

    After an episode has terminated, `V(s_{t+1})` is 0. After it was truncated, `V(s_{t+1})` is `next_value`, because
    the episode would have continued. Pass zeros as `next_value` if the horizon is part of the problem. In both cases
    `A_{t+1}` is 0.

    Args:
        reward: rewards `r`, `[T, ...]`.
        value: the critic's value of the observation before each step, `[T, ...]`.
        next_value: the critic's value of the observation after each step, `[T, ...]`.
        terminated: whether the episode ended by itself with the step, bool `[T, ...]`.
        truncated: whether the episode was cut off after the step, bool `[T, ...]`.
        discount: `gamma`, the discount per step, in [0, 1].
        trace_decay: `lambda`, in [0, 1]. With 1 the advantages are discounted returns minus the value, with 0 they are
            one-step errors.

    Returns:
        Advantages, `[T, ...]`.

    Example:
        >>> one, no = jnp.ones(2), jnp.zeros(2, bool)
        >>> gae(one, one, one, no, jnp.array([False, True]), discount=0.5, trace_decay=1.0).tolist()
        [0.75, 0.5]

    References:
        Schulman et al., *High-Dimensional Continuous Control Using Generalized Advantage Estimation*, ICLR 2016,
        https://arxiv.org/abs/1506.02438
    """
    error = reward + discount * jnp.where(terminated, 0, next_value) - value  # delta_t
    decay = jnp.where(terminated | truncated, 0, discount * trace_decay)  # gamma * lambda

    def step(later: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        error, decay = now
        advantage = error + decay * later  # A_t = delta_t + gamma * lambda * A_{t+1}
        return advantage, advantage

    return jax.lax.scan(step, jnp.zeros_like(error[0]), (error, decay.astype(error.dtype)), reverse=True)[1]


def linear_baseline(obs: jax.Array, returns: jax.Array, valid: jax.Array, *, ridge: float = 1e-5) -> jax.Array:
    """The linear feature baseline: a ridge regression of the returns on the same episodes that it predicts.

    The features `x_t` are the observation `o` clipped to [-10, 10], its squares, the first three powers of the time
    `t / T` within the episode, and a constant. The prediction is `w @ x_t` with
    `w = (X.T @ X + ridge * diag(X.T @ X))^-1 @ X.T @ R`, where the rows of `X` are the features of the valid steps and
    `R` their returns.

    Args:
        obs: observations, `[T, E, observation_size]`. The first axis is the time within the episode.
        returns: targets `R`, `[T, E]`.
        valid: which steps count, bool `[T, E]`.
        ridge: strength of the regularization, relative to the mean square of each feature, at least 0. Where rounding
            makes `X.T @ X` singular all the same, it is multiplied by ten until it is not, as in ProMP's code.

    Returns:
        Predicted returns, `[T, E]`.

    Raises:
        ValueError: if `ridge` is negative.

    Example:
        >>> time = jnp.arange(5.0)[:, None]
        >>> values = linear_baseline(jnp.zeros((5, 1, 2)), 3 - time, jnp.ones((5, 1), bool))
        >>> bool(jnp.allclose(values, 3 - time, atol=0.01))
        True

    References:
        Duan, Chen, Houthooft, Schulman & Abbeel, *Benchmarking Deep Reinforcement Learning for Continuous Control*,
        ICML 2016, https://arxiv.org/abs/1604.06778
    """
    check_not_negative(ridge=ridge)
    length = obs.shape[0]
    clipped = jnp.clip(obs, -10, 10)
    time = jnp.broadcast_to(jnp.arange(1, length + 1)[:, None, None] / length, (*valid.shape, 1)).astype(obs.dtype)
    features = jnp.concatenate([clipped, clipped**2, time, time**2, time**3, jnp.ones_like(time)], axis=-1)
    features = features.reshape(-1, features.shape[-1])

    weight = valid.reshape(-1, 1).astype(obs.dtype)
    scale = jnp.sqrt(jnp.sum(weight * features**2, axis=0) / jnp.maximum(jnp.sum(weight), 1))
    features = features / jnp.where(scale > 0, scale, 1)[None]
    used = features * weight
    with jax.default_matmul_precision("highest"):
        gram = used.T @ features / jnp.maximum(jnp.sum(weight), 1)
        moment = used.T @ jnp.where(valid, returns, 0).reshape(-1) / jnp.maximum(jnp.sum(weight), 1)
        gram = gram + _least_ridge(jax.lax.stop_gradient(gram), ridge) * jnp.eye(gram.shape[0], dtype=gram.dtype)
        solution = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram), moment)
        return (features @ solution).reshape(valid.shape)


def _least_ridge(gram: jax.Array, ridge: float) -> jax.Array:
    """Returns the least of `ridge`, `10 * ridge`, ... that gives a Gram matrix a Cholesky factor.

    Features that nearly depend on each other, such as those of few or short episodes, give a matrix whose least
    eigenvalue is lost in rounding. A ridge of 1 is enough for features of mean square 1, unless they are NaN.
    """
    eye, least = jnp.eye(gram.shape[0], dtype=gram.dtype), jnp.finfo(gram.dtype).eps

    def fails(ridge: jax.Array) -> jax.Array:
        return ~jnp.all(jnp.isfinite(jnp.linalg.cholesky(gram + ridge * eye))) & (ridge < 10)

    start = jnp.asarray(ridge, gram.dtype)
    return jax.lax.while_loop(fails, lambda ridge: jnp.maximum(10 * ridge, least), start)


def next_step(value: jax.Array) -> jax.Array:
    """Shifts values by one step along the first axis, with 0 after the last one."""
    return jnp.append(value[1:], jnp.zeros_like(value[:1]), axis=0)


def masked_mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns the mean over the valid steps, or 0 if there are none."""
    return jnp.sum(jnp.where(valid, x, 0)) / jnp.maximum(jnp.sum(valid), 1)


def normalize(advantage: jax.Array, valid: jax.Array) -> jax.Array:
    """Scales advantages to mean 0 and variance 1 over the valid steps.

    Args:
        advantage: advantages, `[T, E]`.
        valid: which steps count, bool `[T, E]`.

    Returns:
        Normalized advantages, `[T, E]`, with 0 at the steps that do not count.

    Example:
        >>> normalize(jnp.array([[1.0], [3.0], [100.0]]), jnp.array([[True], [True], [False]]))[:, 0].round(3).tolist()
        [-1.0, 1.0, 0.0]
    """
    centered = advantage - masked_mean(advantage, valid)
    std = jnp.sqrt(masked_mean(centered**2, valid))
    return jnp.where(valid, centered / (std + 1e-8), 0)

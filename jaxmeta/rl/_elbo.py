"""The evidence lower bound of VariBAD, whose terms train the belief."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta._types import Metrics, PyTree
from jaxmeta.rl._belief import BeliefPolicy
from jaxmeta.rl._returns import masked_mean
from jaxmeta.rl._rollout import Trajectory


def elbo_terms(
    policy: BeliefPolicy, params: PyTree, data: Trajectory, key: jax.Array, samples: int | None = None
) -> Metrics:
    """Returns the terms of minus the evidence lower bound, each as a mean over the times of a trial.

    With the belief `q_t` after the observation of time `t`, a latent `m_t ~ q_t` and the predictions `r'` and `s'` of
    the decoders, they are::

        reward_error = mean_t sum_i (r_i - r'_i(m_t))^2
        transition_error = mean_t sum_i |s_{i+1} - s'_{i+1}(m_t)|^2
        belief_kl = mean_t KL(q_t || q_{t-1}),   where the first belief is compared with N(0, 1)

    The sums go over all steps of the trial, those before `t` and those after it.

    Args:
        policy: the networks.
        params: the networks' parameters.
        data: trials, `[T, num_tasks]`, whose `next_obs` are the environment's.
        key: a random key for the latents and the times.
        samples: number of random times `t` of the errors, the same for all trials; all times if `None`.

    Returns:
        The terms by name, without `"transition_error"` if the policy decodes no transitions.
    """
    apply: Any = policy.apply
    belief = apply(params, data.obs, method="infer")
    prior = jnp.zeros_like(belief.mean[:1])  # also the logarithms of its standard deviations
    before = jax.tree.map(lambda x: jnp.concatenate([prior, x[:-1]]), belief)
    time_key, key = jax.random.split(key)
    length = len(data.reward)
    times = jnp.arange(length)
    if samples is not None and samples < length:
        times = jax.random.choice(time_key, times, (samples,), replace=False)

    def errors(latent: jax.Array) -> Metrics:
        reward, next_obs = apply(params, latent, data.obs, data.action, data.next_obs, method="decode")
        found = {"reward_error": (reward - data.reward) ** 2}
        if next_obs is not None:
            found["transition_error"] = jnp.sum((next_obs - data.next_obs) ** 2, axis=-1)
        return jax.tree.map(lambda x: jnp.sum(jnp.where(data.valid, x, 0), axis=0), found)

    latents = jax.tree.map(lambda x: x[times], belief).sample(key)
    found = jax.tree.map(lambda x: masked_mean(x, data.valid[times]), jax.vmap(errors)(latents))
    return {**found, "belief_kl": masked_mean(belief.kl(before), data.valid)}

"""Meta-policy search by name: MAML-TRPO, ProMP, MAML-A2C, E-MAML, and multi-task PPO as a control.

The algorithms differ in the loss that is minimized on the samples of a meta-iteration, and in the outer optimizer.
"""

import jax
import optax
from jax.sharding import Mesh

from jaxmeta._checks import check_integer
from jaxmeta._types import Training
from jaxmeta.display import described
from jaxmeta.meta_gradients import MetaGradient
from jaxmeta.rl._collector import Collector
from jaxmeta.rl._meta_policy import Inner, Outer, meta_policy_search
from jaxmeta.rl._surrogates import Surrogate, clipped, ratio, reinforce
from jaxmeta.rl._trpo import trpo


@described
def maml_trpo(
    collect: Collector,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    num_tasks: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    surrogate: Surrogate = ratio,
    meta_gradient: MetaGradient | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Training:
    """MAML with a policy gradient in the inner loop and TRPO as the outer optimizer.

    In each task of a meta-iteration the policy plays, adapts, and plays again with the adapted parameters. One `trpo`
    step then improves the return after adaptation as a function of the initial parameters. If `inner` has
    `jaxmeta.Learned` values, as `optim.scale_by_learned_rate` has, they are learned too (Meta-SGD).

    Args:
        collect: collector of the samples.
        inner: the inner optimizer; that of the paper is `optax.sgd(0.1)`.
        steps: number of inner steps.
        num_tasks: number of tasks per meta-iteration.
        optimizer: the outer optimizer; `trpo(0.01)` if `None`.
        surrogate: surrogate of the inner loss: `ratio`, `reinforce` (that of the paper) or `dice`.
        meta_gradient: `jaxmeta.reverse()` (the default), `mixed()`, `first_order()` or `truncated(n)`.
        batch_size: how many tasks are computed at once. It decides memory and speed, not the result. `None` (default)
            chooses: on a CPU one task after the other is differentiated, on an accelerator as many at once as play a
            million steps together. It does not apply to a mesh.
        mesh: devices that share the tasks, such as `jaxmeta.task_mesh()`. The state is the same on all of them. The
            episodes do not depend on the mesh, so neither does the result, up to the order of a sum. Pass the mesh to
            `jaxmeta.loop` as well.

    Returns:
        A `Training`. Its metrics are `return_0`, ... `return_<steps>`, the mean undiscounted return after so many inner
        steps, `loss`, minus the last of them, `entropy` of the policies in nats, `kl` between the adapted policies
        before and after the outer update, and `accepted` and `backtracks` of `trpo`.

    Raises:
        TypeError: if an optimizer is not an optax transformation.
        ValueError: if a number is less than 1, or if `batch_size` comes with a mesh.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from jaxmeta import envs, rl
        >>> def policy(weights, obs):
        ...     return rl.Categorical(obs @ weights)
        >>> env, weights = envs.make("tabular", horizon=3), jnp.zeros((10, 5))
        >>> collect = rl.Collector(env=env, policy=policy, episodes=4)
        >>> training = maml_trpo(collect, optax.sgd(0.1), num_tasks=2)
        >>> state, metrics = jax.jit(training.step)(training.init(weights), jax.random.key(1))
        >>> bool(metrics["kl"] <= 0.01)
        True

    References:
        Finn, Abbeel & Levine, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks*, ICML 2017,
        https://arxiv.org/abs/1703.03400
    """
    check_integer(steps=steps)
    outer = Outer(trpo() if optimizer is None else optimizer, ratio)
    adaptation = Inner(collect, inner, surrogate, steps, meta_gradient)
    return meta_policy_search(adaptation, outer, num_tasks, batch_size, mesh)


@described
def promp(
    collect: Collector,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    num_tasks: int = 40,
    optimizer: optax.GradientTransformation | None = None,
    epochs: int = 5,
    clip: float | jax.Array = 0.3,
    kl_penalty: float | jax.Array = 5e-4,
    surrogate: Surrogate = ratio,
    meta_gradient: MetaGradient | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Training:
    """ProMP, proximal meta-policy search: several clipped outer steps on the same samples, as in PPO.

    With the initial parameters `theta`, the adapted ones `theta'` and the ratio `r` of the probabilities of an action
    under the new and the old adapted policy, the loss of a task is::

        -mean(min(r * A, clip(r, 1 - epsilon, 1 + epsilon) * A)) + eta * KL(pi_old || pi_theta)

    The divergence is that of the policies before adaptation.

    Args:
        collect: see `maml_trpo`.
        inner: see `maml_trpo`.
        steps: see `maml_trpo`.
        num_tasks: see `maml_trpo`.
        optimizer: the outer optimizer; `optax.adam(1e-3)` if `None`.
        epochs: number of outer steps on the samples of one meta-iteration.
        clip: `epsilon`, see `clipped`.
        kl_penalty: `eta`, the weight of the KL divergence between the policies before adaptation, at least 0.
        surrogate: surrogate of the inner loss.
        meta_gradient: see `maml_trpo`.
        batch_size: see `maml_trpo`.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`, see `maml_trpo`.

    Raises:
        TypeError: if an optimizer is not an optax transformation.
        ValueError: if an integer is less than 1, `clip` is not positive, or `kl_penalty` is negative.

    Example:
        >>> import optax
        >>> from jaxmeta import envs, rl
        >>> env, policy = envs.make("particles2d"), rl.GaussianPolicy(action_size=2)
        >>> training = promp(rl.Collector(env=env, policy=policy.apply), optax.sgd(0.1))

    References:
        Rothfuss, Lee, Clavera, Asfour & Abbeel, *ProMP: Proximal Meta-Policy Search*, ICLR 2019,
        https://arxiv.org/abs/1810.06784
    """
    check_integer(steps=steps)
    outer = Outer(optax.adam(1e-3) if optimizer is None else optimizer, clipped(clip), epochs, kl_penalty)
    adaptation = Inner(collect, inner, surrogate, steps, meta_gradient)
    return meta_policy_search(adaptation, outer, num_tasks, batch_size, mesh)


@described
def maml_a2c(
    collect: Collector,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    num_tasks: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    surrogate: Surrogate = reinforce,
    meta_gradient: MetaGradient | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Training:
    """MAML with an advantage policy gradient (A2C) in the inner loop and in the outer update.

    The critic is the baseline of `collect`. With `surrogate=dice` this is MAML with DiCE.

    Args:
        collect: see `maml_trpo`.
        inner: see `maml_trpo`.
        steps: see `maml_trpo`.
        num_tasks: see `maml_trpo`.
        optimizer: the outer optimizer; `optax.adam(1e-3)` if `None`.
        surrogate: surrogate of the inner loss.
        meta_gradient: see `maml_trpo`.
        batch_size: see `maml_trpo`.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`, see `maml_trpo`.

    Raises:
        TypeError: if an optimizer is not an optax transformation.
        ValueError: if a number is less than 1.

    References:
        Finn, Abbeel & Levine, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks*, ICML 2017,
        https://arxiv.org/abs/1703.03400
    """
    check_integer(steps=steps)
    outer = Outer(optax.adam(1e-3) if optimizer is None else optimizer, reinforce)
    adaptation = Inner(collect, inner, surrogate, steps, meta_gradient)
    return meta_policy_search(adaptation, outer, num_tasks, batch_size, mesh)


@described
def e_maml(
    collect: Collector,
    inner: optax.GradientTransformation,
    *,
    num_tasks: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    exploration: float | jax.Array = 1.0,
    surrogate: Surrogate = reinforce,
    meta_gradient: MetaGradient | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Training:
    """E-MAML: MAML that also credits the pre-adaptation policy for exploration that helps adaptation.

    The loss is that of `maml_trpo` plus the term that MAML leaves out::

        -exploration * (R' - mean(R')) / std(R') * mean(log pi_theta)

    Here `R'` is a task's return after adaptation, mean and deviation are over the tasks, and `log pi_theta` are the
    log-probabilities of the actions before adaptation. There is one inner step.

    Args:
        collect: see `maml_trpo`.
        inner: see `maml_trpo`.
        num_tasks: see `maml_trpo`, at least 2.
        optimizer: see `maml_trpo`.
        exploration: weight of the term, at least 0. The term is a mean over steps, so the number of episodes would be
            the exact weight, but its gradient has a high variance.
        surrogate: surrogate of the inner loss.
        meta_gradient: see `maml_trpo`.
        batch_size: see `maml_trpo`.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`, see `maml_trpo`.

    Raises:
        TypeError: if an optimizer is not an optax transformation.
        ValueError: if `num_tasks` is less than 2, because credit is relative to other tasks, or if `exploration` is
            negative.

    References:
        Stadie et al., *Some Considerations on Learning to Explore via Meta-Reinforcement Learning*, 2018,
        https://arxiv.org/abs/1803.01118
    """
    check_integer(least=2, num_tasks=num_tasks)
    outer = Outer(trpo() if optimizer is None else optimizer, ratio, exploration=exploration)
    return meta_policy_search(Inner(collect, inner, surrogate, 1, meta_gradient), outer, num_tasks, batch_size, mesh)


@described
def multi_task_ppo(
    collect: Collector,
    *,
    num_tasks: int = 40,
    optimizer: optax.GradientTransformation | None = None,
    epochs: int = 5,
    clip: float | jax.Array = 0.3,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> Training:
    """PPO on all tasks without an inner loop, as a control for meta-learning.

    Give both the same adaptation at test: a meta-learned policy must be better than this one after it.

    Args:
        collect: see `maml_trpo`.
        num_tasks: see `maml_trpo`.
        optimizer: the optimizer; `optax.adam(1e-3)` if `None`.
        epochs: number of steps on the samples of one iteration.
        clip: see `clipped`.
        batch_size: see `maml_trpo`.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`, see `maml_trpo`. Its only return is `return_0`.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
        ValueError: if an integer is less than 1, or `clip` is not positive.

    References:
        Schulman, Wolski, Dhariwal, Radford & Klimov, *Proximal Policy Optimization Algorithms*, 2017,
        https://arxiv.org/abs/1707.06347
    """
    outer = Outer(optax.adam(1e-3) if optimizer is None else optimizer, clipped(clip), epochs)
    return meta_policy_search(Inner(collect, optax.identity(), ratio, 0), outer, num_tasks, batch_size, mesh)

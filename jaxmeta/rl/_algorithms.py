"""Meta-policy search by name: what is minimized on the data of a meta-iteration, and by which optimizer."""

import optax
from jax.sharding import Mesh

from jaxmeta._checks import check_integer
from jaxmeta.meta_gradients import MetaGradient
from jaxmeta.rl._collector import Collector
from jaxmeta.rl._meta_policy import Inner, Outer, Training, meta_policy_search
from jaxmeta.rl._surrogates import Surrogate, clipped, ratio, reinforce
from jaxmeta.rl._trpo import trpo


def maml_trpo(
    collect: Collector,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    num_tasks: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    surrogate: Surrogate = ratio,
    meta_gradient: MetaGradient | None = None,
    mesh: Mesh | None = None,
) -> Training:
    """MAML with a policy gradient inside and TRPO outside.

    One meta-iteration: in each task play, adapt, and play again with the adapted policy; then one `trpo` step on how
    the return after adaptation depends on the initial parameters. With `jaxmeta.Learned` values in `inner`, such as
    `optim.scale_by_learned_rate` has, they are learned too (Meta-SGD).

    Args:
        collect: plays the episodes.
        inner: the inner optimizer; the paper's is `optax.sgd(0.1)`.
        steps: inner steps.
        num_tasks: tasks per meta-iteration.
        optimizer: the outer one; `trpo(0.01)` if `None`.
        surrogate: of the inner loss: `ratio`, `reinforce` (the paper's) or `dice`.
        meta_gradient: `jaxmeta.reverse()` (the default), `mixed()`, `first_order()` or `truncated(n)`.
        mesh: devices to divide the tasks over, e.g. `jaxmeta.task_mesh()`; the state is the same on all of them. The
            episodes do not depend on the mesh, so the result does not either, up to the order of a sum. Give it to
            `jaxmeta.loop` too.

    Returns:
        A `Training`. Its metrics: `return_0`, ... `return_<steps>`, the mean undiscounted return after so many inner
        steps; `loss`, minus the last of them; `entropy` of the policies in nats; `kl` between adapted policies before
        and after the outer update; `accepted` and `backtracks` of `trpo`.

    Raises:
        TypeError: if an optimizer is not an optax transformation.
        ValueError: if a number is less than 1.

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
    return meta_policy_search(Inner(collect, inner, surrogate, steps, meta_gradient), outer, num_tasks, mesh)


def promp(
    collect: Collector,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    num_tasks: int = 40,
    optimizer: optax.GradientTransformation | None = None,
    epochs: int = 5,
    clip: float = 0.3,
    kl_penalty: float = 5e-4,
    surrogate: Surrogate = ratio,
    meta_gradient: MetaGradient | None = None,
    mesh: Mesh | None = None,
) -> Training:
    """ProMP, proximal meta-policy search: several clipped steps on the same data, as PPO does.

    Args:
        collect: see `maml_trpo`.
        inner: see `maml_trpo`.
        steps: see `maml_trpo`.
        num_tasks: see `maml_trpo`.
        optimizer: the outer one; `optax.adam(1e-3)` if `None`.
        epochs: outer steps on the data of one meta-iteration.
        clip: see `clipped`.
        kl_penalty: weight of the divergence of the unadapted policy from the one that played, the paper's `eta`.
        surrogate: of the inner loss.
        meta_gradient: see `maml_trpo`.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`, see `maml_trpo`.

    Raises:
        TypeError: if an optimizer is not an optax transformation.
        ValueError: if a number is less than 1, or `clip` not positive.

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
    return meta_policy_search(Inner(collect, inner, surrogate, steps, meta_gradient), outer, num_tasks, mesh)


def maml_a2c(
    collect: Collector,
    inner: optax.GradientTransformation,
    steps: int = 1,
    *,
    num_tasks: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    surrogate: Surrogate = reinforce,
    meta_gradient: MetaGradient | None = None,
    mesh: Mesh | None = None,
) -> Training:
    """MAML with an advantage policy gradient (REINFORCE with a baseline, A2C) inside and outside.

    The critic is the baseline of `collect`. With `surrogate=dice` it is DiCE's MAML.

    Args:
        collect: see `maml_trpo`.
        inner: see `maml_trpo`.
        steps: see `maml_trpo`.
        num_tasks: see `maml_trpo`.
        optimizer: the outer one; `optax.adam(1e-3)` if `None`.
        surrogate: of the inner loss.
        meta_gradient: see `maml_trpo`.
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
    return meta_policy_search(Inner(collect, inner, surrogate, steps, meta_gradient), outer, num_tasks, mesh)


def e_maml(
    collect: Collector,
    inner: optax.GradientTransformation,
    *,
    num_tasks: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    exploration: float = 1.0,
    surrogate: Surrogate = reinforce,
    meta_gradient: MetaGradient | None = None,
    mesh: Mesh | None = None,
) -> Training:
    """E-MAML: MAML whose unadapted policy is also paid for where it looks.

    Adds to `maml_trpo` the term that MAML leaves out: the log-probability of the first episodes, times the return after
    adaptation (less its mean over the tasks, and divided by its deviation). There is one inner step.

    Args:
        collect: see `maml_trpo`.
        inner: see `maml_trpo`.
        num_tasks: see `maml_trpo`.
        optimizer: see `maml_trpo`.
        exploration: weight of the term, a mean over steps; the number of episodes would be exact, and noisy.
        surrogate: of the inner loss.
        meta_gradient: see `maml_trpo`.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`, see `maml_trpo`.

    Raises:
        TypeError: if an optimizer is not an optax transformation.
        ValueError: if `num_tasks` is less than 2: credit is relative to other tasks.

    References:
        Stadie et al., *Some Considerations on Learning to Explore via Meta-Reinforcement Learning*, 2018,
        https://arxiv.org/abs/1803.01118
    """
    if num_tasks < 2:
        raise ValueError(f"num_tasks must be at least 2, got {num_tasks}")
    outer = Outer(trpo() if optimizer is None else optimizer, ratio, exploration=exploration)
    return meta_policy_search(Inner(collect, inner, surrogate, 1, meta_gradient), outer, num_tasks, mesh)


def multi_task_ppo(
    collect: Collector,
    *,
    num_tasks: int = 40,
    optimizer: optax.GradientTransformation | None = None,
    epochs: int = 5,
    clip: float = 0.3,
    mesh: Mesh | None = None,
) -> Training:
    """PPO on all tasks with no inner loop: the control that meta-learning must beat after the same adaptation.

    Args:
        collect: see `maml_trpo`.
        num_tasks: see `maml_trpo`.
        optimizer: `optax.adam(1e-3)` if `None`.
        epochs: steps on the data of one iteration.
        clip: see `clipped`.
        mesh: see `maml_trpo`.

    Returns:
        A `Training`, see `maml_trpo`; the only return is `return_0`.

    Raises:
        TypeError: if `optimizer` is not an optax transformation.
        ValueError: if a number is less than 1, or `clip` not positive.

    References:
        Schulman, Wolski, Dhariwal, Radford & Klimov, *Proximal Policy Optimization Algorithms*, 2017,
        https://arxiv.org/abs/1707.06347
    """
    outer = Outer(optax.adam(1e-3) if optimizer is None else optimizer, clipped(clip), epochs)
    return meta_policy_search(Inner(collect, optax.identity(), ratio, 0), outer, num_tasks, mesh)

"""Your own learners, models, benchmarks and environments by name.

`jaxmeta.Experiment` can use the names that a module registers as soon as the module is imported. On the command line
that is `jaxmeta train --module my_module.py --learner my-learner`. The names then appear in `jaxmeta list`, in errors
and in suggestions.

Example:
    >>> import jaxmeta, optax
    >>> from jaxmeta import register
    >>> def build(settings, network):
    ...     return jaxmeta.fomaml(network.loss, optax.sgd(settings.inner_rate), settings.steps)
    >>> register.learner("first-order-twin", build, [
    ...     register.recipe("images", "my notes", steps=1, inner_rate=0.4, outer_rate=1e-3, outer_schedule="constant",
    ...                     num_tasks=8)])
    >>> jaxmeta.Experiment("glyphs", "first-order-twin").resolve().num_tasks
    8
"""

from jaxmeta.catalog import Agent as Agent
from jaxmeta.catalog import Network as Network
from jaxmeta.catalog import Recipe as Recipe
from jaxmeta.catalog import Settings as Settings
from jaxmeta.catalog import recipe as recipe
from jaxmeta.catalog import register_learner as learner
from jaxmeta.catalog import register_model as model
from jaxmeta.catalog import register_policy_learner as policy_learner
from jaxmeta.data import register_tasksets as benchmark
from jaxmeta.envs import register as environment

__all__ = [
    "Agent",
    "Network",
    "Recipe",
    "Settings",
    "benchmark",
    "environment",
    "learner",
    "model",
    "policy_learner",
    "recipe",
]

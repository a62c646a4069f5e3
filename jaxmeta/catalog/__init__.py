"""Catalog: everything that a run can name, and the options that it has."""

from jaxmeta.catalog import _gradient_learners as _gradient_learners  # importing them registers their learners
from jaxmeta.catalog import _metric_learners as _metric_learners
from jaxmeta.catalog._agent import Agent as Agent
from jaxmeta.catalog._lookup import build_network as build_network
from jaxmeta.catalog._lookup import default_of as default_of
from jaxmeta.catalog._lookup import kinds_of as kinds_of
from jaxmeta.catalog._lookup import learners_for as learners_for
from jaxmeta.catalog._lookup import learners_with as learners_with
from jaxmeta.catalog._lookup import models_for as models_for
from jaxmeta.catalog._lookup import resolve as resolve
from jaxmeta.catalog._lookup import unknown as unknown
from jaxmeta.catalog._meta_gradients import build_optimizer as build_optimizer
from jaxmeta.catalog._meta_gradients import clipped as clipped
from jaxmeta.catalog._meta_gradients import outer_schedule as outer_schedule
from jaxmeta.catalog._models import register_model as register_model
from jaxmeta.catalog._options import CLASSES as CLASSES
from jaxmeta.catalog._options import GROUPS as GROUPS
from jaxmeta.catalog._options import KINDS as KINDS
from jaxmeta.catalog._options import TASKS as TASKS
from jaxmeta.catalog._options import Option as Option
from jaxmeta.catalog._options import Same as Same
from jaxmeta.catalog._options import Settings as Settings
from jaxmeta.catalog._options import check_minutes as check_minutes
from jaxmeta.catalog._options import checked as checked
from jaxmeta.catalog._options import option as option
from jaxmeta.catalog._options import options_of as options_of
from jaxmeta.catalog._policy_learners import register_policy_learner as register_policy_learner
from jaxmeta.catalog._registry import LEARNERS as LEARNERS
from jaxmeta.catalog._registry import META_GRADIENTS as META_GRADIENTS
from jaxmeta.catalog._registry import MODELS as MODELS
from jaxmeta.catalog._registry import Learner as Learner
from jaxmeta.catalog._registry import Network as Network
from jaxmeta.catalog._registry import Recipe as Recipe
from jaxmeta.catalog._registry import recipe as recipe
from jaxmeta.catalog._registry import register_learner as register_learner

"""Checks that every learner, sampler, learned transformation and environment must pass: for our own tests and yours.

Each function runs a list of checks and raises an `AssertionError` that names the one that failed.
"""

from jaxmeta.testing._check_env import check_env as check_env
from jaxmeta.testing._check_learner import check_learner as check_learner
from jaxmeta.testing._check_meta_gradient import check_meta_gradient as check_meta_gradient
from jaxmeta.testing._check_sampler import check_sampler as check_sampler
from jaxmeta.testing._check_transform import check_transform as check_transform

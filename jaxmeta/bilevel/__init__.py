"""Bilevel optimization on data: an inner training that goes on from one outer update to the next.

The inner problem is a `jaxmeta.InnerProblem`. `jaxmeta.inner_loop` with `jaxmeta.meta_step` starts it anew for each
outer update, and `bilevel_step` goes on where it stood. The meta-gradient is an argument of both.
"""

from jaxmeta.bilevel._distillation import distilled_data as distilled_data
from jaxmeta.bilevel._rows import Rows as Rows
from jaxmeta.bilevel._rows import TrainAndValidation as TrainAndValidation
from jaxmeta.bilevel._step import BilevelState as BilevelState
from jaxmeta.bilevel._step import bilevel_step as bilevel_step
from jaxmeta.bilevel._weights import weight_by_example as weight_by_example
from jaxmeta.bilevel._weights import weight_by_loss as weight_by_loss
from jaxmeta.bilevel._weights import weighted_losses as weighted_losses

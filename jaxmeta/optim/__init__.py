"""Learned inner optimizers: optax transformations whose state holds `jaxmeta.Learned` values."""

from jaxmeta.optim._rate import LearnedRateState as LearnedRateState
from jaxmeta.optim._rate import scale_by_learned_rate as scale_by_learned_rate

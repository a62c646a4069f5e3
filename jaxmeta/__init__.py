"""Meta-learning for JAX."""

from jaxmeta._types import Batch as Batch
from jaxmeta._types import LossFn as LossFn
from jaxmeta._types import MetaLearner as MetaLearner
from jaxmeta._types import MetaParams as MetaParams
from jaxmeta._types import Metrics as Metrics
from jaxmeta._types import PyTree as PyTree
from jaxmeta._types import Sampler as Sampler
from jaxmeta._types import Task as Task

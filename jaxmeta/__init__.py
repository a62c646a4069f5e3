"""Meta-learning for JAX.

Algorithms compose with any optax optimizer, tasks are sampled on the device, a meta-update is one XLA program.
"""

from jaxmeta import data as data
from jaxmeta import models as models
from jaxmeta import optim as optim
from jaxmeta._adapt import adapt as adapt
from jaxmeta._cost import Cost as Cost
from jaxmeta._cost import cost as cost
from jaxmeta._evolution import evolution as evolution
from jaxmeta._experiment import Experiment as Experiment
from jaxmeta._experiment import Result as Result
from jaxmeta._experiment import evaluate_run as evaluate_run
from jaxmeta._implicit import LinearSolver as LinearSolver
from jaxmeta._implicit import cg as cg
from jaxmeta._implicit import implicit as implicit
from jaxmeta._implicit import neumann as neumann
from jaxmeta._learned import Learned as Learned
from jaxmeta._learned import combine as combine
from jaxmeta._learned import partition as partition
from jaxmeta._log import best_meta as best_meta
from jaxmeta._losses import classification as classification
from jaxmeta._losses import regression as regression
from jaxmeta._meta_gradient import MetaGradient as MetaGradient
from jaxmeta._meta_gradient import Unrolled as Unrolled
from jaxmeta._meta_gradient import first_order as first_order
from jaxmeta._meta_gradient import mixed as mixed
from jaxmeta._meta_gradient import reverse as reverse
from jaxmeta._meta_gradient import truncated as truncated
from jaxmeta._step import Summary as Summary
from jaxmeta._step import evaluate as evaluate
from jaxmeta._step import meta_step as meta_step
from jaxmeta._step import summarize as summarize
from jaxmeta._train import Trained as Trained
from jaxmeta._train import train as train
from jaxmeta._types import Batch as Batch
from jaxmeta._types import LossFn as LossFn
from jaxmeta._types import MetaLearner as MetaLearner
from jaxmeta._types import MetaParams as MetaParams
from jaxmeta._types import Metrics as Metrics
from jaxmeta._types import PyTree as PyTree
from jaxmeta._types import Sampler as Sampler
from jaxmeta._types import Task as Task
from jaxmeta.algorithms import Contextual as Contextual
from jaxmeta.algorithms import anil as anil
from jaxmeta.algorithms import boil as boil
from jaxmeta.algorithms import cavia as cavia
from jaxmeta.algorithms import fomaml as fomaml
from jaxmeta.algorithms import imaml as imaml
from jaxmeta.algorithms import maml as maml
from jaxmeta.algorithms import meta_curvature as meta_curvature
from jaxmeta.algorithms import meta_kfo as meta_kfo
from jaxmeta.algorithms import meta_sgd as meta_sgd
from jaxmeta.algorithms import reptile as reptile

"""Meta-learning for JAX.

Algorithms compose with any optax optimizer, tasks are sampled on the device, and a meta-update is one XLA program.
"""

import sys as _sys

from jaxmeta import bilevel as bilevel
from jaxmeta import data as data
from jaxmeta import elsewhere as _elsewhere
from jaxmeta import estimators as estimators
from jaxmeta import models as models
from jaxmeta import optim as optim
from jaxmeta._adapt import adapt as adapt
from jaxmeta._adapt import unroll as unroll
from jaxmeta._cost import Cost as Cost
from jaxmeta._cost import cost as cost
from jaxmeta._learned import Learned as Learned
from jaxmeta._learned import combine as combine
from jaxmeta._learned import partition as partition
from jaxmeta._names import explain_missing as _explain_missing
from jaxmeta._parallel import task_mesh as task_mesh
from jaxmeta._save import load as load
from jaxmeta._save import save as save
from jaxmeta._step import evaluate as evaluate
from jaxmeta._step import meta_step as meta_step
from jaxmeta._summary import Summary as Summary
from jaxmeta._summary import summarize as summarize
from jaxmeta._types import Batch as Batch
from jaxmeta._types import Details as Details
from jaxmeta._types import LossFn as LossFn
from jaxmeta._types import MetaLearner as MetaLearner
from jaxmeta._types import MetaParams as MetaParams
from jaxmeta._types import Metrics as Metrics
from jaxmeta._types import PyTree as PyTree
from jaxmeta._types import Sampler as Sampler
from jaxmeta._types import Task as Task
from jaxmeta._types import Training as Training
from jaxmeta._types import TrainingState as TrainingState
from jaxmeta._types import WeightedBatch as WeightedBatch
from jaxmeta._variables import merge as merge
from jaxmeta._variables import split as split
from jaxmeta.algorithms import *  # noqa: F403  every public name of the package, so that a learner is named there only
from jaxmeta.losses import BarDistribution as BarDistribution
from jaxmeta.losses import Loss as Loss
from jaxmeta.losses import bar_edges as bar_edges
from jaxmeta.losses import classification as classification
from jaxmeta.losses import magic_box as magic_box
from jaxmeta.losses import regression as regression
from jaxmeta.losses import weighted_mean as weighted_mean
from jaxmeta.meta_gradients import *  # noqa: F403
from jaxmeta.prediction import Classifier as Classifier
from jaxmeta.prediction import Prediction as Prediction
from jaxmeta.prediction import PriorFittedClassifier as PriorFittedClassifier
from jaxmeta.prediction import load_classifier as load_classifier
from jaxmeta.prediction import save_classifier as save_classifier
from jaxmeta.runs import Experiment as Experiment
from jaxmeta.runs import Result as Result
from jaxmeta.runs import Run as Run
from jaxmeta.runs import compare_runs as compare_runs
from jaxmeta.runs import evaluate_run as evaluate_run
from jaxmeta.runs import load_run as load_run
from jaxmeta.runs import run_all as run_all
from jaxmeta.training import Minibatches as Minibatches
from jaxmeta.training import Trained as Trained
from jaxmeta.training import best_meta as best_meta
from jaxmeta.training import csv_logger as csv_logger
from jaxmeta.training import embed as embed
from jaxmeta.training import installed_versions as _installed_versions
from jaxmeta.training import loop as loop
from jaxmeta.training import pretrain as pretrain
from jaxmeta.training import pretrain_step as pretrain_step
from jaxmeta.training import tensorboard_logger as tensorboard_logger
from jaxmeta.training import train as train
from jaxmeta.training import train_many as train_many
from jaxmeta.training import wandb_logger as wandb_logger

__version__ = _installed_versions("jaxmeta")["jaxmeta"]
"""Version of the installed package, "unknown" in a checkout that is not installed."""

for _owner in (_sys.modules[__name__], _sys.modules["jaxmeta.algorithms"], data, models, optim):
    _explain_missing(_owner, _elsewhere.NAMES)
for _owner in (data.FewShot, data.Glyphs, data.MetaDatasetSampler, data.RegressionSampler, data.Sinusoid):
    _explain_missing(_owner, _elsewhere.SAMPLING)
_explain_missing(MetaLearner, _elsewhere.METHODS)

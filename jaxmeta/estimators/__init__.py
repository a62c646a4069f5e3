"""Gradient estimators: meta-training of processes that run for long, such as a learned optimizer, in windows.

A `Process` is what runs. A `GradientEstimator` says how the meta-gradient of one window is made. Unlike a
`jaxmeta.MetaGradient` it has a state, because the process continues where the last window ended.
"""

from jaxmeta.estimators._evolution import persistent_evolution as persistent_evolution
from jaxmeta.estimators._evolution import truncated_evolution as truncated_evolution
from jaxmeta.estimators._optimizer_training import Problem as Problem
from jaxmeta.estimators._optimizer_training import TrainingRun as TrainingRun
from jaxmeta.estimators._optimizer_training import optimizer_training as optimizer_training
from jaxmeta.estimators._process import GradientEstimator as GradientEstimator
from jaxmeta.estimators._process import Process as Process
from jaxmeta.estimators._process import ProcessRun as ProcessRun
from jaxmeta.estimators._step import OuterState as OuterState
from jaxmeta.estimators._step import process_step as process_step
from jaxmeta.estimators._truncated_backprop import truncated_backprop as truncated_backprop

"""Learned inner optimizers, which are optax transformations whose state holds `jaxmeta.Learned` values."""

from jaxmeta.optim._adaptive import AdaptiveState as AdaptiveState
from jaxmeta.optim._adaptive import adaptive as adaptive
from jaxmeta.optim._curvature import Curvature as Curvature
from jaxmeta.optim._curvature import CurvatureState as CurvatureState
from jaxmeta.optim._curvature import scale_by_curvature as scale_by_curvature
from jaxmeta.optim._hypergradient import HypergradientState as HypergradientState
from jaxmeta.optim._hypergradient import hypergradient_descent as hypergradient_descent
from jaxmeta.optim._kronecker import Factors as Factors
from jaxmeta.optim._kronecker import KroneckerState as KroneckerState
from jaxmeta.optim._kronecker import scale_by_kronecker as scale_by_kronecker
from jaxmeta.optim._learn import LearnState as LearnState
from jaxmeta.optim._learn import learn as learn
from jaxmeta.optim._learned_lstm import LearnedLSTMState as LearnedLSTMState
from jaxmeta.optim._learned_lstm import learned_lstm as learned_lstm
from jaxmeta.optim._learned_mlp import LearnedMLPState as LearnedMLPState
from jaxmeta.optim._learned_mlp import learned_mlp as learned_mlp
from jaxmeta.optim._module import ModuleState as ModuleState
from jaxmeta.optim._module import scale_by_module as scale_by_module
from jaxmeta.optim._rate import LearnedRateState as LearnedRateState
from jaxmeta.optim._rate import scale_by_learned_rate as scale_by_learned_rate

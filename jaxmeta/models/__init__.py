"""Flax Linen models whose derivatives of every order are right and fast on CPUs and accelerators.

Every model names its classifier `"head"` and everything before it `"body"`. The method `features` returns the input of
the head: `model.apply(params, x, method="features")`.
"""

from jaxmeta.models._cnn import CNN4 as CNN4
from jaxmeta.models._cnn import OmniglotCNN as OmniglotCNN
from jaxmeta.models._conv import Conv as Conv
from jaxmeta.models._conv import Lowering as Lowering
from jaxmeta.models._drop_block import DropBlock as DropBlock
from jaxmeta.models._from_torch import from_torch as from_torch
from jaxmeta.models._heads import Classifier as Classifier
from jaxmeta.models._heads import CosineDense as CosineDense
from jaxmeta.models._kronecker import KroneckerDense as KroneckerDense
from jaxmeta.models._kronecker import KroneckerLSTMCell as KroneckerLSTMCell
from jaxmeta.models._kronecker import KroneckerRNNCell as KroneckerRNNCell
from jaxmeta.models._learned_loss import LossMLP as LossMLP
from jaxmeta.models._learned_loss import WithLoss as WithLoss
from jaxmeta.models._mlp import MLP as MLP
from jaxmeta.models._mlp import OmniglotFC as OmniglotFC
from jaxmeta.models._norm import BatchNorm as BatchNorm
from jaxmeta.models._norm import GroupNorm as GroupNorm
from jaxmeta.models._norm import Norm as Norm
from jaxmeta.models._r2d2 import R2D2CNN as R2D2CNN
from jaxmeta.models._recognize import recognize as recognize
from jaxmeta.models._resnet import ResNet as ResNet
from jaxmeta.models._resnet12 import ResNet12 as ResNet12
from jaxmeta.models._skip_linear import SkipLinear as SkipLinear
from jaxmeta.models._statistics import with_batch_stats as with_batch_stats
from jaxmeta.models._vit import ViT as ViT
from jaxmeta.models._warp import Warp as Warp
from jaxmeta.models._wrn import WRN28 as WRN28

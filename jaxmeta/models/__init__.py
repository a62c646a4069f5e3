"""Flax Linen models whose derivatives of every order are right and fast on the backend at hand.

Every model names its classifier `"head"` and everything before it `"body"`, and has a `features` method:
`model.apply(params, x, method="features")`.
"""

from jaxmeta.models._cnn import CNN4 as CNN4
from jaxmeta.models._cnn import OmniglotCNN as OmniglotCNN
from jaxmeta.models._conv import Conv as Conv
from jaxmeta.models._conv import Lowering as Lowering
from jaxmeta.models._mlp import MLP as MLP
from jaxmeta.models._mlp import OmniglotFC as OmniglotFC
from jaxmeta.models._norm import BatchNorm as BatchNorm
from jaxmeta.models._norm import GroupNorm as GroupNorm
from jaxmeta.models._norm import Norm as Norm

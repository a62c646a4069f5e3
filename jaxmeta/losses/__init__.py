"""Losses: of common tasks, with the modes of training and test, and the DiCE operator for sampled ones."""

from jaxmeta.losses._bars import BarDistribution as BarDistribution
from jaxmeta.losses._bars import bar_edges as bar_edges
from jaxmeta.losses._dice import magic_box as magic_box
from jaxmeta.losses._loss import Loss as Loss
from jaxmeta.losses._loss import as_loss as as_loss
from jaxmeta.losses._loss import checked_loss as checked_loss
from jaxmeta.losses._loss import train_pass as train_pass
from jaxmeta.losses._supervised import Forward as Forward
from jaxmeta.losses._supervised import classification as classification
from jaxmeta.losses._supervised import cross_entropy as cross_entropy
from jaxmeta.losses._supervised import forward as forward
from jaxmeta.losses._supervised import has_modes as has_modes
from jaxmeta.losses._supervised import regression as regression
from jaxmeta.losses._supervised import squared_error as squared_error
from jaxmeta.losses._supervised import weighted_mean as weighted_mean

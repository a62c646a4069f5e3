"""Training: loops of compiled updates with validation, metrics and checkpoints."""

from jaxmeta.training._callback import Callback as Callback
from jaxmeta.training._course import LoopSettings as LoopSettings
from jaxmeta.training._embed import embed as embed
from jaxmeta.training._hold import hold as hold
from jaxmeta.training._identity import installed_versions as installed_versions
from jaxmeta.training._log import best_meta as best_meta
from jaxmeta.training._loggers import LOGGERS as LOGGERS
from jaxmeta.training._loggers import csv_logger as csv_logger
from jaxmeta.training._loggers import named_loggers as named_loggers
from jaxmeta.training._loggers import tensorboard_logger as tensorboard_logger
from jaxmeta.training._loggers import wandb_logger as wandb_logger
from jaxmeta.training._loop import Trained as Trained
from jaxmeta.training._loop import loop as loop
from jaxmeta.training._loop import run_loop as run_loop
from jaxmeta.training._many import train_many as train_many
from jaxmeta.training._preemption import on_signals as on_signals
from jaxmeta.training._pretrain import Minibatches as Minibatches
from jaxmeta.training._pretrain import measure_statistics as measure_statistics
from jaxmeta.training._pretrain import pretrain as pretrain
from jaxmeta.training._pretrain import pretrain_step as pretrain_step
from jaxmeta.training._records import METRICS_FILE as METRICS_FILE
from jaxmeta.training._records import read_records as read_records
from jaxmeta.training._train import at_first as at_first
from jaxmeta.training._train import train as train

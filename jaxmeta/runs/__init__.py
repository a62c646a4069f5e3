"""Runs: `Experiment` and what `jaxmeta train` does with it, from a description to a tested result in a folder."""

from jaxmeta.runs._command import command_of as command_of
from jaxmeta.runs._compare import compare_runs as compare_runs
from jaxmeta.runs._describe import describe as describe
from jaxmeta.runs._describe import options_tables as options_tables
from jaxmeta.runs._describe import overview as overview
from jaxmeta.runs._describe import recipes_tables as recipes_tables
from jaxmeta.runs._evaluate_run import evaluate_run as evaluate_run
from jaxmeta.runs._experiment import Experiment as Experiment
from jaxmeta.runs._folder import versions as versions
from jaxmeta.runs._load import Run as Run
from jaxmeta.runs._load import load_run as load_run
from jaxmeta.runs._modules import load_module as load_module
from jaxmeta.runs._options import OPTIONS as OPTIONS
from jaxmeta.runs._parts import Result as Result
from jaxmeta.runs._together import fit_one_program as fit_one_program
from jaxmeta.runs._together import is_faster_together as is_faster_together
from jaxmeta.runs._together import run_all as run_all

"""Tasks: samplers that run on the device, data sets, and benchmarks by name."""

from jaxmeta.data._few_shot import ExampleIndex as ExampleIndex
from jaxmeta.data._few_shot import FewShot as FewShot
from jaxmeta.data._glyphs import Glyphs as Glyphs
from jaxmeta.data._omniglot import Omniglot as Omniglot
from jaxmeta.data._omniglot import OmniglotSplit as OmniglotSplit
from jaxmeta.data._sampling import sample_without_replacement as sample_without_replacement
from jaxmeta.data._sinusoid import Sinusoid as Sinusoid
from jaxmeta.data._sinusoid import Wave as Wave
from jaxmeta.data._tasksets import TaskSets as TaskSets
from jaxmeta.data._tasksets import get_tasksets as get_tasksets
from jaxmeta.data._tasksets import list_tasksets as list_tasksets

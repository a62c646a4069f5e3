"""Sources: readers of files, archives and downloads that return labeled arrays."""

from jaxmeta.data.sources._cache import cached as cached
from jaxmeta.data.sources._division import Division as Division
from jaxmeta.data.sources._division import RecordedLists as RecordedLists
from jaxmeta.data.sources._division import check_seed as check_seed
from jaxmeta.data.sources._images import SUFFIXES as SUFFIXES
from jaxmeta.data.sources._images import decode as decode
from jaxmeta.data.sources._layouts import describe_files as describe_files
from jaxmeta.data.sources._layouts import standard_splits as standard_splits
from jaxmeta.data.sources._load_examples import FEATURES as FEATURES
from jaxmeta.data.sources._load_examples import FOLDER as FOLDER
from jaxmeta.data.sources._load_examples import SENTENCES as SENTENCES
from jaxmeta.data.sources._load_examples import load_examples as load_examples
from jaxmeta.data.sources._load_examples import source_of as source_of
from jaxmeta.data.sources._omniglot import SPLITS as SPLITS
from jaxmeta.data.sources._omniglot import Omniglot as Omniglot
from jaxmeta.data.sources._omniglot import OmniglotSplit as OmniglotSplit
from jaxmeta.data.sources._sources import SOURCES as SOURCES

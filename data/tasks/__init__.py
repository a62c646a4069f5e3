"""Task data sets with the protocol of PyTorch and the task transforms of learn2learn."""

from jaxmeta.data.tasks._augmented import Augmented as Augmented
from jaxmeta.data.tasks._augmented import FixedTasks as FixedTasks
from jaxmeta.data.tasks._description import TaskDescription as TaskDescription
from jaxmeta.data.tasks._loading import Augment as Augment
from jaxmeta.data.tasks._loading import AugmentOnHost as AugmentOnHost
from jaxmeta.data.tasks._loading import LoadData as LoadData
from jaxmeta.data.tasks._loading import Map as Map
from jaxmeta.data.tasks._meta_dataset import FilteredMetaDataset as FilteredMetaDataset
from jaxmeta.data.tasks._meta_dataset import MetaDataset as MetaDataset
from jaxmeta.data.tasks._meta_dataset import UnionMetaDataset as UnionMetaDataset
from jaxmeta.data.tasks._on_device import OnDeviceDataset as OnDeviceDataset
from jaxmeta.data.tasks._partition import InfiniteIterator as InfiniteIterator
from jaxmeta.data.tasks._partition import partition_task as partition_task
from jaxmeta.data.tasks._prefetch import prefetch as prefetch
from jaxmeta.data.tasks._taskset import TaskDataset as TaskDataset
from jaxmeta.data.tasks._taskset import Taskset as Taskset
from jaxmeta.data.tasks._torch import from_torch as from_torch
from jaxmeta.data.tasks._torch import to_torch as to_torch
from jaxmeta.data.tasks._transforms import ConsecutiveLabels as ConsecutiveLabels
from jaxmeta.data.tasks._transforms import FilterLabels as FilterLabels
from jaxmeta.data.tasks._transforms import FusedNWaysKShots as FusedNWaysKShots
from jaxmeta.data.tasks._transforms import KShots as KShots
from jaxmeta.data.tasks._transforms import NWays as NWays
from jaxmeta.data.tasks._transforms import RandomClassRotation as RandomClassRotation
from jaxmeta.data.tasks._transforms import RemapLabels as RemapLabels

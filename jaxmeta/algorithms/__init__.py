"""Meta-learning algorithms: each returns a `jaxmeta.MetaLearner`."""

from jaxmeta.algorithms._anil import anil as anil
from jaxmeta.algorithms._maml import fomaml as fomaml
from jaxmeta.algorithms._maml import maml as maml
from jaxmeta.algorithms._meta_sgd import meta_sgd as meta_sgd
from jaxmeta.algorithms._reptile import reptile as reptile

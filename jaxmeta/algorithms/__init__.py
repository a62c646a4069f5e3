"""Meta-learning algorithms: each returns a `jaxmeta.MetaLearner`."""

from jaxmeta.algorithms._anil import anil as anil
from jaxmeta.algorithms._anil import boil as boil
from jaxmeta.algorithms._cavia import Contextual as Contextual
from jaxmeta.algorithms._cavia import cavia as cavia
from jaxmeta.algorithms._imaml import imaml as imaml
from jaxmeta.algorithms._maml import fomaml as fomaml
from jaxmeta.algorithms._maml import maml as maml
from jaxmeta.algorithms._meta_curvature import meta_curvature as meta_curvature
from jaxmeta.algorithms._meta_kfo import meta_kfo as meta_kfo
from jaxmeta.algorithms._meta_sgd import meta_sgd as meta_sgd
from jaxmeta.algorithms._reptile import reptile as reptile

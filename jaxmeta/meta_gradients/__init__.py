"""Meta-gradients: the ways to differentiate through an inner loop, one argument of every learner that has one.

A `MetaGradient` says how the inner loop runs and how the derivative of what follows it is taken. `reverse`, `mixed`
and `forward` are exact and differ in memory and time. `first_order` and `truncated` drop the derivative of some or all
inner gradients. `implicit` and `sama` need only the end of the loop, and `evolution` only values.
"""

from jaxmeta.meta_gradients._evolution import evolution as evolution
from jaxmeta.meta_gradients._first_order import first_order as first_order
from jaxmeta.meta_gradients._forward import forward as forward
from jaxmeta.meta_gradients._implicit import implicit as implicit
from jaxmeta.meta_gradients._implicit import implicit_argmin as implicit_argmin
from jaxmeta.meta_gradients._mixed import mixed as mixed
from jaxmeta.meta_gradients._reverse import reverse as reverse
from jaxmeta.meta_gradients._sama import sama as sama
from jaxmeta.meta_gradients._solvers import LinearSolver as LinearSolver
from jaxmeta.meta_gradients._solvers import cg as cg
from jaxmeta.meta_gradients._solvers import neumann as neumann
from jaxmeta.meta_gradients._truncated import truncated as truncated
from jaxmeta.meta_gradients._unrolling import MetaGradient as MetaGradient
from jaxmeta.meta_gradients._unrolling import Unrolled as Unrolled

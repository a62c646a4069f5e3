"""Names and arguments of other libraries, and what stands in their place here."""

from jaxmeta.elsewhere._tables import ARGUMENTS as ARGUMENTS
from jaxmeta.elsewhere._tables import METHODS as METHODS
from jaxmeta.elsewhere._tables import NAMES as NAMES
from jaxmeta.elsewhere._tables import SAMPLING as SAMPLING

"""Short texts and pictures of values, for `repr`, notebooks and error messages, and progress."""

from jaxmeta.display._described import described as described
from jaxmeta.display._pictures import task_html as task_html
from jaxmeta.display._progress import progress_bar as progress_bar
from jaxmeta.display._short import brief as brief
from jaxmeta.display._short import one_line as one_line
from jaxmeta.display._short import short_repr as short_repr

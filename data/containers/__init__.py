"""Containers: what users hand in, read by position, and labeled examples with class names."""

from jaxmeta.data.containers._arrays import stack as stack
from jaxmeta.data.containers._arrays import to_array as to_array
from jaxmeta.data.containers._columns import advice_on_text as advice_on_text
from jaxmeta.data.containers._columns import as_array as as_array
from jaxmeta.data.containers._columns import as_column as as_column
from jaxmeta.data.containers._columns import is_column as is_column
from jaxmeta.data.containers._columns import is_table as is_table
from jaxmeta.data.containers._columns import rows_of as rows_of
from jaxmeta.data.containers._columns import table_columns as table_columns
from jaxmeta.data.containers._examples import PARTS as PARTS
from jaxmeta.data.containers._examples import Examples as Examples
from jaxmeta.data.containers._examples import part_of_class as part_of_class
from jaxmeta.data.containers._examples import read_arrays as read_arrays
from jaxmeta.data.containers._examples import write_arrays as write_arrays
from jaxmeta.data.containers._labels import as_labels as as_labels
from jaxmeta.data.containers._labels import scalar_label as scalar_label
from jaxmeta.data.containers._scale import to_float as to_float
from jaxmeta.data.containers._scale import warn_of_inputs as warn_of_inputs
from jaxmeta.data.containers._table_inputs import Columns as Columns
from jaxmeta.data.containers._table_inputs import table_inputs as table_inputs

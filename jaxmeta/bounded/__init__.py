"""Bounded readers of files that may come from anyone: no code runs, and a small file costs little time and memory."""

from jaxmeta.bounded._growth import MOST_BYTES as MOST_BYTES
from jaxmeta.bounded._growth import check_growth as check_growth
from jaxmeta.bounded._growth import read_all as read_all
from jaxmeta.bounded._growth import read_exactly as read_exactly
from jaxmeta.bounded._json import load_json as load_json
from jaxmeta.bounded._mat import mat_numbers as mat_numbers
from jaxmeta.bounded._msgpack import load_msgpack as load_msgpack
from jaxmeta.bounded._npz import load_npz as load_npz
from jaxmeta.bounded._pickle import load_pickle as load_pickle
from jaxmeta.bounded._tar import check_tar_end as check_tar_end
from jaxmeta.bounded._tar import open_tar as open_tar
from jaxmeta.bounded._tar import tar_members as tar_members

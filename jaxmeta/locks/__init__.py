"""Locks between processes, also of several machines with one disk."""

from jaxmeta.locks._lock import Lock as Lock
from jaxmeta.locks._lock import Owner as Owner
from jaxmeta.locks._lock import waiting as waiting

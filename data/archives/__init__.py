"""Files in folders and archives, read in place."""

from jaxmeta.data.archives._files import Files as Files
from jaxmeta.data.archives._files import is_archive as is_archive
from jaxmeta.data.archives._folder import walk as walk

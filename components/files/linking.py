"""A file under a second name, where copying large ones would cost time and space."""

import os
import shutil


def link_or_copy(source: str, target: str) -> str:
    """A second name for a file where the disk allows one, else a copy; for files that are never written to again."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
    return target

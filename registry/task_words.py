"""What --task takes besides the names of tasks: suites, groups, `all`, and one's own images."""

from idat_zoo.data import suites
from idat_zoo.data.suites.arrays import OwnArrays
from idat_zoo.data.suites.folder import OwnFolder
from idat_zoo.data.suites.vtab1k import Vtab1k

GROUPS = Vtab1k.groups
SUITE = Vtab1k.name
"""The suite whose groups these are."""
ALL = "all"
"""All tasks of VTAB-1K; of --adapter, all families."""
FOLDER = OwnFolder.name
"""A folder of images that a user has; no shelf holds a task of this name."""
ARRAYS = OwnArrays.name
"""Images that a Python program holds; no shelf holds a task of this name."""
SUITES = tuple(suite for suite in suites.SUITES if suite not in (FOLDER, ARRAYS))
"""The built-in suites of which a shelf may have tasks."""
TASK_WORDS = (*GROUPS, *SUITES, ALL, FOLDER, ARRAYS)
"""No task on a shelf may have one of these names."""

"""What --task takes besides the names of tasks: suites, groups, `all`, and one's own images."""

GROUPS = ("natural", "specialized", "structured")
SUITE = "vtab1k"
"""The suite whose groups these are."""
SUITES = ("mini", SUITE, "fgvc", "fewshot")
ALL = "all"
"""All tasks of VTAB-1K; of --adapter, all families."""
FOLDER = "folder"
"""A folder of images that a user has; no shelf holds a task of this name."""
ARRAYS = "arrays"
"""Images that a Python program holds; no shelf holds a task of this name."""
TASK_WORDS = (*GROUPS, *SUITES, ALL, FOLDER, ARRAYS)
"""No task on a shelf may have one of these names."""

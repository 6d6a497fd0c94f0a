"""The images and labels of a task: where they lie, whether they are right, and as tensors.

Importing this package loads no torch. `suites/` says what each suite's tasks look like on disk,
`load.py` turns a task into tensors, `verify.py` lists every fault of a task's files.
"""

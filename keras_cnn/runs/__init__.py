"""From a recipe to result folders: what is missing is run, each run in a process of its own.

Knows no framework, but for `worker`, which is such a process.
"""

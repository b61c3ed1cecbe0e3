"""From a recipe to result folders: what is missing is run, each run in a process of its own."""

"""What a recipe file says: read, checked, its rows made into runs. Knows no framework."""

from keras_cnn.recipe.reader import folder, names, read

__all__ = ["folder", "names", "read"]

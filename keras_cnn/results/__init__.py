"""From result folders to numbers: what a folder holds, tables. Knows no framework.

from keras_cnn import results

result = results.read("artifacts/fewshot_convnext/4-corrected-0-0123456789")
result.history, result.metrics, result.settings, result.place, result.model_file
"""

from keras_cnn.results.store import Result, read

__all__ = ["Result", "read"]

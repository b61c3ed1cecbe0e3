"""Train small CNNs and few-shot learners in Keras 3, each experiment as a recipe."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's greetings

__version__ = "0.1.0"

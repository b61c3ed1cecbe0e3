"""Keras `fit` on torch without its waste."""

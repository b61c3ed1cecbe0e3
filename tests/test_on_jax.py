"""The marked tests on JAX: a file of its own, so that another worker has it than TensorFlow's."""

from __future__ import annotations

from test_backends import marked_tests_pass


def test_backend():
    marked_tests_pass("jax")

"""Tensors are made where their inputs lie: on a device that is not the processor, none on it."""

from __future__ import annotations

import ast
from pathlib import Path

import keras
import pytest

import keras_cnn
from keras_cnn import models

torch = pytest.importorskip("torch")
if keras.backend.backend() != "torch":
    pytest.skip("other backends place tensors themselves", allow_module_level=True)

from keras_cnn.torch_fast.graph import TorchGraph  # noqa: E402

PACKAGE = Path(keras_cnn.__file__).parent
MAKERS = {
    *("tensor", "zeros", "ones", "empty", "full", "arange", "linspace", "eye", "scalar_tensor"),
    *("rand", "randn", "randint", "randperm", "as_tensor", "from_numpy", "frombuffer", "asarray"),
}


def made_without_device(source):
    """The calls in a module's source that leave it to torch where their tensor lies."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr in MAKERS) == ("torch", True)
        and "device" not in {keyword.arg for keyword in node.keywords}
    ]


def test_every_tensor_that_torch_makes_is_given_a_device():
    example = "torch.zeros(3); torch.zeros(3, device=x.device); numpy.zeros(3); x.zeros(3)"
    assert made_without_device(example) == ["torch.zeros(3)"]
    sources = [path for path in PACKAGE.rglob("*.py") if "bench" not in path.parts]
    assert len(sources) > 100
    assert {str(path): made_without_device(path.read_text()) for path in sources} == {
        str(path): [] for path in sources
    }


@pytest.mark.parametrize(
    "name", ["baseline", "enhanced", "convnext_atto", "resnet18", "fewshot_cnn", "siamese_cnn"]
)
@pytest.mark.parametrize("training", [True, False])
def test_a_network_runs_and_learns_where_its_images_lie(name, training):
    """Torch refuses to compute with tensors of two devices; the meta device holds no values."""
    images = torch.zeros((4, 32, 32, 3), dtype=torch.uint8, device="meta")
    labels = torch.zeros((4,), dtype=torch.int64, device="meta")
    with keras.device("meta"):  # where Keras puts what it makes, as it does on a GPU
        network = models.classifier(name, 5, 32, dropout=0.5)
        logits = TorchGraph(network)(images, training)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    weights = [weight.value for weight in network.trainable_weights]
    # Some of Keras's own layers, called where torch has no such call, end the graph on meta.
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    gradients = [gradient for gradient in found if gradient is not None]
    assert len(gradients) >= 2
    assert {tensor.device.type for tensor in (logits, loss, *gradients)} == {"meta"}

"""What a model is made of: layers, output shapes, parameters, mult-adds, memory.

The rules are torchinfo's (version 1.8), applied to the layers of any functional Keras model:

- Parameters are what training could change. BatchNorm's running statistics are none, although
  Keras counts them among its non-trainable weights: they are told apart, in no total.
- Mult-adds are images x parameters with bias x the positions at which a layer is applied:
  a convolution's output positions, and the positions or steps that a dense or recurrent layer goes
  over. torchinfo has a linear layer at one position, and a 1x1 convolution, the same, at all.
- Forward and backward pass hold the outputs of the layers that have parameters, twice.
- Sizes are decimal megabytes of float32. A layer that is called twice computes and holds outputs
  twice and has its parameters once.
- A scale by one factor a channel (layer scale) is a bare parameter in torch, not a layer: it has
  no mult-adds, and its output is not held. One figure differs from torchinfo's here: torchinfo
  leaves bare parameters out of the parameters' size, this counts them (26 kB in ConvNeXt-Tiny).
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import keras
from keras import layers

from keras_cnn.errors import UserError, nearest, printable
from keras_cnn.results import grid

CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
AT_POSITIONS = (layers.Dense, layers.MultiHeadAttention, layers.GroupQueryAttention)
# Flat models tell their blocks by the layers' names: stage1_block2_conv1.
BLOCK = re.compile(r"(stem|stage\d+|block\d+|downsample|features|head)_")
STATISTICS = ("moving_mean", "moving_variance")  # BatchNorm's, by the names of the variables
BYTES = 4  # of a float32
TEXT_WIDTH = 100
SIZES = 4  # of the totals, the last
SUMMED = ("parameters", "trainable_parameters", "statistics", "mult_adds", "held_values")
HEADER = ("Layer (name): depth-index", "Output shape", "Parameters", "Mult-adds")

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer, a block of layers, or (at depth 0) the model.

    Attributes:
        name: In full; a block's is what the names of its layers begin with.
        kind: The class, or `Block`.
        output_shapes: One for each output at the first call, with the batch; None where open.
        parameters: Its own and its layers'; shared ones count where they come first.
        trainable_parameters: Those of them that train now.
        statistics: BatchNorm's running means and variances, in values.
        mult_adds: For the batch; None where an open dimension decides.
        held_values: Outputs kept for the backward pass, in values; None likewise.
        depth: 0 for the model, 1 for its blocks, and so on.
        index: Counts from 1 the layers of the same depth over the whole model.
        layers: What it is made of.
    """

    name: str
    kind: str
    output_shapes: tuple[Shape, ...]
    parameters: int
    trainable_parameters: int
    statistics: int
    mult_adds: int | None
    held_values: int | None
    depth: int = 0
    index: int = 0
    layers: tuple[Layer, ...] = ()


@dataclasses.dataclass(frozen=True)
class Summary:
    """A model's layers and totals; sizes in decimal megabytes, None where a dimension is open."""

    batch_size: int
    parameters: int
    trainable_parameters: int
    non_trainable_parameters: int
    statistics: int
    mult_adds: int | None
    input_megabytes: float | None
    forward_backward_megabytes: float | None
    parameters_megabytes: float
    total_megabytes: float | None
    model: Layer


def summarise(model: keras.Model, batch_size: int) -> Summary:
    """Counts what a model holds and computes, from its layers.

    Args:
        model: Functional, or Sequential and built; may hold models as layers.
        batch_size: Images in a batch.

    Raises:
        UserError: The model is neither, so its graph is not known.
    """
    counter = _LayerCounter(batch_size)
    children = counter.layers_of(model)
    root = _whole(model.name, type(model).__name__, counter.shapes(model.outputs), children)
    root = _numbered(root, Counter())
    sizes = (
        _megabytes(_sum(_product(shape) for shape in counter.shapes(model.inputs))),
        _megabytes(_product((2, root.held_values))),
        _megabytes(root.parameters),
    )
    return Summary(
        batch_size,
        root.parameters,
        root.trainable_parameters,
        root.parameters - root.trainable_parameters,
        root.statistics,
        root.mult_adds,
        *sizes,
        total_megabytes=_sum(sizes),
        model=root,
    )


def count_parameters(model: keras.Model) -> int:
    """The parameters of a summary alone: any Keras model's, BatchNorm's statistics left out."""
    return _size(weight for weight in model.weights if weight.name not in STATISTICS)


def render(summary: Summary, format: str = "text") -> str:
    """A summary to read or to store.

    Args:
        summary: From `summarise`.
        format: `text` (at most 100 columns), `markdown`, or `json` (exact figures).

    Raises:
        UserError: There is no such format.
    """
    formats: dict[str, Callable[[Summary], str]] = {
        "text": _text,
        "markdown": _markdown,
        "json": lambda summary: json.dumps(dataclasses.asdict(summary), indent=2),
    }
    if format not in formats:
        raise UserError(f"no format {format!r}: {nearest(format, formats)}")
    return formats[format](summary)


class _Call(NamedTuple):
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


class _Member(NamedTuple):
    """A layer of a graph; the rest of its name, without its blocks'; the ends of each call."""

    layer: layers.Layer
    name: str
    calls: list[_Call]


class _LayerCounter:
    """Counts layers for a batch, a shared weight where it comes first."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.counted: set[int] = set()  # ids of weights

    def layers_of(self, model: keras.Model, calls: int = 1) -> tuple[Layer, ...]:
        """The blocks and layers of a model that is called so often.

        Raises:
            UserError: The model is not functional.
        """
        graph = model._functional if isinstance(model, keras.Sequential) else model
        if not hasattr(graph, "_nodes_by_depth"):
            raise UserError(
                f"model {model.name!r} has no graph of layers: a summary needs a functional model, "
                "or a Sequential one that has been built"
            )
        # Keras tells a layer's calls within one model only so; its own summary reads them too.
        inside = {id(node) for level in graph._nodes_by_depth.values() for node in level}
        members = []
        for layer in graph.layers:
            if not isinstance(layer, layers.InputLayer):
                nodes = [node for node in layer._inbound_nodes if id(node) in inside]
                ends = [(node.input_tensors, node.output_tensors) for node in nodes]
                called = [_Call(*map(self.shapes, tensors)) for tensors in ends]
                members.append(_Member(layer, layer.name, called * calls))
        return self.gathered(members)

    def gathered(self, members: Sequence[_Member], prefix: str = "") -> tuple[Layer, ...]:
        """Layers in blocks by what their names begin with; the blocks around are the prefix."""
        blocks: dict[tuple[bool, str], list[_Member]] = {}
        for member in members:
            match = BLOCK.match(member.name)
            block = (True, match[1]) if match else (False, member.layer.name)
            rest = member.name[match.end() :] if match else member.name
            blocks.setdefault(block, []).append(member._replace(name=rest))
        found = []
        for (is_block, name), inside in blocks.items():
            if is_block:
                children = self.gathered(inside, f"{prefix}{name}_")
                found.append(_whole(prefix + name, "Block", children[-1].output_shapes, children))
            else:
                found += map(self.layer, inside)
        return tuple(found)

    def layer(self, member: _Member) -> Layer:
        """A layer with its own figures, or a model inside the model."""
        layer, calls = member.layer, member.calls
        outputs = calls[0].outputs
        kind = type(layer).__name__
        if isinstance(layer, keras.Model):
            return _whole(layer.name, kind, outputs, self.layers_of(layer, len(calls)))
        new = [weight for weight in layer.weights if id(weight) not in self.counted]
        self.counted |= {id(weight) for weight in new}
        parameters = [weight for weight in new if weight.name not in STATISTICS]
        trainable = {id(weight) for weight in layer.trainable_weights}
        size = count_parameters(layer)
        computing = calls if size and not _is_channel_scale(layer) else []
        return Layer(
            name=layer.name,
            kind=kind,
            output_shapes=outputs,
            parameters=_size(parameters),
            trainable_parameters=_size(weight for weight in new if id(weight) in trainable),
            statistics=_size(new) - _size(parameters),
            mult_adds=_sum(_product((size, *_positions(layer, call))) for call in computing),
            held_values=_sum(_product(shape) for call in computing for shape in call.outputs),
        )

    def shapes(self, tensors: Iterable[keras.KerasTensor]) -> tuple[Shape, ...]:
        """Their shapes, with the batch size in place of an open first dimension."""
        shapes = (tensor.shape for tensor in tensors)
        return tuple(
            (self.batch_size, *shape[1:]) if shape and shape[0] is None else tuple(shape)
            for shape in shapes
        )


def _whole(name: str, kind: str, shapes: tuple[Shape, ...], children: tuple[Layer, ...]) -> Layer:
    """A model or a block, with the sums of its layers."""
    sums = {field: _sum(getattr(child, field) for child in children) for field in SUMMED}
    return Layer(name, kind, shapes, **sums, layers=children)


def _numbered(layer: Layer, indices: Counter[int], depth: int = 0) -> Layer:
    """The same with depths and indices, each layer before those inside it."""
    index = indices[depth]
    indices[depth] += 1
    inside = tuple(_numbered(child, indices, depth + 1) for child in layer.layers)
    return dataclasses.replace(layer, depth=depth, index=index + bool(depth), layers=inside)


def _is_channel_scale(layer: layers.Layer) -> bool:
    """Whether a layer is an EinsumDense that sums over nothing: one factor a channel."""
    return isinstance(layer, layers.EinsumDense) and all(
        len(weight.shape) == 1 for weight in layer.weights
    )


def _positions(layer: layers.Layer, call: _Call) -> Shape:
    """The images, and the positions or steps of each, that a layer's parameters are used at."""
    given, made = call.inputs[0], call.outputs[0]
    if isinstance(layer, layers.TimeDistributed):
        each = _Call(((given[0], *given[2:]),), ((made[0], *made[2:]),))
        return (made[1], *_positions(layer.layer, each))
    if isinstance(layer, layers.RNN | layers.Bidirectional):
        return (*given[:2], *made[1 + layer.return_sequences : -1])  # of a map, its positions too
    if isinstance(layer, layers.EinsumDense):
        _, kernel, output = re.split(",|->", layer.equation.replace("...", ""))
        names = output.rjust(len(made), "?")
        return tuple(length for length, name in zip(made, names, strict=True) if name not in kernel)
    if isinstance(layer, CONVOLUTIONS) and layer.data_format == "channels_first":
        return (made[0], *made[2:])
    return made[:-1] if isinstance(layer, (*CONVOLUTIONS, *AT_POSITIONS)) else made[:1]


def _size(weights: Iterable[keras.Variable]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _product(factors: Iterable[int | None]) -> int | None:
    """The product, unknown if one factor is."""
    factors = list(factors)
    return None if None in factors else math.prod(factors)


def _sum(numbers: Iterable[float | None]) -> float | None:
    """The sum, unknown if one number is."""
    numbers = list(numbers)
    return None if None in numbers else sum(numbers)


def _megabytes(values: int | None) -> float | None:
    return None if values is None else values * BYTES / 1e6


def _text(summary: Summary) -> str:
    rows = [HEADER, *_rows(summary.model)]
    without_names = grid.aligned([("", *row[1:]) for row in rows])
    width = TEXT_WIDTH - max(map(len, without_names))
    named = [(_cut(row[0], width), *row[1:]) for row in rows]
    header, *tree = grid.aligned(named, right=(2, 3))
    totals = [f"{label}: {figure}" for label, figure in _totals(summary)]
    rule = "=" * max(map(len, (header, *tree)))
    sizes = totals[-SIZES:]
    return "\n".join([rule, header, rule, *tree, rule, *totals[:-SIZES], rule, *sizes, rule])


def _markdown(summary: Summary) -> str:
    """Two tables."""
    names, *others = zip(*_rows(summary.model), strict=True)
    cells = [[name.replace(" " * 4, "\N{NO-BREAK SPACE}" * 4) for name in names], *others]
    numbers = (False, False, True, True)
    tree = map(grid.Column, HEADER, cells, ("",) * len(HEADER), numbers)
    labels, figures = zip(*_totals(summary), strict=True)
    totals = [grid.Column("Total", labels), grid.Column("", figures, is_number=True)]
    return f"{grid.markdown([*tree])}\n\n{grid.markdown(totals)}"


def _rows(layer: Layer, block: str = "") -> Iterator[tuple[str, str, str, str]]:
    """A line of the tree for a layer, then one for each layer inside, in order.

    Names are told without that of the block around.
    """
    branches = ("", "├─", "│    " * (layer.depth - 1) + "└─")
    name = printable(layer.name.removeprefix(block))
    label = name if layer.kind == "Block" or not layer.depth else f"{layer.kind} ({name})"
    place = f": {layer.depth}-{layer.index}" if layer.depth else ""
    yield (
        f"{branches[min(layer.depth, 2)]}{label}{place}",
        ", ".join(str([*shape]).replace("None", "?") for shape in layer.output_shapes),
        f"{layer.parameters:,}" if layer.parameters and not layer.layers else "--",
        "--" if layer.layers or layer.mult_adds == 0 else _scaled(layer.mult_adds),
    )
    for child in layer.layers:
        yield from _rows(child, f"{layer.name}_" if layer.depth else "")


def _totals(summary: Summary) -> list[tuple[str, str]]:
    statistics = {"Running statistics (in no total)": f"{summary.statistics:,}"}
    sizes = {
        "Input": summary.input_megabytes,
        "Forward/backward pass": summary.forward_backward_megabytes,
        "Parameters": summary.parameters_megabytes,
        "Estimated total": summary.total_megabytes,
    }
    totals = {
        "Batch size": f"{summary.batch_size:,}",
        "Total parameters": f"{summary.parameters:,}",
        "Trainable parameters": f"{summary.trainable_parameters:,}",
        "Non-trainable parameters": f"{summary.non_trainable_parameters:,}",
        **(statistics if summary.statistics else {}),
        "Total mult-adds": _scaled(summary.mult_adds),
        **{
            f"{label} size (MB)": "?" if megabytes is None else f"{megabytes:,.2f}"
            for label, megabytes in sizes.items()
        },
    }
    return [*totals.items()]


def _scaled(number: int | None) -> str:
    if number is None:
        return "?"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"

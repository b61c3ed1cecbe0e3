"""What a model is made of: layers, output shapes, parameters, mult-adds, memory.

The rules are torchinfo's (version 1.8), applied to the layers of any functional Keras model:

- Parameters are what training could change. BatchNorm's running statistics are none, although
  Keras counts them among its non-trainable weights: they are told apart, in no total.
- Mult-adds of a convolution are images x parameters with bias x output positions, of every other
  layer images x parameters: too few for a dense layer that is applied at each position, as the
  two of a ConvNeXt block are.
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
from collections.abc import Callable, Iterator, Sequence

import keras
from keras import layers

from keras_cnn.errors import UserError, nearest
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
# Flat models tell their blocks by the layers' names: stage1_block2_conv1.
BLOCK = re.compile(r"(stem|stage\d+|block\d+|downsample|features|head)_")
STATISTICS = ("moving_mean", "moving_variance")  # BatchNorm's, by the names of the variables
BYTES = 4  # of a float32
TEXT_WIDTH = 100

Shape = tuple[int | None, ...]
Named = tuple[str, layers.Layer]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer, a block of layers, or (at depth 0) the model.

    Attributes:
        name: In full; a block's is what the names of its layers begin with.
        kind: The class, or `Block`.
        depth: 0 for the model, 1 for its blocks, and so on.
        index: Counts from 1 the layers of the same depth over the whole model.
        output_shapes: One for each output at the first call, with the batch; None where open.
        parameters: Its own and its layers'; shared ones count where they come first.
        trainable_parameters: Those of them that train now.
        statistics: BatchNorm's running means and variances, in values.
        mult_adds: For the batch; None where an open dimension decides.
        held_values: Outputs kept for the backward pass, in values; None likewise.
        layers: What it is made of.
    """

    name: str
    kind: str
    depth: int
    index: int
    output_shapes: tuple[Shape, ...]
    parameters: int
    trainable_parameters: int
    statistics: int
    mult_adds: int | None
    held_values: int | None
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
    root = _Reader(batch_size).model(model)
    inputs = [_at(tensor.shape, batch_size) for tensor in model.inputs]
    sizes = (
        _megabytes(_sum(_values(shape) for shape in inputs)),
        _megabytes(None if root.held_values is None else 2 * root.held_values),
        _megabytes(root.parameters),
    )
    return Summary(
        batch_size=batch_size,
        parameters=root.parameters,
        trainable_parameters=root.trainable_parameters,
        non_trainable_parameters=root.parameters - root.trainable_parameters,
        statistics=root.statistics,
        mult_adds=root.mult_adds,
        input_megabytes=sizes[0],
        forward_backward_megabytes=sizes[1],
        parameters_megabytes=sizes[2],
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


class _Reader:
    """Reads one model's layers, remembering what has been counted."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.indices: Counter[int] = Counter()
        self.counted: set[int] = set()  # ids of weights

    def model(self, model: keras.Model) -> Layer:
        graph = _graph(model)
        shapes = self._shapes(graph.outputs)
        children = self._members(_named(graph), graph, calls=1, depth=1, prefix="")
        return _whole(model.name, type(model).__name__, 0, 0, shapes, children)

    def _members(
        self,
        members: Sequence[Named],
        graph: keras.Model,
        calls: int,
        depth: int,
        prefix: str,
    ) -> tuple[Layer, ...]:
        """Layers of a graph, each with the rest of its name, gathered into blocks.

        Args:
            members: Names without `prefix`, and layers.
            graph: Whose layers they are.
            calls: How often the graph itself is called.
            depth: The depth of what is returned.
            prefix: Names of the blocks around, as `stage1_`.
        """
        found = []
        for block, inside in _blocks(members):
            if block is None:
                found += [self._layer(layer, graph, calls, depth) for _, layer in inside]
                continue
            index = self._next_index(depth)
            children = self._members(inside, graph, calls, depth + 1, f"{prefix}{block}_")
            shapes = children[-1].output_shapes
            found.append(_whole(prefix + block, "Block", depth, index, shapes, children))
        return tuple(found)

    def _layer(self, layer: layers.Layer, graph: keras.Model, calls: int, depth: int) -> Layer:
        # Keras tells a layer's calls within one model only so; its own summary reads them too.
        inside = {id(node) for level in graph._nodes_by_depth.values() for node in level}
        nodes = [node for node in layer._inbound_nodes if id(node) in inside]
        outputs = [self._shapes(node.output_tensors) for node in nodes]
        index = self._next_index(depth)
        if isinstance(layer, keras.Model):
            inner = _graph(layer)
            called = calls * len(nodes)
            children = self._members(_named(inner), inner, called, depth + 1, prefix="")
            return _whole(layer.name, type(layer).__name__, depth, index, outputs[0], children)
        return self._leaf(layer, depth, index, outputs, calls)

    def _leaf(
        self,
        layer: layers.Layer,
        depth: int,
        index: int,
        outputs: Sequence[tuple[Shape, ...]],
        calls: int,
    ) -> Layer:
        statistics = {id(weight) for weight in layer.weights if weight.name in STATISTICS}
        weights = [weight for weight in layer.weights if id(weight) not in statistics]
        size = _size(weights)
        new = [weight for weight in layer.weights if id(weight) not in self.counted]
        self.counted |= {id(weight) for weight in new}
        trainable = {id(weight) for weight in layer.trainable_weights}
        counts_as_layer = bool(weights) and not _is_channel_scale(layer)
        mult_adds = held_values = 0
        if counts_as_layer:
            shapes = [shape for call in outputs for shape in call]
            mult_adds = _sum(_times(_rows(layer, call[0]), size * calls) for call in outputs)
            held_values = _sum(_times(_values(shape), calls) for shape in shapes)
        return Layer(
            name=layer.name,
            kind=type(layer).__name__,
            depth=depth,
            index=index,
            output_shapes=outputs[0],
            parameters=_size(weight for weight in new if id(weight) not in statistics),
            trainable_parameters=_size(weight for weight in new if id(weight) in trainable),
            statistics=_size(weight for weight in new if id(weight) in statistics),
            mult_adds=mult_adds,
            held_values=held_values,
        )

    def _next_index(self, depth: int) -> int:
        self.indices[depth] += 1
        return self.indices[depth]

    def _shapes(self, tensors: Sequence[keras.KerasTensor]) -> tuple[Shape, ...]:
        return tuple(_at(tensor.shape, self.batch_size) for tensor in tensors)


def _graph(model: keras.Model) -> keras.Model:
    """The functional model that holds a model's layers.

    Raises:
        UserError: There is none.
    """
    graph = model._functional if isinstance(model, keras.Sequential) else model
    if not hasattr(graph, "_nodes_by_depth"):
        raise UserError(
            f"model {model.name!r} has no graph of layers: a summary needs a functional model, "
            "or a Sequential one that has been built"
        )
    return graph


def _named(graph: keras.Model) -> list[Named]:
    return [
        (layer.name, layer) for layer in graph.layers if not isinstance(layer, layers.InputLayer)
    ]


def _blocks(members: Sequence[Named]) -> list[tuple[str | None, list[Named]]]:
    """Gathers layers whose names begin with the same block, under the rest of their names.

    Returns:
        Blocks and, as None, single layers, in the order of their first layers.
    """
    blocks: dict[tuple[str | None, str], list[Named]] = {}
    for rest, layer in members:
        match = BLOCK.match(rest)
        block = match[1] if match else None
        name = rest[match.end() :] if match else rest
        blocks.setdefault((block, block or layer.name), []).append((name, layer))
    return [(block, inside) for (block, _), inside in blocks.items()]


def _whole(
    name: str,
    kind: str,
    depth: int,
    index: int,
    output_shapes: tuple[Shape, ...],
    children: tuple[Layer, ...],
) -> Layer:
    """Something made of layers, with their sums."""
    return Layer(
        name=name,
        kind=kind,
        depth=depth,
        index=index,
        output_shapes=output_shapes,
        parameters=sum(child.parameters for child in children),
        trainable_parameters=sum(child.trainable_parameters for child in children),
        statistics=sum(child.statistics for child in children),
        mult_adds=_sum(child.mult_adds for child in children),
        held_values=_sum(child.held_values for child in children),
        layers=children,
    )


def _is_channel_scale(layer: layers.Layer) -> bool:
    """Whether a layer is an EinsumDense that sums over nothing: one factor a channel."""
    return isinstance(layer, layers.EinsumDense) and all(
        len(weight.shape) == 1 for weight in layer.weights
    )


def _rows(layer: layers.Layer, shape: Shape) -> int | None:
    """How often a layer's parameters are used: images, of a convolution images x positions."""
    if not isinstance(layer, CONVOLUTIONS):
        return shape[0]
    return _values(shape[:-1] if layer.data_format == "channels_last" else shape[:1] + shape[2:])


def _at(shape: Shape, batch_size: int) -> Shape:
    """A shape with the batch size in place of an open first dimension."""
    return (batch_size, *shape[1:]) if shape and shape[0] is None else tuple(shape)


def _size(weights: Sequence[keras.Variable] | Iterator[keras.Variable]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _values(shape: Shape) -> int | None:
    return None if None in shape else math.prod(shape)


def _times(number: int | None, factor: int) -> int | None:
    return None if number is None else number * factor


def _sum(numbers: Iterator[float | None] | Sequence[float | None]) -> float | None:
    """The sum, unknown if one number is."""
    numbers = list(numbers)
    return None if None in numbers else sum(numbers)


def _megabytes(values: int | None) -> float | None:
    return None if values is None else values * BYTES / 1e6


HEADER = ("Layer (name): depth-index", "Output shape", "Parameters", "Mult-adds")


def _text(summary: Summary) -> str:
    rows = [HEADER, *_rows_of(summary.model, summary.model.name)]
    others = max(map(len, grid.aligned([row[1:] for row in rows], right=(1, 2))))
    names = TEXT_WIDTH - others - len("  ")
    lines = grid.aligned([(_cut(row[0], names), *row[1:]) for row in rows], right=(2, 3))
    rule = "=" * max(map(len, lines))
    totals = [f"{label}: {figure}" for label, figure in _totals(summary)]
    sizes = next(at for at, line in enumerate(totals) if line.startswith("Input"))
    return "\n".join(
        [rule, lines[0], rule, *lines[1:], rule, *totals[:sizes], rule, *totals[sizes:], rule]
    )


def _markdown(summary: Summary) -> str:
    """Two tables; the tree stands in code spans, where spaces survive."""
    tree = [
        f"| `{label}` | {shape} | {parameters} | {mult_adds} |"
        for label, shape, parameters, mult_adds in _rows_of(summary.model, summary.model.name)
    ]
    totals = [f"| {label} | {figure} |" for label, figure in _totals(summary)]
    header = [f"| {' | '.join(HEADER)} |", "|---|---|---:|---:|"]
    return "\n".join([*header, *tree, "", "| Total | |", "|---|---:|", *totals])


def _rows_of(layer: Layer, label: str) -> Iterator[tuple[str, str, str, str]]:
    """A line of the tree for a layer, then one for each layer inside, in order."""
    branches = ("", "├─", "│    " * (layer.depth - 1) + "└─")
    branch = branches[min(layer.depth, 2)]
    place = f": {layer.depth}-{layer.index}" if layer.depth else ""
    yield (
        f"{branch}{label}{place}",
        ", ".join(_shape_text(shape) for shape in layer.output_shapes),
        f"{layer.parameters:,}" if layer.parameters and not layer.layers else "--",
        "--" if layer.layers or layer.mult_adds == 0 else _scaled(layer.mult_adds),
    )
    for child in layer.layers:
        name = child.name.removeprefix(f"{layer.name}_") if layer.depth else child.name
        yield from _rows_of(child, name if child.kind == "Block" else f"{child.kind} ({name})")


def _totals(summary: Summary) -> list[tuple[str, str]]:
    statistics = [("Running statistics (in no total)", f"{summary.statistics:,}")]
    return [
        ("Batch size", f"{summary.batch_size:,}"),
        ("Total parameters", f"{summary.parameters:,}"),
        ("Trainable parameters", f"{summary.trainable_parameters:,}"),
        ("Non-trainable parameters", f"{summary.non_trainable_parameters:,}"),
        *(statistics if summary.statistics else []),
        ("Total mult-adds", _scaled(summary.mult_adds)),
        ("Input size (MB)", _two_decimals(summary.input_megabytes)),
        ("Forward/backward pass size (MB)", _two_decimals(summary.forward_backward_megabytes)),
        ("Parameters size (MB)", _two_decimals(summary.parameters_megabytes)),
        ("Estimated total size (MB)", _two_decimals(summary.total_megabytes)),
    ]


def _shape_text(shape: Shape) -> str:
    return f"[{', '.join('?' if length is None else str(length) for length in shape)}]"


def _scaled(number: int | None) -> str:
    if number is None:
        return "?"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def _two_decimals(number: float | None) -> str:
    return "?" if number is None else f"{number:,.2f}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"

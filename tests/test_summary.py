"""The summary against the deck's slides, torchinfo's own figures, and counts by hand."""

from __future__ import annotations

import json

import keras
import pytest
from keras import layers

from keras_cnn import models
from keras_cnn.errors import UserError
from keras_cnn.models.summary import count_parameters, render, summarise


def network(name, hidden_units, size=32):
    dropout = models.network(name).dropout
    return models.classifier(name, 10, size, dropout=dropout, hidden_units=hidden_units)


# torchinfo 1.8.0 on torch 2.13.0, torchvision's ResNet-18 and timm's ConvNeXts written in plain
# torch, their pointwise layers as 1x1 convolutions, 1,000 classes, batch 64: total_params,
# total_mult_adds, total_output_bytes, total_param_bytes.
TORCHINFO = {
    ("resnet18", 32): (11_689_512, 2_402_179_584, 52_416_512, 46_758_048),
    ("resnet18", 224): (11_689_512, 116_101_372_416, 2_543_833_088, 46_758_048),
    ("convnext_tiny", 32): (28_589_128, 5_886_274_048, 172_347_392, 114_330_016),
    ("convnext_tiny", 224): (28_589_128, 286_014_925_312, 8_401_571_840, 114_330_016),
    ("convnext_atto", 64): (3_695_520, 2_898_629_120, 199_249_920, 14_774_720),
}
# torchinfo leaves parameters that belong to no layer out of the size of the parameters.
LAYER_SCALES = {
    "resnet18": 0,
    "convnext_tiny": 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768,
    "convnext_atto": 2 * 40 + 2 * 80 + 6 * 160 + 2 * 320,
}


def flat(layer):
    return [layer, *(inner for child in layer.layers for inner in flat(child))]


def leaves(summary):
    return [layer for layer in flat(summary.model) if not layer.layers]


@pytest.mark.parametrize(
    ("name", "hidden_units", "lines"),
    [
        (
            "baseline",
            32,
            [
                "Total parameters: 49,130",
                "Total mult-adds: 969.15 M",
                "Input size (MB): 0.79",
                "Forward/backward pass size (MB): 41.95",
                "Parameters size (MB): 0.20",
                "Estimated total size (MB): 42.93",
            ],
        ),
        (
            "enhanced",
            64,
            [
                "Total parameters: 1,149,770",
                "Trainable parameters: 1,149,770",
                "Non-trainable parameters: 0",
                "Running statistics (in no total): 1,792",
                "Total mult-adds: 9.79 G",
                "Input size (MB): 0.79",
                "Forward/backward pass size (MB): 234.89",
                "Parameters size (MB): 4.60",
                "Estimated total size (MB): 240.27",
            ],
        ),
    ],
)
def test_text_has_the_decks_totals(name, hidden_units, lines):
    found = render(summarise(network(name, hidden_units), 64), "text").splitlines()
    assert [line for line in lines if line not in found] == []


@pytest.mark.parametrize(("name", "image_size"), TORCHINFO)
def test_totals_equal_torchinfos(name, image_size):
    found = summarise(models.classifier(name, class_count=1000, image_size=image_size), 64)
    parameters, mult_adds, output_bytes, parameter_bytes = TORCHINFO[name, image_size]
    assert found.parameters == found.trainable_parameters == parameters
    assert found.mult_adds == mult_adds
    assert found.input_megabytes == pytest.approx(64 * image_size**2 * 3 * 4 / 1e6)
    assert found.forward_backward_megabytes == pytest.approx(output_bytes / 1e6)
    assert found.parameters_megabytes == pytest.approx(
        (parameter_bytes + 4 * LAYER_SCALES[name]) / 1e6
    )
    text = render(found)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text


def test_the_tree_is_the_slides():
    text = render(summarise(network("baseline", 32), 64))
    tree = [line.split("  ")[0] for line in text.splitlines() if "─" in line]
    stage = text[text.index("├─stage1") : text.index("├─stage2")].splitlines()
    assert [line.split() for line in stage] == [
        ["├─stage1:", "1-2", "[64,", "16,", "16,", "32]", "--", "--"],
        ["│", "└─Conv2D", "(conv1):", "2-2", "[64,", "32,", "32,", "32]", "896", "58.72", "M"],
        ["│", "└─ReLU", "(relu1):", "2-3", "[64,", "32,", "32,", "32]", "--", "--"],
        ["│", "└─Conv2D", "(conv2):", "2-4", "[64,", "32,", "32,", "32]", "9,248", "606.08", "M"],
        ["│", "└─ReLU", "(relu2):", "2-5", "[64,", "32,", "32,", "32]", "--", "--"],
        ["│", "└─MaxPooling2D", "(pool):", "2-6", "[64,", "16,", "16,", "32]", "--", "--"],
    ]
    assert [line for line in tree if line.startswith("├")] == [
        "├─stem: 1-1",
        "├─stage1: 1-2",
        "├─stage2: 1-3",
        "├─features: 1-4",
        "├─head: 1-5",
    ]


def test_sums_of_blocks_are_the_sums_of_their_layers():
    summary = summarise(network("enhanced", 8), 3)
    for layer in flat(summary.model):
        if layer.layers:
            for field in ("parameters", "statistics", "mult_adds", "held_values"):
                parts = [getattr(child, field) for child in layer.layers]
                assert getattr(layer, field) == sum(parts), (layer.name, field)
    assert summary.parameters == sum(layer.parameters for layer in leaves(summary))


@pytest.mark.parametrize("name", ["enhanced", "convnext_atto"])
def test_parameters_are_counted_by_themselves_too(name):
    model = models.classifier(name, 10)
    inputs = keras.Input((32, 32, 3))
    twice = keras.Model(inputs, layers.Add()([model(inputs), model(inputs)]))
    for each in (model, twice):
        assert count_parameters(each) == summarise(each, 1).parameters > 10_000


def test_one_layer_of_each_kind_by_hand():
    inputs = keras.Input((12, 10, 4))
    x = layers.Conv2D(6, (3, 5), strides=2, groups=2, name="convolution")(inputs)  # (n, 5, 3, 6)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2DTranspose(2, 2, strides=2, use_bias=False, name="transposed")(x)  # 10 x 6
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Dense(7, name="dense")(x)
    x = layers.EinsumDense("nhwc,c->nhwc", output_shape=(10, 6, 7), name="scale")(x)
    summary = summarise(keras.Model(inputs, layers.ReLU()(x)), 5)
    found = {
        layer.name: (layer.parameters, layer.mult_adds, layer.held_values)
        for layer in leaves(summary)
    }
    convolution, depthwise, transposed = 3 * 5 * 2 * 6 + 6, 3 * 3 * 12 + 12, 2 * 2 * 12 * 2
    assert found.pop("convolution") == (convolution, 5 * 15 * convolution, 5 * 15 * 6)
    assert found.pop("depthwise") == (depthwise, 5 * 15 * depthwise, 5 * 15 * 12)
    assert found.pop("transposed") == (transposed, 5 * 60 * transposed, 5 * 60 * 2)
    assert found.pop("norm") == (4, 5 * 4, 5 * 60 * 2)
    assert found.pop("dense") == (2 * 7 + 7, 5 * 60 * 21, 5 * 60 * 7)
    assert found.pop("scale") == (7, 0, 0)
    assert list(found.values()) == [(0, 0, 0)]
    assert summary.total_megabytes == pytest.approx(
        summary.input_megabytes + summary.forward_backward_megabytes + summary.parameters_megabytes
    )


@pytest.mark.parametrize(
    ("shape", "layer", "positions"),
    [
        ((9, 7, 4), layers.Dense(5), 9 * 7),
        ((9, 4), layers.Dense(5), 9),
        ((9, 4), layers.EinsumDense("abc,cde->abde", (9, 2, 3), bias_axes="de"), 9),
        ((9, 7, 4), layers.EinsumDense("...x,xy->...y", 5), 9 * 7),
        ((9, 4), layers.MultiHeadAttention(2, 3), 9),
        ((9, 4), layers.LSTM(5), 9),
        ((9, 4), layers.Bidirectional(layers.GRU(5, return_sequences=True)), 9),
        ((9, 8, 8, 4), layers.ConvLSTM2D(5, 3), 9 * 6 * 6),
        ((9, 8, 8, 4), layers.TimeDistributed(layers.Conv2D(5, 3)), 9 * 6 * 6),
        ((9, 4), layers.TimeDistributed(layers.Dense(5)), 9),
        ((9, 7, 4), layers.BatchNormalization(), 1),
    ],
)
def test_a_layer_computes_at_each_position_or_step(shape, layer, positions):
    inputs = keras.Input(shape)
    given = (inputs, inputs) if isinstance(layer, layers.MultiHeadAttention) else (inputs,)
    (counted,) = leaves(summarise(keras.Model(inputs, layer(*given)), 3))
    assert counted.mult_adds == 3 * positions * count_parameters(layer) > 0


def test_channels_first_convolutions_count_their_positions():
    inputs = keras.Input((3, 8, 6))
    x = layers.Conv2D(4, 3, data_format="channels_first", name="convolution")(inputs)
    (layer,) = leaves(summarise(keras.Model(inputs, x), 2))
    assert layer.output_shapes == ((2, 4, 6, 4),)
    assert layer.mult_adds == 2 * 6 * 4 * (27 * 4 + 4)


def test_frozen_layers_are_parameters_that_do_not_train():
    model = network("enhanced", 8)
    whole = summarise(model, 64)
    for layer in model.layers:
        layer.trainable = not layer.name.startswith("stage1_")
    frozen = summarise(model, 64)
    stage = (3 * 9 * 8 + 8) + (8 * 9 * 8 + 8) + 2 * 2 * 8
    assert frozen.parameters == whole.parameters
    assert frozen.non_trainable_parameters == stage
    assert frozen.statistics == whole.statistics == 2 * 2 * 7 * 8


def test_a_model_inside_a_model_deepens_the_tree():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="first"), layers.Dense(2, name="second")],
        name="inner",
    )
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(1, name="last")(inner(inputs)), name="outer")
    found = summarise(model, 8)
    places = [(layer.name, layer.depth, layer.index) for layer in flat(found.model)]
    assert places == [
        ("outer", 0, 0),
        ("inner", 1, 1),
        ("first", 2, 1),
        ("second", 2, 2),
        ("last", 1, 2),
    ]
    assert found.parameters == 15 + 8 + 3
    assert found.mult_adds == 8 * (15 + 8 + 3)
    assert "│    └─Dense (second): 2-2" in render(found)


@pytest.mark.parametrize("nested", [False, True])
def test_a_shared_layer_computes_twice_and_has_its_parameters_once(nested):
    encoder = layers.Dense(3, name="shared")
    if nested:
        inside = keras.Input((4,))
        encoder = keras.Model(inside, encoder(inside), name="encoder")
    first, second = keras.Input((4,)), keras.Input((4,))
    found = summarise(
        keras.Model([first, second], layers.Subtract()([encoder(first), encoder(second)])), 8
    )
    assert found.parameters == 15
    assert found.mult_adds == 2 * 8 * 15
    assert found.forward_backward_megabytes == pytest.approx(2 * 2 * 8 * 3 * 4 / 1e6)
    assert found.input_megabytes == pytest.approx(2 * 8 * 4 * 4 / 1e6)


def test_a_layer_elsewhere_called_counts_here_alone():
    model = network("baseline", 4)
    before = summarise(model, 2)
    model.get_layer("head_logits")(keras.Input((256,)))  # a call of another graph
    assert summarise(model, 2) == before


def test_open_dimensions_are_shown_as_unknown():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, name="stem_conv")(inputs)
    x = layers.GlobalAveragePooling2D(name="features_pool")(x)
    model = keras.Model(inputs, layers.Dense(2, name="head_logits")(x))
    summary = summarise(model, 16)
    assert summary.parameters == 3 * 9 * 4 + 4 + 10
    assert summary.mult_adds is None and summary.total_megabytes is None
    text = render(summary)
    assert "[16, ?, ?, 4]" in text
    assert "Total mult-adds: ?" in text and "Estimated total size (MB): ?" in text
    assert "None" not in text and "None" not in render(summary, "markdown")
    assert json.loads(render(summary, "json"))["total_megabytes"] is None


def test_a_built_sequential_model_and_own_subclasses_have_summaries():
    class Held(keras.Model):
        pass

    graph = network("baseline", 8)
    expected = summarise(graph, 4)
    assert summarise(Held(graph.inputs, graph.outputs), 4).mult_adds == expected.mult_adds
    sequential = keras.Sequential([keras.Input((32, 32, 3)), *graph.layers[1:]])
    assert summarise(sequential, 4).mult_adds == expected.mult_adds
    assert summarise(sequential, 4).input_megabytes == expected.input_megabytes


def test_a_model_without_a_graph_is_refused():
    class Own(keras.Model):
        pass

    for model in (Own(name="own"), keras.Sequential([layers.Dense(1)], name="own")):
        with pytest.raises(UserError, match=r"'own'.*functional"):
            summarise(model, 1)


def test_markdown_rows_have_the_headers_cells():
    lines = render(summarise(network("enhanced", 8), 64), "markdown").splitlines()
    tree, totals = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert {line.count("|") for line in tree} == {5}
    assert {line.count("|") for line in totals} == {3}
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [
        f"│{'&nbsp;' * 4}└─Conv2D (conv1): 2-2",
        r"\[64, 32, 32, 8\]",
        "224",
        "14.68 M",
    ] in cells
    assert ["Trainable parameters", "18,738"] in cells


def test_json_has_the_exact_figures():
    found = json.loads(render(summarise(network("baseline", 32), 64), "json"))
    assert found["mult_adds"] == 969_147_008
    assert found["forward_backward_megabytes"] == pytest.approx(41.94816)
    stage = found["model"]["layers"][1]
    assert (stage["name"], stage["kind"], stage["parameters"]) == ("stage1", "Block", 896 + 9_248)
    assert stage["layers"][0]["output_shapes"] == [[64, 32, 32, 32]]


def test_names_reach_no_terminal_raw():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="\x1b[31mred\nline")(inputs), name="a\x07b")
    summary = summarise(model, 1)
    assert r"Dense (\x1b[31mred\nline)" in render(summary)
    for format in ("text", "markdown"):
        assert not {"\x1b", "\x07"} & {*render(summary, format)}


def test_long_names_are_cut_at_the_terminals_width():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="a_long_name" * 20)(inputs))
    text = render(summarise(model, 1))
    assert max(map(len, text.splitlines())) == 100
    assert "…" in text


def test_an_unknown_format_is_refused():
    with pytest.raises(UserError, match=r"'markdwn'.*'markdown'"):
        render(summarise(network("baseline", 4), 1), "markdwn")

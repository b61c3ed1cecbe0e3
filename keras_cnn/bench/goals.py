"""What is measured against what, what is aimed at, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from keras_cnn.results import grid
from keras_cnn.results.grid import Column


@dataclass(frozen=True)
class Goal:
    """One contender against others.

    Attributes:
        ours: A contender.
        peers: The others; in each round the fastest of them counts.
        at_least: How many times the peer's rate ours should be.
    """

    ours: str
    peers: tuple[str, ...]
    at_least: float


def _of_training(network: str) -> list[Goal]:
    ours = f"{network} ours"
    plain = (f"{network} torch", f"{network} torch channels-last")
    return [Goal(ours, plain, 1.0), Goal(ours, (f"{network} keras fit",), 1.6)]


def _named(before: str, names: Sequence[str], after: str = "") -> tuple[str, ...]:
    return tuple(f"{before} {name}{after}" for name in names)


def _of_finetuning(network: str) -> Goal:
    kept, anew = (_named(network, LAYOUTS, f", {way}") for way in ("features kept", "no_grad"))
    return Goal(f"{network} ours", kept + anew, 1.0)


def _of_prediction(network: str) -> list[Goal]:
    ours = f"predict {network} ours"
    return [
        Goal(ours, _named(f"predict {network}", LAYOUTS), 1.0),
        Goal(ours, (f"predict {network} onnxruntime",), 1.0),
    ]


def _of_keras() -> list[Goal]:
    return [Goal(f"{name} ours", (f"{name} keras fit",), 1.0) for name in ("baseline", "enhanced")]


LAYOUTS = ("torch", "torch channels-last")
BACKBONES = ("convnext", "resnet", "efficientnet")
PACKAGES = ("higher", "onnxruntime")  # peers that need not be installed
BACKENDS = ("tensorflow", "jax")  # others than torch: a part of `bench peers` each

BENCHES: dict[str, list[Goal]] = {
    "training": [*_of_training("baseline"), *_of_training("enhanced")],
    "loader": [
        Goal("feed", ("png loader",), 10.0),
        Goal("feed", ("sliced tensor",), 1.0),
        Goal("feed as floats", ("sliced tensor",), 1.0),
    ],
    "fewshot": [
        Goal("kept training", ("whole training",), 1.15),
        Goal("kept training", ("few-shot keras fit",), 1.6),
        Goal("kept evaluation", ("whole evaluation",), 1.5),
    ],
    "repeats": [Goal("repeats together", ("repeats in sequence",), 1.6)],
}

# What `bench peers` measures, each part by itself: the same work in the field's own tools.
PEERS: dict[str, list[Goal]] = {
    **{f"finetuning-{network}": [_of_finetuning(network)] for network in BACKBONES},
    "episodes": [Goal("episodes ours", _named("episodes easyfsl's,", LAYOUTS), 1.0)],
    "maml": [
        Goal(f"maml {order} order ours", (f"maml {order} order {peer}",), 1.0)
        for order in ("first", "second")
        for peer in ("functional_call", "higher")
    ],
    **{f"prediction-{network}": _of_prediction(network) for network in ("convnext", BACKBONES[2])},
    "decoding": [
        Goal(f"decode to {size} ours", (f"decode to {size} DataLoader",), 1.0)
        for size in ("224", "32")
    ],
    **{backend: _of_keras() for backend in BACKENDS},
}


HOW = {
    "training": "Batch 64, Adam, 32x32 images in memory; whole training steps.",
    "loader": "Batches of 64, no training; the feed's are uint8, the sliced tensor is float32.",
    "fewshot": "ConvNeXt-Atto, last two stages train, batch 16, 1,000 images; evaluation by 256.",
    "repeats": "Five runs of 3 epochs with their processes' start: 2 at a time with 1 thread each, "
    "against one after the other with 2 threads.",
    **{
        f"finetuning-{network}": f"{name}; last two stages and the head train, batch 16, from "
        "images on, frozen part included. Peers are plain torch loops, a fused Adam, the frozen "
        "part under no_grad in each step, or run once and its features kept, the best there is."
        for network, name in {
            "convnext": "ConvNeXt-Atto, 32 pixels, 320 images, 3 epochs",
            "resnet": "ResNet-18, 32 pixels, 320 images, 3 epochs",
            "efficientnet": "EfficientNet-Lite0, 224 pixels, 48 images, 3 epochs",
        }.items()
    },
    "episodes": "Prototypical networks, ConvNeXt-Atto, all of it trains, 32 pixels, 5 classes, 5 "
    "support and 10 query images each. The peer computes as easyfsl's PrototypicalNetworks "
    "(support and query apart, torch.cdist), in plain torch with a fused Adam, images scaled in "
    "memory.",
    "maml": "The CNN for few images, 32 pixels, 5 classes, 5 support and 5 query images each, 5 "
    "inner steps, 4 tasks a step of Adam. Peers: a plain loop over torch.func.functional_call, and "
    "higher 0.2.1.",
    **{
        f"prediction-{network}": f"A folder of {name}, from the model's file on to probabilities. "
        "Peers decode by Pillow in a DataLoader with 2 workers (as torchvision's ImageFolder, "
        "Resize, CenterCrop and ToTensor do), and run the same network in plain torch or, exported "
        "by torch, in onnxruntime."
        for network, name in {
            "convnext": "400 JPEGs of 500 x 375 pixels by a ConvNeXt-Atto of 32 pixels",
            "efficientnet": "100 JPEGs of 500 x 375 pixels by an EfficientNet-Lite0 of 224 pixels",
        }.items()
    },
    "decoding": "400 JPEGs of 500 x 375 pixels. The peer is a DataLoader with 2 workers that does "
    "with Pillow what torchvision's ImageFolder, Resize, CenterCrop and ToTensor do.",
    **{
        backend: f"On {backend}: batch 64, Adam, 32x32 images in memory; against Keras's `fit`."
        for backend in BACKENDS
    },
}


def contenders(bench: str) -> list[str]:
    """Who takes part in a bench, each once."""
    named = [name for goal in _goals(bench) for name in (goal.ours, *goal.peers)]
    return list(dict.fromkeys(named))


def backend(bench: str) -> str:
    """What a bench's contenders run on."""
    return bench if bench in BACKENDS else "torch"


def left_out(bench: str) -> list[str]:
    """The packages a bench would measure against and which are not installed."""
    named = " ".join(peer for goal in {**BENCHES, **PEERS}[bench] for peer in goal.peers).split()
    return [package for package in PACKAGES if package in named and not find_spec(package)]


def _goals(bench: str) -> list[Goal]:
    """Those of a bench whose peers are installed."""
    missing = left_out(bench)
    return [
        goal
        for goal in {**BENCHES, **PEERS}[bench]
        if not any(package in peer.split() for package in missing for peer in goal.peers)
    ]


def ratio(ours: Sequence[float], peers: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """How many times the fastest peer's rate ours is, round by round.

    Args:
        ours: A rate for each round.
        peers: The same of each peer.

    Returns:
        Median and the quartiles below and above it.
    """
    ratios = np.asarray(ours) / np.max(peers, axis=0)
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(median), float(low), float(high)


def verdicts(bench: str, rates: Mapping[str, Sequence[float]]) -> list[dict[str, object]]:
    """Each goal of a bench with what was found.

    Args:
        bench: One of `BENCHES` or `PEERS`.
        rates: By contender, images a second in each round.

    Returns:
        Dicts of `ours`, `peers`, `times` (median), `quartiles`, `goal` and `met`.
    """
    found = []
    for goal in _goals(bench):
        median, low, high = ratio(rates[goal.ours], [rates[peer] for peer in goal.peers])
        found.append(
            {
                "ours": goal.ours,
                "peers": list(goal.peers),
                "times": median,
                "quartiles": [low, high],
                "goal": goal.at_least,
                "met": median >= goal.at_least,
            }
        )
    return found


def markdown(bench: str, rates: Mapping[str, Sequence[float]]) -> str:
    """Rates, ratios and whether the goals are met, as two tables.

    Args:
        bench: One of `BENCHES` or `PEERS`.
        rates: By contender, images a second in each round.
    """
    speeds = []
    for name, values in rates.items():
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        speeds.append((name, f"{median:,.0f}", f"{low:,.0f} to {high:,.0f}"))
    times = []
    for found in verdicts(bench, rates):
        low, high = found["quartiles"]
        words = (found["ours"], " or ".join(found["peers"]), f"{found['times']:.2f}")
        met = "yes" if found["met"] else "no"
        times.append((*words, f"{low:.2f} to {high:.2f}", f"{found['goal']:g}", met))
    return "\n\n".join(
        grid.markdown(list(map(Column, headings, zip(*rows, strict=True))))
        for headings, rows in (
            (("contender", "images/s, median", "quartiles"), speeds),
            (("ours", "against", "times", "quartiles", "goal", "met"), times),
        )
    )

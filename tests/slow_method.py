"""A method of one's own for runs that have to last: supervised training that pauses."""

from __future__ import annotations

import time

from keras_cnn.methods.settings import Supervised


class Slow(Supervised):
    """Supervised training with a pause after each epoch.

    Attributes:
        pause: Its length in seconds.
    """

    module = "slow_method"
    pause: float = 0.5


def train(network, train, test, *, report=None, pause=0.5, **settings):
    """As `keras_cnn.methods.supervised.train`."""
    from keras_cnn.methods import supervised

    def slowly(record):
        if report:
            report(record)
        time.sleep(pause)

    return supervised.train(network, train, test, report=slowly, **settings)


train.settings = Slow

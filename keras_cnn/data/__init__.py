"""Images as arrays: sources, decoding, cache, sampling. Never imports keras."""

from keras_cnn.data.sources import Dataset, Split, fingerprint, load

__all__ = ["Dataset", "Split", "fingerprint", "load"]

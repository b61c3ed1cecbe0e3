"""What `fit` is given: models that train without waste, optimizers, feeds, callbacks, metrics."""

"""The slide deck: the loops behind its numbers, with what went wrong in them, and its slides.

A recipe's variant `as_run` puts one of these in the place of a method:

| file | in place of | what the deck did | slides |
|---|---|---|---|
| `supervised_as_run` | `supervised` | see below | 5 to 18, 20 to 23 |
| `prototypical_split_batches` | `prototypical` | episodes are batches split at random | 19 |
| `siamese_inverted` | `siamese` | pairs of one class are pushed apart | 19 |
| `maml_detached` | `maml` | copies are trained and thrown away | 19 |

The supervised loop: evaluation mode sticks after the first test pass (`eval_mode`), frozen
BatchNorm statistics move while the first epoch trains, dropout acts on the logits, augmentation is
drawn once, figures are means over batches. Each file is composed of the right method's functions.
`slides` reads the slides' own words and order from `slides.yaml`.
"""

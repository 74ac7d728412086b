"""GIT, a generative image-to-text transformer, and its relatives in JAX and Flax.

The way in: `train.py` holds the loop, `models/git.py` the model, `losses.py` what is
learnt, `configs/` (beside this package) the experiments. README.md has the map.
"""

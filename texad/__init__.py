"""texad: texture anomaly detection with ResNet-50 features and an autoencoder.

The package follows the method, one module a stage, in this order:
`datasets` -> `preprocessing` -> `weights`, `features` -> `autoencoder` -> `scoring` -> `evaluation`, `plotting`.
`artifacts` keeps what a stage leaves for the next, `jobs` runs the notebooks of a category with the `parameters` that they take, `batch`
and `sweeps` those of many categories, in `pools` of processes here or on a `cluster`. `quiz` and `explorer` are what a reader can play with, `book` makes the site.
"""

__version__ = "0.1.0"

"""texad: texture anomaly detection with ResNet-50 features and an autoencoder.

The package follows the method, one module a stage, in this order:
`datasets` -> `preprocessing` -> `weights`, `features` -> `autoencoder` -> `scoring` -> `evaluation`, `plotting`.
`artifacts` keeps what a stage leaves for the next, `batch` runs the notebooks for many categories.
"""

__version__ = "0.1.0"

"""Texture anomaly detection with ResNet-50 features and an autoencoder.

`AnomalyDetector` learns from good images and judges others. The rooms of the package, from the
ground up: `io`, `data`, `model`, `evaluation`, `runs`; `pipeline` is the method on one page.

>>> from texad import AnomalyDetector
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from texad.detector import AnomalyDetector, Prediction

__all__ = ["AnomalyDetector", "Prediction", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the public classes when they are first used, since torch takes a second (PEP 562)."""
    if name in ("AnomalyDetector", "Prediction"):
        from texad import detector

        return getattr(detector, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

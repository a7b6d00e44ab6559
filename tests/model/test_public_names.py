"""What a person imports."""

import subprocess
import sys

import pytest

import texad


def test_importing_texad_loads_nothing_heavy_until_a_class_is_used():
    code = (
        "import sys, texad\n"
        "heavy = {'torch', 'numpy', 'pandas', 'sklearn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'AnomalyDetector' in dir(texad)\n"
        "from texad import AnomalyDetector, Prediction\n"
        "print(AnomalyDetector.__module__, Prediction.__module__)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "texad.detector texad.detector\n", result.stderr


def test_importing_texad_takes_less_than_a_tenth_of_a_second():
    code = "import time; t = time.process_time(); import texad; print(time.process_time() - t)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert float(result.stdout) < 0.1


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Detector'"):
        getattr(texad, "Detector")  # noqa: B009

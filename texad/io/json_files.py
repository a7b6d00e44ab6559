"""JSON files that are whole.

A file that a person, a full disk or a broken copy has changed is not guessed at: reading it is one
error that names the file.
"""

import json
from pathlib import Path

from texad.errors import DamagedError
from texad.io.atomic import write_text


def read_json(file: Path) -> dict:
    """Read a JSON file that holds an object; a missing one reads as empty.

    Raises
    ------
    DamagedError
        If the file is no JSON, or another kind of JSON: a list, a NaN or a number too large to
        compute with.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_int=_whole)
        # A ValueError: numbers that are not finite, and half a character, which no file can hold.
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise damaged(file, str(error)) from None
    if not isinstance(content, dict):
        raise damaged(file, f"it holds a {type(content).__name__} instead of an object")
    return content


def write_json(file: Path, content: dict) -> None:
    """Write a JSON file whole or not at all; NaN is refused, since JSON has no word for it."""
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def damaged(file: Path, reason: str) -> DamagedError:
    """Error about a JSON file that a person, a full disk or a broken copy has changed."""
    return DamagedError(f"{file} is damaged ({reason}); delete it and run the stage again")


def _whole(text: str) -> int:
    if len(text) > 18:  # what fits into 64 bits
        raise ValueError(f"a number of {len(text)} digits is none to compute with")
    return int(text)

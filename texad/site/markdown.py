"""The parts that pages are made of, as Markdown for MyST: tables, figures, warnings, and names that can break nothing."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from texad.errors import printable
from texad.io.atomic import replacing
from texad.model.weights import RANDOM_WARNING
from texad.site.gallery import Picture


def warning(weights: dict) -> str:
    if weights["name"] != "random":
        return ""
    return f":::{{admonition}} Random weights\n:class: danger texad-weights-warning\n\n{RANDOM_WARNING}\n:::"


def page(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def figure(file: str, caption: str, alt: str, width: str = "100%") -> str:
    """A figure; its caption is Markdown, its alternative text plain."""
    return f"```{{figure}} {file}\n:alt: {json.dumps(alt, ensure_ascii=False)}\n:width: {width}\n\n{caption}\n```"


def picture(picture: Picture, folder: str) -> str:
    return figure(
        f"{folder}/{picture.file.name}", text(picture.caption), picture.alt, picture.width
    )


def raw(fragment: str) -> str:
    """HTML that goes to the page as it is."""
    return fenced(fragment, "{raw} html")


def fenced(content: str, language: str = "") -> str:
    """Lines between two fences, which are longer than any run of backticks in the content."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return f"{fence}{language}\n{content}\n{fence}"


def gone(category: str) -> str:
    return f"*The images of {text(category)} are no longer where the run read them, so they cannot be shown here.*"


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def text(name: str) -> str:
    """A name from a folder, made harmless for Markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>$~^@:&%-])", r"\\\1", printable(" ".join(name.split())))


def code(name: str) -> str:
    """A name in the type of code, between more backticks than it has in a row."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", name)), default=0))
    return f"{ticks} {printable(name)} {ticks}" if "`" in name else f"`{printable(name)}`"


def write(file: Path, text: str) -> None:
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")

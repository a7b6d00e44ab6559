"""The theme's icons, small and from anywhere.

The theme brings its icons twice: as a script of 1.5 MB, more than all else on most pages, and as a
font, which some browsers refuse to a page that is opened as a file. Here the font is part of a
style sheet, so that it is no file of its own, and the script is emptied. The theme has no option
for that.
"""

import base64
from pathlib import Path

from sphinx.application import Sphinx

STYLE = "icons.css"
FACE = (
    '@font-face {{ font-family: "Font Awesome 6 Free"; font-style: normal; font-weight: 900; '
    'src: url("data:font/woff2;base64,{}") format("woff2") }}\n'
)


def setup(app: Sphinx) -> None:
    """Link the style sheet, and write it when the theme's files are there."""
    app.add_css_file(STYLE)
    app.connect("build-finished", _write)


def _write(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    font = (static / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.woff2").read_bytes()
    (static / STYLE).write_text(FACE.format(base64.b64encode(font).decode()), encoding="utf-8")
    script = static / "scripts" / "fontawesome.js"
    script.write_text("// The icons are in icons.css.\n", encoding="utf-8")
    script.with_suffix(".js.map").unlink(missing_ok=True)

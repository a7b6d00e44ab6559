"""What the names of folders and labels say of an image."""

import re
import unicodedata

# As `plain` writes them: in small letters, without what is between the words.
GOOD = frozenset(
    "good ok okay normal defectfree nodefect nodefects nondefective pass passed".split()
)
# In a column that says whether there is a defect; 00 is 0.0.
GOOD_CELLS = GOOD | {"0", "00", "false", "no", "none"}
YES = frozenset("1 10 true yes".split())
BAD = frozenset(
    "bad ng nok notok nogood notgood defect defects defective anomaly anomalies anomalous abnormal "
    "fail failed reject rejected".split()
)
# These say nothing of what is in a folder.
NEUTRAL = frozenset(
    "train training test testing val valid validation image images img imgs data".split()
)
MASKS = frozenset("mask masks groundtruth gt".split())
MOST_BYTES = 120  # of a name: with what is put before and after it, every file system takes it


def plain(label: str) -> str:
    """Label in small letters, without spaces, dashes and the like.

    Examples
    --------
    >>> plain("Defect-free")
    'defectfree'
    """
    return re.sub(r"[\W_]", "", label.casefold())


def clean(name: str) -> str:
    """Name for a file or folder that every system allows, and that is not hidden.

    Examples
    --------
    >>> clean("cut: 3/4")
    'cut_ 3_4'
    """
    name = unicodedata.normalize("NFC", name)
    name = "".join(
        letter if letter.isprintable() and letter not in '/\\:*?"<>|' else "_" for letter in name
    )
    while len(name.encode()) > MOST_BYTES:
        name = name[1:]  # the end tells more: that is where numbers are
    return name.strip(" .") or "_"

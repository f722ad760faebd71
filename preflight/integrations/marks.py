"""Whose a text is: our mark, in a comment of whatever format, with a digest of everything around it.

    # codex-preflight hook, format 1, sha256 0123456789abcdef

The digest is of the text with zeros in the digest's place, so the mark may stand anywhere. It is not
a seal against forgery: it tells what we have written from what somebody has changed since.
"""

from __future__ import annotations

import hashlib
import re

from preflight.integrations.interface import Condition

__all__ = ["FORMAT", "UNSIGNED", "condition_of", "digest_of", "mark", "signed"]

#: Raised whenever the rendering of any scheduler changes: what carries a lower one is outdated.
FORMAT = 1

_DIGITS = 16
_ZEROS = "0" * _DIGITS
_MARK = re.compile(rf"codex-preflight hook, format (\d{{1,6}}), sha256 ([0-9a-f]{{{_DIGITS}}})")


def mark(digest: str) -> str:
    """The words of the mark, for a comment."""
    return f"codex-preflight hook, format {FORMAT}, sha256 {digest}"


#: The mark of a text whose digest is not known yet.
UNSIGNED = mark(_ZEROS)


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]


def signed(text: str) -> str:
    """`text`, which has `UNSIGNED` in it once, with its digest."""
    return text.replace(UNSIGNED, mark(digest_of(text)), 1)


def condition_of(text: str, digest: str | None = None) -> Condition:
    """FOREIGN without a mark, EDITED when the digest does not fit, OUTDATED in an older format, else OURS.

    `digest` is given where the text itself does not stay as it was written, and its meaning does.
    """
    found = _MARK.search(text)
    if found is None:
        return Condition.FOREIGN
    if digest is None:
        digest = digest_of(text[: found.start(2)] + _ZEROS + text[found.end(2) :])
    if digest != found[2]:
        return Condition.EDITED
    return Condition.OUTDATED if int(found[1]) < FORMAT else Condition.OURS

"""What a source of text is: documents one by one, in an order that is always the same, or one error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from toybench.config import ConfigError

LONGEST = 2**24  # characters of a document: what a tokenizer makes of it is held in memory


class Document(NamedTuple):
    """A text, where it comes from (host, package or folder), and the bytes of its source read up to its end."""

    text: str
    domain: str
    at: int


class Source(Protocol):
    """Documents in an order that is always the same."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int:
        """Bytes, as `Document.at` counts them."""
        ...

    @property
    def changed(self) -> int:
        """With name and size, what tells a source from one that was altered: nanoseconds, 0 if it is not known."""
        ...

    def documents(self) -> Iterator[Document]:
        """Its documents, none of them empty.

        Raises:
            ConfigError: it cannot be read, or something in it is no document; names the file and the line.
        """
        ...

    def sha256(self) -> str | None:
        """Of its bytes, where they can be had."""
        ...


def checked(text: Any, where: str) -> str:
    """The text of a document.

    Raises:
        ConfigError: it is missing, empty, too long, or not Unicode.
    """
    if not isinstance(text, str):
        raise ConfigError(where, "no field 'text'" if text is None else f"'text' is no text but {type(text).__name__}")
    if not text or text.isspace():
        raise ConfigError(where, "an empty document")
    if len(text) > LONGEST:
        raise ConfigError(where, f"a document of more than {LONGEST:,} characters; split it")
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:  # JSON can say half of a surrogate pair
        raise ConfigError(where, "a document with half a character (a lone surrogate)") from None
    return text


PLAIN = re.compile(r"https?://([a-z0-9.-]+)(?:[/?#]|\Z)")  # most addresses, in a tenth of urlsplit's time


def host(url: Any, otherwise: str) -> str:
    """The host of an address, where it has one."""
    if isinstance(url, str) and (plain := PLAIN.match(url)):
        return plain[1]
    try:
        return (urlsplit(url).hostname if isinstance(url, str) else None) or otherwise
    except ValueError:  # what looks like an IPv6 address and is none
        return otherwise

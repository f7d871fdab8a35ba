"""Prepared tokens as one small file that travels, and back: a folder of `python -m lm data prepare`, xz inside tar."""

from __future__ import annotations

import argparse
import hashlib
import os
import tarfile
import tempfile
from pathlib import Path

from lm.prepare import META, MODEL, SIDES, is_whole
from toybench.config import ConfigError

MOST = 50_000_000  # bytes of the file
NAMES = (*(f"{side}.{kind}" for side in SIDES for kind in ("bin", "ends.bin", "domains.bin")), MODEL, META)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="FOLDER|FILE", help="prepared tokens; or a packed file, to unpack")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE|FOLDER", help="what is made of it")


def pack(folder: Path, file: Path, most: int = MOST) -> int:
    """Write a folder of prepared tokens as one file, whole or not at all; returns its bytes.

    Raises:
        ConfigError: it is no such folder, the file cannot be written, or would be too large.
    """
    if not is_whole(folder):
        raise ConfigError("source", f"{str(folder)!r} is no folder that `python -m lm data prepare` finished")
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with tarfile.open(aside, "w:xz", preset=3) as archive:
            for name in NAMES:
                if (folder / name).exists():
                    archive.add(folder / name, name, filter=_anonymous)
        if (size := aside.stat().st_size) > most:
            said = f"takes {size / 1e6:.1f} MB packed, at most {most / 1e6:g} travel; prepare fewer sources"
            raise ConfigError("source", f"{str(folder)!r} {said}")
        os.replace(aside, file)
    except OSError as error:
        raise ConfigError("out", f"cannot write {str(file)!r}: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)
    return size


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same bytes for the same tokens, whoever packs them, whenever."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def unpack(file: Path, folder: Path) -> Path:
    """Make the folder of a packed file, whole or not at all; one that is there already is left.

    Raises:
        ConfigError: it is no such file, or the folder cannot be written.
    """
    if is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as aside:
            with tarfile.open(file, "r:xz") as archive:
                members = [member for member in archive if member.isfile() and member.name in NAMES]
                archive.extractall(aside, members, filter="data")
            if not is_whole(Path(aside)):
                raise ConfigError("tokens", f"{str(file)!r} holds no prepared tokens")
            os.chmod(aside, 0o755)
            os.rename(aside, folder)
            os.mkdir(aside)  # for its end to remove
    except (tarfile.TarError, EOFError) as error:
        raise ConfigError("tokens", f"{str(file)!r} is no packed tokens: {error}") from None
    except OSError as error:
        if is_whole(folder):  # another process was faster
            return folder
        raise ConfigError("tokens", f"{str(file)!r} into {str(folder)!r}: {error.strerror}") from None
    return folder


def unpacked(file: Path, scratch: Path) -> Path:
    """The folder of a packed file, made in `scratch` if need be, named after the file's bytes.

    Raises:
        ConfigError: as `unpack`.
    """
    try:
        with open(file, "rb") as opened:
            name = hashlib.file_digest(opened, "sha256").hexdigest()[:12]
    except OSError as error:
        raise ConfigError("tokens", f"{str(file)!r} cannot be read: {error.strerror}") from None
    return unpack(file, scratch / f"tokens-{name}")


def run(options: argparse.Namespace) -> int:
    """Pack a folder, or unpack a file."""
    if options.source.is_dir():
        size = pack(options.source, options.out)
        print(f"{options.out}: {size / 1e6:.1f} MB")
    else:
        print(unpack(options.source, options.out))
    return 0

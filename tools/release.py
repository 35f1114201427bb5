"""Pack the built book into one zip file to read offline, and write its SHA-256 beside it.

    python tools/release.py        _build/one-bit-at-a-time-<version>.zip and .zip.sha256

The same book gives the same bytes: files are sorted, and every time stamp is 1 January 1980.
"""

import hashlib
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAME = "one-bit-at-a-time"
LICENCES = ("LICENSE", "LICENSE-CONTENT", "THIRD_PARTY.md")
# What the build leaves for itself, and what debuggers of the theme would read.
LEFT_OUT = (".complete", ".buildinfo", ".buildinfo.bak", "objects.inv", "*.map")
EPOCH = (1980, 1, 1, 0, 0, 0)


def files(book: Path) -> dict[str, Path]:
    """Return what goes into the zip file: path inside it -> file."""
    found = {
        path.relative_to(book).as_posix(): path
        for path in book.rglob("*")
        if path.is_file() and not any(map(path.match, LEFT_OUT))
    }
    return found | {name: ROOT / name for name in LICENCES}


def pack(book: Path, target: Path) -> str:
    """Write the zip file and the checksum beside it; return the checksum.

    Raises
    ------
    FileNotFoundError
        If the book is not built.
    """
    if not (book / "index.html").is_file():
        raise FileNotFoundError(f"{book} holds no book; `make book` builds it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in sorted(files(book).items()):
            entry = zipfile.ZipInfo(f"{NAME}/{name}", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is packed
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, path.read_bytes())
    checksum = hashlib.sha256(target.read_bytes()).hexdigest()
    # As sha256sum writes it, so that `sha256sum -c` reads it.
    target.with_name(f"{target.name}.sha256").write_text(f"{checksum}  {target.name}\n")
    return checksum


def version() -> str:
    """Return the project's version."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def main() -> None:
    """Pack the book of this tree."""
    target = ROOT / "_build" / f"{NAME}-{version()}.zip"
    try:
        checksum = pack(ROOT / "_build" / "html", target)
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.1f} MB")
    print(f"SHA-256: {checksum}")


if __name__ == "__main__":
    main()

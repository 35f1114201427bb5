"""Bring the browser code that the book loads into the repository, so that nothing is remote.

    python tools/vendor.py            fetch the pinned packages with npm and write the files
    python tools/vendor.py --check    compare the committed files with their checksums, offline

Versions and the packages' SHA-256 are pinned here; the files' are in ``vendor/SHA256SUMS``, which
``sha256sum -c`` reads too. anywidget's script comes from the installed Python package, since the
two have to agree.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution, version
from importlib.resources import files
from pathlib import Path, PurePosixPath

VENDOR = Path(__file__).parent.parent / "chapters" / "assets" / "vendor"
SUMS = "SHA256SUMS"
ANYWIDGET = "0.11.0"
RUNTIME = "widgets/embed-amd.js"
STYLES = ("labvariables", "lumino", "materialcolors", "nouislider", "widgets", "widgets-base")


@dataclass(frozen=True)
class Package:
    """An npm package, the checksum of its archive, and which of its files go where."""

    name: str
    version: str
    sha256: str
    parts: dict[str, str]  # glob inside the package -> folder or file below VENDOR


PACKAGES = (
    Package(
        "requirejs",
        "2.3.8",
        "777158e89275e16bd51aec3ef714fbcb5dc45789e7078659933bc814916d7dec",
        {"require.js": "widgets/require.js"},
    ),
    Package(
        "@jupyter-widgets/html-manager",
        "1.0.15",
        "2b9d65cb7913e1c7d671757a10008b32c9c2448d4429513371e55c07d6107638",
        {
            "dist/embed-amd.js": RUNTIME,
            "dist/embed.js.LICENSE.txt": "widgets/runtime.LICENSE.txt",
        },
    ),
    Package(
        "@jupyter-widgets/controls",
        "5.0.12",
        "33f8588a5772314b8746b4fa601d41b705e51580e8974ad156d2fc6edde75b59",
        {
            "LICENSE": "widgets/jupyter-widgets.LICENSE.txt",
            **{f"css/{name}.css": "widgets/css/" for name in STYLES},
        },
    ),
    Package(
        "@fontsource/ibm-plex-serif",
        "5.3.0",
        "ec25deb83f3dd0d45646d7e6f26c99ba310f272d9c425008bb9f27a50e2c5d4e",
        {
            "LICENSE": "fonts/ibm-plex-serif.LICENSE.txt",
            "files/ibm-plex-serif-latin-400-*.woff2": "fonts/",
            "files/ibm-plex-serif-latin-600-normal.woff2": "fonts/",
        },
    ),
    Package(
        "@fontsource/ibm-plex-sans",
        "5.3.0",
        "232592af20ae413026cc705fc9c104135fb760432fd710f06a02c39e062d3213",
        {
            "LICENSE": "fonts/ibm-plex-sans.LICENSE.txt",
            "files/ibm-plex-sans-latin-400-normal.woff2": "fonts/",
            "files/ibm-plex-sans-latin-600-normal.woff2": "fonts/",
        },
    ),
    Package(
        "@fontsource/ibm-plex-mono",
        "5.3.0",
        "60d3c0cfa549cb06fcb8867ee83f994d78e212abfac3bef3275436acb5c4d029",
        {
            "LICENSE": "fonts/ibm-plex-mono.LICENSE.txt",
            "files/ibm-plex-mono-latin-400-normal.woff2": "fonts/",
        },
    ),
    Package(
        "@ibm/plex-math",
        "1.1.0",
        "44bfdc9911bc6edb3963775c68c3fcaf921de2eda1898a9d1611d1d93ecf2b42",
        {
            "LICENSE.txt": "fonts/ibm-plex-math.LICENSE.txt",
            "fonts/complete/woff2/IBMPlexMath-Regular.woff2": "fonts/",
        },
    ),
)


def sha256(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def archive(package: Package, folder: Path) -> Path:
    """Fetch a package's archive with npm into ``folder`` and check it."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is not installed; it is needed to fetch the files, not to build the book")
    subprocess.run(
        [
            npm,
            "pack",
            "--silent",
            "--pack-destination",
            folder,
            f"{package.name}@{package.version}",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    stem = package.name.removeprefix("@").replace("/", "-")
    path = folder / f"{stem}-{package.version}.tgz"
    found = sha256(path.read_bytes())
    if found != package.sha256:
        sys.exit(f"{path.name} has SHA-256 {found}, but {package.sha256} is pinned")
    return path


def contents(package: Package, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path below VENDOR and content of every file taken from a package."""
    with tarfile.open(archive(package, folder)) as tar:
        for member in tar:
            inside = PurePosixPath(member.name).relative_to("package")
            for pattern, target in package.parts.items():
                if inside.match(pattern) and (file := tar.extractfile(member)):
                    yield target + (inside.name if target.endswith("/") else ""), file.read()


def runtime(script: bytes) -> dict[str, bytes]:
    """Cut html-manager's script into its modules, and keep the two that the book's widgets run on.

    `chapters/assets/widgets.js` does the rest; three quarters of the script would never be used.
    """
    parts = re.split(rb'(?=define\("@jupyter-widgets/([\w/-]+)",)', script)
    modules = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {
        f"widgets/{name}.js": re.sub(rb"//# sourceMappingURL=.*", b"", modules[name.encode()])
        for name in ("base", "controls")
    }


def licence(package: str) -> bytes:
    """Return the licence in an installed package."""
    texts = [path for path in distribution(package).files or () if path.name == "LICENSE"]
    return texts[0].read_binary()


def fetch() -> dict[str, bytes]:
    """Return every vendored file, from npm and from the installed anywidget."""
    if version("anywidget") != ANYWIDGET:
        sys.exit(f"anywidget {version('anywidget')} is installed, but {ANYWIDGET} is pinned")
    script = files("anywidget") / "nbextension" / "index.js"
    found = {
        "widgets/anywidget.js": script.read_bytes(),
        "widgets/anywidget.LICENSE.txt": licence("anywidget"),
    }
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            found |= contents(package, Path(folder))
    return found | runtime(found.pop(RUNTIME))


def write() -> None:
    """Replace the vendored files and their checksums by what the pinned packages hold."""
    found = fetch()
    if VENDOR.exists():
        shutil.rmtree(VENDOR)
    for path, content in found.items():
        target = VENDOR / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    lines = [f"{sha256(found[path])}  {path}\n" for path in sorted(found)]
    (VENDOR / SUMS).write_text("".join(lines), encoding="utf-8")
    print(f"{len(found)} files, {sum(map(len, found.values())) / 1e6:.1f} MB, in {VENDOR}")


def faults(vendor: Path = VENDOR) -> list[str]:
    """Return what is wrong with the files in ``vendor``, one sentence each."""
    lines = (vendor / SUMS).read_text(encoding="utf-8").splitlines()
    wanted = {path: digest for digest, path in (line.split("  ") for line in lines)}
    present = {
        path.relative_to(vendor).as_posix(): path
        for path in vendor.rglob("*")
        if path.is_file() and path.name != SUMS
    }
    wrong = [f"{path} is missing" for path in sorted(wanted.keys() - present.keys())]
    wrong += [f"{path} has no checksum" for path in sorted(present.keys() - wanted.keys())]
    for path in sorted(wanted.keys() & present.keys()):
        if sha256(present[path].read_bytes()) != wanted[path]:
            wrong.append(f"{path} differs from its checksum")
    return wrong


def main() -> None:
    """Fetch and write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare files with checksums, offline"
    )
    if not parser.parse_args().check:
        write()
    elif wrong := faults():
        sys.exit("\n".join([*wrong, "The cure: python tools/vendor.py"]))
    else:
        print("every vendored file is as its checksum says")


if __name__ == "__main__":
    main()

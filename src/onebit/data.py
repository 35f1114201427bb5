"""MNIST, Fashion-MNIST and Shakespeare's plays as tensors, from files whose content is checked.

MNIST and the plays ship with the course in ``data``. Fashion-MNIST comes from Debian's package or
from a download cache. Every file is checked after unpacking against the SHA-256 of the original
content, so it does not matter who packed it, and a damaged file is refused by name.
"""

import gzip
import hashlib
import lzma
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch

_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}

# SHA-256 of the unpacked files.
_MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte.gz": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}
_FASHION_SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}

# SHA-256 of the unpacked texts.
_SHAKESPEARE_SHA256 = {
    "train.txt.xz": "f503cb9eeefa6894660af19dd7f24974c7e0522458ec65553290505e2fd1911b",
    "validation.txt.xz": "872a818b5cc3e505bcf06274a483ce4d67f3a314b68c999b94c1e3e459614f20",
}

# MD5 of the packed files as Zalando publishes them, for the download.
_FASHION_MD5 = {
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_FASHION_CURE = (
    "On Debian or Ubuntu run `apt install dataset-fashion-mnist`; elsewhere call "
    "fashion_mnist(download=True) once, which fetches 30 MB from Zalando and keeps them; or put "
    "the four files into the folder fashion-mnist of $ONEBIT_DATA. (Delete a damaged copy first.)"
)


def mnist(split: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    """Read MNIST, the 70 000 handwritten digits of LeCun, Cortes and Burges.

    The files are looked for in ``$ONEBIT_DATA/mnist`` if that variable is set, otherwise in the
    course's own ``data/mnist``. Nothing is cached: each call reads, checks and returns new
    tensors, in about a quarter of a second.

    Parameters
    ----------
    split
        ``"train"`` (60 000 digits) or ``"test"`` (10 000).

    Returns
    -------
    images : uint8 tensor (n, 28, 28)
        0 is the white paper, 255 the blackest ink.
    labels : int64 tensor (n,)
        The digit, 0 to 9.

    Raises
    ------
    FileNotFoundError
        If the files are not there; the message says how to get them.
    ValueError
        If ``split`` is another word, or a file does not hold what it should.

    Examples
    --------
    >>> images, labels = mnist("test")
    >>> images.shape, images.dtype, labels[:5].tolist()
    (torch.Size([10000, 28, 28]), torch.uint8, [7, 2, 1, 0, 4])
    """
    cure = (
        "A clone of the course has them in data/mnist (in a clone, `git restore data/mnist` puts "
        "them back); set ONEBIT_DATA to its data folder, or to any folder whose subfolder mnist "
        "holds the four original files."
    )
    return _read_split(split, "MNIST", [_data_folder() / "mnist"], _MNIST_SHA256, cure)


def fashion_mnist(
    split: str = "train", *, download: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read Fashion-MNIST, Zalando's 70 000 articles of clothing in MNIST's format.

    The files are looked for in ``$ONEBIT_DATA/fashion-mnist`` (or the course's own
    ``data/fashion-mnist``), in Debian's package ``dataset-fashion-mnist``, and in the cache that
    ``download=True`` fills.

    Parameters
    ----------
    split
        ``"train"`` (60 000 articles) or ``"test"`` (10 000).
    download
        Fetch the files once with pooch, which checks the published MD5 sums, if they are in none
        of these places. Without it nothing touches the network.

    Returns
    -------
    images : uint8 tensor (n, 28, 28)
    labels : int64 tensor (n,)
        0 T-shirt, 1 trouser, 2 pullover, 3 dress, 4 coat, 5 sandal, 6 shirt, 7 sneaker, 8 bag,
        9 ankle boot.

    Raises
    ------
    FileNotFoundError
        If the files are not there; the message says how to get them.
    ValueError
        If ``split`` is another word, or a file does not hold what it should.

    Examples
    --------
    >>> images, labels = fashion_mnist("test", download=True)  # doctest: +SKIP
    """
    folders = [_data_folder() / "fashion-mnist", _FASHION_DEBIAN, _cache_folder()]
    if download and split in _FILES and not _folder_with(folders, _FILES[split]):
        try:
            import pooch
        except ImportError as error:
            raise ImportError(
                "fashion_mnist(download=True) needs pooch: run `pip install 'onebit[course]'`"
            ) from error
        for name in _FILES[split]:
            pooch.retrieve(
                _FASHION_URL + name,
                known_hash=_FASHION_MD5[name],
                fname=name,
                path=_cache_folder(),
            )
    return _read_split(split, "Fashion-MNIST", folders, _FASHION_SHA256, _FASHION_CURE)


def shakespeare() -> tuple[torch.Tensor, torch.Tensor, str]:
    """Read 36 plays of Shakespeare's as the codes of their characters.

    The plays stand in the order of the First Folio. The first comedy, the first history and the
    first tragedy of it are for validation (*The Tempest*, *King John*, *Troilus and Cressida*), the
    other 33 for training. A code is a character's place in the vocabulary.

    The files are looked for in ``$ONEBIT_DATA/shakespeare`` if that variable is set, otherwise in
    the course's own ``data/shakespeare``. Nothing is cached.

    Returns
    -------
    train : int64 tensor (4 376 284,)
    validation : int64 tensor (375 824,)
    vocabulary : str
        The 83 characters that occur, in the order of their code points.

    Raises
    ------
    FileNotFoundError
        If the files are not there; the message says how to get them.
    ValueError
        If a file does not hold what it should.

    Examples
    --------
    >>> train, validation, vocabulary = shakespeare()
    >>> "".join(vocabulary[code] for code in validation[:11])
    'THE TEMPEST'
    """
    folder = _data_folder() / "shakespeare"
    cure = (
        "A clone of the course has them in data/shakespeare (in a clone, `git restore "
        "data/shakespeare` puts them back); set ONEBIT_DATA to its data folder."
    )
    missing = [name for name in _SHAKESPEARE_SHA256 if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"Shakespeare: {folder} lacks {' and '.join(missing)}. {cure}")
    texts = [
        torch.frombuffer(_unpack(folder / name, sha256, cure), dtype=torch.uint8)
        for name, sha256 in _SHAKESPEARE_SHA256.items()
    ]
    characters = torch.cat(texts).unique()
    code_of = torch.zeros(256, dtype=torch.int64)
    code_of[characters.long()] = torch.arange(len(characters))
    train, validation = (code_of[text.long()] for text in texts)
    return train, validation, bytes(characters.tolist()).decode("ascii")


def normalise(
    images: torch.Tensor, dtype: torch.dtype = torch.float32, *, flatten: bool = True
) -> torch.Tensor:
    """Map grey levels 0…255 to [−1, 1], as ``x / 127.5 − 1``.

    Parameters
    ----------
    images
        uint8 tensor (n, height, width), as :func:`mnist` returns it.
    dtype
        Floating-point type of the result.
    flatten
        True gives one row of ``height · width`` pixels an image, as a linear layer wants it;
        False gives (n, 1, height, width), as a convolution wants it.

    Raises
    ------
    TypeError
        If ``images`` is not a uint8 tensor (an image normalised twice is all but black) or
        ``dtype`` is not a floating-point type.
    ValueError
        If ``images`` does not have three dimensions.

    Examples
    --------
    >>> images, _ = mnist("test")
    >>> x = normalise(images)
    >>> x.shape, x.min().item(), x.max().item()
    (torch.Size([10000, 784]), -1.0, 1.0)
    """
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
        given = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(
            f"images: got {given}, want a uint8 tensor of grey levels 0 to 255, as mnist() "
            "returns it"
        )
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype: got {dtype!r}, want a floating-point type such as torch.float32")
    if images.ndim != 3:
        raise ValueError(f"images: got shape {tuple(images.shape)}, want (n, height, width)")
    x = images.to(dtype).div_(127.5).sub_(1)
    return x.flatten(1) if flatten else x.unsqueeze(1)


def _data_folder() -> Path:
    """Give the folder that holds the data sets: $ONEBIT_DATA, or data/ of the clone."""
    chosen = os.environ.get("ONEBIT_DATA")
    return Path(chosen).expanduser() if chosen else Path(__file__).parents[2] / "data"


def _cache_folder() -> Path:
    """Give the folder in which pooch keeps what was downloaded."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    return (Path(chosen) if chosen else Path.home() / ".cache") / "onebit" / "fashion-mnist"


def _folder_with(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Give the first folder that holds all the named files."""
    return next((f for f in folders if all((f / name).is_file() for name in names)), None)


def _read_split(
    split: str, what: str, folders: Sequence[Path], sha256: dict[str, str], cure: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read images and labels of one split from the first folder that has both."""
    if split not in _FILES:
        raise ValueError(f"split: got {split!r}, want 'train' or 'test'")
    names = _FILES[split]
    folder = _folder_with(folders, names)
    if folder is None:
        places = ", ".join(str(f) for f in folders)
        raise FileNotFoundError(
            f"{what}: {' and '.join(names)} are not both in one of: {places}. {cure}"
        )
    images, labels = (_read_idx(folder / name, sha256[name], cure) for name in names)
    return images, labels.long()


def _read_idx(path: Path, sha256: str, cure: str) -> torch.Tensor:
    """Unpack one idx file of bytes and check its content.

    An idx file is two zero bytes, the element type (8: unsigned byte), the number of dimensions,
    each dimension as a big-endian 32-bit integer, then the elements in C order.
    """
    content = _unpack(path, sha256, cure)
    ndim = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim)]
    start = 4 + 4 * ndim
    return torch.frombuffer(
        content, dtype=torch.uint8, offset=start, count=math.prod(shape)
    ).reshape(shape)


def _unpack(path: Path, sha256: str, cure: str) -> bytearray:
    """Unpack a .gz or .xz file and check its content."""
    decompress = lzma.decompress if path.suffix == ".xz" else gzip.decompress
    try:
        content = bytearray(decompress(path.read_bytes()))
    except (gzip.BadGzipFile, lzma.LZMAError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: it does not unpack ({error}). {cure}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} is damaged: its unpacked content has SHA-256 {found}, want {sha256}. {cure}"
        )
    return content

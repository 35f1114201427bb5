"""The data sets are whole, are found where they may be, and damaged files are refused by name."""

import functools
import gzip
import hashlib
import http.server
import lzma
import shutil
import threading
from pathlib import Path

import pytest
import torch

from onebit import data

ROOT = Path(__file__).parents[1]
MNIST = ROOT / "data" / "mnist"
SHAKESPEARE = ROOT / "data" / "shakespeare"
NAMES = sorted(data._MNIST_SHA256)
HAS_DEBIAN = all((data._FASHION_DEBIAN / name).is_file() for name in NAMES)
needs_debian = pytest.mark.skipif(not HAS_DEBIAN, reason="needs Debian's dataset-fashion-mnist")


@pytest.fixture(autouse=True)
def no_choice_of_the_callers(monkeypatch, tmp_path):
    monkeypatch.delenv("ONEBIT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def copy_of_mnist(monkeypatch, tmp_path):
    folder = tmp_path / "data" / "mnist"
    shutil.copytree(MNIST, folder)
    monkeypatch.setenv("ONEBIT_DATA", str(folder.parent))
    return folder


# Images of each digit, from the published description of the set.
@pytest.mark.parametrize(
    "split, count, per_digit",
    [
        ("train", 60_000, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("test", 10_000, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ],
)
def test_mnist_is_whole(split, count, per_digit):
    images, labels = data.mnist(split)
    assert images.shape == (count, 28, 28) and images.dtype == torch.uint8
    assert labels.shape == (count,) and labels.dtype == torch.int64
    assert labels.bincount().tolist() == per_digit
    assert images.amin() == 0 and images.amax() == 255
    assert (images.flatten(1).amax(1) > 128).all()


def test_train_is_the_default_split():
    assert data.mnist()[1].shape == (60_000,)


def test_each_call_returns_tensors_of_its_own():
    first, _ = data.mnist("test")
    first.zero_()
    assert data.mnist("test")[0].any()


def test_checksum_list_is_the_packed_files():
    listed = dict(
        reversed(line.split("  ")) for line in (MNIST / "SHA256SUMS").read_text().splitlines()
    )
    assert listed == {
        name: hashlib.sha256((MNIST / name).read_bytes()).hexdigest() for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_packed_files_carry_no_name_and_no_date(name):
    flags, mtime = (MNIST / name).read_bytes()[3], (MNIST / name).read_bytes()[4:8]
    assert flags == 0 and mtime == bytes(4)


@pytest.mark.parametrize("name", NAMES)
def test_readme_names_the_md5_of_what_is_inside(name):
    digest = hashlib.md5(gzip.decompress((MNIST / name).read_bytes())).hexdigest()
    assert f"| `{name.removesuffix('.gz')}` | `{digest}` |" in (MNIST / "README.md").read_text()


def test_onebit_data_says_where_and_any_packing_of_the_same_content_will_do(copy_of_mnist):
    for name in NAMES:
        raw = gzip.decompress((copy_of_mnist / name).read_bytes())
        (copy_of_mnist / name).write_bytes(gzip.compress(raw, compresslevel=1, mtime=1))
    assert data.mnist("test")[1][:5].tolist() == [7, 2, 1, 0, 4]


def flip_a_pixel(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(raw), compresslevel=1))


def flip_a_packed_bit(path: Path) -> None:
    packed = bytearray(path.read_bytes())
    packed[len(packed) // 2] ^= 1
    path.write_bytes(packed)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def store_a_web_page(path: Path) -> None:
    path.write_text("<html>Not found</html>")


def store_nothing(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [flip_a_pixel, flip_a_packed_bit, cut_short, store_a_web_page, store_nothing]
)
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_a_damaged_file_is_refused_by_name_with_the_cure(copy_of_mnist, name, damage):
    damage(copy_of_mnist / name)
    with pytest.raises(ValueError) as refusal:
        data.mnist("test")
    assert f"{copy_of_mnist / name} is damaged" in str(refusal.value)
    assert "git restore data/mnist" in str(refusal.value)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
def test_a_missing_file_is_named_with_the_cure(copy_of_mnist, name):
    (copy_of_mnist / name).unlink()
    with pytest.raises(FileNotFoundError, match="ONEBIT_DATA") as refusal:
        data.mnist("train")
    assert name in str(refusal.value) and str(copy_of_mnist) in str(refusal.value)
    assert data.mnist("test")[1].shape == (10_000,)


@pytest.mark.parametrize("read", [data.mnist, data.fashion_mnist])
@pytest.mark.parametrize("split", ["Train", "valid", "", None, 0])
def test_another_split_is_refused(read, split):
    with pytest.raises(ValueError, match=r"split: got .* want 'train' or 'test'"):
        read(split)


def test_normalise_maps_0_to_minus_one_and_255_to_one():
    grey = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = data.normalise(grey, dtype)
        assert x.dtype == dtype and x.shape == (1, 256)
        assert x[0, 0] == -1 and x[0, -1] == 1
    in_python = torch.tensor([v / 127.5 - 1 for v in range(256)], dtype=torch.float64)
    assert torch.equal(data.normalise(grey, torch.float64)[0], in_python)


def test_normalise_keeps_the_picture_for_a_convolution():
    grey = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    picture = data.normalise(grey, flatten=False)
    assert picture.shape == (3, 1, 5, 7)
    assert torch.equal(picture.flatten(1), data.normalise(grey))


def test_normalise_leaves_the_images_alone_and_takes_none():
    grey = torch.full((2, 4, 4), 7, dtype=torch.uint8)
    data.normalise(grey)
    assert (grey == 7).all()
    assert data.normalise(grey[:0]).shape == (0, 16)


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64), [[[0]]], None]
)
def test_normalise_refuses_what_is_not_grey_levels(images):
    with pytest.raises(TypeError, match=r"images: got .* want a uint8 tensor"):
        data.normalise(images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, "float32", float, None])
def test_normalise_refuses_a_dtype_that_is_not_floating_point(dtype):
    with pytest.raises(TypeError, match=r"dtype: got .* want a floating-point type"):
        data.normalise(torch.zeros(1, 2, 2, dtype=torch.uint8), dtype)


@pytest.mark.parametrize("shape", [(), (4,), (2, 2), (1, 1, 2, 2)])
def test_normalise_refuses_another_shape(shape):
    with pytest.raises(ValueError, match="images: got shape"):
        data.normalise(torch.zeros(shape, dtype=torch.uint8))


@needs_debian
@pytest.mark.parametrize("split, count", [("train", 60_000), ("test", 10_000)])
def test_fashion_mnist_reads_debians_package(split, count):
    images, labels = data.fashion_mnist(split)
    assert images.shape == (count, 28, 28) and images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [count // 10] * 10


def test_fashion_mnist_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "_FASHION_DEBIAN", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError) as refusal:
        data.fashion_mnist()
    for cure in ("apt install dataset-fashion-mnist", "download=True", "ONEBIT_DATA"):
        assert cure in str(refusal.value)


@pytest.fixture
def server_of(monkeypatch, tmp_path):
    """Serve files in place of Zalando's server, and hide Debian's package."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(data, "_FASHION_URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setattr(data, "_FASHION_DEBIAN", tmp_path / "nowhere")
        yield folder
        server.shutdown()


@needs_debian
def test_fashion_mnist_is_downloaded_once_and_kept(monkeypatch, server_of):
    debian = Path("/usr/share/datasets/fashion-mnist")
    for name in data._FILES["test"]:
        shutil.copy(debian / name, server_of / name)
        digest = hashlib.md5((debian / name).read_bytes()).hexdigest()
        monkeypatch.setitem(data._FASHION_MD5, name, f"md5:{digest}")
    first = data.fashion_mnist("test", download=True)
    for served in server_of.iterdir():
        served.unlink()
    kept = data.fashion_mnist("test")
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


def test_a_download_with_another_checksum_is_refused_and_not_kept(server_of):
    for name in data._FILES["test"]:
        (server_of / name).write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match=r"MD5|hash"):
        data.fashion_mnist("test", download=True)
    with pytest.raises(FileNotFoundError):
        data.fashion_mnist("test")


@pytest.fixture(scope="module")
def plays():
    return data.shakespeare()


def decode(codes, vocabulary):
    return "".join(vocabulary[code] for code in codes.tolist())


def test_shakespeare_is_whole(plays):
    train, validation, vocabulary = plays
    assert train.shape == (4_376_284,) and validation.shape == (375_824,)
    assert train.dtype == validation.dtype == torch.int64
    assert len(vocabulary) == 83 and list(vocabulary) == sorted(set(vocabulary))


def test_every_code_occurs_in_the_training_text(plays):
    train, validation, vocabulary = plays
    assert train.bincount(minlength=83).amin() > 0
    assert validation.amin() >= 0 and validation.amax() < len(vocabulary)


def test_the_codes_give_back_the_text_of_the_file(plays):
    for codes, name in zip(plays, ("train", "validation"), strict=False):
        text = lzma.decompress((SHAKESPEARE / f"{name}.txt.xz").read_bytes()).decode("ascii")
        assert decode(codes, plays[2]) == text


def test_whole_plays_are_held_out_in_the_order_of_the_readme(plays):
    train, validation = (decode(codes, plays[2]) for codes in plays[:2])
    byline = "\n\nby William Shakespeare\n"
    assert (train.count(byline), validation.count(byline)) == (33, 3)
    titles = [part.rsplit("\n", 1)[-1] for part in validation.split(byline)[:-1]]
    assert titles == ["THE TEMPEST", "KING JOHN", "THE HISTORY OF TROILUS AND CRESSIDA"]
    assert not any(title + byline in train for title in titles)
    assert "To be, or not to be" in train
    order = [train.index(t) for t in ("THE TWO GENTLEMEN", "RICHARD THE SECOND", "PERICLES PR")]
    assert order == sorted(order)


def test_shakespeares_readme_names_the_sizes_of_what_is_there(plays):
    readme = (SHAKESPEARE / "README.md").read_text()
    for codes, name in zip(plays, ("train.txt.xz", "validation.txt.xz"), strict=False):
        packed = (SHAKESPEARE / name).stat().st_size
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}`"))
        assert f"| {len(codes):,} | {packed:,} |".replace(",", " ") in row


def test_shakespeares_checksum_list_is_the_packed_files():
    listed = (SHAKESPEARE / "SHA256SUMS").read_text()
    assert listed == "".join(
        f"{hashlib.sha256((SHAKESPEARE / name).read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(data._SHAKESPEARE_SHA256)
    )


@pytest.fixture
def copy_of_shakespeare(monkeypatch, tmp_path):
    folder = tmp_path / "data" / "shakespeare"
    shutil.copytree(SHAKESPEARE, folder)
    monkeypatch.setenv("ONEBIT_DATA", str(folder.parent))
    return folder


def test_shakespeare_packed_otherwise_will_do(copy_of_shakespeare, plays):
    path = copy_of_shakespeare / "validation.txt.xz"
    path.write_bytes(lzma.compress(lzma.decompress(path.read_bytes()), preset=0))
    assert torch.equal(data.shakespeare()[1], plays[1])


def change_a_character(path: Path) -> None:
    text = bytearray(lzma.decompress(path.read_bytes()))
    text[1000] = ord("~")
    path.write_bytes(lzma.compress(text, preset=0))


@pytest.mark.parametrize(
    "damage", [change_a_character, flip_a_packed_bit, cut_short, store_a_web_page, store_nothing]
)
def test_damaged_plays_are_refused_by_name_with_the_cure(copy_of_shakespeare, damage):
    path = copy_of_shakespeare / "validation.txt.xz"
    damage(path)
    with pytest.raises(ValueError) as refusal:
        data.shakespeare()
    assert f"{path} is damaged" in str(refusal.value)
    assert "git restore data/shakespeare" in str(refusal.value)


@pytest.mark.parametrize("name", sorted(data._SHAKESPEARE_SHA256))
def test_missing_plays_are_named_with_the_cure(copy_of_shakespeare, name):
    (copy_of_shakespeare / name).unlink()
    with pytest.raises(FileNotFoundError, match="ONEBIT_DATA") as refusal:
        data.shakespeare()
    assert name in str(refusal.value) and str(copy_of_shakespeare) in str(refusal.value)

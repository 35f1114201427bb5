"""The benchmark: this kernel, its peers and the machine's own ceilings, timed turn by turn.

Whoever is compared takes turns in every round, in a new order each time, so that a slow second of
the machine meets all of them; what counts is the median of the turns. Before a peer is timed its
product is compared with the right one, and whoever can write into an array made before does. Each
result is told as a share of what the machine could do at most, measured in the same rounds by the
loops of kernels/ceilings.c.
"""

import contextlib
import ctypes
import functools
import html
import importlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import onebit
from onebit import _native
from onebit.kernels import prepack, prepack_ternary, ternary_gemm, xnor_gemm

__all__ = ["Effort", "ceilings", "cores", "roofline", "run"]

SHAPES = (
    (1, 4096, 4096),
    (32, 1024, 1024),
    (256, 4096, 4096),
    (1024, 1024, 1024),
    (3136, 64, 576),
    (4096, 4096, 4096),
)
AVX2_SHAPES = ((256, 4096, 4096), (1024, 1024, 1024))
TERNARY_SHAPES = ((1, 4096, 4096), (256, 4096, 4096))
MLP_MACS = 784 * 1024 + 2 * 1024 * 1024 + 1024 * 10
QUICK_SHAPES = ((1, 512, 512), (32, 256, 512))

OTHERS_LIMIT = 0.1
"""Cores that other processes may use while the benchmark runs."""

CACHE = 2**27
"""Bytes that no cache holds: weights in sum larger than this come from memory."""


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds a turn, rounds, and how long a call may be to join them all.

    Whoever takes longer joins the first, the middle and the last round.
    """

    turn: float = 0.02
    rounds: int = 9
    slow: float = 1.0


QUICK = Effort(turn=0.001, rounds=3)


class GapError(Exception):
    """A peer that cannot take part; the message says why."""


# ---- the machine ---------------------------------------------------------------------------------

CEILINGS = ("xnor", "popcount", "logic", "fma", "int8")
KERNELS = Path(__file__).parents[2] / "kernels"


@functools.cache
def _ceilings() -> Any:
    """Compile kernels/ceilings.c and load it; GapError where there is no source or no compiler."""
    source = KERNELS / "ceilings.c"
    if _native.lib is None or not source.is_file():
        raise GapError("kernels/ceilings.c and the C kernel come with a clone of the course")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "ceilings.so"
        command = [*compiler, "-std=c11", "-O3", "-shared", "-fPIC", f"-I{KERNELS}"]
        try:
            subprocess.run(
                [*command, str(source), "-o", str(library)], check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise GapError(f"kernels/ceilings.c does not compile: {error}") from error
        loaded = ctypes.CDLL(str(library))
    loaded.onebit_ceiling.restype = ctypes.c_int64
    loaded.onebit_ceiling.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    loaded.onebit_read.restype = None
    loaded.onebit_read.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int64]
    return loaded


def _path(name: str) -> int:
    return _native._PATHS[name]


def _loop(kind: str, path: str) -> tuple[Callable[[], Any], int]:
    """Return a loop of some tenths of a millisecond that does nothing but `kind`, and its size."""
    library, number = _ceilings(), CEILINGS.index(kind)
    rounds = 20_000
    work = library.onebit_ceiling(number, _path(path), rounds) if path != "numpy" else 0
    if not work:
        raise GapError(f"the path {path} has no instruction for it")
    return functools.partial(library.onebit_ceiling, number, _path(path), rounds), work


def _reader(memory: np.ndarray) -> Callable[[], Any]:
    """Return a call that loads every byte of `memory` with the widest registers."""
    call, address = _ceilings().onebit_read, memory.ctypes.data
    path = _path(next(iter(_native._PATHS)))

    def read() -> None:
        call(path, address, memory.nbytes // 512 * 512)

    return read


def cores() -> int:
    """Return how many cores this process may use.

    Examples
    --------
    >>> cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class OtherLoad:
    """How many cores other processes used since this object was made.

    Where the system does not count processor time in /proc/stat, the load average of the last
    minute stands for it.

    Examples
    --------
    >>> OtherLoad().cores() >= 0
    True
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._before = self._busy()

    @staticmethod
    def _busy() -> float | None:
        """Return seconds that all cores were busy for others, time stolen by a host included."""
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:]
        except OSError:
            return None
        user, nice, system, _, _, irq, softirq, steal = (int(f) for f in fields[:8])
        ours = time.process_time()
        ticks = user + nice + system + irq + softirq + steal
        return ticks / os.sysconf("SC_CLK_TCK") - ours

    def cores(self) -> float:
        """Return the mean number of cores in others' use, from 0."""
        now = self._busy()
        if now is None or self._before is None:
            return os.getloadavg()[0]
        return max(0.0, (now - self._before) / (time.perf_counter() - self._start))


# ---- contestants ---------------------------------------------------------------------------------


@dataclass
class Contestant:
    """Somebody who computes a product, ready to be called.

    Attributes
    ----------
    name : str
        Who it is.
    parts : list of callables
        One for each thread that Python starts; a library with threads of its own has one.
    result : callable
        Gives the product of the last calls as it came, for the comparison.
    ceiling : str
        Which of the machine's ceilings bounds it; empty if no single one does.
    work : int
        What one call computes, in the unit of the ceiling: multiply-adds, or bytes read.
    packing : dict
        Seconds that bringing the operands into its form took, `a` once a call, `b` once in all.
    mode : context manager factory
        Switches that must be set while it runs.
    seconds : callable, optional
        The library's own clock for the last call, where it does more in a call than the product.
    first_call : float
        Seconds until the first result.
    turns : list of float
        Seconds a call in each turn, of `calls` calls.
    """

    name: str
    parts: list[Callable[[], Any]]
    result: Callable[[], Any]
    ceiling: str
    work: int
    packing: dict[str, float] = field(default_factory=dict)
    mode: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    seconds: Callable[[], float] | None = None
    first_call: float = 0.0
    turns: list[float] = field(default_factory=list)
    calls: int = 1

    def time(self, calls: int, pool: ThreadPoolExecutor) -> float:
        """Return the seconds that one of `calls` calls took."""
        if self.seconds is not None:
            return self._time_by_its_own_clock(calls)

        def repeat(part: Callable[[], Any]) -> None:
            for _ in range(calls):
                part()

        first, *others = self.parts
        start = time.perf_counter()
        waiting = [pool.submit(repeat, part) for part in others]
        repeat(first)
        for future in waiting:
            future.result()
        return (time.perf_counter() - start) / calls

    def _time_by_its_own_clock(self, calls: int) -> float:
        assert self.seconds is not None
        total = 0.0
        for _ in range(calls):
            self.parts[0]()
            total += self.seconds()
        return total / calls


def _timed(call: Callable[[], Any], packing: dict[str, float], side: str) -> Any:
    """Return what `call` returns, and note the median of its times where that is cheap."""
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < 0.2:
        start = time.perf_counter()
        made = call()
        seconds.append(time.perf_counter() - start)
    packing[side] = packing.get(side, 0.0) + statistics.median(seconds)
    return made


@dataclass(frozen=True)
class Operands:
    """Two matrices to multiply, a @ b.T, in int8 and float32, and their product."""

    a: np.ndarray
    b: np.ndarray
    a_float: torch.Tensor
    b_float: torch.Tensor
    product: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, outputs and inputs: m, n, k."""
        return len(self.a), len(self.b), self.a.shape[1]

    @property
    def work(self) -> int:
        """Multiply-adds."""
        return math.prod(self.shape)


def _draw(shape: tuple[int, ...], ternary: bool = False) -> Operands:
    m, n, k = shape
    rng = np.random.default_rng(0)
    if ternary:
        a = rng.integers(-127, 128, (m, k), dtype=np.int8)
        a[:, ::64] = 127  # so that a peer that scales by the largest of a block scales by 1
        b = rng.integers(-1, 2, (n, k), dtype=np.int8)
    else:
        a, b = (2 * rng.integers(0, 2, (rows, k), dtype=np.int8) - 1 for rows in (m, n))
    a_float, b_float = (torch.from_numpy(x).float() for x in (a, b))
    # Exact: no partial sum passes 2^24.
    product = (a_float @ b_float.T).to(torch.int32).numpy()
    return Operands(a, b, a_float, b_float, product)


def _bound(o: Operands, ceiling: str, weight_bytes: int) -> tuple[str, int]:
    """Return what bounds a product: arithmetic, or for a single row reading the weights."""
    if len(o.a) == 1:
        return f"read {weight_bytes}", weight_bytes
    return ceiling, o.work


def _halves(o: Operands, threads: int) -> list[tuple[slice, slice]]:
    """Share rows of the product among threads, or outputs where there is one row."""
    m, n, _ = o.shape
    size = m if m > 1 else n
    cuts = [size * i // threads for i in range(threads + 1)]
    pieces = [slice(start, stop) for start, stop in itertools.pairwise(cuts)]
    whole = slice(None)
    return [(piece, whole) if m > 1 else (whole, piece) for piece in pieces]


def _shared(
    o: Operands, threads: int, make: Callable[[slice, slice], Callable[[], Any]]
) -> tuple[list[Callable[[], Any]], Callable[[], np.ndarray]]:
    """Make one call for each thread; the second value computes and joins their results."""
    parts = [make(rows, outputs) for rows, outputs in _halves(o, threads)]
    axis = 0 if len(o.a) > 1 else 1
    return parts, lambda: np.concatenate([np.asarray(part()) for part in parts], axis=axis)


def _bits_of(x: np.ndarray) -> np.ndarray:
    """Return signs as bytes of bits, the form that the Hamming-distance libraries take."""
    return np.packbits(x > 0, axis=1, bitorder="little")


def _from_distances(o: Operands, distances: Callable[[], Any]) -> Callable[[], np.ndarray]:
    k = o.shape[2]
    return lambda: k - 2 * np.asarray(distances()).astype(np.int64)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _this_kernel(o: Operands, threads: int) -> Contestant:
    packing: dict[str, float] = {}
    k = o.shape[2]
    a = _timed(lambda: onebit.pack_signs(o.a_float.numpy()), packing, "a")
    words = _timed(lambda: onebit.pack_signs(o.b_float.numpy()), packing, "b")
    b = _timed(lambda: prepack(words, k), packing, "b")
    out = np.empty(o.shape[:2], np.int32)

    def call() -> np.ndarray:
        return xnor_gemm(a, b, k, out=out, threads=threads)

    return Contestant("onebit", [call], call, *_bound(o, "xnor", words.nbytes), packing)


def _this_kernel_cold(o: Operands, threads: int) -> Contestant:
    """A matrix-vector product whose weights come from memory: many matrices, each used in turn."""
    k = o.shape[2]
    a, words = onebit.pack_signs(o.a), onebit.pack_signs(o.b)
    matrices = [prepack(words, k) for _ in range(CACHE // words.nbytes + 1)]
    return _cold(
        "onebit, cold", words.nbytes, matrices, lambda b: xnor_gemm(a, b, k, threads=threads)
    )


def _cold(
    name: str, weight_bytes: int, matrices: Sequence[Any], product: Callable[[Any], np.ndarray]
) -> Contestant:
    at = [0]

    def call() -> np.ndarray:
        at[0] = (at[0] + 1) % len(matrices)
        return product(matrices[at[0]])

    return Contestant(name, [call], call, "read memory", weight_bytes)


def _torch_product(name: str, dtype: torch.dtype, ceiling: str) -> Callable[..., Contestant]:
    def make(o: Operands, threads: int) -> Contestant:
        packing: dict[str, float] = {}
        a, b = o.a_float, o.b_float
        if dtype is not torch.float32:
            a = _timed(lambda: o.a_float.to(dtype), packing, "a")
            b = _timed(lambda: o.b_float.to(dtype), packing, "b")

        multiply: Any = torch._int_mm if dtype is torch.int8 else torch.mm
        out = torch.empty(o.shape[:2], dtype=torch.int32 if dtype is torch.int8 else dtype)

        def call() -> torch.Tensor:
            return multiply(a, b.T, out=out)

        return Contestant(
            name,
            [call],
            lambda: call().float().numpy(),
            *_bound(o, ceiling, b.numel() * b.element_size()),
            packing,
            mode=functools.partial(_torch_threads, threads),
        )

    return make


def _numpy_count(o: Operands, threads: int) -> Contestant:
    if not hasattr(np, "bitwise_count"):
        raise GapError(f"NumPy {np.__version__} has no bitwise_count")
    packing: dict[str, float] = {}
    a = _timed(lambda: onebit.pack_signs(o.a_float.numpy()), packing, "a")
    b = _timed(lambda: onebit.pack_signs(o.b_float.numpy()), packing, "b")

    def make(rows: slice, outputs: slice) -> Callable[[], Any]:
        some, weights = a[rows], b[outputs]
        return lambda: np.stack(
            [np.bitwise_count(row ^ weights).sum(axis=1, dtype=np.int32) for row in some]
        )

    parts, joined = _shared(o, threads, make)
    return Contestant(
        "numpy bitwise_count",
        parts,
        _from_distances(o, joined),
        *_bound(o, "xnor", b.nbytes),
        packing,
    )


def _faiss(o: Operands, threads: int) -> Contestant:
    faiss = importlib.import_module("faiss")

    packing: dict[str, float] = {}
    a = _timed(lambda: _bits_of(o.a), packing, "a")
    b = _timed(lambda: _bits_of(o.b), packing, "b")

    def make(rows: slice, outputs: slice) -> Callable[[], Any]:
        some, weights = np.ascontiguousarray(a[rows]), np.ascontiguousarray(b[outputs])
        out = np.empty((len(some), len(weights)), np.int32)
        sizes = len(some), len(weights), a.shape[1]
        pointers = [faiss.swig_ptr(x) for x in (some, weights, out)]

        def call(_keep: Any = (some, weights)) -> np.ndarray:
            faiss.hammings(*pointers[:2], *sizes, pointers[2])
            return out

        return call

    parts, joined = _shared(o, threads, make)
    return Contestant(
        "faiss", parts, _from_distances(o, joined), *_bound(o, "xnor", b.nbytes), packing
    )


def _numkong(o: Operands, threads: int) -> Contestant:
    numkong = importlib.import_module("numkong")

    packing: dict[str, float] = {}
    a = _timed(lambda: _bits_of(o.a), packing, "a")
    b = _timed(lambda: _bits_of(o.b), packing, "b")
    _timed(lambda: numkong.hammings_pack(b), packing, "b")

    def make(rows: slice, outputs: slice) -> Callable[[], Any]:
        some = np.ascontiguousarray(a[rows])
        weights = numkong.hammings_pack(np.ascontiguousarray(b[outputs]))
        return lambda: numkong.hammings_packed(some, weights)

    parts, joined = _shared(o, threads, make)
    return Contestant(
        "numkong", parts, _from_distances(o, joined), *_bound(o, "xnor", b.nbytes), packing
    )


def _simsimd(o: Operands, threads: int) -> Contestant:
    simsimd = importlib.import_module("simsimd")

    packing: dict[str, float] = {}
    a = _timed(lambda: _bits_of(o.a), packing, "a")
    b = _timed(lambda: _bits_of(o.b), packing, "b")

    def call() -> Any:
        return simsimd.cdist(a, b, "hamming", dtype="bin8", threads=threads)

    return Contestant(
        "simsimd", [call], _from_distances(o, call), *_bound(o, "xnor", b.nbytes), packing
    )


def _bnn_lab(o: Operands, threads: int) -> Contestant:
    packed = importlib.import_module("bnn.kernels.packed")
    if not packed.native_kernel_available():
        raise GapError("its native kernel is not built")
    packing: dict[str, float] = {}
    a = _timed(lambda: packed.pack_binary_pm1(o.a)[0], packing, "a")
    b = _timed(lambda: packed.pack_binary_pm1(o.b)[0], packing, "b")

    def call() -> np.ndarray:
        return packed.binary_gemm_native_prepacked(a, b, o.shape[2])

    @contextlib.contextmanager
    def mode() -> Iterator[None]:
        packed.set_num_threads(threads)
        yield

    return Contestant("bnn-lab", [call], call, *_bound(o, "xnor", b.nbytes), packing, mode=mode)


def _openvino(o: Operands, threads: int) -> Contestant:
    """A binary convolution with windows of one pixel, each row of `a` being a pixel.

    Its product is one node of a graph in which others pack the input and transpose the output, so
    the node's own clock is read, which leaves those out.
    """
    openvino = importlib.import_module("openvino")
    opset1 = openvino.opset1

    m, n, k = o.shape
    bits = np.packbits((o.b > 0).reshape(-1), bitorder="little")
    shape = openvino.Shape([n, k, 1, 1])
    weights = openvino.op.Constant(openvino.Tensor(bits, shape, openvino.Type.u1))
    image = opset1.parameter([1, k, m, 1], np.float32)
    stride, no_padding = [1, 1], [0, 0]
    product = opset1.binary_convolution(
        image, weights, stride, no_padding, no_padding, [1, 1], "xnor-popcount", 0.0
    )
    options = {"INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True}
    model = openvino.Core().compile_model(openvino.Model([product], [image]), "CPU", options)
    request = model.create_infer_request()
    pixels = np.ascontiguousarray((o.a > 0).T.astype(np.float32)).reshape(1, k, m, 1)
    request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))

    def nodes(binary: bool) -> float:
        return sum(
            node.real_time.total_seconds()
            for node in request.get_profiling_info()
            if (node.node_type == "BinaryConvolution") is binary
        )

    def result(_keep: Any = (bits, pixels)) -> np.ndarray:  # which the tensors only borrow
        request.infer()
        return request.get_output_tensor().data.reshape(n, m).T

    result()
    packing = {"a": nodes(binary=False)}
    return Contestant(
        "openvino",
        [request.infer],
        result,
        *_bound(o, "xnor", n * k // 8),
        packing,
        seconds=lambda: nodes(binary=True),
    )


def _this_ternary_kernel(o: Operands, threads: int) -> Contestant:
    packing: dict[str, float] = {}
    words = _timed(lambda: onebit.pack_ternary(o.b), packing, "b")
    b = _timed(lambda: prepack_ternary(words, o.shape[2]), packing, "b")

    def call() -> np.ndarray:
        return ternary_gemm(o.a, b, threads=threads)

    return Contestant("onebit", [call], call, *_bound(o, "int8", words.nbytes), packing)


def _this_ternary_kernel_cold(o: Operands, threads: int) -> Contestant:
    words = onebit.pack_ternary(o.b)
    matrices = [prepack_ternary(words, o.shape[2]) for _ in range(CACHE // words.nbytes + 1)]
    return _cold(
        "onebit, cold", words.nbytes, matrices, lambda b: ternary_gemm(o.a, b, threads=threads)
    )


def _onnxruntime(o: Operands, threads: int) -> Contestant:
    """MatMulNBits with 2-bit weights, which computes in int8 at accuracy level 4."""
    onnxruntime, onnx = (importlib.import_module(name) for name in ("onnxruntime", "onnx"))
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT

    m, n, k = o.shape
    block = 128
    packing: dict[str, float] = {}

    def pack() -> np.ndarray:
        codes = (o.b + 1).astype(np.uint8).reshape(n, k // block, block // 4, 4)
        fields = codes << np.array([0, 2, 4, 6], np.uint8)
        return np.bitwise_or.reduce(fields, axis=3)

    weights = _timed(pack, packing, "b")
    inputs = {
        "w": weights,
        "scale": np.ones((n, k // block), np.float32),
        "zero": np.full((n, -(-k // block // 4)), 0b01010101, np.uint8),
    }
    node = helper.make_node(
        "MatMulNBits", ["x", *inputs], ["y"], domain="com.microsoft",
        K=k, N=n, bits=2, block_size=block, accuracy_level=4,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "ternary",
        [helper.make_tensor_value_info("x", floats, [m, k])],
        [helper.make_tensor_value_info("y", floats, [m, n])],
        [onnx.numpy_helper.from_array(value, name) for name, value in inputs.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    x = o.a_float.numpy()

    def call() -> np.ndarray:
        return session.run(None, {"x": x})[0]

    return Contestant("onnxruntime", [call], call, *_bound(o, "int8", n * k // 4), packing)


@contextlib.contextmanager
def _without_avx512(module: str) -> Iterator[None]:
    """Forbid numkong or simsimd everything above AVX2."""
    library = importlib.import_module(module)
    allowed = {"serial", "haswell"}
    above = [name for name, on in library.get_capabilities().items() if on and name not in allowed]
    for name in above:
        library.disable_capability(name)
    try:
        yield
    finally:
        for name in above:
            library.enable_capability(name)


@contextlib.contextmanager
def _bnn_lab_avx2() -> Iterator[None]:
    packed = importlib.import_module("bnn.kernels.packed")
    packed.set_kernel("avx2")
    try:
        yield
    finally:
        packed.set_kernel(None)


def _limited(
    make: Callable[..., Contestant], mode: Callable[[], AbstractContextManager[Any]]
) -> Callable[..., Contestant]:
    """Return a contestant that is made and runs under a switch."""

    def limited(o: Operands, threads: int) -> Contestant:
        with mode():
            made = make(o, threads)
        own = made.mode

        @contextlib.contextmanager
        def both() -> Iterator[None]:
            with mode(), own():
                yield

        made.mode = both
        return made

    return limited


Maker = Callable[[Operands, int], Contestant]

TORCH: dict[str, Maker] = {
    "torch float32": _torch_product("torch float32", torch.float32, "fma"),
    "torch bfloat16": _torch_product("torch bfloat16", torch.bfloat16, "fma"),
    "torch int8": _torch_product("torch int8", torch.int8, "int8"),
}
BINARY: dict[str, Maker] = {
    "onebit": _this_kernel,
    **TORCH,
    "numpy bitwise_count": _numpy_count,
    "faiss": _faiss,
    "numkong": _numkong,
    "simsimd": _simsimd,
    "openvino": _openvino,
    "bnn-lab": _bnn_lab,
}
AVX2: dict[str, Maker] = {
    "onebit": _limited(_this_kernel, functools.partial(_environment, "ONEBIT_KERNEL", "avx2")),
    "numkong": _limited(_numkong, functools.partial(_without_avx512, "numkong")),
    "simsimd": _limited(_simsimd, functools.partial(_without_avx512, "simsimd")),
    "bnn-lab": _limited(_bnn_lab, _bnn_lab_avx2),
}
TERNARY: dict[str, Maker] = {
    "onebit": _this_ternary_kernel,
    "torch int8": TORCH["torch int8"],
    "torch float32": TORCH["torch float32"],
    "onnxruntime": _onnxruntime,
}


# ---- packing and a whole network -----------------------------------------------------------------


def _packing_makers(x: np.ndarray) -> dict[str, Maker]:
    """Return who packs the signs of float32 `x`: all of them give the bytes of `pack_signs`."""

    def packer(name: str, pack: Callable[[np.ndarray], np.ndarray]) -> Maker:
        def make(_: Operands, threads: int) -> Contestant:
            def result() -> np.ndarray:
                return np.ascontiguousarray(pack(x)).view(np.uint8)

            # Bound by reading the very same memory.
            return Contestant(name, [lambda: pack(x)], result, f"read {x.nbytes}", x.nbytes)

        return make

    def bnn_lab(_: Operands, threads: int) -> Contestant:
        packed = importlib.import_module("bnn.kernels.packed")
        made = packer("bnn-lab", lambda x: packed.pack_binary_pm1(x)[0])(_, threads)
        bits = made.result
        made.result = lambda: ~bits()  # its 1 stands for −1
        return made

    return {
        "onebit": packer("onebit", onebit.pack_signs),
        "numpy packbits": packer("numpy packbits", _bits_of),
        "bnn-lab": bnn_lab,
    }


def _network_makers(batch: int) -> tuple[dict[str, Maker], np.ndarray]:
    """Return a BinaryNet of 784–3×1024–10, packed and in float32, and the classes it predicts.

    The float network computes the same function with torch's own modules: its weights are already
    signs, so that nothing is quantised while it runs, and its pixels already floats. The packed one
    takes them as uint8.
    """
    from torch import nn

    from onebit.layers import QuantLinear
    from onebit.models import binarynet_mlp

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = binarynet_mlp(width=1024)
        pixels = torch.randint(0, 256, (512, 784), dtype=torch.uint8)
        x = pixels / 255
        with torch.no_grad():
            for _ in range(20):
                model(x)  # running statistics for batch norm
    model.eval()
    pixels, x = pixels[:batch], x[:batch]

    class _PlainSign(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x >= 0, 1.0, -1.0)

    layers: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, QuantLinear):
            linear = nn.Linear(module.in_features, module.out_features, bias=False)
            linear.weight.data = onebit.binary_sign(module.weight.detach())
            layers.append(linear)
        elif isinstance(module, nn.BatchNorm1d):
            layers.append(module)
        elif isinstance(module, onebit.Sign):
            layers.append(_PlainSign())
    plain, packed = nn.Sequential(*layers).eval(), onebit.pack(model, pixels=lambda p: p / 255)

    def maker(name: str, network: nn.Module, x: torch.Tensor) -> Maker:
        def make(_: Operands, threads: int) -> Contestant:
            @torch.inference_mode()
            def call() -> torch.Tensor:
                return network(x)

            return Contestant(
                name, [call], lambda: call().argmax(1).numpy(), "", 0,
                mode=functools.partial(_torch_threads, threads),
            )  # fmt: skip

        return make

    makers = {
        "onebit": maker("onebit", packed, pixels),
        "torch float32": maker("torch float32", plain, x),
    }
    with torch.no_grad():
        return makers, model(x).argmax(1).numpy()


# ---- rounds --------------------------------------------------------------------------------------


def _prepare(
    makers: dict[str, Maker], o: Operands, expected: np.ndarray, threads: int
) -> tuple[list[Contestant], dict[str, str]]:
    """Make every contestant and compare its result; return those that may run, and the gaps."""
    ready, gaps = [], {}
    for name, make in makers.items():
        try:
            contestant = make(o, threads)
            with contestant.mode():
                start = time.perf_counter()
                result = contestant.result()
                contestant.first_call = time.perf_counter() - start
                equal = np.array_equal(result, expected)
        except ImportError as error:
            gaps[name] = f"not installed ({error})"
        except Exception as error:  # whatever somebody else's library may raise
            gaps[name] = f"{type(error).__name__}: {error}".split("\n")[0]
        else:
            if equal:
                ready.append(contestant)
            else:
                gaps[name] = "its result is wrong, so its time says nothing"
    return ready, gaps


def _ceiling_contestant(name: str, path: str, threads: int) -> Contestant:
    """Return what measures a ceiling: every thread runs the loop, or reads its piece of memory."""
    if not name.startswith("read"):
        loop, work = _loop(name, path)
        parts: list[Callable[[], Any]] = [loop] * threads
        return Contestant(name, parts, lambda: None, name, work * threads)
    size = CACHE if name == "read memory" else int(name.split()[1])
    memory = np.ones(size, np.uint8)
    parts = [_reader(piece) for piece in np.array_split(memory, threads)]
    return Contestant(name, parts, lambda: None, name, size)


def _compete(contestants: list[Contestant], threads: int, effort: Effort) -> None:
    """Fill every contestant's `turns`: seconds for one call, one value a round."""
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:
        slow = set()
        for c in contestants:
            once = c.first_call
            if once <= effort.slow:  # what took long took it not by being the first
                with c.mode():
                    start = time.perf_counter()
                    c.time(1, pool)
                    once = time.perf_counter() - start
            c.calls = max(1 if c.seconds is None else 3, math.ceil(effort.turn / once))
            if once > effort.slow:
                slow.add(c.name)
        draw = random.Random(0)
        last = effort.rounds - 1
        spread = {0, last // 2, last}
        for number in range(effort.rounds):
            turn = [c for c in contestants if c.name not in slow or number in spread]
            for c in draw.sample(turn, len(turn)):
                with c.mode():
                    if c.calls > 1:
                        c.time(1, pool)  # brings its operands back to the caches
                    c.turns.append(c.time(c.calls, pool))


@dataclass(frozen=True)
class Case:
    """One shape, one number of threads, and who competes."""

    title: str
    shape: tuple[int, ...]
    threads: int
    makers: dict[str, Maker]
    path: str
    macs: int
    ternary: bool = False

    def __str__(self) -> str:
        return f"{self.title} {'×'.join(map(str, self.shape))}, threads {self.threads}"


def _measure(
    case: Case, o: Operands, expected: np.ndarray, effort: Effort
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Let everybody compete; return a record for each, and who is missing and why."""
    ready, missing = _prepare(case.makers, o, expected, case.threads)
    ceilings = []
    widest = next(iter(_native._PATHS))
    for name in sorted({c.ceiling for c in ready if c.ceiling}):
        try:
            path = case.path if name == "xnor" else widest
            ceilings.append(_ceiling_contestant(name, path, case.threads))
        except GapError as error:
            missing[f"ceiling {name}"] = str(error)
    _compete([*ready, *ceilings], case.threads, effort)
    most = {c.name: c.work / statistics.median(c.turns) for c in ceilings}
    gaps = [{"case": str(case), "name": name, "reason": why} for name, why in missing.items()]
    peers = {c.name: statistics.median(c.turns) for c in ready if not c.name.startswith("onebit")}
    fastest = min(peers, key=lambda name: peers[name]) if peers else None
    records = []
    for c in ready:
        seconds = statistics.median(c.turns)
        over = peers[fastest] / seconds if fastest and c.name == "onebit" else None
        records.append(
            {
                "case": case.title,
                "shape": list(case.shape),
                "threads": case.threads,
                "name": c.name,
                "seconds": seconds,
                "turns": c.turns,
                "calls_a_turn": c.calls,
                "giga_macs_a_second": case.macs / seconds / 1e9 or None,
                "gigabytes_a_second": c.work / seconds / 1e9 if "read" in c.ceiling else None,
                "ceiling": c.ceiling,
                "ceiling_rate": most.get(c.ceiling),
                "share_of_ceiling": (
                    c.work / seconds / most[c.ceiling] if c.ceiling in most else None
                ),
                "fastest_peer": fastest if over else None,
                "over_fastest_peer": over,
                "packing_seconds": c.packing,
            }
        )
    return records, gaps


def _cases(quick: bool) -> Iterator[Case]:
    """Give the products in order of shape, so that operands are drawn once a shape."""
    path = onebit.kernel_name()
    all_threads = sorted({1, cores()})
    for shape in QUICK_SHAPES if quick else SHAPES:
        cold = {"onebit, cold": _this_kernel_cold} if shape[0] == 1 else {}
        for threads in all_threads:
            yield Case("binary", shape, threads, {**BINARY, **cold}, path, math.prod(shape))
    if "avx2" in onebit.available_kernels():
        for shape in QUICK_SHAPES[1:] if quick else AVX2_SHAPES:
            for threads in all_threads:
                yield Case("binary, avx2 only", shape, threads, AVX2, "avx2", math.prod(shape))
    for shape in QUICK_SHAPES if quick else TERNARY_SHAPES:
        cold = {"onebit, cold": _this_ternary_kernel_cold} if shape[0] == 1 else {}
        for threads in all_threads:
            makers = {**TERNARY, **cold}
            yield Case("ternary", shape, threads, makers, path, math.prod(shape), ternary=True)


def _measure_all(
    quick: bool, tell: Callable[[list[dict[str, Any]]], None]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Measure products, packing and networks; `tell` hears of every case as it ends."""
    effort = QUICK if quick else Effort()
    records: list[dict[str, Any]] = []
    gaps: list[dict[str, str]] = []

    def add(case: Case, o: Operands, expected: np.ndarray) -> None:
        more, missing = _measure(case, o, expected, effort)
        tell(more)
        records.extend(more)
        gaps.extend(missing)

    drawn: tuple[Any, Operands] | None = None
    for case in _cases(quick):
        if drawn is None or drawn[0] != (case.shape, case.ternary):
            drawn = (case.shape, case.ternary), _draw(case.shape, case.ternary)
        add(case, drawn[1], drawn[1].product)

    path, nothing = onebit.kernel_name(), _draw((1, 1, 1))
    side = 512 if quick else 4096
    x = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    x[x == 0] = 1  # whose sign is a matter of convention
    add(
        Case("packing float32", x.shape, 1, _packing_makers(x), path, macs=0),
        nothing,
        onebit.pack_signs(x).view(np.uint8),
    )
    for batch in (1, 256):
        makers, expected = _network_makers(batch)
        for threads in sorted({1, cores()}):
            case = Case(
                "MLP 784–3×1024–10, batch", (batch,), threads, makers, path, batch * MLP_MACS
            )
            add(case, nothing, expected)
    return records, gaps


def ceilings(
    threads: int = 1,
    *,
    effort: Effort = QUICK,
    of_turns: Callable[[Sequence[float]], float] = min,
) -> dict[str, float]:
    """Return what the machine does at most, in thousand millions a second.

    Parameters
    ----------
    threads : int
        How many run the loops at the same time.
    effort : Effort
        How long to measure.
    of_turns : callable
        Which of the turns' times counts: `min`, or `statistics.median` as in the benchmark.

    Returns
    -------
    dict
        ``xnor``, for the kernel path in use, ``popcount``, ``logic``, ``fma``, ``int8`` and
        ``read memory``, in bytes; empty where there is no compiler or no clone.

    Examples
    --------
    >>> all(rate > 0 for rate in ceilings().values())
    True
    """
    widest, path = next(iter(_native._PATHS)), onebit.kernel_name()
    contestants = []
    for name in (*CEILINGS, "read memory"):
        with contextlib.suppress(GapError):
            contestants.append(
                _ceiling_contestant(name, path if name == "xnor" else widest, threads)
            )
    _compete(contestants, threads, effort)
    return {c.name: c.work / of_turns(c.turns) / 1e9 for c in contestants}


def _ceilings_alone(effort: Effort) -> dict[str, dict[str, float]]:
    """Return the medians of what the machine does at most, by threads."""
    return {
        str(threads): ceilings(threads, effort=effort, of_turns=statistics.median)
        for threads in sorted({1, cores()})
    }


# ---- the report ----------------------------------------------------------------------------------


def _time_text(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


def _ceiling_text(name: str) -> str:
    size = name.removeprefix("read ")
    if not size.isdecimal():
        return name
    return (
        f"read {int(size) / 2**20:g} MiB" if int(size) >= 2**19 else f"read {int(size) >> 10} KiB"
    )


def _table(records: list[dict[str, Any]]) -> str:
    """Return the lines of one case, the fastest first."""
    if not records:
        return ""
    first = records[0]
    shape = "×".join(map(str, first["shape"]))
    lines = [f"\n{first['case']} {shape}, threads {first['threads']}"]
    lines.append(f"  {'':22}{'a call':>10}{'G MAC/s':>10}{'GB/s':>8}  {'of its ceiling':22}"
                 f"{'packing a':>11}{'packing b':>11}  times as fast")  # fmt: skip
    for r in sorted(records, key=lambda r: r["seconds"]):
        rate = f"{r['giga_macs_a_second']:.1f}" if r["giga_macs_a_second"] else ""
        bandwidth = f"{r['gigabytes_a_second']:.1f}" if r["gigabytes_a_second"] else ""
        share = r["share_of_ceiling"]
        bound = f"{share:.0%} of {_ceiling_text(r['ceiling'])}" if share else "–"
        packing = [_time_text(r["packing_seconds"][side]) if side in r["packing_seconds"] else ""
                   for side in "ab"]  # fmt: skip
        over = (
            f"{r['over_fastest_peer']:.2f} × {r['fastest_peer']}" if r["over_fastest_peer"] else ""
        )
        lines.append(
            f"  {r['name']:22}{_time_text(r['seconds']):>10}{rate:>10}{bandwidth:>8}  {bound:22}"
            f"{packing[0]:>11}{packing[1]:>11}  {over}"
        )
    return "\n".join(line.rstrip() for line in lines)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(line.split(":")[1].strip() for line in text.split("\n") if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _machine() -> dict[str, Any]:
    packages = ["onebit", "torch", "numpy", "faiss-cpu", "numkong", "simsimd", "openvino",
                "bnn-lab", "onnxruntime"]  # fmt: skip
    return {
        "processor": _processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "kernel": onebit.kernel_name(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "versions": {name: _version(name) for name in packages},
    }


def roofline(report: dict[str, Any]) -> str:
    """Draw the products of a report under the machine's ceilings, for one thread.

    Parameters
    ----------
    report : dict
        What `run` writes as JSON.

    Returns
    -------
    str
        An SVG that names itself for screen readers.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If the report holds no ceilings.

    Examples
    --------
    >>> ceilings = {"xnor": 1200.0, "int8": 340.0, "fma": 85.0, "read memory": 12.0}
    >>> roofline({"ceilings": {"1": ceilings}, "results": []}).startswith('<svg role="img"')
    True
    """
    from onebit.figures import SERIES, figure, figure_svg

    roofs = report["ceilings"].get("1", {})
    if "read memory" not in roofs:
        raise ValueError("the report holds no ceilings to draw; run the benchmark from a clone")
    shown = {"onebit": "1 bit", "torch int8": "8 bits", "torch float32": "32 bits"}
    bits = {"onebit": 1, "torch int8": 8, "torch float32": 32}
    names = {"xnor": "XNOR and popcount", "int8": "int8 dot product", "fma": "float32 FMA"}
    points = {
        name: [(r["shape"], r["giga_macs_a_second"]) for r in report["results"]
               if (r["case"], r["threads"], r["name"]) == ("binary", 1, name)]
        for name in shown
    }  # fmt: skip
    x = np.geomspace(0.1, 2e4, 200)
    with figure(size=(7.2, 4.4)) as (fig, ax):
        for (kind, label), (colour, dash, marker), (name, places) in zip(
            names.items(), SERIES, points.items(), strict=False
        ):
            if kind in roofs:
                roof = np.minimum(x * roofs["read memory"], roofs[kind])
                ax.loglog(x, roof, color=colour, linestyle=dash, label=label)
            spots = [
                (m * n * k / ((m + n) * k * bits[name] / 8 + 4 * m * n), rate)
                for (m, n, k), rate in places
            ]
            if spots:
                ax.loglog(*zip(*spots, strict=True), color=colour, linestyle="none", marker=marker,
                          label=f"{name}, {shown[name]}")  # fmt: skip
        ax.set_xlabel("multiply-adds for each byte of operands and product")
        ax.set_ylabel("thousand millions a second")
        ax.legend(fontsize=9)
        svg = figure_svg(fig)
    best = {name: max((rate for _, rate in places), default=0.0) for name, places in points.items()}
    alt = (
        "Roofline of one core, both axes logarithmic: rates rise with the multiply-adds for each "
        "byte until arithmetic bounds them. Fastest products, in thousand million multiply-adds a "
        "second: " + ", ".join(f"{name} {rate:.0f}" for name, rate in best.items()) + "."
    )
    title = f"<title>{html.escape(alt)}</title>"
    return svg.replace("<svg", '<svg role="img"', 1).replace(">", f">{title}", 1)


def run(
    *,
    quick: bool = False,
    json_file: str | os.PathLike[str] | None = None,
    svg_file: str | os.PathLike[str] | None = None,
    even_if_loaded: bool = False,
) -> int:
    """Measure, print a table for each case, and return the exit status: 1 on a loaded machine.

    Parameters
    ----------
    quick
        Small shapes and few rounds: proves that everything runs, measures nothing worth quoting.
    json_file
        Where to write everything measured, every turn included.
    svg_file
        Where to draw the roofline; skipped with a word where matplotlib is missing.
    even_if_loaded
        Measure although others use the machine's cores; the report says so.
    """
    before = OtherLoad()
    time.sleep(0.2 if quick else 1.0)
    load_before = before.cores()
    if load_before > OTHERS_LIMIT and not even_if_loaded:
        print(
            f"Other processes use {load_before:.2f} cores; more than {OTHERS_LIMIT:g} would decide "
            "what is measured. Stop them and run again, or measure all the same, which the report "
            "then tells, with --even-if-loaded.",
            file=sys.stderr,
        )
        return 1
    during, start = OtherLoad(), time.perf_counter()
    report: dict[str, Any] = {"machine": _machine(), "quick": quick}
    print("{processor}, cores {cores}, kernel {kernel}".format_map(report["machine"]))
    report["ceilings"] = _ceilings_alone(QUICK if quick else Effort())
    for threads, rates in report["ceilings"].items():
        told = ", ".join(f"{name} {rate:.4g}" for name, rate in rates.items())
        print(f"ceilings, threads {threads}, in thousand millions a second: {told or 'none'}")
    report["results"], report["gaps"] = _measure_all(
        quick, lambda records: print(_table(records), flush=True)
    )
    report["load"] = {
        "other_cores_before": load_before,
        "other_cores_during": during.cores(),
        "limit": OTHERS_LIMIT,
        "even_if_loaded": even_if_loaded,
    }
    report["seconds"] = time.perf_counter() - start
    _print_end(report)
    if json_file is not None:
        text = json.dumps(report, indent=1, ensure_ascii=False)
        Path(json_file).write_text(text + "\n", encoding="utf-8")
    if svg_file is not None:
        try:
            Path(svg_file).write_text(roofline(report) + "\n", encoding="utf-8")
        except (ImportError, ValueError) as error:
            print(f"no roofline drawn: {error}")
    return 0


def _print_end(report: dict[str, Any]) -> None:
    """Print who was missing, how busy the machine was, and how long all took."""
    gaps: dict[tuple[str, str], list[str]] = {}
    for gap in report["gaps"]:
        gaps.setdefault((gap["name"], gap["reason"]), []).append(gap["case"])
    print("\ngaps: none" if not gaps else "\ngaps, which are no passes:")
    for (name, reason), cases in gaps.items():
        print(f"  {name}: {reason} [{'; '.join(cases)}]")
    load = report["load"]["other_cores_during"]
    judged = "" if load <= OTHERS_LIMIT else ", too many to quote what was measured"
    print(f"\nothers used {load:.2f} cores meanwhile{judged}; {report['seconds']:.0f} s in all")

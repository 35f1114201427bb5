"""The binary product: this kernel and its peers, each called as its makers mean it to be."""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

import onebit
from onebit.bench.contest import Contestant, GapError, Maker, timed
from onebit.bench.limits import CACHE
from onebit.bench.operands import Operands, bits_of, bound, from_distances, shared
from onebit.bench.torch_products import TORCH
from onebit.kernels import prepack, xnor_gemm


def this_kernel(o: Operands, threads: int) -> Contestant:
    """Return this kernel, writing into an array made before, as torch does."""
    packing: dict[str, float] = {}
    k = o.shape[2]
    a = timed(lambda: onebit.pack_signs(o.a_float.numpy()), packing, "a")
    words = timed(lambda: onebit.pack_signs(o.b_float.numpy()), packing, "b")
    b = timed(lambda: prepack(words, k), packing, "b")
    out = torch.empty(o.shape[:2], dtype=torch.int32).numpy()

    def call() -> np.ndarray:
        return xnor_gemm(a, b, k, out=out, threads=threads)

    return Contestant("onebit", [call], call, *bound(o, "xnor", words.nbytes), packing)


def this_kernel_cold(o: Operands, threads: int) -> Contestant:
    """A matrix-vector product whose weights come from memory: many matrices, each used in turn."""
    k = o.shape[2]
    a, words = onebit.pack_signs(o.a), onebit.pack_signs(o.b)
    matrices = [prepack(words, k) for _ in range(CACHE // words.nbytes + 1)]
    return cold(
        "onebit, cold", words.nbytes, matrices, lambda b: xnor_gemm(a, b, k, threads=threads)
    )


def cold(
    name: str, weight_bytes: int, matrices: Sequence[Any], product: Callable[[Any], np.ndarray]
) -> Contestant:
    """Return a product whose weights come from memory: many matrices, each used in turn."""
    at = [0]

    def call() -> np.ndarray:
        at[0] = (at[0] + 1) % len(matrices)
        return product(matrices[at[0]])

    return Contestant(name, [call], call, "read memory", weight_bytes)


def _by_numpy(o: Operands, threads: int) -> Contestant:
    if not hasattr(np, "bitwise_count"):
        raise GapError(f"NumPy {np.__version__} has no bitwise_count")
    packing: dict[str, float] = {}
    a = timed(lambda: onebit.pack_signs(o.a_float.numpy()), packing, "a")
    b = timed(lambda: onebit.pack_signs(o.b_float.numpy()), packing, "b")

    def make(rows: slice, outputs: slice) -> Callable[[], Any]:
        some, weights = a[rows], b[outputs]
        return lambda: np.stack(
            [np.bitwise_count(row ^ weights).sum(axis=1, dtype=np.int32) for row in some]
        )

    parts, joined = shared(o, threads, make)
    return Contestant(
        "numpy bitwise_count",
        parts,
        from_distances(o, joined),
        *bound(o, "xnor", b.nbytes),
        packing,
    )


def _by_faiss(o: Operands, threads: int) -> Contestant:
    faiss = importlib.import_module("faiss")

    packing: dict[str, float] = {}
    a = timed(lambda: bits_of(o.a), packing, "a")
    b = timed(lambda: bits_of(o.b), packing, "b")

    def make(rows: slice, outputs: slice) -> Callable[[], Any]:
        some, weights = np.ascontiguousarray(a[rows]), np.ascontiguousarray(b[outputs])
        out = np.empty((len(some), len(weights)), np.int32)
        sizes = len(some), len(weights), a.shape[1]
        pointers = [faiss.swig_ptr(x) for x in (some, weights, out)]

        def call(_keep: Any = (some, weights)) -> np.ndarray:
            faiss.hammings(*pointers[:2], *sizes, pointers[2])
            return out

        return call

    parts, joined = shared(o, threads, make)
    return Contestant(
        "faiss", parts, from_distances(o, joined), *bound(o, "xnor", b.nbytes), packing
    )


def by_numkong(o: Operands, threads: int) -> Contestant:
    """Return numkong, with its own packing of `b`."""
    numkong = importlib.import_module("numkong")

    packing: dict[str, float] = {}
    a = timed(lambda: bits_of(o.a), packing, "a")
    b = timed(lambda: bits_of(o.b), packing, "b")
    timed(lambda: numkong.hammings_pack(b), packing, "b")

    def make(rows: slice, outputs: slice) -> Callable[[], Any]:
        some = np.ascontiguousarray(a[rows])
        weights = numkong.hammings_pack(np.ascontiguousarray(b[outputs]))
        return lambda: numkong.hammings_packed(some, weights)

    parts, joined = shared(o, threads, make)
    return Contestant(
        "numkong", parts, from_distances(o, joined), *bound(o, "xnor", b.nbytes), packing
    )


def by_simsimd(o: Operands, threads: int) -> Contestant:
    """Return simsimd, whose own threads are used."""
    simsimd = importlib.import_module("simsimd")

    packing: dict[str, float] = {}
    a = timed(lambda: bits_of(o.a), packing, "a")
    b = timed(lambda: bits_of(o.b), packing, "b")

    def call() -> Any:
        return simsimd.cdist(a, b, "hamming", dtype="bin8", threads=threads)

    return Contestant(
        "simsimd", [call], from_distances(o, call), *bound(o, "xnor", b.nbytes), packing
    )


def by_bnn_lab(o: Operands, threads: int) -> Contestant:
    """Return bnn-lab, whose own threads are used."""
    packed = importlib.import_module("bnn.kernels.packed")
    if not packed.native_kernel_available():
        raise GapError("its native kernel is not built")
    packing: dict[str, float] = {}
    a = timed(lambda: packed.pack_binary_pm1(o.a)[0], packing, "a")
    b = timed(lambda: packed.pack_binary_pm1(o.b)[0], packing, "b")

    def call() -> np.ndarray:
        return packed.binary_gemm_native_prepacked(a, b, o.shape[2])

    @contextlib.contextmanager
    def mode() -> Iterator[None]:
        packed.set_num_threads(threads)
        yield

    return Contestant("bnn-lab", [call], call, *bound(o, "xnor", b.nbytes), packing, mode=mode)


def _by_openvino(o: Operands, threads: int) -> Contestant:
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
        *bound(o, "xnor", n * k // 8),
        packing,
        seconds=lambda: nodes(binary=True),
    )


BINARY: dict[str, Maker] = {
    "onebit": this_kernel,
    **TORCH,
    "numpy bitwise_count": _by_numpy,
    "faiss": _by_faiss,
    "numkong": by_numkong,
    "simsimd": by_simsimd,
    "openvino": _by_openvino,
    "bnn-lab": by_bnn_lab,
}

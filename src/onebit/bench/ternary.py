"""The ternary product: weights of two bits against int8 activations."""

import importlib

import numpy as np

import onebit
from onebit.bench.binary import cold
from onebit.bench.contest import Contestant, Maker, timed
from onebit.bench.limits import CACHE
from onebit.bench.operands import Operands, bound
from onebit.bench.torch_products import TORCH
from onebit.kernels import prepack_ternary, ternary_gemm


def _this_ternary_kernel(o: Operands, threads: int) -> Contestant:
    packing: dict[str, float] = {}
    words = timed(lambda: onebit.pack_ternary(o.b), packing, "b")
    b = timed(lambda: prepack_ternary(words, o.shape[2]), packing, "b")

    def call() -> np.ndarray:
        return ternary_gemm(o.a, b, threads=threads)

    return Contestant("onebit", [call], call, *bound(o, "int8", words.nbytes), packing)


def this_ternary_kernel_cold(o: Operands, threads: int) -> Contestant:
    """Return the ternary product with weights that come from memory."""
    words = onebit.pack_ternary(o.b)
    matrices = [prepack_ternary(words, o.shape[2]) for _ in range(CACHE // words.nbytes + 1)]
    return cold(
        "onebit, cold", words.nbytes, matrices, lambda b: ternary_gemm(o.a, b, threads=threads)
    )


def _by_onnxruntime(o: Operands, threads: int) -> Contestant:
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

    weights = timed(pack, packing, "b")
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

    return Contestant("onnxruntime", [call], call, *bound(o, "int8", n * k // 4), packing)


TERNARY: dict[str, Maker] = {
    "onebit": _this_ternary_kernel,
    "torch int8": TORCH["torch int8"],
    "torch float32": TORCH["torch float32"],
    "onnxruntime": _by_onnxruntime,
}

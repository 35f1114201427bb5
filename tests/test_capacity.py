"""The functions of one neuron are counted right, by enumeration and by geometry."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebit.capacity import neuron_functions, regions, sign_vectors, threshold_functions


@pytest.mark.parametrize("k", range(1, 8))
def test_without_threshold_every_binary_weight_vector_is_a_function_of_its_own(k):
    assert len(neuron_functions(k)) == 2**k


@pytest.mark.parametrize("k", range(1, 8))
def test_with_threshold_binary_weights_have_k_2_to_the_k_plus_2_functions(k):
    assert len(neuron_functions(k, threshold=True)) == k * 2**k + 2


@pytest.mark.parametrize(
    "k, without, with_threshold",
    [(1, 3, 4), (2, 9, 14), (3, 27, 56), (4, 81, 218), (5, 243, 812)],
)
def test_ternary_neurons(k, without, with_threshold):
    assert len(neuron_functions(k, (-1, 0, 1))) == without
    assert len(neuron_functions(k, (-1, 0, 1), threshold=True)) == with_threshold


def test_truth_tables_are_those_of_neurons_written_out():
    k, weights = 3, (-2, 1)
    wanted = {
        tuple(sum(w * x for w, x in zip(ws, xs, strict=True)) >= theta
              for xs in product((-1, 1), repeat=k))
        for ws in product(weights, repeat=k)
        for theta in range(-7, 8)
    }  # fmt: skip
    found = neuron_functions(k, weights, threshold=True)
    assert {tuple(row) for row in found.tolist()} == wanted
    assert len(found) == len(wanted)


@pytest.mark.parametrize("k, largest", [(1, 1), (2, 1), (3, 2), (4, 3)])
def test_regions_and_integer_weights_agree_on_the_functions_of_real_weights(k, largest):
    integers = neuron_functions(k, range(-largest, largest + 1), threshold=True)
    assert len(integers) == threshold_functions(k)


def test_real_weights_have_finitely_many_functions():
    assert [threshold_functions(k) for k in range(1, 6)] == [4, 14, 104, 1882, 94572]


def test_neither_xor_nor_xnor_is_a_neurons_function():
    x = sign_vectors(2)
    xnor = x[:, 0] == x[:, 1]
    tables = neuron_functions(2, range(-5, 6), threshold=True)
    assert not (tables == xnor).all(1).any()
    assert not (tables == ~xnor).all(1).any()
    assert len(tables) == 16 - 2


@pytest.mark.parametrize("n", range(1, 7))
def test_n_planes_in_general_position_in_space_make_n_squared_minus_n_plus_2_regions(n):
    assert regions([(1, i, i * i) for i in range(n)]) == n * n - n + 2


@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 2).filter(any), min_size=1, max_size=8))
def test_lines_through_a_point_make_two_regions_each(normals):
    directions = {np.arctan2(b, a) % np.pi for a, b in normals}
    apart = {round(angle, 9) % round(np.pi, 9) for angle in directions}
    assert regions(normals) == 2 * len(apart)


def test_a_multiple_of_a_normal_is_the_same_plane_and_none_is_one_region():
    assert regions([(1, 2), (-2, -4)]) == 2
    assert regions([]) == 1


@pytest.mark.parametrize("call, error, told", [
    (lambda: neuron_functions(0), ValueError, "k"),
    (lambda: neuron_functions(2.5), TypeError, "k"),
    (lambda: neuron_functions(2, ()), ValueError, "weights is empty"),
    (lambda: neuron_functions(2, (0.5,)), TypeError, "weights"),
    (lambda: neuron_functions(16, (-1, 0, 1)), ValueError, "fewer inputs"),
    (lambda: regions([(1, 0), (1,)]), ValueError, "lengths"),
    (lambda: regions([(0, 0)]), ValueError, "zero"),
    (lambda: regions([(0.5, 1)]), TypeError, "normals"),
    (lambda: threshold_functions(6), ValueError, "k"),
])  # fmt: skip
def test_bad_input_is_refused_by_name(call, error, told):
    with pytest.raises(error, match=told):
        call()

/* Matrix products over one-bit and two-bit weights: what Python, the tests and other C may call.
 *
 * Words are little-endian: bit i of word w is element 64 w + i of its row, 1 for +1, 0 for -1.
 * Strides count elements of the pointer's own type. No function allocates memory, keeps a
 * pointer or writes outside its output; all may be called from several threads at once. */
#ifndef ONEBIT_XNOR_POPCOUNT_H
#define ONEBIT_XNOR_POPCOUNT_H

#include <stddef.h>
#include <stdint.h>

/* ---- paths: one set of functions for each instruction set ------------------------------------ */
int onebit_path_count(void);
const char *onebit_path_name(int path);   /* slowest first: 0 is "scalar" */
int onebit_path_supported(int path);      /* 1 if this processor and system can run it */

/* ---- the lane layout of weights (xnor_popcount.c draws it) ----------------------------------- */
int64_t onebit_lanes_size(int64_t n, int64_t k);         /* in uint32_t */
void onebit_lanes_from_words(const uint64_t *words, ptrdiff_t stride, int64_t n, int64_t k,
                             uint32_t *lanes);
void onebit_words_from_lanes(const uint32_t *lanes, int64_t n, int64_t k, uint64_t *words);

/* ---- products -------------------------------------------------------------------------------- */
/* out[i][j] = sum over k of a[i] * b[j], with every element +1 or -1; k < 2^31. */
void onebit_xnor_gemm(int path, int threads, const uint64_t *a, ptrdiff_t a_stride,
                      const uint32_t *lanes, int64_t m, int64_t n, int64_t k, int32_t *out,
                      ptrdiff_t out_stride);

/* Bit j of out[i] = (product >= thresholds[j]) xor flip[j]; bits past n are 0.
 * flip is one byte an output, 0 or 1, or NULL for none. */
void onebit_xnor_gemm_bits(int path, int threads, const uint64_t *a, ptrdiff_t a_stride,
                           const uint32_t *lanes, int64_t m, int64_t n, int64_t k,
                           const int32_t *thresholds, const uint8_t *flip, uint64_t *out,
                           ptrdiff_t out_stride);

/* out[i][j] = sum over k of x[i] * w[j], with w in {-1, 0, 1}; 128 k < 2^31. */
void onebit_ternary_gemm(int path, int threads, const int8_t *x, ptrdiff_t x_stride,
                         const uint32_t *lanes, int64_t m, int64_t n, int64_t k, int32_t *out,
                         ptrdiff_t out_stride);

/* Ternary words hold 32 codes of 2 bits, element 32 w + i in bits 2i and 2i + 1 of word w:
 * 00 is 0, 01 is +1, 11 is -1 (two's complement), 10 is no code.
 * Returns 0, or 1 if a code 10 stands before element k. */
int64_t onebit_ternary_lanes_size(int64_t n, int64_t k); /* in uint32_t */
int onebit_ternary_lanes_from_words(const uint64_t *words, ptrdiff_t stride, int64_t n, int64_t k,
                                    uint32_t *lanes);
void onebit_ternary_words_from_lanes(const uint32_t *lanes, int64_t n, int64_t k, uint64_t *words);

/* ---- packing --------------------------------------------------------------------------------- */
enum onebit_dtype {
    ONEBIT_F16, ONEBIT_BF16, ONEBIT_F32, ONEBIT_F64,
    ONEBIT_I8, ONEBIT_I16, ONEBIT_I32, ONEBIT_I64, ONEBIT_BOOL
};

/* x is rows by k, contiguous. Returns 0, or 1 if a NaN was met. */
int onebit_pack_signs(int path, int dtype, const void *x, int64_t rows, int64_t k,
                      uint64_t *words);
void onebit_unpack_signs(int path, const uint64_t *words, int64_t rows, int64_t k, int8_t *x);

/* x is rows by k of int8. Returns 0, or 1 if an element is none of -1, 0, 1. */
int onebit_pack_ternary(const int8_t *x, int64_t rows, int64_t k, uint64_t *words);
/* Returns 0, or 1 if a code 10 was met. */
int onebit_unpack_ternary(const uint64_t *words, int64_t rows, int64_t k, int8_t *x);

#endif

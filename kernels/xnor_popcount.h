/* Matrix products over one-bit and two-bit weights: what Python, the tests and other C may call.
 *
 * Words are little-endian: bit i of word w is element 64 w + i of its row, 1 for +1, 0 for -1.
 * Strides count elements of the pointer's own type. No function keeps a pointer or writes outside its
 * output, and only onebit_run_layers allocates memory; all may be called from several threads at once. */
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

/* ---- a first layer of 8-bit pixels (pixels.c) ------------------------------------------------ */
int64_t onebit_pixel_words(int64_t k); /* groups of 32 pixels */

/* x is m rows of k pixels; out takes m times 32 * onebit_pixel_words(k) bytes, sums one each. */
void onebit_reorder_pixels(const uint8_t *x, int64_t m, int64_t k, uint8_t *out, int32_t *sums);

/* Bit j of out[i] = (sum over k of x[i] * w[j] >= thresholds[j]), with x as reordered, w +1 or -1 in
 * the lane layout; bits past n are 0; k <= 2^19. */
void onebit_pixel_gemm_bits(int path, int threads, const uint8_t *x, const int32_t *x_sums,
                            const uint32_t *lanes, int64_t m, int64_t n, int64_t k,
                            const int32_t *thresholds, uint64_t *out);

/* ---- chains of layers (packed_network.c) ----------------------------------------------------- */
struct onebit_window {
    int64_t height, width, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
};

struct onebit_layer {
    int64_t n, k;              /* outputs, and bits (or pixels) of a row of input */
    const uint32_t *lanes;
    const int32_t *thresholds; /* of each output: bits go out; NULL: floats, and the chain ends */
    const uint64_t *flip;      /* bits to invert behind thresholds and pooling, or NULL */
    const void *scale, *bias;  /* of floats: n each, bias or NULL */
    int dtype;                 /* of floats: ONEBIT_F32 or ONEBIT_F64 */
    int32_t surplus;           /* what padded bits add to each product; thresholds have it in */
    int pixels;                /* 1: uint8 come in; otherwise words */

    int64_t channel_words;     /* words of each place of an image; 0: a linear layer */
    int64_t in_height, in_width, out_height, out_width;
    struct onebit_window window;
    const uint64_t *frame;     /* channel_words that stand in the padding */
    const int32_t *border;     /* [out_height * out_width][n] to take off the products, or NULL */
    int64_t pooled_height, pooled_width;
    struct onebit_window pool; /* max-pooling behind the thresholds; height 0: none */
};

/* Samples through all layers, each taking what the one before gives. Images of floats go out as
 * [n][out_height][out_width], all else as [places][words]. Returns 0, or 1 if memory ran out. */
int onebit_run_layers(int path, int threads, const struct onebit_layer *layers, int64_t count,
                      const void *x, int64_t samples, void *out);

/* x is samples by channels by places of ONEBIT_F32 or ONEBIT_F64; words hold the signs of the
 * channels, samples by places by ceil(channels / 64). Returns 0, or 1 if a NaN was met. */
int onebit_pack_images(int path, int dtype, const void *x, int64_t samples, int64_t channels,
                       int64_t places, uint64_t *words);

#endif

/* The ternary matrix product: weights in {-1, 0, 1} at 2 bits each against int8 activations.
 *
 * THE IDEA. A product with a weight of -1, 0 or 1 needs no multiplier, yet the fastest instruction
 * a processor has for it is the int8 dot product, made for multiplying: one VPDPBUSD does 64 of
 * them and adds four neighbours into every 32-bit lane. What two bits a weight save is *memory*: a
 * matrix-vector product reads every weight once and uses it once, and is done as soon as the
 * weights have arrived. Against int8 weights four times fewer bytes have to.
 *
 * That instruction, as AVX2's PMADDUBSW, wants one operand unsigned. So the weights are stored as
 * u = w + 1 in {0, 1, 2}, and
 *
 *     sum x w  =  sum x u  -  sum x        (the last is one number for each row of x).
 *
 * THE LANE LAYOUT. As in xnor_popcount.c each lane of 32 bits is an output:
 *
 *     lanes[n/16][k/16][16]     word i of a lane holds weights 16 i ... 16 i + 15 of its row,
 *
 *     bits    31 30 | ... 25 24 | 23 22 | ... 17 16 | 15 14 | ...  9  8 |  7  6   5  4   3  2   1  0
 *     weight   15   |  11  7  3 |  14   |  10  6  2 |  13   |   9  5  1 |   12     8     4     0
 *
 * so that (word >> 2 j) & 0x03030303 puts weights 4 j ... 4 j + 3 into the four bytes, facing the
 * four bytes of x that one broadcast brings. One shift and one AND unpack 64 weights, and eight
 * rows of x share them. Padding is u = 0, which adds nothing whatever x is. */
#include <string.h>

#include "paths.h"
#include "thread_pool.h"
#include "xnor_popcount.h"

enum { LANES = 16, WEIGHTS = 16, MOST_ROWS = 64 };

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- layout ---------------------------------------------------------------------------------- */

int64_t onebit_ternary_lanes_size(int64_t n, int64_t k) {
    return ceil_div(n, LANES) * ceil_div(k, WEIGHTS) * LANES;
}

/* Where weight i of its sixteen stands in a word of the lane layout. */
static inline int lane_shift(int64_t i) { return (int)(i % 4 * 8 + i / 4 * 2); }

int onebit_ternary_lanes_from_words(const uint64_t *words, ptrdiff_t stride, int64_t n, int64_t k,
                                    uint32_t *lanes) {
    int64_t k_words = ceil_div(k, WEIGHTS);
    int wrong = 0;
    memset(lanes, 0, (size_t)onebit_ternary_lanes_size(n, k) * sizeof *lanes);
    for (int64_t j = 0; j < n; j++)
        for (int64_t w = 0; w < k_words; w++) {
            uint32_t codes = (uint32_t)(words[j * stride + w / 2] >> (w % 2 * 32)), lane = 0;
            for (int64_t i = 0; i < at_most(WEIGHTS, k - w * WEIGHTS); i++) {
                uint32_t code = codes >> (2 * i) & 3;
                wrong |= code == 2;
                lane |= ((code + 1) & 3) << lane_shift(i);
            }
            lanes[(j / LANES * k_words + w) * LANES + j % LANES] = lane;
        }
    return wrong;
}

void onebit_ternary_words_from_lanes(const uint32_t *lanes, int64_t n, int64_t k,
                                     uint64_t *words) {
    int64_t k_words = ceil_div(k, WEIGHTS), row_words = ceil_div(k, 32);
    memset(words, 0, (size_t)(n * row_words) * sizeof *words);
    for (int64_t j = 0; j < n; j++)
        for (int64_t w = 0; w < k_words; w++) {
            uint32_t lane = lanes[(j / LANES * k_words + w) * LANES + j % LANES], codes = 0;
            for (int64_t i = 0; i < at_most(WEIGHTS, k - w * WEIGHTS); i++)
                codes |= (((lane >> lane_shift(i)) - 1) & 3) << (2 * i);
            words[j * row_words + w / 2] |= (uint64_t)codes << (w % 2 * 32);
        }
}

/* ---- one block: m rows of x against sixteen outputs --------------------------------------------- */

struct ternary_block {
    const int8_t *x;
    ptrdiff_t x_stride;
    const int32_t *x_sums; /* of each row */
    const uint32_t *lanes;
    int64_t m, k;
    int32_t *out;
    ptrdiff_t out_stride;
};

/* The last weights of a row face bytes past the end of x: give them zeros to read instead. */
static inline void copy_tail(int8_t *tail, const int8_t *x, int64_t k) {
    memset(tail, 0, WEIGHTS);
    memcpy(tail, x + k / WEIGHTS * WEIGHTS, (size_t)(k % WEIGHTS));
}

/* Unsigned arithmetic throughout: sums of x u may pass 2^31, and wrap back when sum x is taken. */
static void ternary_scalar(const struct ternary_block *t) {
    int64_t k_words = ceil_div(t->k, WEIGHTS);
    for (int64_t i = 0; i < t->m; i++) {
        uint32_t sums[LANES] = {0};
        int8_t tail[WEIGHTS];
        copy_tail(tail, t->x + i * t->x_stride, t->k);
        for (int64_t w = 0; w < k_words; w++) {
            const int8_t *x = t->x + i * t->x_stride + w * WEIGHTS;
            if ((w + 1) * WEIGHTS > t->k) x = tail;
            for (int q = 0; q < WEIGHTS; q++)
                for (int j = 0; j < LANES; j++)
                    sums[j] += (uint32_t)x[q] * (t->lanes[w * LANES + j] >> lane_shift(q) & 3);
        }
        for (int j = 0; j < LANES; j++)
            t->out[i * t->out_stride + j] = (int32_t)(sums[j] - (uint32_t)t->x_sums[i]);
    }
}

#if ONEBIT_X86
static inline int load32(const int8_t *p) {
    int v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* PMADDUBSW multiplies 32 bytes and adds pairs into 16 bits: at most 2 * 2 * 128 in magnitude, so
 * 32 of them fit before they must be widened. */
TARGET("avx2") static void ternary_avx2(const struct ternary_block *t) {
    const __m256i two_bits = _mm256_set1_epi8(3), one = _mm256_set1_epi16(1);
    int64_t k_words = ceil_div(t->k, WEIGHTS);
    for (int64_t i = 0; i < t->m; i++) {
        int8_t tail[WEIGHTS];
        copy_tail(tail, t->x + i * t->x_stride, t->k);
        for (int half = 0; half < LANES; half += 8) {
            __m256i sums = _mm256_set1_epi32(-t->x_sums[i]);
            for (int64_t w = 0; w < k_words;) {
                __m256i pairs = _mm256_setzero_si256();
                for (int64_t stop = at_most(k_words, w + 8); w < stop; w++) {
                    const int8_t *x = t->x + i * t->x_stride + w * WEIGHTS;
                    if ((w + 1) * WEIGHTS > t->k) x = tail;
                    __m256i words =
                        _mm256_loadu_si256((const __m256i *)(t->lanes + w * LANES + half));
                    UNROLL for (int q = 0; q < 4; q++) {
                        __m256i u = _mm256_and_si256(_mm256_srli_epi32(words, 2 * q), two_bits);
                        __m256i four = _mm256_set1_epi32(load32(x + 4 * q));
                        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(u, four));
                    }
                }
                sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, one));
            }
            _mm256_storeu_si256((__m256i *)(t->out + i * t->out_stride + half), sums);
        }
    }
}

/* VPDPBUSD multiplies 64 bytes and adds fours straight into 32 bits. It answers after five cycles
 * and two can start in each, so every row keeps two sums. */
#define AVX512_VNNI TARGET("avx512f,avx512bw,avx512vl,avx512vnni")

/* Sixteen weights of sixteen outputs against ROWS rows of x, `stride` bytes apart. */
AVX512_VNNI static ALWAYS_INLINE void add_word_avx512(const uint32_t *lanes, const int8_t *x,
                                                      ptrdiff_t stride, __m512i *even,
                                                      __m512i *odd, const int ROWS) {
    __m512i words = _mm512_loadu_si512(lanes), u[4];
    UNROLL for (int q = 0; q < 4; q++) u[q] =
        _mm512_and_si512(_mm512_srli_epi32(words, 2 * q), _mm512_set1_epi8(3));
    UNROLL for (int r = 0; r < ROWS; r++, x += stride) {
        even[r] = _mm512_dpbusd_epi32(even[r], u[0], _mm512_set1_epi32(load32(x)));
        odd[r] = _mm512_dpbusd_epi32(odd[r], u[1], _mm512_set1_epi32(load32(x + 4)));
        even[r] = _mm512_dpbusd_epi32(even[r], u[2], _mm512_set1_epi32(load32(x + 8)));
        odd[r] = _mm512_dpbusd_epi32(odd[r], u[3], _mm512_set1_epi32(load32(x + 12)));
    }
}

AVX512_VNNI static ALWAYS_INLINE void ternary_rows_avx512(const struct ternary_block *t,
                                                          int64_t first, const int ROWS) {
    const int8_t *x = t->x + first * t->x_stride;
    int64_t full = t->k / WEIGHTS;
    __m512i even[8], odd[8];
    UNROLL for (int r = 0; r < ROWS; r++) {
        even[r] = odd[r] = _mm512_setzero_si512();
        IN_REGISTER(even[r]);
        IN_REGISTER(odd[r]);
    }
    for (int64_t w = 0; w < full; w++)
        add_word_avx512(t->lanes + w * LANES, x + w * WEIGHTS, t->x_stride, even, odd, ROWS);
    if (t->k % WEIGHTS) {
        int8_t tails[8 * WEIGHTS];
        for (int r = 0; r < ROWS; r++) copy_tail(tails + r * WEIGHTS, x + r * t->x_stride, t->k);
        add_word_avx512(t->lanes + full * LANES, tails, WEIGHTS, even, odd, ROWS);
    }
    UNROLL for (int r = 0; r < ROWS; r++) {
        __m512i sums = _mm512_add_epi32(even[r], odd[r]);
        sums = _mm512_sub_epi32(sums, _mm512_set1_epi32(t->x_sums[first + r]));
        _mm512_storeu_si512(t->out + (first + r) * t->out_stride, sums);
    }
}

AVX512_VNNI static void ternary_avx512(const struct ternary_block *t) {
    int64_t i = 0;
    for (; i + 8 <= t->m; i += 8) ternary_rows_avx512(t, i, 8);
    if (t->m & 4) ternary_rows_avx512(t, i, 4), i += 4;
    if (t->m & 2) ternary_rows_avx512(t, i, 2), i += 2;
    if (t->m & 1) ternary_rows_avx512(t, i, 1);
}
#endif /* ONEBIT_X86 */

static void (*const ternary_paths[])(const struct ternary_block *) = {
    [PATH_SCALAR] = ternary_scalar,
#if ONEBIT_X86
    [PATH_POPCNT] = ternary_scalar,
    [PATH_AVX2] = ternary_avx2,
    [PATH_AVX512] = ternary_avx512,
#endif
#if ONEBIT_NEON
    [PATH_NEON] = ternary_scalar,
#endif
};

/* ---- the product: blocks of rows and outputs, shared among threads ------------------------------ */

struct product {
    struct ternary_block block; /* of the whole: m rows of x */
    int64_t n;
    int64_t chunk_blocks, column_tasks;
    void (*path)(const struct ternary_block *);
};

static void multiply_part(const void *data, int64_t task) {
    const struct product *p = data;
    int32_t sums[MOST_ROWS], products[MOST_ROWS * LANES];
    int64_t row = task / p->column_tasks * MOST_ROWS;
    int64_t block = task % p->column_tasks * p->chunk_blocks;
    int64_t last_block = at_most(block + p->chunk_blocks, ceil_div(p->n, LANES));
    int64_t block_size = ceil_div(p->block.k, WEIGHTS) * LANES;
    struct ternary_block t = p->block;
    t.m = at_most(MOST_ROWS, t.m - row);
    t.x += row * t.x_stride;
    t.x_sums = sums;
    for (int64_t i = 0; i < t.m; i++) {
        sums[i] = 0;
        for (int64_t q = 0; q < t.k; q++) sums[i] += t.x[i * t.x_stride + q];
    }
    for (; block < last_block; block++) {
        int64_t j = block * LANES, count = at_most(LANES, p->n - j);
        int in_place = count == LANES;
        t.lanes = p->block.lanes + block * block_size;
        t.out = in_place ? p->block.out + row * p->block.out_stride + j : products;
        t.out_stride = in_place ? p->block.out_stride : LANES;
        p->path(&t);
        for (int64_t i = 0; !in_place && i < t.m; i++)
            memcpy(p->block.out + (row + i) * p->block.out_stride + j, products + i * LANES,
                   (size_t)count * sizeof *products);
    }
}

void onebit_ternary_gemm(int path, int threads, const int8_t *x, ptrdiff_t x_stride,
                         const uint32_t *lanes, int64_t m, int64_t n, int64_t k, int32_t *out,
                         ptrdiff_t out_stride) {
    struct product p = {
        .block = {.x = x, .x_stride = x_stride, .lanes = lanes, .m = m, .k = k, .out = out,
                  .out_stride = out_stride},
        .n = n,
        .path = ternary_paths[path],
    };
    if (m == 0 || n == 0) return;
    int64_t blocks = ceil_div(n, LANES), row_tasks = ceil_div(m, MOST_ROWS);
    int64_t column_tasks = threads > 1 ? ceil_div(8 * (int64_t)threads, row_tasks) : 1;
    p.chunk_blocks = ceil_div(blocks, at_most(column_tasks, blocks));
    p.column_tasks = ceil_div(blocks, p.chunk_blocks);
    onebit_run_tasks(threads, row_tasks * p.column_tasks, multiply_part, &p);
}

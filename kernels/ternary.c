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

#include "lanes.h"
#include "paths.h"
#include "thread_pool.h"
#include "xnor_popcount.h"

enum { WEIGHTS = 16, MOST_ROWS = 64 };
enum { PAIR = 2, TOGETHER = 4 }; /* blocks that meet eight rows, or a single one, at once */

/* ---- layout ---------------------------------------------------------------------------------- */

int64_t onebit_ternary_lanes_size(int64_t n, int64_t k) {
    return ceil_div(n, LANES) * ceil_div(k, WEIGHTS) * LANES;
}

/* Weight i = 4 a + b moves from field 4 a + b to field 4 b + a: a transposition of 4 x 4 fields of
 * 2 bits, done by exchanging off-diagonal pairs twice. It is its own inverse. */
static inline uint32_t transpose_fields(uint32_t v) {
    uint32_t t = (v ^ v >> 6) & 0x00cc00cc;
    v ^= t ^ t << 6;
    t = (v ^ v >> 12) & 0x0000f0f0;
    return v ^ t ^ t << 12;
}

/* Sixteen fields at once: codes 00, 01, 11 for 0, 1, -1 become u = w + 1, and back. */
#define LOW_BITS 0x55555555u
static inline uint32_t add_one(uint32_t v) { return v ^ LOW_BITS ^ (v & LOW_BITS) << 1; }
static inline uint32_t take_one(uint32_t v) { return v ^ LOW_BITS ^ (~v & LOW_BITS) << 1; }

/* The fields of word w that lie before k. */
static inline uint32_t known_fields(int64_t w, int64_t k) {
    int64_t count = at_most(WEIGHTS, k - w * WEIGHTS);
    return ~0u >> (32 - 2 * count);
}

int onebit_ternary_lanes_from_words(const uint64_t *words, ptrdiff_t stride, int64_t n, int64_t k,
                                    uint32_t *lanes) {
    int64_t k_words = ceil_div(k, WEIGHTS);
    uint32_t wrong = 0;
    for (int64_t j = 0; j < n; j += LANES)
        for (int64_t w = 0; w < k_words; w++) {
            uint32_t known = known_fields(w, k);
            for (int64_t l = 0; l < LANES; l++, lanes++) {
                *lanes = 0;
                if (j + l >= n) continue;
                uint64_t word = words[(j + l) * stride + w / 2];
                uint32_t codes = (uint32_t)(word >> (w % 2 * 32)) & known;
                wrong |= codes >> 1 & ~codes & LOW_BITS;
                *lanes = transpose_fields(add_one(codes) & known);
            }
        }
    return wrong != 0;
}

void onebit_ternary_words_from_lanes(const uint32_t *lanes, int64_t n, int64_t k,
                                     uint64_t *words) {
    int64_t k_words = ceil_div(k, WEIGHTS), row_words = ceil_div(k, 32);
    memset(words, 0, (size_t)(n * row_words) * sizeof *words);
    for (int64_t j = 0; j < n; j++)
        for (int64_t w = 0; w < k_words; w++) {
            uint32_t lane = lanes[(j / LANES * k_words + w) * LANES + j % LANES];
            uint32_t codes = take_one(transpose_fields(lane)) & known_fields(w, k);
            words[j * row_words + w / 2] |= (uint64_t)codes << (w % 2 * 32);
        }
}

/* ---- one block: m rows of x against sixteen outputs, or twice sixteen ---------------------------- */

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

/* Four weights of every output at a time, as bytes: a loop that compilers turn into vector code.
 * Unsigned arithmetic throughout: sums of x u may pass 2^31, and wrap back when sum x is taken. */
static void ternary_scalar(const struct ternary_block *t) {
    int64_t k_words = ceil_div(t->k, WEIGHTS);
    for (int64_t i = 0; i < t->m; i++) {
        uint32_t sums[LANES];
        int8_t tail[WEIGHTS];
        copy_tail(tail, t->x + i * t->x_stride, t->k);
        for (int j = 0; j < LANES; j++) sums[j] = -(uint32_t)t->x_sums[i];
        for (int64_t w = 0; w < k_words; w++) {
            const int8_t *x = (w + 1) * WEIGHTS > t->k ? tail
                                                       : t->x + i * t->x_stride + w * WEIGHTS;
            const uint32_t *words = t->lanes + w * LANES;
            for (int q = 0; q < 4; q++) {
                uint32_t x0 = (uint32_t)x[4 * q], x1 = (uint32_t)x[4 * q + 1];
                uint32_t x2 = (uint32_t)x[4 * q + 2], x3 = (uint32_t)x[4 * q + 3];
                for (int j = 0; j < LANES; j++) {
                    uint32_t u = words[j] >> (2 * q);
                    /* u is 0, 1 or 2: x where bit 0 is set, 2 x where bit 1 is. */
                    sums[j] += (x0 & -(u & 1)) + (x1 & -(u >> 8 & 1)) + (x2 & -(u >> 16 & 1)) +
                               (x3 & -(u >> 24 & 1)) +
                               2 * ((x0 & -(u >> 1 & 1)) + (x1 & -(u >> 9 & 1)) +
                                    (x2 & -(u >> 17 & 1)) + (x3 & -(u >> 25 & 1)));
                }
            }
        }
        for (int j = 0; j < LANES; j++) t->out[i * t->out_stride + j] = (int32_t)sums[j];
    }
}

static void sum_rows(const struct ternary_block *t, int32_t *sums) {
    for (int64_t i = 0; i < t->m; i++) {
        sums[i] = 0;
        for (int64_t q = 0; q < t->k; q++) sums[i] += t->x[i * t->x_stride + q];
    }
}

#if ONEBIT_X86
/* PSADBW adds eight unsigned bytes at once; x xor 0x80 is x + 128 read without a sign. */
TARGET("avx2") static void sum_rows_avx2(const struct ternary_block *t, int32_t *sums) {
    const __m256i sign = _mm256_set1_epi8(-128);
    for (int64_t i = 0; i < t->m; i++) {
        const int8_t *x = t->x + i * t->x_stride;
        __m256i total = _mm256_setzero_si256();
        int64_t q = 0;
        for (; q + 32 <= t->k; q += 32) {
            __m256i v = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(x + q)), sign);
            total = _mm256_add_epi64(total, _mm256_sad_epu8(v, _mm256_setzero_si256()));
        }
        __m128i half = _mm_add_epi64(_mm256_castsi256_si128(total),
                                     _mm256_extracti128_si256(total, 1));
        int64_t sum = _mm_extract_epi64(half, 0) + _mm_extract_epi64(half, 1) - 128 * q;
        for (; q < t->k; q++) sum += x[q];
        sums[i] = (int32_t)sum;
    }
}

/* PMADDUBSW multiplies 32 bytes and adds pairs into 16 bits: at most 2 * 2 * 128 in magnitude, so
 * that 32 of them fit before they must be widened. ROWS rows share the unpacking of half a block. */
#define AVX2 TARGET("avx2")
AVX2 static ALWAYS_INLINE void ternary_rows_avx2(const struct ternary_block *t, int64_t first,
                                                 const int ROWS) {
    enum { WORDS_AT_ONCE = 8 };
    const __m256i two_bits = _mm256_set1_epi8(3), one = _mm256_set1_epi16(1);
    const int8_t *x = t->x + first * t->x_stride;
    int64_t k_words = ceil_div(t->k, WEIGHTS), full = t->k / WEIGHTS;
    int8_t tails[4 * WEIGHTS];
    for (int r = 0; r < ROWS; r++) copy_tail(tails + r * WEIGHTS, x + r * t->x_stride, t->k);
    for (int half = 0; half < LANES; half += 8) {
        __m256i sums[4];
        UNROLL for (int r = 0; r < ROWS; r++) sums[r] = _mm256_set1_epi32(-t->x_sums[first + r]);
        for (int64_t w = 0; w < k_words;) {
            __m256i pairs[4];
            UNROLL for (int r = 0; r < ROWS; r++) {
                pairs[r] = _mm256_setzero_si256();
                IN_REGISTER(pairs[r]);
            }
            for (int64_t stop = at_most(k_words, w + WORDS_AT_ONCE); w < stop; w++) {
                const int8_t *sixteen = w < full ? x + w * WEIGHTS : tails;
                ptrdiff_t stride = w < full ? t->x_stride : WEIGHTS;
                __m256i words =
                    _mm256_loadu_si256((const __m256i *)(t->lanes + w * LANES + half));
                UNROLL for (int q = 0; q < 4; q++) {
                    __m256i u = _mm256_and_si256(_mm256_srli_epi32(words, 2 * q), two_bits);
                    UNROLL for (int r = 0; r < ROWS; r++) {
                        __m256i four = _mm256_set1_epi32((int)load32(sixteen + r * stride + 4 * q));
                        pairs[r] = _mm256_add_epi16(pairs[r], _mm256_maddubs_epi16(u, four));
                    }
                }
            }
            UNROLL for (int r = 0; r < ROWS; r++) sums[r] =
                _mm256_add_epi32(sums[r], _mm256_madd_epi16(pairs[r], one));
        }
        UNROLL for (int r = 0; r < ROWS; r++) _mm256_storeu_si256(
            (__m256i *)(t->out + (first + r) * t->out_stride + half), sums[r]);
    }
}

AVX2 static void ternary_avx2(const struct ternary_block *t) {
    int64_t i = 0;
    for (; i + 4 <= t->m; i += 4) ternary_rows_avx2(t, i, 4);
    if (t->m & 2) ternary_rows_avx2(t, i, 2), i += 2;
    if (t->m & 1) ternary_rows_avx2(t, i, 1);
}

/* VPDPBUSD multiplies 64 bytes and adds fours straight into 32 bits, twice a cycle; a load that
 * broadcasts four bytes of x can not keep up with that. So two blocks share each broadcast, and
 * eight rows each unpacked word: 16 sums, of which none waits for itself. At 32 x 4096 x 1024 single
 * blocks take 1.5 times as long, and four rows 1.25 times. */
#define AVX512_VNNI TARGET("avx512f,avx512bw,avx512vl,avx512vnni")

/* Sixteen weights of each output against ROWS rows of x, `stride` bytes apart. */
AVX512_VNNI static ALWAYS_INLINE void add_word_avx512(__m512i sums[][PAIR], const uint32_t *lanes,
                                                      int64_t block_size, const int8_t *x,
                                                      ptrdiff_t stride, const int ROWS,
                                                      const int BLOCKS) {
    __m512i words[PAIR], u[PAIR];
    UNROLL for (int c = 0; c < BLOCKS; c++) words[c] = _mm512_loadu_si512(lanes + c * block_size);
    UNROLL for (int q = 0; q < 4; q++) {
        UNROLL for (int c = 0; c < BLOCKS; c++) u[c] =
            _mm512_and_si512(_mm512_srli_epi32(words[c], 2 * (unsigned)q), _mm512_set1_epi8(3));
        UNROLL for (int r = 0; r < ROWS; r++) {
            __m512i four = _mm512_set1_epi32((int)load32(x + r * stride + 4 * q));
            UNROLL for (int c = 0; c < BLOCKS; c++) {
                sums[r][c] = _mm512_dpbusd_epi32(sums[r][c], u[c], four);
                IN_REGISTER(sums[r][c]);
            }
        }
    }
}

AVX512_VNNI static ALWAYS_INLINE void ternary_rows_avx512(const struct ternary_block *t,
                                                          int64_t first, const int ROWS,
                                                          const int BLOCKS) {
    const int8_t *x = t->x + first * t->x_stride;
    int64_t full = t->k / WEIGHTS, block_size = ceil_div(t->k, WEIGHTS) * LANES;
    __m512i sums[8][PAIR];
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < BLOCKS; c++) {
        sums[r][c] = _mm512_set1_epi32(-t->x_sums[first + r]);
        IN_REGISTER(sums[r][c]);
    }
    for (int64_t w = 0; w < full; w++)
        add_word_avx512(sums, t->lanes + w * LANES, block_size, x + w * WEIGHTS, t->x_stride, ROWS,
                        BLOCKS);
    if (t->k % WEIGHTS) {
        int8_t tails[8 * WEIGHTS];
        for (int r = 0; r < ROWS; r++) copy_tail(tails + r * WEIGHTS, x + r * t->x_stride, t->k);
        add_word_avx512(sums, t->lanes + full * LANES, block_size, tails, WEIGHTS, ROWS, BLOCKS);
    }
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < BLOCKS; c++)
        _mm512_storeu_si512(t->out + (first + r) * t->out_stride + c * LANES, sums[r][c]);
}

/* One row alone has no one to share the unpacking with, so it unpacks less: the fields of a word
 * are masked where they stand, as u, 4 u, 16 u and 64 u, and summed apart; the shifts come once at
 * the end. 64 * 2 * 128 for each of four weights fit 2^18 weights into a sum of 32 bits. It meets
 * several blocks at once, whose weights come in as many streams: at 1 x 4096 x 1024 one by one takes
 * 1.2 times as long from the cache, and at 1 x 4096 x 4096 1.1 times from memory. There, one by one,
 * sums that the compiler may move from register to register cost 1.4 times more, and the tile above
 * 3.7 times. */
AVX512_VNNI static ALWAYS_INLINE void ternary_row_avx512(const struct ternary_block *t, int64_t row,
                                                         const int BLOCKS) {
    enum { WORDS_AT_ONCE = 1 << 14 };
    const int8_t *x = t->x + row * t->x_stride;
    int64_t full = t->k / WEIGHTS, block_size = ceil_div(t->k, WEIGHTS) * LANES;
    __m512i total[TOGETHER], sums[TOGETHER][4];
    UNROLL for (int c = 0; c < BLOCKS; c++) total[c] = _mm512_set1_epi32(-t->x_sums[row]);
    int8_t tail[WEIGHTS];
    copy_tail(tail, x, t->k);
    for (int64_t w = 0; w * WEIGHTS < t->k;) {
        UNROLL for (int c = 0; c < BLOCKS; c++) UNROLL for (int q = 0; q < 4; q++) {
            sums[c][q] = _mm512_setzero_si512();
            IN_REGISTER(sums[c][q]);
        }
        for (int64_t stop = at_most(ceil_div(t->k, WEIGHTS), w + WORDS_AT_ONCE); w < stop; w++) {
            const int8_t *sixteen = w < full ? x + w * WEIGHTS : tail;
            UNROLL for (int c = 0; c < BLOCKS; c++) {
                __m512i words = _mm512_loadu_si512(t->lanes + c * block_size + w * LANES);
                UNROLL for (int q = 0; q < 4; q++) {
                    __m512i u = _mm512_and_si512(words, _mm512_set1_epi8((char)(3 << 2 * q)));
                    __m512i four = _mm512_set1_epi32((int)load32(sixteen + 4 * q));
                    sums[c][q] = _mm512_dpbusd_epi32(sums[c][q], u, four);
                    IN_REGISTER(sums[c][q]);
                }
            }
        }
        UNROLL for (int c = 0; c < BLOCKS; c++) UNROLL for (int q = 0; q < 4; q++) total[c] =
            _mm512_add_epi32(total[c], _mm512_srai_epi32(sums[c][q], 2 * (unsigned)q));
    }
    UNROLL for (int c = 0; c < BLOCKS; c++)
        _mm512_storeu_si512(t->out + row * t->out_stride + c * LANES, total[c]);
}

AVX512_VNNI static void ternary_vector_avx512(const struct ternary_block *t) {
    ternary_row_avx512(t, 0, TOGETHER);
}

AVX512_VNNI static void ternary_avx512(const struct ternary_block *t) {
    int64_t i = 0;
    for (; i + 8 <= t->m; i += 8) ternary_rows_avx512(t, i, 8, 1);
    if (t->m & 4) ternary_rows_avx512(t, i, 4, 1), i += 4;
    if (t->m & 2) ternary_rows_avx512(t, i, 2, 1), i += 2;
    if (t->m & 1) ternary_row_avx512(t, i, 1);
}

AVX512_VNNI static void ternary_pair_avx512(const struct ternary_block *t) {
    int64_t i = 0;
    for (; i + 8 <= t->m; i += 8) ternary_rows_avx512(t, i, 8, PAIR);
    struct ternary_block rest = *t;
    rest.m -= i;
    rest.x += i * t->x_stride;
    rest.x_sums += i;
    rest.out += i * t->out_stride;
    for (int c = 0; c < PAIR; c++) {
        ternary_avx512(&rest);
        rest.lanes += ceil_div(t->k, WEIGHTS) * LANES;
        rest.out += LANES;
    }
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

static void (*const sum_rows_paths[])(const struct ternary_block *, int32_t *) = {
    [PATH_SCALAR] = sum_rows,
#if ONEBIT_X86
    [PATH_POPCNT] = sum_rows,
    [PATH_AVX2] = sum_rows_avx2,
    [PATH_AVX512] = sum_rows_avx2,
#endif
#if ONEBIT_NEON
    [PATH_NEON] = sum_rows,
#endif
};

/* Where a path has one: a single row against TOGETHER blocks at once. */
static void (*const ternary_vector_paths[PATH_COUNT])(const struct ternary_block *) = {
#if ONEBIT_X86
    [PATH_AVX512] = ternary_vector_avx512,
#else
    0,
#endif
};

/* Where a path has one: thirty-two outputs at once. */
static void (*const ternary_pair_paths[PATH_COUNT])(const struct ternary_block *) = {
#if ONEBIT_X86
    [PATH_AVX512] = ternary_pair_avx512,
#else
    0,
#endif
};

/* ---- the product: blocks of rows and outputs, shared among threads ------------------------------ */

struct product {
    struct ternary_block block; /* of the whole: m rows of x */
    int64_t n;
    int64_t chunk_blocks, column_tasks;
    void (*path)(const struct ternary_block *);
    void (*wide_path)(const struct ternary_block *); /* of `wide` blocks at once, or NULL */
    int64_t wide;
    void (*sum_rows)(const struct ternary_block *, int32_t *);
};

static void multiply_part(const void *data, int64_t task) {
    const struct product *p = data;
    int32_t sums[MOST_ROWS], products[MOST_ROWS * PAIR * LANES];
    int64_t row = task / p->column_tasks * MOST_ROWS;
    int64_t block = task % p->column_tasks * p->chunk_blocks;
    int64_t last_block = at_most(block + p->chunk_blocks, ceil_div(p->n, LANES));
    int64_t block_size = ceil_div(p->block.k, WEIGHTS) * LANES;
    struct ternary_block t = p->block;
    t.m = at_most(MOST_ROWS, t.m - row);
    t.x += row * t.x_stride;
    t.x_sums = sums;
    p->sum_rows(&t, sums);
    for (int64_t step; block < last_block; block += step) {
        int together = p->wide_path && block + p->wide <= last_block;
        step = together ? p->wide : 1;
        int64_t j = block * LANES, count = at_most(step * LANES, p->n - j);
        int in_place = count == step * LANES;
        t.lanes = p->block.lanes + block * block_size;
        t.out = in_place ? p->block.out + row * p->block.out_stride + j : products;
        t.out_stride = in_place ? p->block.out_stride : step * LANES;
        (together ? p->wide_path : p->path)(&t);
        for (int64_t i = 0; !in_place && i < t.m; i++)
            memcpy(p->block.out + (row + i) * p->block.out_stride + j, products + i * t.out_stride,
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
        .wide_path = (m == 1 ? ternary_vector_paths : ternary_pair_paths)[path],
        .wide = m == 1 ? TOGETHER : PAIR,
        .sum_rows = sum_rows_paths[path],
    };
    if (m == 0 || n == 0) return;
    int64_t blocks = ceil_div(n, LANES), row_tasks = ceil_div(m, MOST_ROWS);
    int once = m < 8; /* the weights are read once, as fast as they come */
    int64_t column_tasks = once          ? TURNING_TASKS * (int64_t)threads
                           : threads > 1 ? ceil_div(8 * (int64_t)threads, row_tasks)
                                         : 1;
    p.chunk_blocks = ceil_div(blocks, at_most(column_tasks, blocks));
    if (p.wide_path) p.chunk_blocks = ceil_div(p.chunk_blocks, p.wide) * p.wide;
    p.column_tasks = ceil_div(blocks, p.chunk_blocks);
    (once ? onebit_run_tasks_turning : onebit_run_tasks)(threads, row_tasks * p.column_tasks,
                                                         multiply_part, &p);
}

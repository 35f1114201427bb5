/* The first layer: 8-bit pixels against weights of one bit, compared with thresholds, packed.
 *
 * THE IDEA. A pixel p is 0 ... 255 and a weight w is +1 or -1, stored as b = 1 or 0. Then
 *
 *     sum p w  =  2 sum p b  -  sum p        (the last is one number for each row of pixels),
 *
 * and sum p b is a product of unsigned by signed bytes, for which processors have an instruction.
 * The bits behind it are those of a binary layer: (sum >= threshold) of every output.
 *
 * THE PIXELS MOVE, NOT THE WEIGHTS. The weights stay in the lane layout of xnor_popcount.c, one bit
 * each: lanes[n/16][k/32][16]. Bit i of a lane's word w faces pixel 32 w + i, and
 *
 *     (word >> j) & 0x01010101     puts weights j, j + 8, j + 16 and j + 24 into the four bytes.
 *
 * So the pixels are put in that order, once for each row: j, j + 8, j + 16, j + 24 side by side,
 * which one broadcast brings to all lanes. Bits past k are 0, and so add nothing.
 *
 * WHY NOT BIT PLANES. A pixel is also eight bits, and the product a sum of eight XNOR products that
 * weigh 1, 2, ... 128. That needs no code of its own. Measured for 784 pixels and 1024 outputs, a row
 * takes 7.0 us by planes and 4.1 here, and with AVX2 35 and 8.5; to reorder the pixels takes 0.3. */
#include <string.h>

#include "lanes.h"
#include "paths.h"
#include "thread_pool.h"
#include "xnor_popcount.h"

enum { PIXELS = 32, FIELDS = 8, MOST_ROWS = 8 };

/* Up to eight rows of reordered pixels against one block of sixteen outputs. */
struct pixel_block {
    const uint8_t *x;
    const int32_t *x_sums;
    int64_t words; /* of 32 pixels, the same for every row */
    const uint32_t *lanes;
    int32_t thresholds[LANES];
    uint16_t bits[MOST_ROWS]; /* of each row, to be written */
};

/* ---- scalar: a loop over lanes that compilers turn into vector code ------------------------------ */

static void pixels_scalar(struct pixel_block *t, int64_t rows) {
    for (int64_t i = 0; i < rows; i++) {
        const uint8_t *x = t->x + i * t->words * PIXELS;
        uint32_t sums[LANES] = {0};
        for (int64_t w = 0; w < t->words; w++, x += PIXELS)
            for (int j = 0; j < FIELDS; j++) {
                uint32_t p0 = x[4 * j], p1 = x[4 * j + 1], p2 = x[4 * j + 2], p3 = x[4 * j + 3];
                for (int l = 0; l < LANES; l++) {
                    uint32_t b = t->lanes[w * LANES + l] >> j;
                    sums[l] += (p0 & -(b & 1)) + (p1 & -(b >> 8 & 1)) + (p2 & -(b >> 16 & 1)) +
                               (p3 & -(b >> 24 & 1));
                }
            }
        uint32_t bits = 0;
        for (int l = 0; l < LANES; l++)
            bits |= (uint32_t)(2 * (int32_t)sums[l] - t->x_sums[i] >= t->thresholds[l]) << l;
        t->bits[i] = (uint16_t)bits;
    }
}

#if ONEBIT_X86
/* ---- avx2: PMADDUBSW adds pairs of products into 16 bits ----------------------------------------- */

#define AVX2 TARGET("avx2")

/* A pair is at most 2 * 255, so that 64 of them fit before they must be widened. */
AVX2 static ALWAYS_INLINE void pixel_rows_avx2(struct pixel_block *t, int64_t first,
                                               const int ROWS) {
    enum { WORDS_AT_ONCE = 8 };
    const __m256i one_bit = _mm256_set1_epi8(1), two = _mm256_set1_epi16(2);
    const uint8_t *x = t->x + first * t->words * PIXELS;
    for (int half = 0; half < LANES; half += 8) {
        __m256i sums[4];
        UNROLL for (int r = 0; r < ROWS; r++) sums[r] = _mm256_set1_epi32(-t->x_sums[first + r]);
        for (int64_t w = 0; w < t->words;) {
            __m256i pairs[4];
            UNROLL for (int r = 0; r < ROWS; r++) {
                pairs[r] = _mm256_setzero_si256();
                IN_REGISTER(pairs[r]);
            }
            for (int64_t stop = at_most(t->words, w + WORDS_AT_ONCE); w < stop; w++) {
                __m256i word = _mm256_loadu_si256((const __m256i *)(t->lanes + w * LANES + half));
                UNROLL for (int j = 0; j < FIELDS; j++) {
                    __m256i b = _mm256_and_si256(_mm256_srli_epi32(word, j), one_bit);
                    UNROLL for (int r = 0; r < ROWS; r++) {
                        const uint8_t *four = x + (r * t->words + w) * PIXELS + 4 * j;
                        __m256i p = _mm256_set1_epi32((int)load32(four));
                        pairs[r] = _mm256_add_epi16(pairs[r], _mm256_maddubs_epi16(p, b));
                    }
                }
            }
            UNROLL for (int r = 0; r < ROWS; r++) sums[r] =
                _mm256_add_epi32(sums[r], _mm256_madd_epi16(pairs[r], two));
        }
        __m256i thresholds = _mm256_loadu_si256((const __m256i *)(t->thresholds + half));
        UNROLL for (int r = 0; r < ROWS; r++) {
            __m256i less = _mm256_cmpgt_epi32(thresholds, sums[r]);
            int bits = ~_mm256_movemask_ps(_mm256_castsi256_ps(less)) & 0xff;
            t->bits[first + r] = (uint16_t)(half ? t->bits[first + r] | bits << 8 : bits);
        }
    }
}

AVX2 static void pixels_avx2(struct pixel_block *t, int64_t rows) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) pixel_rows_avx2(t, i, 4);
    for (; i < rows; i++) pixel_rows_avx2(t, i, 1);
}

/* ---- avx512: VPDPBUSD multiplies 64 bytes and adds fours into 32 bits ----------------------------- */

#define AVX512_VNNI TARGET("avx512f,avx512bw,avx512vl,avx512vnni")

/* The instruction shares its port with shifts but not with AND. So nothing is shifted: field j stays
 * where it stands, weighs 2^j (bit 7, in a signed byte, -128), and has a sum of its own, put right at
 * the end. Eight sums also mean that none waits for itself. 4.1 us a row of 784 x 1024; 4.5 where the
 * compiler may move the sums about, and 5.5 with one sum for each of eight rows that share shifted
 * fields. Sums stay within 128 * 255 k / 8. */
AVX512_VNNI static void pixel_row_avx512(struct pixel_block *t, int64_t row) {
    const uint8_t *x = t->x + row * t->words * PIXELS;
    __m512i sums[FIELDS];
    UNROLL for (int j = 0; j < FIELDS; j++) {
        sums[j] = _mm512_setzero_si512();
        IN_REGISTER(sums[j]);
    }
    for (int64_t w = 0; w < t->words; w++, x += PIXELS) {
        __m512i word = _mm512_loadu_si512(t->lanes + w * LANES);
        UNROLL for (int j = 0; j < FIELDS; j++) {
            __m512i b = _mm512_and_si512(word, _mm512_set1_epi8((char)(1 << j)));
            __m512i p = _mm512_set1_epi32((int)load32(x + 4 * j));
            sums[j] = _mm512_dpbusd_epi32(sums[j], p, b);
            IN_REGISTER(sums[j]);
        }
    }
    __m512i total = _mm512_sub_epi32(_mm512_add_epi32(sums[0], sums[0]), _mm512_srai_epi32(sums[7], 6));
    UNROLL for (int j = 1; j < FIELDS - 1; j++) total =
        _mm512_add_epi32(total, _mm512_srli_epi32(sums[j], (unsigned)j - 1));
    total = _mm512_sub_epi32(total, _mm512_set1_epi32(t->x_sums[row]));
    t->bits[row] = _mm512_cmpge_epi32_mask(total, _mm512_loadu_si512(t->thresholds));
}

AVX512_VNNI static void pixels_avx512(struct pixel_block *t, int64_t rows) {
    for (int64_t i = 0; i < rows; i++) pixel_row_avx512(t, i);
}
#endif /* ONEBIT_X86 */

static void (*const pixel_paths[])(struct pixel_block *, int64_t) = {
    [PATH_SCALAR] = pixels_scalar,
#if ONEBIT_X86
    [PATH_POPCNT] = pixels_scalar,
    [PATH_AVX2] = pixels_avx2,
    [PATH_AVX512] = pixels_avx512,
#endif
#if ONEBIT_NEON
    [PATH_NEON] = pixels_scalar,
#endif
};

/* ---- the layer: eight rows at a time, every block of outputs ------------------------------------- */

int64_t onebit_pixel_words(int64_t k) { return ceil_div(k, PIXELS); }

/* Thirty-two pixels j, j + 8, j + 16, j + 24 side by side: a transposition of 4 rows of 8 bytes. */
static inline void reorder(const uint8_t *x, uint8_t *out) {
#if ONEBIT_X86
    __m128i rows01 = _mm_loadu_si128((const __m128i *)x);
    __m128i rows23 = _mm_loadu_si128((const __m128i *)x + 1);
    __m128i even = _mm_unpacklo_epi8(rows01, rows23), odd = _mm_unpackhi_epi8(rows01, rows23);
    _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi8(even, odd));
    _mm_storeu_si128((__m128i *)out + 1, _mm_unpackhi_epi8(even, odd));
#else
    for (int j = 0; j < FIELDS; j++)
        for (int i = 0; i < 4; i++) out[4 * j + i] = x[8 * i + j];
#endif
}

void onebit_reorder_pixels(const uint8_t *x, int64_t m, int64_t k, uint8_t *out, int32_t *sums) {
    for (int64_t i = 0; i < m; i++) {
        sums[i] = 0;
        for (int64_t q = 0; q < k; q++) sums[i] += x[q];
        for (int64_t q = 0; q < k / PIXELS; q++, x += PIXELS, out += PIXELS) reorder(x, out);
        if (k % PIXELS) {
            uint8_t tail[PIXELS] = {0};
            memcpy(tail, x, (size_t)(k % PIXELS));
            reorder(tail, out);
            x += k % PIXELS, out += PIXELS;
        }
    }
}

struct pixel_layer {
    const uint8_t *x;
    const int32_t *x_sums;
    const uint32_t *lanes;
    int64_t m, n, words;
    const int32_t *thresholds;
    uint64_t *out;
    int64_t chunk_blocks, column_tasks;
    void (*path)(struct pixel_block *, int64_t);
};

/* One task: eight rows of pixels against some blocks of weights. */
static void multiply_part(const void *data, int64_t task) {
    const struct pixel_layer *p = data;
    int64_t row = task / p->column_tasks * MOST_ROWS, rows = at_most(MOST_ROWS, p->m - row);
    int64_t block = task % p->column_tasks * p->chunk_blocks;
    int64_t last_block = at_most(block + p->chunk_blocks, ceil_div(p->n, LANES));
    struct pixel_block t = {.x = p->x + row * p->words * PIXELS, .x_sums = p->x_sums + row,
                            .words = p->words};
    for (; block < last_block; block++) {
        int64_t j = block * LANES;
        t.lanes = p->lanes + block * p->words * LANES;
        for (int64_t l = 0; l < LANES; l++) /* no sum reaches that of an output past n */
            t.thresholds[l] = j + l < p->n ? p->thresholds[j + l] : INT32_MAX;
        p->path(&t, rows);
        for (int64_t i = 0; i < rows; i++)
            memcpy((char *)(p->out + (row + i) * ceil_div(p->n, 64)) + j / 8, t.bits + i, 2);
    }
}

void onebit_pixel_gemm_bits(int path, int threads, const uint8_t *x, const int32_t *x_sums,
                            const uint32_t *lanes, int64_t m, int64_t n, int64_t k,
                            const int32_t *thresholds, uint64_t *out) {
    struct pixel_layer p = {.x = x, .x_sums = x_sums, .lanes = lanes, .m = m, .n = n,
                            .words = ceil_div(k, PIXELS), .thresholds = thresholds, .out = out,
                            .path = pixel_paths[path]};
    if (m == 0 || n == 0) return;
    for (int64_t i = 0; i < m; i++) /* the last word may have more quarters than there are blocks */
        out[(i + 1) * ceil_div(n, 64) - 1] = 0;
    int64_t blocks = ceil_div(n, LANES), row_tasks = ceil_div(m, MOST_ROWS);
    int64_t column_tasks = threads > 1 ? ceil_div(8 * (int64_t)threads, row_tasks) : 1;
    p.chunk_blocks = ceil_div(blocks, at_most(column_tasks, blocks));
    p.column_tasks = ceil_div(blocks, p.chunk_blocks);
    onebit_run_tasks(threads, row_tasks * p.column_tasks, multiply_part, &p);
}

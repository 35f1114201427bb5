/* The binary matrix product: XNOR, popcount and nothing else.
 *
 * THE IDEA. Let a and b be vectors of k elements, each +1 or -1, stored as bits 1 and 0. Where two
 * bits agree their product is +1, where they differ it is -1, so with d differing bits
 *
 *     a . b  =  (k - d) - d  =  k - 2 d,        d = popcount(a xor b).
 *
 * Counting the differing bits (XOR) instead of the agreeing ones (XNOR) costs the same and makes
 * the tail free: bits past k that are 0 in both operands never differ. 64 multiply-adds become one
 * XOR, one popcount and one addition.
 *
 * THE LANE LAYOUT. A vector register holds 16 words of 32 bits. Give each lane its own output:
 * word i of sixteen rows of B stands side by side,
 *
 *     lanes[n/16][k/32][16]          row  0   row  1   row  2         row 15
 *                        word 0    [b00    | b10    | b20    | ... | bF0   ]   one register
 *                        word 1    [b01    | b11    | b21    | ... | bF1   ]   the next
 *                        ...
 *
 * and a word of A is broadcast to all lanes. The counts then add up lane by lane, and the register
 * of sums *is* a piece of a row of the output. Row by row, each output would need a horizontal sum
 * at its end: some ten operations, in which time the path below does two thousand multiply-adds.
 * Rows and bits that pad B to the layout are 0. Weights are laid out once (`prepack`); files keep
 * plain words.
 *
 * ONE SOURCE, MANY MACHINES. Every path is one function compiled for its own instruction set by
 * __attribute__((target)), and all read the same layout, so that a path is chosen when the program
 * runs. One-bit multiply-adds per cycle and core, as the operations below and the execution ports
 * of recent processors bound them:
 *
 *     scalar                about 15     shifts, masks and one multiplication count 64 bits
 *     popcnt                      64     one 64-bit popcount a cycle
 *     avx2                       120     no vector popcount: carry-save adders, then a small table
 *     avx512-vpopcntdq           410     carry-save by three-input logic, then VPOPCNTD
 *     neon                  85 to 170    CNT counts bytes; two to four vector ports
 */
#include "xnor_popcount.h"

#include <string.h>

#include "lanes.h"
#include "paths.h"
#include "thread_pool.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the words are read as bytes in little-endian order; without the kernel NumPy serves"
#endif

/* The bits of the last word that lie before k: all of them if the word is full. */
static inline uint64_t tail_mask64(int64_t k) { return ~0ull >> (-(uint64_t)k & 63); }
static inline uint32_t tail_mask32(int64_t k) { return ~0u >> (-(uint32_t)k & 31); }

/* ---- layout ---------------------------------------------------------------------------------- */

int64_t onebit_lanes_size(int64_t n, int64_t k) {
    return ceil_div(n, LANES) * ceil_div(k, 32) * LANES;
}

void onebit_lanes_from_words(const uint64_t *words, ptrdiff_t stride, int64_t n, int64_t k,
                             uint32_t *lanes) {
    int64_t k_words = ceil_div(k, 32);
    for (int64_t j = 0; j < n; j += LANES)
        for (int64_t w = 0; w < k_words; w++) {
            uint32_t mask = w == k_words - 1 ? tail_mask32(k) : ~0u;
            for (int64_t l = 0; l < LANES; l++) {
                uint64_t word = j + l < n ? words[(j + l) * stride + w / 2] : 0;
                *lanes++ = (uint32_t)(word >> (w % 2 * 32)) & mask;
            }
        }
}

void onebit_words_from_lanes(const uint32_t *lanes, int64_t n, int64_t k, uint64_t *words) {
    int64_t k_words = ceil_div(k, 32), row_words = ceil_div(k, 64);
    memset(words, 0, (size_t)(n * row_words) * sizeof *words);
    for (int64_t j = 0; j < n; j++) {
        const uint32_t *lane = lanes + j / LANES * k_words * LANES + j % LANES;
        for (int64_t w = 0; w < k_words; w++)
            words[j * row_words + w / 2] |= (uint64_t)lane[w * LANES] << (w % 2 * 32);
    }
}

/* ---- scalar and popcnt: sixteen rows again, 64 bits at a time -------------------------------- */

/* Without a popcount instruction: add neighbouring bits, pairs, nibbles, then all bytes at once by
 * a multiplication whose top byte is their sum. Twelve operations for 64 bits. */
static inline uint64_t popcount_by_arithmetic(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return x * 0x0101010101010101 >> 56;
}

/* Lanes of 32 bits would waste half of a 64-bit popcount, so the block is first turned back into
 * rows, CHUNK words at a time. That costs as much as one row of A, and is won back from the second
 * row on. */
enum { CHUNK = 128 };

/* Four outputs share each word of A, and do not wait for each other: 1.4 times as fast as one at a
 * time at 32 x 1024 x 1024. Bits of B past k are 0, so that masking A is enough. */
static ALWAYS_INLINE void add_differing(uint64_t d[4], uint64_t a, const uint64_t rows[][CHUNK],
                                        int64_t w, const int by_instruction) {
    UNROLL for (int r = 0; r < 4; r++) {
        uint64_t x = a ^ rows[r][w];
        d[r] += by_instruction ? (uint64_t)__builtin_popcountll(x) : popcount_by_arithmetic(x);
    }
}

static ALWAYS_INLINE void multiply_by_words(const struct xnor_block *t, const int by_instruction) {
    uint64_t rows[LANES][CHUNK];
    int64_t k_words = ceil_div(t->k, 64), half_words = ceil_div(t->k, 32);
    for (int64_t start = 0; start < k_words; start += CHUNK) {
        int64_t count = at_most(CHUNK, k_words - start);
        for (int64_t w = 0; w < count; w++) {
            const uint32_t *low = t->lanes + 2 * (start + w) * LANES;
            int has_high = 2 * (start + w) + 1 < half_words;
            for (int j = 0; j < LANES; j++)
                rows[j][w] = low[j] | (has_high ? (uint64_t)low[LANES + j] << 32 : 0);
        }
        uint64_t mask = start + count == k_words ? tail_mask64(t->k) : ~0ull;
        for (int64_t i = 0; i < t->m; i++) {
            const uint64_t *a = t->a + i * t->a_stride + start;
            int32_t *out = t->out + i * t->out_stride;
            for (int j = 0; j < LANES; j += 4) {
                uint64_t d[4] = {0};
                for (int64_t w = 0; w < count - 1; w++)
                    add_differing(d, a[w], rows + j, w, by_instruction);
                add_differing(d, a[count - 1] & mask, rows + j, count - 1, by_instruction);
                for (int r = 0; r < 4; r++)
                    out[j + r] = (start == 0 ? (int32_t)t->k : out[j + r]) - 2 * (int32_t)d[r];
            }
        }
    }
}

static void xnor_scalar(const struct xnor_block *t) { multiply_by_words(t, WORD_POPCOUNT); }

#if ONEBIT_X86
TARGET("popcnt") static void xnor_popcnt(const struct xnor_block *t) { multiply_by_words(t, 1); }
#endif

enum { TOGETHER = 8 }; /* blocks that a path for a single row takes at once */

/* ---- avx2: counting without a popcount instruction ------------------------------------------- */
#if ONEBIT_X86
#define AVX2 TARGET("avx2,popcnt")

/* PSHUFB as a table of 16 entries: the popcount of every nibble, summed into bytes. */
AVX2 static ALWAYS_INLINE __m256i byte_counts(__m256i x) {
    const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1,
                                            1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i low = _mm256_and_si256(x, nibble);
    __m256i high = _mm256_and_si256(_mm256_srli_epi32(x, 4), nibble);
    return _mm256_add_epi8(_mm256_shuffle_epi8(counts, low), _mm256_shuffle_epi8(counts, high));
}

/* The four bytes of every lane added up. */
AVX2 static ALWAYS_INLINE __m256i lane_sums(__m256i bytes) {
    __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* A carry-save adder: 256 one-bit full adders. a + b + c = 2 carry + sum, in five operations. */
AVX2 static ALWAYS_INLINE void carry_save(__m256i *carry, __m256i *sum, __m256i b, __m256i c) {
    __m256i u = _mm256_xor_si256(*sum, b);
    *carry = _mm256_or_si256(_mm256_and_si256(*sum, b), _mm256_and_si256(u, c));
    *sum = _mm256_xor_si256(u, c);
}

/* Counting 256 bits by table costs eight operations. Seven carry-save adders turn eight words into
 * one of weight 8 and three running remainders (weights 1, 2, 4), so that the table is asked once
 * for eight words: about 6.4 operations a word, the XOR included, where the table alone needs 9.
 * 1.7 times as fast at 32 x 1024 x 1024. */
AVX2 static void xnor_avx2(const struct xnor_block *t) {
    int64_t full = t->k / 32;
    const __m256i zero = _mm256_setzero_si256();
    for (int64_t i = 0; i < t->m; i++)
        for (int half = 0; half < LANES; half += 8) {
            const char *a = (const char *)(t->a + i * t->a_stride);
            const uint32_t *b = t->lanes + half;
            __m256i ones = zero, twos = zero, fours = zero, eights = zero, d = zero;
            int64_t w = 0;
#define DIFFER(w)                                                                                  \
    _mm256_xor_si256(_mm256_set1_epi32((int)load32(a + 4 * (w))),                                  \
                     _mm256_loadu_si256((const __m256i *)(b + (w) * LANES)))
            while (w + 8 <= full) {
                /* Each round adds at most 8 to a byte, so 31 rounds fit. */
                int64_t stop = at_most(full - 7, w + 31 * 8);
                for (; w < stop; w += 8) {
                    __m256i twos_a, twos_b, fours_a, fours_b, carry;
                    carry_save(&twos_a, &ones, DIFFER(w), DIFFER(w + 1));
                    carry_save(&twos_b, &ones, DIFFER(w + 2), DIFFER(w + 3));
                    carry_save(&fours_a, &twos, twos_a, twos_b);
                    carry_save(&twos_a, &ones, DIFFER(w + 4), DIFFER(w + 5));
                    carry_save(&twos_b, &ones, DIFFER(w + 6), DIFFER(w + 7));
                    carry_save(&fours_b, &twos, twos_a, twos_b);
                    carry_save(&carry, &fours, fours_a, fours_b);
                    eights = _mm256_add_epi8(eights, byte_counts(carry));
                }
                d = _mm256_add_epi32(d, lane_sums(eights));
                eights = zero;
            }
            d = _mm256_slli_epi32(d, 3);
            __m256i rest = zero; /* up to 7 full words, the tail and the remainders: 64 + 56 < 256 */
            for (; w < full; w++) rest = _mm256_add_epi8(rest, byte_counts(DIFFER(w)));
            if (t->k % 32) {
                __m256i mask = _mm256_set1_epi32((int)tail_mask32(t->k));
                rest = _mm256_add_epi8(rest, byte_counts(_mm256_and_si256(DIFFER(w), mask)));
            }
#undef DIFFER
            __m256i two_fours = byte_counts(fours);
            two_fours = _mm256_add_epi8(two_fours, two_fours);
            __m256i pairs = _mm256_add_epi8(two_fours, byte_counts(twos));
            rest = _mm256_add_epi8(rest, byte_counts(ones));
            rest = _mm256_add_epi8(rest, _mm256_add_epi8(pairs, pairs));
            d = _mm256_add_epi32(d, lane_sums(rest));
            __m256i product =
                _mm256_sub_epi32(_mm256_set1_epi32((int)t->k), _mm256_slli_epi32(d, 1));
            _mm256_storeu_si256((__m256i *)(t->out + i * t->out_stride + half), product);
        }
}

/* ---- avx512-vpopcntdq: half the popcounts -------------------------------------------------------
 *
 * Straightforwardly a word costs three operations: XOR, VPOPCNTD, add. VPTERNLOG computes any
 * function of three inputs in one operation, and two words then cost five instead of six:
 *
 *     t     = s ^ a0 ^ b0               s is a running sum of weight 1
 *     s'    = t ^ a1 ^ b1               its new value
 *     carry = majority(s, a0 ^ b0, a1 ^ b1)
 *           = t ? ~s' : s               found from what is already there
 *     d    += popcount(carry)           of weight 2
 *
 * and at the end the count is 2 d + popcount(s). A second level of carry-save would again trade a
 * popcount and an addition for two operations, so it gains nothing.
 *
 * What each trick brings at 32 x 1024 x 1024, where this path takes 28.2 us:
 *
 *     carry-save                            31.7 us without: 1.12 times, of 1.2 that it can bring
 *     eight rows of A share a load of B     45.2 us with one row, 38.7 with two, 30.0 with four:
 *                                           their s and d fill 16 of the 32 registers
 *     values held IN_REGISTER               30.5 us without: the compiler spills
 *
 * A single row shares no load, and waits for B. It therefore meets eight blocks at a time: eight
 * streams, each of which the processor fetches ahead of, bring more than one of them. 1 x 4096 x 4096
 * takes 167 us from memory instead of 198, and 1 x 1024 x 1024 in the cache 2.8 instead of 4.5. */
#define AVX512 TARGET("avx512f,avx512bw,avx512vl,avx512vpopcntdq,popcnt")
enum { XOR3 = 0x96, SECOND_IS_NOT_IF_FIRST_ELSE_THIRD = 0x3a };

AVX512 static ALWAYS_INLINE void xnor_rows_avx512(const struct xnor_block *t, int64_t first,
                                                  const int ROWS, const int BLOCKS) {
    const char *a = (const char *)(t->a + first * t->a_stride);
    const ptrdiff_t stride = t->a_stride * 8;
    const uint32_t *b = t->lanes;
    int64_t full = t->k / 32, block_size = ceil_div(t->k, 32) * LANES, w = 0;
    __m512i s[8], d[8];
    UNROLL for (int i = 0; i < ROWS * BLOCKS; i++) {
        s[i] = d[i] = _mm512_setzero_si512();
        IN_REGISTER(s[i]);
        IN_REGISTER(d[i]);
    }
    for (; w + 2 <= full; w += 2) {
        __m512i b0[TOGETHER], b1[TOGETHER];
        UNROLL for (int c = 0; c < BLOCKS; c++) {
            const uint32_t *word = b + c * block_size + w * LANES;
            b0[c] = _mm512_loadu_si512(word);
            b1[c] = _mm512_loadu_si512(word + LANES);
        }
        UNROLL for (int i = 0; i < ROWS * BLOCKS; i++) {
            const char *words = a + i / BLOCKS * stride + 4 * w;
            /* VPTERNLOG overwrites its first operand, so that is a fresh broadcast: no copies. */
            __m512i u = _mm512_set1_epi32((int)load32(words));
            __m512i sum = _mm512_set1_epi32((int)load32(words + 4));
            u = _mm512_ternarylogic_epi32(u, s[i], b0[i % BLOCKS], XOR3);
            sum = _mm512_ternarylogic_epi32(sum, u, b1[i % BLOCKS], XOR3);
            u = _mm512_ternarylogic_epi32(u, sum, s[i], SECOND_IS_NOT_IF_FIRST_ELSE_THIRD);
            d[i] = _mm512_add_epi32(d[i], _mm512_popcnt_epi32(u));
            s[i] = sum;
            IN_REGISTER(d[i]);
            IN_REGISTER(s[i]);
        }
    }
    UNROLL for (int i = 0; i < ROWS * BLOCKS; i++) {
        int r = i / BLOCKS, c = i % BLOCKS;
        __m512i count = _mm512_popcnt_epi32(s[i]);
        count = _mm512_add_epi32(count, _mm512_add_epi32(d[i], d[i]));
        for (int64_t v = w; v * 32 < t->k; v++) { /* an odd word and the tail */
            uint32_t mask = v < full ? ~0u : tail_mask32(t->k);
            __m512i a0 = _mm512_set1_epi32((int)(load32(a + r * stride + 4 * v) & mask));
            __m512i x = _mm512_xor_si512(a0, _mm512_loadu_si512(b + c * block_size + v * LANES));
            count = _mm512_add_epi32(count, _mm512_popcnt_epi32(x));
        }
        __m512i product =
            _mm512_sub_epi32(_mm512_set1_epi32((int)t->k), _mm512_add_epi32(count, count));
        int32_t *out = t->out + (first + r) * t->out_stride + c * LANES;
        if (t->past_caches)
            _mm512_stream_si512((void *)out, product);
        else
            _mm512_storeu_si512(out, product);
    }
}

AVX512 static void xnor_avx512(const struct xnor_block *t) {
    int64_t i = 0;
    for (; i + 8 <= t->m; i += 8) xnor_rows_avx512(t, i, 8, 1);
    if (t->m & 4) xnor_rows_avx512(t, i, 4, 1), i += 4;
    if (t->m & 2) xnor_rows_avx512(t, i, 2, 1), i += 2;
    if (t->m & 1) xnor_rows_avx512(t, i, 1, 1);
    if (t->past_caches) _mm_sfence(); /* streaming stores keep no order of their own */
}

AVX512 static void xnor_vector_avx512(const struct xnor_block *t) {
    xnor_rows_avx512(t, 0, 1, TOGETHER);
    if (t->past_caches) _mm_sfence();
}
#endif /* ONEBIT_X86 */

/* ---- neon: CNT counts every byte --------------------------------------------------------------- */
#if ONEBIT_NEON
static ALWAYS_INLINE uint8x16_t differing_bytes(uint32_t a, uint32x4_t b) {
    return vcntq_u8(vreinterpretq_u8_u32(veorq_u32(vdupq_n_u32(a), b)));
}

/* ROWS rows of A share each load of B, and CNT's bytes are summed as bytes for as long as they fit.
 * Seen to be right under an emulator, which says nothing of its speed. */
static ALWAYS_INLINE void xnor_rows_neon(const struct xnor_block *t, int64_t first, int quarter,
                                         const int ROWS) {
    const char *a = (const char *)(t->a + first * t->a_stride);
    const ptrdiff_t stride = t->a_stride * 8;
    const uint32_t *b = t->lanes + quarter;
    int64_t full = t->k / 32, w = 0;
    uint32x4_t d[4];
    UNROLL for (int r = 0; r < ROWS; r++) d[r] = vdupq_n_u32(0);
    while (w < full) {
        uint8x16_t bytes[4];
        UNROLL for (int r = 0; r < ROWS; r++) bytes[r] = vdupq_n_u8(0);
        /* 31 words add at most 248 to a byte. */
        for (int64_t stop = at_most(full, w + 31); w < stop; w++) {
            uint32x4_t word = vld1q_u32(b + w * LANES);
            UNROLL for (int r = 0; r < ROWS; r++) bytes[r] =
                vaddq_u8(bytes[r], differing_bytes(load32(a + r * stride + 4 * w), word));
        }
        UNROLL for (int r = 0; r < ROWS; r++) d[r] = vpadalq_u16(d[r], vpaddlq_u8(bytes[r]));
    }
    UNROLL for (int r = 0; r < ROWS; r++) {
        if (t->k % 32) { /* bits of B past k are 0: to mask A is enough */
            uint32_t tail = load32(a + r * stride + 4 * w) & tail_mask32(t->k);
            uint8x16_t bytes = differing_bytes(tail, vld1q_u32(b + w * LANES));
            d[r] = vpadalq_u16(d[r], vpaddlq_u8(bytes));
        }
        int32x4_t both = vreinterpretq_s32_u32(vshlq_n_u32(d[r], 1));
        vst1q_s32(t->out + (first + r) * t->out_stride + quarter,
                  vsubq_s32(vdupq_n_s32((int32_t)t->k), both));
    }
}

static void xnor_neon(const struct xnor_block *t) {
    for (int quarter = 0; quarter < LANES; quarter += 4) {
        int64_t i = 0;
        for (; i + 4 <= t->m; i += 4) xnor_rows_neon(t, i, quarter, 4);
        for (; i < t->m; i++) xnor_rows_neon(t, i, quarter, 1);
    }
}
#endif

/* ---- paths ------------------------------------------------------------------------------------- */

static void (*const xnor_paths[])(const struct xnor_block *) = {
    [PATH_SCALAR] = xnor_scalar,
#if ONEBIT_X86
    [PATH_POPCNT] = xnor_popcnt,
    [PATH_AVX2] = xnor_avx2,
    [PATH_AVX512] = xnor_avx512,
#endif
#if ONEBIT_NEON
    [PATH_NEON] = xnor_neon,
#endif
#if ONEBIT_WASM
    [PATH_SIMD128] = onebit_xnor_simd128,
#endif
};

/* Where a path has one: a single row against TOGETHER blocks at once. */
static void (*const xnor_vector_paths[PATH_COUNT])(const struct xnor_block *) = {
#if ONEBIT_X86
    [PATH_AVX512] = xnor_vector_avx512,
#else
    0,
#endif
};

/* ---- thresholds: sixteen products become sixteen bits ------------------------------------------- */

struct bits_block {
    const int32_t *products; /* rows of sixteen */
    int64_t rows;
    int32_t thresholds[LANES];
    uint16_t flip, known; /* which bits to invert, and which to keep */
    char *out;
    ptrdiff_t out_stride; /* in bytes */
};

/* Each thread writes its own sixteen bits of a word: neighbours may be written at the same time. */
static inline void write16(const struct bits_block *t, int64_t row, uint32_t bits) {
    uint16_t half = (uint16_t)((bits ^ t->flip) & t->known);
    memcpy(t->out + row * t->out_stride, &half, sizeof half);
}

static void bits_portable(const struct bits_block *t) {
    for (int64_t i = 0; i < t->rows; i++) {
        uint32_t bits = 0;
        for (int l = 0; l < LANES; l++)
            bits |= (uint32_t)(t->products[i * LANES + l] >= t->thresholds[l]) << l;
        write16(t, i, bits);
    }
}

#if ONEBIT_X86
AVX2 static void bits_avx2(const struct bits_block *t) {
    __m256i low = _mm256_loadu_si256((const __m256i *)t->thresholds);
    __m256i high = _mm256_loadu_si256((const __m256i *)t->thresholds + 1);
    for (int64_t i = 0; i < t->rows; i++) {
        const __m256i *p = (const __m256i *)(t->products + i * LANES);
        __m256i less_low = _mm256_cmpgt_epi32(low, _mm256_loadu_si256(p));
        __m256i less_high = _mm256_cmpgt_epi32(high, _mm256_loadu_si256(p + 1));
        uint32_t less = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(less_low)) |
                        (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(less_high)) << 8;
        write16(t, i, ~less);
    }
}

AVX512 static void bits_avx512(const struct bits_block *t) {
    __m512i thresholds = _mm512_loadu_si512(t->thresholds);
    for (int64_t i = 0; i < t->rows; i++)
        write16(t, i,
                _mm512_cmpge_epi32_mask(_mm512_loadu_si512(t->products + i * LANES), thresholds));
}
#endif

static void (*const bits_paths[])(const struct bits_block *) = {
    [PATH_SCALAR] = bits_portable,
#if ONEBIT_X86
    [PATH_POPCNT] = bits_portable,
    [PATH_AVX2] = bits_avx2,
    [PATH_AVX512] = bits_avx512,
#endif
#if ONEBIT_NEON
    [PATH_NEON] = bits_portable,
#endif
#if ONEBIT_WASM
    [PATH_SIMD128] = bits_portable,
#endif
};

/* ---- the product: blocks of rows and outputs, shared among threads ------------------------------ */

enum { MOST_ROWS = 256, A_BYTES = 16384, STREAMED_BYTES = 1 << 20 };

struct product {
    struct xnor_block block; /* of the whole: m rows of a */
    int64_t n;
    int64_t chunk_rows, chunk_blocks, column_tasks;
    void (*path)(const struct xnor_block *);
    void (*vector_path)(const struct xnor_block *);
    void (*bits_path)(const struct bits_block *); /* of xnor_gemm_bits, and what follows too */
    const int32_t *thresholds;
    const uint8_t *flip;
    uint64_t *bits;
    ptrdiff_t bits_stride;
};

/* A store to a line that is not in the cache reads it first. Where the output is too large to stay
 * there and its rows start on cache lines, a streaming store saves that: twice as fast at
 * 2048 x 2048 x 512, whose output takes 16 MiB; 1.2 times at 8 MiB, and nothing at 4. */
static int is_streamed(const int32_t *out, ptrdiff_t stride, int64_t m, int64_t n) {
    return m * n * 4 > STREAMED_BYTES && (uintptr_t)out % 64 == 0 && stride % LANES == 0;
}

static void write_bits(const struct product *p, int64_t row, int64_t rows, int64_t j,
                       const int32_t *products) {
    int64_t count = at_most(LANES, p->n - j);
    struct bits_block t = {
        .products = products,
        .rows = rows,
        .known = (uint16_t)(0xffff >> (LANES - count)),
        .out = (char *)(p->bits + row * p->bits_stride) + j / 8,
        .out_stride = p->bits_stride * 8,
    };
    for (int64_t l = 0; l < count; l++) {
        t.thresholds[l] = p->thresholds[j + l];
        t.flip |= (uint16_t)((p->flip ? p->flip[j + l] : 0) << l);
    }
    p->bits_path(&t);
}

/* One task: some rows of A, which stay in the first-level cache, against some blocks of B. */
static void multiply_part(const void *data, int64_t task) {
    const struct product *p = data;
    int32_t products[MOST_ROWS * LANES]; /* where they cannot be written in place */
    int64_t row = task / p->column_tasks * p->chunk_rows;
    int64_t block = task % p->column_tasks * p->chunk_blocks;
    int64_t last_block = at_most(block + p->chunk_blocks, ceil_div(p->n, LANES));
    int64_t block_size = ceil_div(p->block.k, 32) * LANES;
    struct xnor_block t = p->block;
    int streamed = !p->bits && is_streamed(t.out, t.out_stride, t.m, p->n);
    t.m = at_most(p->chunk_rows, t.m - row);
    t.a += row * t.a_stride;
    for (int64_t step; block < last_block; block += step) {
        int together = p->vector_path && block + TOGETHER <= last_block;
        step = together ? TOGETHER : 1;
        int64_t j = block * LANES, count = at_most(step * LANES, p->n - j);
        int in_place = !p->bits && count == step * LANES;
        t.past_caches = streamed && in_place;
        t.lanes = p->block.lanes + block * block_size;
        t.out = in_place ? p->block.out + row * p->block.out_stride + j : products;
        t.out_stride = in_place ? p->block.out_stride : LANES;
        (together ? p->vector_path : p->path)(&t);
        for (int64_t c = 0; p->bits && c < step; c++)
            write_bits(p, row, t.m, j + c * LANES, products + c * LANES);
        for (int64_t i = 0; !p->bits && !in_place && i < t.m; i++)
            memcpy(p->block.out + (row + i) * p->block.out_stride + j, products + i * LANES,
                   (size_t)count * sizeof *products);
    }
}

static void multiply(struct product *p, int threads) {
    /* 16 KiB of A stay in the first-level cache while the blocks of B pass by, each one contiguous
     * stream that the prefetcher foresees. Several tasks a thread even out threads that start late
     * or share their core. */
    int64_t row_bytes = ceil_div(p->block.k, 64) * 8, blocks = ceil_div(p->n, LANES);
    if (p->block.m == 0 || p->n == 0) return;
    p->chunk_rows = at_most(MOST_ROWS, A_BYTES / row_bytes / 8 * 8);
    if (p->chunk_rows < 8) p->chunk_rows = 8;
    int64_t row_tasks = ceil_div(p->block.m, p->chunk_rows);
    int once = p->block.m < 8; /* B is read once, as fast as it comes */
    int64_t column_tasks = once          ? TURNING_TASKS * (int64_t)threads
                           : threads > 1 ? ceil_div(8 * (int64_t)threads, row_tasks)
                                         : 1;
    p->chunk_blocks = ceil_div(blocks, at_most(column_tasks, blocks));
    if (p->vector_path) p->chunk_blocks = ceil_div(p->chunk_blocks, TOGETHER) * TOGETHER;
    p->column_tasks = ceil_div(blocks, p->chunk_blocks);
    (once ? onebit_run_tasks_turning : onebit_run_tasks)(threads, row_tasks * p->column_tasks,
                                                         multiply_part, p);
}

void onebit_xnor_gemm(int path, int threads, const uint64_t *a, ptrdiff_t a_stride,
                      const uint32_t *lanes, int64_t m, int64_t n, int64_t k, int32_t *out,
                      ptrdiff_t out_stride) {
    struct product p = {
        .block = {.a = a, .a_stride = a_stride, .lanes = lanes, .m = m, .k = k, .out = out,
                  .out_stride = out_stride},
        .n = n,
        .path = xnor_paths[path],
        .vector_path = m == 1 ? xnor_vector_paths[path] : 0,
    };
    multiply(&p, threads);
}

void onebit_xnor_gemm_bits(int path, int threads, const uint64_t *a, ptrdiff_t a_stride,
                           const uint32_t *lanes, int64_t m, int64_t n, int64_t k,
                           const int32_t *thresholds, const uint8_t *flip, uint64_t *out,
                           ptrdiff_t out_stride) {
    struct product p = {
        .block = {.a = a, .a_stride = a_stride, .lanes = lanes, .m = m, .k = k},
        .n = n,
        .path = xnor_paths[path],
        .vector_path = m == 1 ? xnor_vector_paths[path] : 0,
        .bits_path = bits_paths[path],
        .thresholds = thresholds,
        .flip = flip,
        .bits = out,
        .bits_stride = out_stride,
    };
    for (int64_t i = 0; i < m; i++) /* the last word may have more halves than there are blocks */
        if (n > 0) out[i * out_stride + ceil_div(n, 64) - 1] = 0;
    multiply(&p, threads);
}

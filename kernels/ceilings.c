/* How fast this machine could be: loops that do one thing only, for the benchmark to compare with.
 *
 * Each function repeats the inner operations of a kernel path `rounds` times on values that never
 * leave the registers and the first cache line, and returns how many multiply-adds (or register
 * operations) that was. No kernel of the same operations can be faster; how near one comes is its
 * share of the ceiling. `read_bytes` is the same for memory: it loads everything and adds next to
 * nothing. The benchmark compiles this file when it runs; the package does without. */
#include <string.h>

#include "lanes.h"
#include "paths.h"

enum ceiling { XNOR, POPCOUNT, LOGIC, FMA, INT8 };

#if ONEBIT_NEON
#define HOLD(x) __asm__("" : "+w"(x))
#else
#define HOLD(x) IN_REGISTER(x)
#endif
#define HOLD_WORD(x) __asm__("" : "+r"(x))

/* What a loop computed has to look needed, or the optimiser drops the loop. */
static uint64_t sink;

/* Makes the optimiser believe that what p points to may have changed: it loads again. */
#define FORGET(p) __asm__ volatile("" : "+r"(p) : : "memory")

static const uint64_t operands[8] = {0x0123456789abcdef, 0x2fdb97531eca8640, 3, 5, 7, 11, 13, 17};

/* ---- one-bit multiply-adds, with the operations of each path of xnor_popcount.c ------------------ */

static int64_t xnor_scalar(int64_t rounds) {
    uint64_t sums[4] = {0};
    const uint64_t *a = operands;
    for (int64_t i = 0; i < rounds; i++) {
        FORGET(a);
        UNROLL for (int r = 0; r < 4; r++) {
            uint64_t x = a[r] ^ a[4];
#if WORD_POPCOUNT
            sums[r] += (uint64_t)__builtin_popcountll(x);
#else
            x -= x >> 1 & 0x5555555555555555;
            x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
            x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
            sums[r] += x * 0x0101010101010101 >> 56;
#endif
            HOLD_WORD(sums[r]);
        }
    }
    sink = sums[0] + sums[1] + sums[2] + sums[3];
    return rounds * 4 * 64;
}

#if ONEBIT_X86
TARGET("popcnt") static int64_t xnor_popcnt(int64_t rounds) {
    uint64_t sums[8] = {0};
    uint64_t b = operands[1];
    const uint64_t *a = operands;
    for (int64_t i = 0; i < rounds; i++) {
        FORGET(a);
        UNROLL for (int r = 0; r < 8; r++) {
            sums[r] += (uint64_t)__builtin_popcountll(a[r] ^ b);
            HOLD_WORD(sums[r]);
        }
    }
    UNROLL for (int r = 0; r < 8; r++) sink += sums[r];
    return rounds * 8 * 64;
}

#define AVX2 TARGET("avx2,fma,popcnt")
AVX2 static ALWAYS_INLINE void carry_save(__m256i *carry, __m256i *sum, __m256i b, __m256i c) {
    __m256i u = _mm256_xor_si256(*sum, b);
    *carry = _mm256_or_si256(_mm256_and_si256(*sum, b), _mm256_and_si256(u, c));
    *sum = _mm256_xor_si256(u, c);
}

AVX2 static int64_t xnor_avx2(int64_t rounds) {
    const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1,
                                            1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15), b = _mm256_set1_epi32((int)load32(operands + 1));
    __m256i ones = nibble, twos = nibble, fours = nibble, eights = nibble;
    const char *a = (const char *)operands;
#define DIFFER(w) _mm256_xor_si256(_mm256_set1_epi32((int)load32(a + 4 * (w))), b)
    for (int64_t i = 0; i < rounds; i++) {
        __m256i twos_a, twos_b, fours_a, fours_b, carry;
        FORGET(a);
        carry_save(&twos_a, &ones, DIFFER(0), DIFFER(1));
        carry_save(&twos_b, &ones, DIFFER(2), DIFFER(3));
        carry_save(&fours_a, &twos, twos_a, twos_b);
        carry_save(&twos_a, &ones, DIFFER(4), DIFFER(5));
        carry_save(&twos_b, &ones, DIFFER(6), DIFFER(7));
        carry_save(&fours_b, &twos, twos_a, twos_b);
        carry_save(&carry, &fours, fours_a, fours_b);
        __m256i low = _mm256_and_si256(carry, nibble);
        __m256i high = _mm256_and_si256(_mm256_srli_epi32(carry, 4), nibble);
        eights = _mm256_add_epi8(eights, _mm256_add_epi8(_mm256_shuffle_epi8(counts, low),
                                                         _mm256_shuffle_epi8(counts, high)));
    }
#undef DIFFER
    __m256i all = _mm256_xor_si256(_mm256_xor_si256(ones, twos), _mm256_xor_si256(fours, eights));
    sink = (uint64_t)_mm256_extract_epi64(all, 0);
    return rounds * 8 * 256;
}

#define AVX512 TARGET("avx512f,avx512bw,avx512vl,avx512vpopcntdq")
AVX512 static ALWAYS_INLINE uint64_t any_lane(__m512i x) {
    return (uint64_t)_mm512_reduce_or_epi64(x);
}

/* Two words for five operations; the operands of A come by broadcast, which costs a load port and
 * no arithmetic one, as in the kernel. */
AVX512 static int64_t xnor_avx512(int64_t rounds) {
    enum { ROWS = 8, XOR3 = 0x96, SECOND_IS_NOT_IF_FIRST_ELSE_THIRD = 0x3a };
    __m512i s[ROWS], d[ROWS];
    __m512i b0 = _mm512_set1_epi64(0x5bd1e995), b1 = _mm512_set1_epi64(0x1b873593);
    const char *a = (const char *)operands;
    UNROLL for (int r = 0; r < ROWS; r++) {
        s[r] = d[r] = _mm512_setzero_si512();
        HOLD(s[r]);
        HOLD(d[r]);
    }
    HOLD(b0);
    HOLD(b1);
    for (int64_t i = 0; i < rounds; i++) {
        FORGET(a);
        UNROLL for (int r = 0; r < ROWS; r++) {
            __m512i u = _mm512_set1_epi32((int)load32(a + 8 * r));
            __m512i sum = _mm512_set1_epi32((int)load32(a + 8 * r + 4));
            u = _mm512_ternarylogic_epi32(u, s[r], b0, XOR3);
            sum = _mm512_ternarylogic_epi32(sum, u, b1, XOR3);
            u = _mm512_ternarylogic_epi32(u, sum, s[r], SECOND_IS_NOT_IF_FIRST_ELSE_THIRD);
            d[r] = _mm512_add_epi32(d[r], _mm512_popcnt_epi32(u));
            s[r] = sum;
            HOLD(s[r]);
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++) sink += any_lane(_mm512_xor_si512(s[r], d[r]));
    return rounds * ROWS * 2 * 512;
}
#endif

#if ONEBIT_NEON
static int64_t xnor_neon(int64_t rounds) {
    uint8x16_t d[8];
    uint32x4_t b = vdupq_n_u32(load32(operands + 1));
    const char *a = (const char *)operands;
    UNROLL for (int r = 0; r < 8; r++) d[r] = vdupq_n_u8(0);
    for (int64_t i = 0; i < rounds; i++) {
        FORGET(a);
        UNROLL for (int r = 0; r < 8; r++) {
            uint32x4_t x = veorq_u32(vdupq_n_u32(load32(a + 8 * r)), b);
            d[r] = vaddq_u8(d[r], vcntq_u8(vreinterpretq_u8_u32(x)));
            HOLD(d[r]);
        }
    }
    UNROLL for (int r = 0; r < 8; r++) sink += vaddvq_u8(d[r]);
    return rounds * 8 * 128;
}
#endif

/* ---- single instructions, on the registers of the path ------------------------------------------- */

/* Twelve independent values, so that none has to wait for itself. */
enum { CHAINS = 12 };
#define REPEAT(TARGETS, NAME, TYPE, START, STEP, FIRST_BITS, PER_STEP)                             \
    TARGETS static int64_t NAME(int64_t rounds) {                                                  \
        TYPE x[CHAINS], c = START;                                                                 \
        HOLD(c);                                                                                   \
        UNROLL for (int r = 0; r < CHAINS; r++) x[r] = START;                                      \
        for (int64_t i = 0; i < rounds; i++) UNROLL for (int r = 0; r < CHAINS; r++) {             \
            x[r] = STEP;                                                                           \
            HOLD(x[r]);                                                                            \
        }                                                                                          \
        UNROLL for (int r = 0; r < CHAINS; r++) sink += (uint64_t)(FIRST_BITS);                    \
        return rounds * CHAINS * PER_STEP;                                                         \
    }

#if ONEBIT_X86
#define AVX512_VNNI TARGET("avx512f,avx512bw,avx512vl,avx512vnni")
#define FIRST(x) _mm_cvtsi128_si64(x)
REPEAT(AVX512, popcount_avx512, __m512i, _mm512_set1_epi8(1), _mm512_popcnt_epi32(x[r]),
       FIRST(_mm512_castsi512_si128(x[r])), 512)
REPEAT(AVX512, logic_avx512, __m512i, _mm512_set1_epi8(1),
       _mm512_ternarylogic_epi32(x[r], c, c, 0x96), FIRST(_mm512_castsi512_si128(x[r])), 512)
REPEAT(AVX512, fma_avx512, __m512, _mm512_set1_ps(0.5f), _mm512_fmadd_ps(x[r], c, c),
       _mm512_cvtss_f32(x[r]), 16)
REPEAT(AVX512_VNNI, int8_avx512, __m512i, _mm512_set1_epi8(1), _mm512_dpbusd_epi32(x[r], c, c),
       FIRST(_mm512_castsi512_si128(x[r])), 64)
REPEAT(AVX2, logic_avx2, __m256i, _mm256_set1_epi8(1), _mm256_xor_si256(x[r], c),
       FIRST(_mm256_castsi256_si128(x[r])), 256)
REPEAT(AVX2, fma_avx2, __m256, _mm256_set1_ps(0.5f), _mm256_fmadd_ps(x[r], c, c),
       _mm256_cvtss_f32(x[r]), 8)
REPEAT(AVX2, int8_avx2, __m256i, _mm256_set1_epi8(1),
       _mm256_add_epi16(x[r], _mm256_maddubs_epi16(c, x[r])),
       FIRST(_mm256_castsi256_si128(x[r])), 32)

TARGET("popcnt") static int64_t popcount_word(int64_t rounds) {
    uint64_t x[8];
    UNROLL for (int r = 0; r < 8; r++) x[r] = operands[r];
    for (int64_t i = 0; i < rounds; i++) UNROLL for (int r = 0; r < 8; r++) {
        x[r] = (uint64_t)__builtin_popcountll(x[r]);
        HOLD_WORD(x[r]);
    }
    UNROLL for (int r = 0; r < 8; r++) sink += x[r];
    return rounds * 8 * 64;
}
#endif
#if ONEBIT_NEON
REPEAT(, popcount_neon, uint8x16_t, vdupq_n_u8(1), vcntq_u8(x[r]), vaddvq_u8(x[r]), 128)
REPEAT(, logic_neon, uint8x16_t, vdupq_n_u8(1), veorq_u8(x[r], c), vaddvq_u8(x[r]), 128)
REPEAT(, fma_neon, float32x4_t, vdupq_n_f32(0.5f), vfmaq_f32(c, x[r], c),
       vgetq_lane_f32(x[r], 0), 4)
#endif

/* Runs one loop and returns how many one-bit multiply-adds (XNOR), bits counted (POPCOUNT), bits
 * combined (LOGIC) or multiply-adds (FMA, INT8) it did; 0 if the path has no such instruction. The
 * machine has to support the path. */
int64_t onebit_ceiling(int ceiling, int path, int64_t rounds) {
    static int64_t (*const loops[][INT8 + 1])(int64_t) = {
        [PATH_SCALAR] = {[XNOR] = xnor_scalar},
#if ONEBIT_X86
        [PATH_POPCNT] = {[XNOR] = xnor_popcnt, [POPCOUNT] = popcount_word},
        [PATH_AVX2] = {xnor_avx2, popcount_word, logic_avx2, fma_avx2, int8_avx2},
        [PATH_AVX512] = {xnor_avx512, popcount_avx512, logic_avx512, fma_avx512, int8_avx512},
#endif
#if ONEBIT_NEON
        [PATH_NEON] = {xnor_neon, popcount_neon, logic_neon, fma_neon},
#endif
    };
#if ONEBIT_X86
    if (path == PATH_AVX2 && ceiling == FMA && !__builtin_cpu_supports("fma")) return 0;
#endif
    int64_t (*loop)(int64_t) = loops[path][ceiling];
    return loop ? loop(rounds) : 0;
}

/* ---- memory -------------------------------------------------------------------------------------- */

#if ONEBIT_X86
AVX512 static void read_avx512(const char *p, int64_t bytes) {
    __m512i x[8];
    UNROLL for (int r = 0; r < 8; r++) x[r] = _mm512_setzero_si512();
    for (; bytes >= 512; bytes -= 512, p += 512) UNROLL for (int r = 0; r < 8; r++)
            x[r] = _mm512_or_si512(x[r], _mm512_loadu_si512(p + 64 * r));
    UNROLL for (int r = 1; r < 8; r++) x[0] = _mm512_or_si512(x[0], x[r]);
    sink = any_lane(x[0]);
}

AVX2 static void read_avx2(const char *p, int64_t bytes) {
    __m256i x[8];
    UNROLL for (int r = 0; r < 8; r++) x[r] = _mm256_setzero_si256();
    for (; bytes >= 256; bytes -= 256, p += 256) UNROLL for (int r = 0; r < 8; r++)
            x[r] = _mm256_or_si256(x[r], _mm256_loadu_si256((const __m256i *)(p + 32 * r)));
    UNROLL for (int r = 1; r < 8; r++) x[0] = _mm256_or_si256(x[0], x[r]);
    sink = (uint64_t)FIRST(_mm256_castsi256_si128(x[0]));
}
#endif

/* A loop that compilers turn into vector code of the baseline. */
static void read_words(const char *p, int64_t bytes) {
    uint64_t x[8] = {0};
    for (; bytes >= 64; bytes -= 64, p += 64)
        for (int r = 0; r < 8; r++) {
            uint64_t v;
            memcpy(&v, p + 8 * r, sizeof v);
            x[r] |= v;
        }
    UNROLL for (int r = 0; r < 8; r++) sink += x[r];
}

/* Loads every byte of p: `bytes` is a multiple of 512. */
void onebit_read(int path, const void *p, int64_t bytes) {
#if ONEBIT_X86
    if (path == PATH_AVX512) {
        read_avx512(p, bytes);
        return;
    }
    if (path == PATH_AVX2) {
        read_avx2(p, bytes);
        return;
    }
#endif
    (void)path;
    read_words(p, bytes);
}

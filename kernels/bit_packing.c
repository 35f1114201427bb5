/* Signs into bits and back: element i of a row is bit i % 64 of word i / 64, 1 for x >= 0.
 *
 * A float is judged by its bit pattern, read as an integer: the top bit is the sign, the rest the
 * magnitude. -0.0 is the one pattern with the sign set that still counts as +1, and a NaN is any
 * magnitude above that of infinity. So every float format takes the same three comparisons, and
 * bfloat16 and float16 need no hardware that knows them.
 *
 * Packing reads 32 bytes or fewer for a bit and computes next to nothing: memory is its ceiling.
 * AVX-512 compares straight into mask registers, AVX2 collects sign bits with MOVMSK. */
#include <string.h>

#include "lanes.h"
#include "paths.h"
#include "xnor_popcount.h"

/* ---- portable: one function for each element type, `count` <= 64 elements into a word ------------ */

typedef uint64_t pack_word(const void *x, int64_t count, int *nan);

#define PACK_FLOAT(NAME, UNSIGNED, SIGN_BIT, INFINITY_BITS)                                        \
    static inline uint64_t NAME(const void *x, int64_t count, int *nan) {                          \
        uint64_t word = 0;                                                                         \
        for (int64_t i = 0; i < count; i++) {                                                      \
            UNSIGNED v;                                                                            \
            memcpy(&v, (const char *)x + i * (int64_t)sizeof v, sizeof v);                         \
            UNSIGNED magnitude = v & (UNSIGNED)~((UNSIGNED)1 << (SIGN_BIT));                       \
            *nan |= magnitude > (INFINITY_BITS);                                                   \
            word |= (uint64_t)(v >> (SIGN_BIT) == 0 || magnitude == 0) << i;                       \
        }                                                                                          \
        return word;                                                                               \
    }
PACK_FLOAT(pack_f16, uint16_t, 15, 0x7c00)
PACK_FLOAT(pack_bf16, uint16_t, 15, 0x7f80)
PACK_FLOAT(pack_f32, uint32_t, 31, 0x7f800000)
PACK_FLOAT(pack_f64, uint64_t, 63, 0x7ff0000000000000)

#define PACK_INTEGER(NAME, TYPE, IS_PLUS)                                                          \
    static inline uint64_t NAME(const void *x, int64_t count, int *nan) {                          \
        uint64_t word = 0;                                                                         \
        (void)nan;                                                                                 \
        for (int64_t i = 0; i < count; i++) {                                                      \
            TYPE v;                                                                                \
            memcpy(&v, (const char *)x + i * (int64_t)sizeof v, sizeof v);                         \
            word |= (uint64_t)(v IS_PLUS) << i;                                                    \
        }                                                                                          \
        return word;                                                                               \
    }
PACK_INTEGER(pack_i8, int8_t, >= 0)
PACK_INTEGER(pack_i16, int16_t, >= 0)
PACK_INTEGER(pack_i32, int32_t, >= 0)
PACK_INTEGER(pack_i64, int64_t, >= 0)
PACK_INTEGER(pack_bool, uint8_t, != 0)

/* ---- avx2 and avx512: whole words of the types that matter most --------------------------------- */
#if ONEBIT_X86
#define AVX2 TARGET("avx2")
#define AVX512 TARGET("avx512f,avx512bw,avx512vl")

AVX2 static inline uint64_t pack_f32_avx2(const void *x, int64_t count, int *nan) {
    const float *v = x;
    const __m256 zero = _mm256_setzero_ps();
    __m256 unordered = zero;
    uint64_t word = 0;
    (void)count;
    UNROLL for (int i = 0; i < 8; i++) {
        __m256 eight = _mm256_loadu_ps(v + 8 * i);
        unordered = _mm256_or_ps(unordered, _mm256_cmp_ps(eight, eight, _CMP_UNORD_Q));
        __m256 plus = _mm256_cmp_ps(eight, zero, _CMP_GE_OQ);
        word |= (uint64_t)(uint32_t)_mm256_movemask_ps(plus) << (8 * i);
    }
    *nan |= _mm256_movemask_ps(unordered) != 0;
    return word;
}

AVX2 static inline uint64_t pack_f64_avx2(const void *x, int64_t count, int *nan) {
    const double *v = x;
    const __m256d zero = _mm256_setzero_pd();
    __m256d unordered = zero;
    uint64_t word = 0;
    (void)count;
    UNROLL for (int i = 0; i < 16; i++) {
        __m256d four = _mm256_loadu_pd(v + 4 * i);
        unordered = _mm256_or_pd(unordered, _mm256_cmp_pd(four, four, _CMP_UNORD_Q));
        __m256d plus = _mm256_cmp_pd(four, zero, _CMP_GE_OQ);
        word |= (uint64_t)(uint32_t)_mm256_movemask_pd(plus) << (4 * i);
    }
    *nan |= _mm256_movemask_pd(unordered) != 0;
    return word;
}

AVX2 static inline uint64_t pack_i8_avx2(const void *x, int64_t count, int *nan) {
    (void)count, (void)nan;
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_loadu_si256(x));
    uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_loadu_si256((const __m256i *)x + 1));
    return ~(low | (uint64_t)high << 32);
}

AVX2 static inline uint64_t pack_bool_avx2(const void *x, int64_t count, int *nan) {
    (void)count, (void)nan;
    const __m256i zero = _mm256_setzero_si256(), *v = x;
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256(v), zero));
    uint32_t high =
        (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256(v + 1), zero));
    return ~(low | (uint64_t)high << 32);
}

/* Minus are the negative patterns but that of -0.0. PACKS halves 16 bits to 8 and keeps the sign, but
 * works within 128-bit halves, which the permutation sets right. */
AVX2 static inline uint64_t pack_16_avx2(const void *x, int *nan, int16_t infinity) {
    uint64_t word = 0;
    __m256i nans = _mm256_setzero_si256();
    UNROLL for (int i = 0; i < 2; i++) {
        __m256i minus[2];
        UNROLL for (int j = 0; j < 2; j++) {
            __m256i v = _mm256_loadu_si256((const __m256i *)x + 2 * i + j);
            __m256i magnitude = _mm256_and_si256(v, _mm256_set1_epi16(0x7fff));
            __m256i minus_zero = _mm256_cmpeq_epi16(v, _mm256_set1_epi16(INT16_MIN));
            nans = _mm256_or_si256(nans,
                                   _mm256_cmpgt_epi16(magnitude, _mm256_set1_epi16(infinity)));
            minus[j] = _mm256_andnot_si256(minus_zero, v);
        }
        __m256i bytes = _mm256_packs_epi16(minus[0], minus[1]);
        bytes = _mm256_permute4x64_epi64(bytes, 0xd8);
        word |= (uint64_t)(uint32_t)~_mm256_movemask_epi8(bytes) << (32 * i);
    }
    *nan |= _mm256_movemask_epi8(nans) != 0;
    return word;
}

AVX2 static inline uint64_t pack_f16_avx2(const void *x, int64_t count, int *nan) {
    (void)count;
    return pack_16_avx2(x, nan, 0x7c00);
}

AVX2 static inline uint64_t pack_bf16_avx2(const void *x, int64_t count, int *nan) {
    (void)count;
    return pack_16_avx2(x, nan, 0x7f80);
}

AVX512 static inline uint64_t pack_f32_avx512(const void *x, int64_t count, int *nan) {
    const float *v = x;
    const __m512 zero = _mm512_setzero_ps();
    uint64_t word = 0;
    (void)count;
    UNROLL for (int i = 0; i < 4; i += 2) {
        __m512 a = _mm512_loadu_ps(v + 16 * i), b = _mm512_loadu_ps(v + 16 * i + 16);
        *nan |= _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q); /* a NaN in either */
        uint64_t plus_a = _mm512_cmp_ps_mask(a, zero, _CMP_GE_OQ);
        uint64_t plus_b = _mm512_cmp_ps_mask(b, zero, _CMP_GE_OQ);
        word |= (plus_a | plus_b << 16) << (16 * i);
    }
    return word;
}

AVX512 static inline uint64_t pack_f64_avx512(const void *x, int64_t count, int *nan) {
    const double *v = x;
    const __m512d zero = _mm512_setzero_pd();
    uint64_t word = 0;
    (void)count;
    UNROLL for (int i = 0; i < 8; i += 2) {
        __m512d a = _mm512_loadu_pd(v + 8 * i), b = _mm512_loadu_pd(v + 8 * i + 8);
        *nan |= _mm512_cmp_pd_mask(a, b, _CMP_UNORD_Q);
        uint64_t plus_a = _mm512_cmp_pd_mask(a, zero, _CMP_GE_OQ);
        uint64_t plus_b = _mm512_cmp_pd_mask(b, zero, _CMP_GE_OQ);
        word |= (plus_a | plus_b << 8) << (8 * i);
    }
    return word;
}

AVX512 static inline uint64_t pack_16_avx512(const void *x, int *nan, int16_t infinity) {
    uint64_t word = 0;
    UNROLL for (int i = 0; i < 2; i++) {
        __m512i v = _mm512_loadu_si512((const char *)x + 64 * i);
        __m512i magnitude = _mm512_and_si512(v, _mm512_set1_epi16(0x7fff));
        *nan |= _mm512_cmpgt_epi16_mask(magnitude, _mm512_set1_epi16(infinity)) != 0;
        uint64_t plus = (uint32_t)~_mm512_movepi16_mask(v);
        word |= (plus | _mm512_testn_epi16_mask(magnitude, magnitude)) << (32 * i);
    }
    return word;
}

AVX512 static inline uint64_t pack_f16_avx512(const void *x, int64_t count, int *nan) {
    (void)count;
    return pack_16_avx512(x, nan, 0x7c00);
}

AVX512 static inline uint64_t pack_bf16_avx512(const void *x, int64_t count, int *nan) {
    (void)count;
    return pack_16_avx512(x, nan, 0x7f80);
}

AVX512 static inline uint64_t pack_i8_avx512(const void *x, int64_t count, int *nan) {
    (void)count, (void)nan;
    return ~_mm512_movepi8_mask(_mm512_loadu_si512(x));
}

AVX512 static inline uint64_t pack_bool_avx512(const void *x, int64_t count, int *nan) {
    (void)count, (void)nan;
    __m512i v = _mm512_loadu_si512(x);
    return _mm512_test_epi8_mask(v, v);
}
#endif /* ONEBIT_X86 */

/* ---- rows ---------------------------------------------------------------------------------------- */

/* Hardware prefetchers stop at the end of a page, so the loop asks for what it will read two pages
 * on. That takes packing from four fifths of the bandwidth of a plain read to all of it. The address
 * may lie past x, where prefetching does nothing. */
enum { LINE = 64, AHEAD = 8192 };
static ALWAYS_INLINE void prefetch(const char *x, const int lines) {
    for (int i = 0; i < lines; i++)
        __builtin_prefetch((const void *)((uintptr_t)x + AHEAD + (uintptr_t)i * LINE));
}

/* Whole words by WHOLE, the tail of each row by PART, which looks at `count` elements only. */
#define PACK_ROWS(NAME, ATTRIBUTES, WHOLE, PART, SIZE)                                             \
    ATTRIBUTES static int NAME(const char *x, int64_t rows, int64_t k, uint64_t *words) {          \
        int nan = 0;                                                                               \
        for (int64_t i = 0; i < rows; i++) {                                                       \
            int64_t j = 0;                                                                         \
            for (; j + 64 <= k; j += 64, x += 64 * (SIZE)) {                                       \
                prefetch(x, (SIZE));                                                               \
                *words++ = WHOLE(x, 64, &nan);                                                     \
            }                                                                                      \
            if (j < k) *words++ = PART(x, k - j, &nan), x += (k - j) * (SIZE);                     \
        }                                                                                          \
        return nan != 0;                                                                           \
    }
PACK_ROWS(rows_f16, , pack_f16, pack_f16, 2)
PACK_ROWS(rows_bf16, , pack_bf16, pack_bf16, 2)
PACK_ROWS(rows_f32, , pack_f32, pack_f32, 4)
PACK_ROWS(rows_f64, , pack_f64, pack_f64, 8)
PACK_ROWS(rows_i8, , pack_i8, pack_i8, 1)
PACK_ROWS(rows_i16, , pack_i16, pack_i16, 2)
PACK_ROWS(rows_i32, , pack_i32, pack_i32, 4)
PACK_ROWS(rows_i64, , pack_i64, pack_i64, 8)
PACK_ROWS(rows_bool, , pack_bool, pack_bool, 1)
#if ONEBIT_X86
PACK_ROWS(rows_f16_avx2, AVX2, pack_f16_avx2, pack_f16, 2)
PACK_ROWS(rows_bf16_avx2, AVX2, pack_bf16_avx2, pack_bf16, 2)
PACK_ROWS(rows_f32_avx2, AVX2, pack_f32_avx2, pack_f32, 4)
PACK_ROWS(rows_f64_avx2, AVX2, pack_f64_avx2, pack_f64, 8)
PACK_ROWS(rows_i8_avx2, AVX2, pack_i8_avx2, pack_i8, 1)
PACK_ROWS(rows_bool_avx2, AVX2, pack_bool_avx2, pack_bool, 1)
PACK_ROWS(rows_f16_avx512, AVX512, pack_f16_avx512, pack_f16, 2)
PACK_ROWS(rows_bf16_avx512, AVX512, pack_bf16_avx512, pack_bf16, 2)
PACK_ROWS(rows_f32_avx512, AVX512, pack_f32_avx512, pack_f32, 4)
PACK_ROWS(rows_f64_avx512, AVX512, pack_f64_avx512, pack_f64, 8)
PACK_ROWS(rows_i8_avx512, AVX512, pack_i8_avx512, pack_i8, 1)
PACK_ROWS(rows_bool_avx512, AVX512, pack_bool_avx512, pack_bool, 1)
#endif

typedef int pack_rows(const char *x, int64_t rows, int64_t k, uint64_t *words);

static pack_rows *packer(int path, int dtype) {
#if ONEBIT_X86
    if (path == PATH_AVX512) switch (dtype) {
        case ONEBIT_F16: return rows_f16_avx512;
        case ONEBIT_BF16: return rows_bf16_avx512;
        case ONEBIT_F32: return rows_f32_avx512;
        case ONEBIT_F64: return rows_f64_avx512;
        case ONEBIT_I8: return rows_i8_avx512;
        case ONEBIT_BOOL: return rows_bool_avx512;
        }
    if (path == PATH_AVX2) switch (dtype) {
        case ONEBIT_F16: return rows_f16_avx2;
        case ONEBIT_BF16: return rows_bf16_avx2;
        case ONEBIT_F32: return rows_f32_avx2;
        case ONEBIT_F64: return rows_f64_avx2;
        case ONEBIT_I8: return rows_i8_avx2;
        case ONEBIT_BOOL: return rows_bool_avx2;
        }
#elif ONEBIT_WASM
    if (path == PATH_SIMD128 && dtype == ONEBIT_F32) return onebit_pack_rows_simd128;
#else
    (void)path;
#endif
    static pack_rows *const portable[] = {
        [ONEBIT_F16] = rows_f16, [ONEBIT_BF16] = rows_bf16, [ONEBIT_F32] = rows_f32,
        [ONEBIT_F64] = rows_f64, [ONEBIT_I8] = rows_i8,     [ONEBIT_I16] = rows_i16,
        [ONEBIT_I32] = rows_i32, [ONEBIT_I64] = rows_i64,   [ONEBIT_BOOL] = rows_bool,
    };
    return portable[dtype];
}

int onebit_pack_signs(int path, int dtype, const void *x, int64_t rows, int64_t k,
                      uint64_t *words) {
    return packer(path, dtype)(x, rows, k, words);
}

/* ---- back to signs ------------------------------------------------------------------------------- */

#define EACH_BYTE 0x0101010101010101ull

/* Eight bits become eight bytes of +1 or -1 in six operations on one word: copy the byte to all
 * eight, keep bit i in byte i, turn what is left into 0 or 1, and fill the zeros with ones. */
static inline uint64_t eight_signs(uint64_t byte) {
    uint64_t own_bit = byte * EACH_BYTE & 0x8040201008040201ull;
    uint64_t plus = (own_bit + 0x7f * EACH_BYTE) >> 7 & EACH_BYTE;
    return plus | (plus ^ EACH_BYTE) * 0xff;
}

static void unpack_portable(const uint64_t *words, int64_t rows, int64_t k, int8_t *x) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < k; j += 64, words++)
            for (int64_t l = 0, count = at_most(64, k - j); l < count; l += 8) {
                uint64_t signs = eight_signs(*words >> l & 0xff);
                memcpy(x, &signs, (size_t)at_most(8, count - l));
                x += at_most(8, count - l);
            }
}

#if ONEBIT_X86
/* 32 bits are copied to every lane, byte i / 8 is drawn to place i, and bit i % 8 tested there. */
AVX2 static void unpack_avx2(const uint64_t *words, int64_t rows, int64_t k, int8_t *x) {
    const __m256i byte_of = _mm256_setr_epi64x(0, EACH_BYTE, 2 * EACH_BYTE, 3 * EACH_BYTE);
    const __m256i bit_of = _mm256_set1_epi64x((int64_t)0x8040201008040201ull);
    const __m256i one = _mm256_set1_epi8(1);
    for (int64_t i = 0; i < rows; i++, words += (k + 63) / 64) {
        int64_t j = 0;
        for (; j + 32 <= k; j += 32, x += 32) {
            __m256i bits = _mm256_set1_epi32((int)(uint32_t)(words[j / 64] >> (j % 64)));
            bits = _mm256_and_si256(_mm256_shuffle_epi8(bits, byte_of), bit_of);
            __m256i plus = _mm256_cmpeq_epi8(bits, bit_of); /* -1 or 0 */
            __m256i minus = _mm256_xor_si256(plus, _mm256_set1_epi8(-1));
            _mm256_storeu_si256((__m256i *)x, _mm256_or_si256(minus, one));
        }
        uint64_t rest = j < k ? words[j / 64] >> (j % 64) : 0;
        for (; j < k; j++, rest >>= 1) *x++ = rest & 1 ? 1 : -1;
    }
}

AVX512 static void unpack_avx512(const uint64_t *words, int64_t rows, int64_t k, int8_t *x) {
    const __m512i minus = _mm512_set1_epi8(-1), plus = _mm512_set1_epi8(1);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < k; j += 64, words++) {
            int64_t count = at_most(64, k - j);
            __m512i signs = _mm512_mask_blend_epi8(*words, minus, plus);
            _mm512_mask_storeu_epi8(x, ~0ull >> (64 - count), signs);
            x += count;
        }
}
#endif

void onebit_unpack_signs(int path, const uint64_t *words, int64_t rows, int64_t k, int8_t *x) {
    switch (path) {
#if ONEBIT_X86
    case PATH_AVX512: unpack_avx512(words, rows, k, x); break;
    case PATH_AVX2: unpack_avx2(words, rows, k, x); break;
#endif
    default: unpack_portable(words, rows, k, x);
    }
}

/* ---- ternary codes: 2 bits each, two's complement, 32 to a word ----------------------------------- */

/* Eight codes to a 64-bit word of bytes and back: fields of 2 bits close up, or move apart, in
 * three steps that each halve or double the gaps. */

static inline uint64_t close_up(uint64_t bytes) {
    uint64_t v = bytes & 3 * EACH_BYTE;
    v = (v | v >> 6) & 0x000f000f000f000full;
    v = (v | v >> 12) & 0x000000ff000000ffull;
    return (v | v >> 24) & 0xffff;
}

static inline uint64_t move_apart(uint64_t v) {
    v = (v | v << 24) & 0x000000ff000000ffull;
    v = (v | v << 12) & 0x000f000f000f000full;
    return (v | v << 6) & 3 * EACH_BYTE;
}

/* Nonzero if a byte is none of -1, 0, 1: one more, without carries between bytes, must be 0 to 2. */
static inline uint64_t not_ternary(uint64_t bytes) {
    uint64_t more = ((bytes & 0x7f * EACH_BYTE) + EACH_BYTE) ^ (bytes & 0x80 * EACH_BYTE);
    return (more & 0xfc * EACH_BYTE) | (more & more >> 1 & EACH_BYTE);
}

int onebit_pack_ternary(const int8_t *x, int64_t rows, int64_t k, uint64_t *words) {
    uint64_t wrong = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < k; j += 32) {
            uint64_t word = 0;
            for (int64_t l = 0, count = at_most(32, k - j); l < count; l += 8) {
                uint64_t bytes = 0;
                memcpy(&bytes, x, (size_t)at_most(8, count - l));
                x += at_most(8, count - l);
                wrong |= not_ternary(bytes);
                word |= close_up(bytes) << (2 * l);
            }
            *words++ = word;
        }
    return wrong != 0;
}

int onebit_unpack_ternary(const uint64_t *words, int64_t rows, int64_t k, int8_t *x) {
    uint64_t wrong = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < k; j += 32, words++)
            for (int64_t l = 0, count = at_most(32, k - j); l < count; l += 8) {
                uint64_t known = ~0ull >> (64 - 8 * at_most(8, count - l));
                uint64_t codes = move_apart(*words >> (2 * l) & 0xffff) & known;
                uint64_t negative = codes >> 1 & EACH_BYTE;
                wrong |= negative & ~codes; /* 10 */
                codes |= negative * 0xfe;   /* 11 becomes -1 */
                memcpy(x, &codes, (size_t)at_most(8, count - l));
                x += at_most(8, count - l);
            }
    return wrong != 0;
}

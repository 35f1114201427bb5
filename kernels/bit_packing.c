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

#include "paths.h"
#include "xnor_popcount.h"

static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

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

/* Whole words by WHOLE, the tail of each row by PART, which looks at `count` elements only. */
#define PACK_ROWS(NAME, ATTRIBUTES, WHOLE, PART, SIZE)                                             \
    ATTRIBUTES static int NAME(const char *x, int64_t rows, int64_t k, uint64_t *words) {          \
        int nan = 0;                                                                               \
        for (int64_t i = 0; i < rows; i++) {                                                       \
            int64_t j = 0;                                                                         \
            for (; j + 64 <= k; j += 64, x += 64 * (SIZE)) *words++ = WHOLE(x, 64, &nan);          \
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
    if (path >= PATH_AVX2) switch (dtype) {
        case ONEBIT_F32: return rows_f32_avx2;
        case ONEBIT_F64: return rows_f64_avx2;
        case ONEBIT_I8: return rows_i8_avx2;
        case ONEBIT_BOOL: return rows_bool_avx2;
        }
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

static void unpack_portable(const uint64_t *words, int64_t rows, int64_t k, int8_t *x) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < k; j += 64, words++)
            for (int64_t l = 0; l < at_most(64, k - j); l++)
                *x++ = (int8_t)(2 * (int)(*words >> l & 1) - 1);
}

#if ONEBIT_X86
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
#if ONEBIT_X86
    if (path == PATH_AVX512) {
        unpack_avx512(words, rows, k, x);
        return;
    }
#else
    (void)path;
#endif
    unpack_portable(words, rows, k, x);
}

/* ---- ternary codes: 2 bits each, two's complement, 32 to a word ----------------------------------- */

int onebit_pack_ternary(const int8_t *x, int64_t rows, int64_t k, uint64_t *words) {
    int wrong = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < k; j += 32) {
            uint64_t word = 0;
            for (int64_t l = 0; l < at_most(32, k - j); l++, x++) {
                wrong |= *x < -1 || *x > 1;
                word |= (uint64_t)(*x & 3) << (2 * l);
            }
            *words++ = word;
        }
    return wrong;
}

int onebit_unpack_ternary(const uint64_t *words, int64_t rows, int64_t k, int8_t *x) {
    int wrong = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < k; j += 32, words++)
            for (int64_t l = 0; l < at_most(32, k - j); l++) {
                int code = (int)(*words >> (2 * l) & 3);
                wrong |= code == 2;
                *x++ = (int8_t)((code ^ 2) - 2); /* sign extension: 3 -> -1 */
            }
    return wrong;
}

/* The signs of images, turned while they are packed: planes of floats go in, words of channels out.
 *
 * THE IDEA. Torch keeps an image as planes, x[channels][places]; a convolution on bits wants the
 * channels of one place in one word. To transpose floats and then pack them reads and writes 32 times
 * the memory of the bits. So lane p of a register stands for place p, and collects a bit from each
 * plane that passes by:
 *
 *     plane 0      x[0][p]  x[0][p+1]  ...           bits[p]  |= x[0][p]   >= 0 ?  1 : 0
 *     plane 1      x[1][p]  x[1][p+1]  ...           bits[p]  |= x[1][p]   >= 0 ?  2 : 0
 *     ...
 *
 * until as many channels have passed as a float has bits: about three operations for a register of
 * floats, in a loop that compilers turn into vector code, and a tenth of the time of a transposition
 * with packing behind it. PLACES at a time, so that `bits` stays in the first-level cache. */
#include "lanes.h"
#include "paths.h"
#include "xnor_popcount.h"

enum { PLACES = 256 };

#define PACK_PLANES(NAME, ATTRIBUTES, FLOAT, UNSIGNED)                                             \
    ATTRIBUTES static int NAME(const FLOAT *x, int64_t channels, int64_t places, char *words) {    \
        enum { BITS = 8 * sizeof(UNSIGNED) };                                                      \
        UNSIGNED nan = 0;                                                                          \
        int64_t stride = ceil_div(channels, 64) * 8;                                               \
        for (int64_t start = 0; start < places; start += PLACES)                                   \
            for (int64_t c = 0; c < channels; c += BITS) {                                         \
                UNSIGNED bits[PLACES] = {0};                                                       \
                int64_t count = at_most(PLACES, places - start);                                   \
                for (int64_t i = 0; i < at_most(BITS, channels - c); i++) {                        \
                    const FLOAT *plane = x + (c + i) * places + start;                             \
                    UNSIGNED bit = (UNSIGNED)1 << i;                                               \
                    for (int64_t p = 0; p < count; p++) {                                          \
                        bits[p] |= plane[p] >= 0 ? bit : 0;                                        \
                        nan |= plane[p] != plane[p];                                               \
                    }                                                                              \
                }                                                                                  \
                for (int64_t p = 0; p < count; p++)                                                \
                    memcpy(words + (start + p) * stride + c / 8, bits + p, sizeof *bits);          \
            }                                                                                      \
        return nan != 0;                                                                           \
    }
PACK_PLANES(planes_f32, , float, uint32_t)
PACK_PLANES(planes_f64, , double, uint64_t)
#if ONEBIT_X86
PACK_PLANES(planes_f32_avx2, TARGET("avx2"), float, uint32_t)
PACK_PLANES(planes_f64_avx2, TARGET("avx2"), double, uint64_t)
PACK_PLANES(planes_f32_avx512, TARGET("avx512f,avx512bw,avx512vl"), float, uint32_t)
PACK_PLANES(planes_f64_avx512, TARGET("avx512f,avx512bw,avx512vl"), double, uint64_t)
#endif

static int pack_planes(int path, int dtype, const void *x, int64_t channels, int64_t places,
                       char *words) {
    switch (path) {
#if ONEBIT_X86
    case PATH_AVX512:
        return dtype == ONEBIT_F64 ? planes_f64_avx512(x, channels, places, words)
                                   : planes_f32_avx512(x, channels, places, words);
    case PATH_AVX2:
        return dtype == ONEBIT_F64 ? planes_f64_avx2(x, channels, places, words)
                                   : planes_f32_avx2(x, channels, places, words);
#endif
    default:
        return dtype == ONEBIT_F64 ? planes_f64(x, channels, places, words)
                                   : planes_f32(x, channels, places, words);
    }
}

int onebit_pack_images(int path, int dtype, const void *x, int64_t samples, int64_t channels,
                       int64_t places, uint64_t *words) {
    int64_t plane_bytes = places * (dtype == ONEBIT_F64 ? 8 : 4);
    int64_t sample_words = places * ceil_div(channels, 64);
    int nan = 0;
    memset(words, 0, (size_t)(samples * sample_words) * sizeof *words);
    for (int64_t i = 0; i < samples; i++)
        nan |= pack_planes(path, dtype, (const char *)x + i * channels * plane_bytes, channels,
                           places, (char *)(words + i * sample_words));
    return nan;
}

/* Which instruction-set paths there are, and which of them this machine can run. */
#include "paths.h"

#include "xnor_popcount.h"

static const char *const names[] = {
    [PATH_SCALAR] = "scalar",
#if ONEBIT_X86
    [PATH_POPCNT] = "popcnt",
    [PATH_AVX2] = "avx2",
    [PATH_AVX512] = "avx512-vpopcntdq",
#endif
#if ONEBIT_NEON
    [PATH_NEON] = "neon",
#endif
#if ONEBIT_WASM
    [PATH_SIMD128] = "simd128",
#endif
};

int onebit_path_count(void) { return PATH_COUNT; }
const char *onebit_path_name(int path) { return names[path]; }

int onebit_path_supported(int path) {
#if ONEBIT_X86
    __builtin_cpu_init();
    switch (path) {
    case PATH_POPCNT:
        return !!__builtin_cpu_supports("popcnt");
    case PATH_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
    case PATH_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vpopcntdq") &&
               __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("popcnt");
    default:
        break;
    }
#endif
    return path >= 0 && path < PATH_COUNT; /* the rest belongs to the baseline */
}

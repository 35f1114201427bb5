/* The instruction-set paths: their numbers, and the words of C that compile a function for one. */
#ifndef ONEBIT_PATHS_H
#define ONEBIT_PATHS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define ONEBIT_X86 1
#include <immintrin.h>
#else
#define ONEBIT_X86 0
#endif

#if defined(__aarch64__) && defined(__ARM_NEON)
#define ONEBIT_NEON 1
#include <arm_neon.h>
#else
#define ONEBIT_NEON 0
#endif

#if defined(__wasm_simd128__)
#define ONEBIT_WASM 1
#else
#define ONEBIT_WASM 0
#endif

/* Where the baseline itself has a popcount, the compiler's builtin is one instruction. */
#if defined(__POPCNT__) || defined(__aarch64__) || defined(__wasm__)
#define WORD_POPCOUNT 1
#else
#define WORD_POPCOUNT 0
#endif

#define TARGET(features) __attribute__((target(features)))
#define ALWAYS_INLINE inline __attribute__((always_inline))
#if defined(__clang__) /* which passes over GCC's word for it in silence */
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* An empty statement that x passes through in a vector register. Optimisers love to compute parts
 * of the next round early, and then have more values alive than there are registers: each goes to
 * memory and back. They do not look through this statement, so x is computed here and stays. */
#define IN_REGISTER(x) __asm__("" : "+v"(x))

enum onebit_path {
    PATH_SCALAR,
#if ONEBIT_X86
    PATH_POPCNT,
    PATH_AVX2,
    PATH_AVX512,
#endif
#if ONEBIT_NEON
    PATH_NEON,
#endif
#if ONEBIT_WASM
    PATH_SIMD128,
#endif
    PATH_COUNT
};

/* m rows of bits against sixteen outputs: what a path computes in one call. */
struct xnor_block {
    const uint64_t *a;
    ptrdiff_t a_stride;
    const uint32_t *lanes;
    int64_t m, k;
    int32_t *out;
    ptrdiff_t out_stride;
    int past_caches; /* write with streaming stores: out is large and starts on cache lines */
};

#if ONEBIT_WASM /* in wasm/, for the race in the page */
void onebit_xnor_simd128(const struct xnor_block *t);
int onebit_pack_rows_simd128(const char *x, int64_t rows, int64_t k, uint64_t *words);
#endif

#endif

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

/* Where the baseline itself has a popcount, the compiler's builtin is one instruction. */
#if defined(__POPCNT__) || defined(__aarch64__) || defined(__wasm__)
#define WORD_POPCOUNT 1
#else
#define WORD_POPCOUNT 0
#endif

#define TARGET(features) __attribute__((target(features)))
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

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

#endif

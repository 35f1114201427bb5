/* Exercises of chapter 4: your own kernel of XNOR and popcount.
 *
 * Write in the copy of this file in exercises/work, in place of each NOT_WRITTEN_YET. Helper
 * functions of your own, more #includes, and calls of functions that you wrote before are welcome.
 *
 * Throughout, element i of a row of k signs stands in word i / 64, in bit i % 64, counted from the
 * lowest; 1 is +1 and 0 is -1. A row takes (k + 63) / 64 words. Matrices lie row by row.
 */

#include <stdint.h>
#include <stdlib.h>

#define NOT_WRITTEN_YET _Exit(77)

/*
 * ch04.1 Count the ones (warm-up, 10 minutes, about 5 lines).
 *
 * Return how many of the 64 bits of the word are 1. Use shifts and masks; the compiler's own
 * __builtin_popcountll is for the last task.
 */
int popcount(uint64_t word)
{
    NOT_WRITTEN_YET;
}

/*
 * ch04.2 Pack signs (easy, 20 minutes, about 6 lines).
 *
 * Write k signs, each -1 or +1, into (k + 63) / 64 words. What was in the words before is garbage,
 * and the tail bits, those of the last word beyond element k - 1, have to be 0.
 */
void pack_signs(const int8_t *signs, int k, uint64_t *words)
{
    NOT_WRITTEN_YET;
}

/*
 * ch04.3 A dot product of signs (medium, 25 minutes, about 9 lines).
 *
 * Return the sum over the k elements of a times b. Tail bits may hold anything, in either row, and
 * must not count. Read no word beyond the (k + 63) / 64 of a row. k is at least 1.
 */
int xnor_dot(const uint64_t *a, const uint64_t *b, int k)
{
    NOT_WRITTEN_YET;
}

/*
 * ch04.4 The matrix product (easy, 15 minutes, about 6 lines).
 *
 * a has m rows and b has n rows of k signs each. Write the product of row i of a and row j of b to
 * out[i * n + j].
 */
void xnor_gemm(const uint64_t *a, const uint64_t *b, int m, int n, int k, int32_t *out)
{
    NOT_WRITTEN_YET;
}

/*
 * ch04.5 From sums to bits (hard, 25 minutes, about 10 lines).
 *
 * The product again, but what comes out is the next layer's input: m rows of (n + 63) / 64 words.
 * Bit j of row i is (sum >= thresholds[j]) xor flips[j], where a flip is 0 or 1. What was in out
 * before is garbage, and tail bits have to be 0.
 */
void xnor_gemm_bits(const uint64_t *a, const uint64_t *b, int m, int n, int k,
                    const int32_t *thresholds, const uint8_t *flips, uint64_t *out)
{
    NOT_WRITTEN_YET;
}

/*
 * ch04.6 Ten times as fast as floats (stretch, 40 minutes, about 20 lines).
 *
 * What xnor_gemm computes, at ten times the multiply-adds a second, at least, of three plain loops
 * over floats. Both are compiled with -O2, and on an x86 processor with -mpopcnt. The check tells
 * how fast it was. Ten is the smallest of what can be reached: how far do you get?
 */
void xnor_gemm_fast(const uint64_t *a, const uint64_t *b, int m, int n, int k, int32_t *out)
{
    NOT_WRITTEN_YET;
}

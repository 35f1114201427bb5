/* Solutions of chapter 4's exercises: a kernel of XNOR and popcount. */

#include <stdint.h>

/* ch04.1 Count the ones. */
int popcount(uint64_t word)
{
    int count = 0;
    for (; word; word >>= 1)
        count += word & 1;
    return count;
}

/* ch04.2 Pack signs. */
void pack_signs(const int8_t *signs, int k, uint64_t *words)
{
    for (int w = 0; w < (k + 63) / 64; w++)
        words[w] = 0;
    for (int i = 0; i < k; i++)
        if (signs[i] > 0)
            words[i / 64] |= (uint64_t)1 << i % 64;
}

/* ch04.3 A dot product of signs. */
int xnor_dot(const uint64_t *a, const uint64_t *b, int k)
{
    int last = (k - 1) / 64;
    int differ = 0;
    for (int w = 0; w < last; w++)
        differ += popcount(a[w] ^ b[w]);
    uint64_t valid = ~(uint64_t)0 >> (64 * (last + 1) - k);
    differ += popcount((a[last] ^ b[last]) & valid);
    return k - 2 * differ;
}

/* ch04.4 The matrix product. */
void xnor_gemm(const uint64_t *a, const uint64_t *b, int m, int n, int k, int32_t *out)
{
    int length = (k + 63) / 64;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            out[i * n + j] = xnor_dot(a + i * length, b + j * length, k);
}

/* ch04.5 From sums to bits. */
void xnor_gemm_bits(const uint64_t *a, const uint64_t *b, int m, int n, int k,
                    const int32_t *thresholds, const uint8_t *flips, uint64_t *out)
{
    int length = (k + 63) / 64;
    int width = (n + 63) / 64;
    for (int i = 0; i < m; i++) {
        for (int w = 0; w < width; w++)
            out[i * width + w] = 0;
        for (int j = 0; j < n; j++) {
            int32_t sum = xnor_dot(a + i * length, b + j * length, k);
            uint64_t bit = (sum >= thresholds[j]) ^ flips[j];
            out[i * width + j / 64] |= bit << j % 64;
        }
    }
}

/* ch04.6 Ten times as fast as floats: four rows of b share each word of a. */
void xnor_gemm_fast(const uint64_t *a, const uint64_t *b, int m, int n, int k, int32_t *out)
{
    int last = (k - 1) / 64;
    uint64_t valid = ~(uint64_t)0 >> (64 * (last + 1) - k);
    for (int i = 0; i < m; i++, a += last + 1)
        for (int j = 0; j < n; j += 4) {
            const uint64_t *row[4];
            int differ[4] = {0};
            for (int r = 0; r < 4; r++) /* past the last row, the last again */
                row[r] = b + (j + r < n ? j + r : n - 1) * (last + 1);
            for (int w = 0; w < last; w++)
                for (int r = 0; r < 4; r++)
                    differ[r] += __builtin_popcountll(a[w] ^ row[r][w]);
            for (int r = 0; r < 4 && j + r < n; r++) {
                differ[r] += __builtin_popcountll((a[last] ^ row[r][last]) & valid);
                out[i * n + j + r] = k - 2 * differ[r];
            }
        }
}

/* The kernels against loops that anyone can check, without Python: for sanitizers and emulators.
 *
 *     cd kernels; cc -std=c11 -O1 -g -fsanitize=address,undefined *.c -pthread && ./a.out
 *
 * Every buffer is allocated at its exact size, so that AddressSanitizer sees a read past it. Prints
 * one line for each path this machine can run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "thread_pool.h"
#include "xnor_popcount.h"

void check_chains(int path, int threads, uint64_t seed); /* in selftest_network.c */

static uint64_t state = 0x9e3779b97f4a7c15;

static uint64_t random_bits(void) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static int64_t random_up_to(int64_t most) { return 1 + (int64_t)(random_bits() % (uint64_t)most); }

static void *buffer(int64_t count, size_t size) {
    void *p = malloc((size_t)count * size + (count == 0));
    if (!p) exit(2);
    for (int64_t i = 0; i < count * (int64_t)size; i++) ((char *)p)[i] = (char)random_bits();
    return p;
}

static void fail(const char *what, int path, int64_t m, int64_t n, int64_t k) {
    printf("%s: %s is wrong for m=%lld n=%lld k=%lld\n", onebit_path_name(path), what,
           (long long)m, (long long)n, (long long)k);
    exit(1);
}

static int sign_at(const uint64_t *row, int64_t i) { return row[i / 64] >> (i % 64) & 1 ? 1 : -1; }

static void check_binary(int path, int threads, int64_t m, int64_t n, int64_t k) {
    int64_t words = (k + 63) / 64, out_words = (n + 63) / 64, stride = words + (m & 1);
    uint64_t *a = buffer(m * stride - (m & 1), 8), *b = buffer(n * words, 8);
    uint64_t *back = buffer(n * words, 8), *bits = buffer(m * out_words, 8);
    uint32_t *lanes = buffer(onebit_lanes_size(n, k), 4);
    int32_t *out = buffer(m * n, 4), *thresholds = buffer(n, 4);
    uint8_t *flip = buffer(n, 1);
    for (int64_t j = 0; j < n; j++) {
        thresholds[j] = (int32_t)(random_up_to(2 * k) - k);
        flip[j] &= 1;
    }
    onebit_lanes_from_words(b, words, n, k, lanes);
    onebit_words_from_lanes(lanes, n, k, back);
    onebit_xnor_gemm(path, threads, a, stride, lanes, m, n, k, out, n);
    onebit_xnor_gemm_bits(path, threads, a, stride, lanes, m, n, k, thresholds,
                          m % 2 ? flip : NULL, bits, out_words);
    for (int64_t j = 0; j < n; j++)
        for (int64_t q = 0; q < words * 64; q++) {
            int64_t w = j * words + q / 64;
            if ((back[w] >> (q % 64) & 1) != (q < k ? b[w] >> (q % 64) & 1 : 0))
                fail("the way back from lanes", path, m, n, k);
        }
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < out_words * 64; j++) {
            int32_t product = 0, bit = 0;
            if (j < n) {
                for (int64_t q = 0; q < k; q++)
                    product += sign_at(a + i * stride, q) * sign_at(b + j * words, q);
                if (out[i * n + j] != product) fail("xnor_gemm", path, m, n, k);
                bit = (product >= thresholds[j]) ^ (m % 2 ? flip[j] : 0);
            }
            if ((int32_t)(bits[i * out_words + j / 64] >> (j % 64) & 1) != bit)
                fail("xnor_gemm_bits", path, m, n, k);
        }
    free(a), free(b), free(back), free(bits), free(lanes), free(out), free(thresholds), free(flip);
}

static void check_ternary(int path, int threads, int64_t m, int64_t n, int64_t k) {
    int64_t words = (k + 31) / 32;
    int8_t *x = buffer(m * k, 1), *w = buffer(n * k, 1), *w_back = buffer(n * k, 1);
    uint64_t *packed = buffer(n * words, 8), *back = buffer(n * words, 8);
    uint32_t *lanes = buffer(onebit_ternary_lanes_size(n, k), 4);
    int32_t *out = buffer(m * n, 4);
    for (int64_t i = 0; i < n * k; i++) w[i] = (int8_t)((uint8_t)w[i] % 3 - 1);
    if (onebit_pack_ternary(w, n, k, packed) || onebit_unpack_ternary(packed, n, k, w_back) ||
        memcmp(w, w_back, (size_t)(n * k)) ||
        onebit_ternary_lanes_from_words(packed, words, n, k, lanes))
        fail("ternary packing", path, m, n, k);
    onebit_ternary_words_from_lanes(lanes, n, k, back);
    if (memcmp(packed, back, (size_t)(n * words) * 8)) fail("ternary lanes", path, m, n, k);
    onebit_ternary_gemm(path, threads, x, k, lanes, m, n, k, out, n);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            int32_t sum = 0;
            for (int64_t q = 0; q < k; q++) sum += x[i * k + q] * w[j * k + q];
            if (out[i * n + j] != sum) fail("ternary_gemm", path, m, n, k);
        }
    packed[random_up_to(n * words) - 1] = 0xaaaaaaaaaaaaaaaa;
    if (!onebit_ternary_lanes_from_words(packed, words, n, k, lanes) ||
        !onebit_unpack_ternary(packed, n, k, w_back))
        fail("finding the code 10", path, m, n, k);
    w[random_up_to(n * k) - 1] = 2;
    if (!onebit_pack_ternary(w, n, k, packed)) fail("finding the value 2", path, m, n, k);
    free(x), free(w), free(w_back), free(packed), free(back), free(lanes), free(out);
}

/* x is a sign times a power of two, which every format holds; each element lies at its own size. */
static void put(int dtype, char *x, int64_t i, int sign) {
    int exponent = (int)(random_bits() % 7);
    int64_t whole = sign * (1 << exponent);
    switch (dtype) {
    case ONEBIT_F16: {
        uint16_t v = (uint16_t)((sign < 0) << 15 | (15 + exponent) << 10);
        memcpy(x + 2 * i, &v, 2);
        break;
    }
    case ONEBIT_BF16: {
        uint16_t v = (uint16_t)((sign < 0) << 15 | (127 + exponent) << 7);
        memcpy(x + 2 * i, &v, 2);
        break;
    }
    case ONEBIT_F32: {
        float v = (float)whole;
        memcpy(x + 4 * i, &v, 4);
        break;
    }
    case ONEBIT_F64: {
        double v = (double)whole;
        memcpy(x + 8 * i, &v, 8);
        break;
    }
    case ONEBIT_BOOL: x[i] = sign > 0; break;
    case ONEBIT_I8: x[i] = (char)whole; break;
    case ONEBIT_I16: memcpy(x + 2 * i, &whole, 2); break; /* little-endian: the low bytes */
    case ONEBIT_I32: memcpy(x + 4 * i, &whole, 4); break;
    case ONEBIT_I64: memcpy(x + 8 * i, &whole, 8); break;
    }
}

static void put_nan(int dtype, char *x, int64_t i) {
    uint64_t v = (uint64_t)-1; /* all ones is a NaN in every format */
    int64_t size = dtype == ONEBIT_F64 ? 8 : dtype == ONEBIT_F32 ? 4 : 2;
    memcpy(x + size * i, &v, (size_t)size);
}

static void check_packing(int path, int dtype, int64_t rows, int64_t k) {
    static const int sizes[] = {2, 2, 4, 8, 1, 2, 4, 8, 1};
    int64_t words = (k + 63) / 64;
    char *x = buffer(rows * k, (size_t)sizes[dtype]);
    int8_t *signs = buffer(rows * k, 1), *back = buffer(rows * k, 1);
    uint64_t *packed = buffer(rows * words, 8);
    for (int64_t i = 0; i < rows * k; i++) {
        signs[i] = signs[i] & 1 ? 1 : -1;
        put(dtype, x, i, signs[i]);
    }
    int nan = onebit_pack_signs(path, dtype, x, rows, k, packed);
    onebit_unpack_signs(path, packed, rows, k, back);
    if (nan || memcmp(signs, back, (size_t)(rows * k))) fail("pack_signs", path, rows, dtype, k);
    for (int64_t i = 0; i < rows && k % 64; i++)
        if (packed[(i + 1) * words - 1] >> (k % 64)) fail("the tail", path, rows, dtype, k);
    if (dtype <= ONEBIT_F64) {
        put_nan(dtype, x, random_up_to(rows * k) - 1);
        if (!onebit_pack_signs(path, dtype, x, rows, k, packed))
            fail("finding NaN", path, rows, dtype, k);
    }
    free(x), free(signs), free(back), free(packed);
}

static void count_task(const void *job, int64_t task) { ((int *)(uintptr_t)job)[task]++; }

static void check_thread_pool(void) {
    for (int round = 0; round < 50; round++) {
        int done[100] = {0};
        onebit_run_tasks((int)random_up_to(6), 100, count_task, done);
        for (int i = 0; i < 100; i++)
            if (done[i] != 1) {
                printf("task %d ran %d times\n", i, done[i]);
                exit(1);
            }
    }
}

int main(void) {
    check_thread_pool();
    for (int path = 0; path < onebit_path_count(); path++) {
        if (!onebit_path_supported(path)) continue;
        int cases = 0;
        for (; cases < 120; cases++) {
            int threads = cases % 4 + 1;
            int64_t m = random_up_to(20), n = random_up_to(70), k = random_up_to(300);
            check_binary(path, threads, m, n, k);
            check_ternary(path, threads, m, n, k);
            check_binary(path, threads, 1, random_up_to(300), k); /* a row alone meets more at once */
            check_ternary(path, threads, 1, random_up_to(300), k);
            check_chains(path, threads, random_bits());
            for (int dtype = ONEBIT_F16; dtype <= ONEBIT_BOOL; dtype++)
                check_packing(path, dtype, random_up_to(5), random_up_to(300));
        }
        check_binary(path, 2, 300, 17, 65);
        check_binary(path, 1, 3, 17, 20011);
        check_ternary(path, 2, 130, 17, 1025);
        printf("%s: %d random shapes agree\n", onebit_path_name(path), cases);
    }
    return 0;
}

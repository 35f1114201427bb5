/* Chains of layers against loops that anyone can check: pixels, windows, padding, pooling, floats.
 * Part of selftest.c, which calls it for every path. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xnor_popcount.h"

void check_chains(int path, int threads, uint64_t seed);

static uint64_t state;

static uint64_t random_bits(void) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static int64_t random_up_to(int64_t most) { return 1 + (int64_t)(random_bits() % (uint64_t)most); }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static void *buffer(int64_t count, size_t size) {
    char *p = malloc((size_t)count * size + (count == 0));
    if (!p) exit(2);
    for (int64_t i = 0; i < count * (int64_t)size; i++) p[i] = (char)random_bits();
    return p;
}

static int bit_at(const uint64_t *row, int64_t i) { return row[i / 64] >> (i % 64) & 1; }

static void fail(const char *what, int path) {
    printf("%s: %s is wrong\n", onebit_path_name(path), what);
    exit(1);
}

/* Rows of bits whose bits past k are 0. */
static uint64_t *random_rows(int64_t rows, int64_t k) {
    int64_t words = ceil_div(k, 64);
    uint64_t *bits = buffer(rows * words, 8);
    for (int64_t i = 0; i < rows && k % 64; i++) bits[(i + 1) * words - 1] &= ~0ull >> (64 - k % 64);
    return bits;
}

static uint32_t *lay_out(const uint64_t *rows, int64_t n, int64_t k) {
    uint32_t *lanes = buffer(onebit_lanes_size(n, k), 4);
    onebit_lanes_from_words(rows, ceil_div(k, 64), n, k, lanes);
    return lanes;
}

static int32_t *random_thresholds(int64_t n, int64_t most) {
    int32_t *thresholds = buffer(n, 4);
    for (int64_t j = 0; j < n; j++) thresholds[j] = (int32_t)(random_up_to(2 * most + 1) - most - 1);
    return thresholds;
}

/* Pixels, then a layer that gives floats: two layers in one call. */
static void check_pixels(int path, int threads) {
    int64_t m = random_up_to(70), n = random_up_to(70), k = random_up_to(150), classes = 3;
    uint8_t *x = buffer(m * k, 1);
    uint64_t *w = random_rows(n, k), *v = random_rows(classes, n), *flip = random_rows(1, n);
    uint32_t *w_lanes = lay_out(w, n, k), *v_lanes = lay_out(v, classes, n);
    int32_t *thresholds = random_thresholds(n, 40 * k);
    double scale[] = {0.5, 2, 3}, bias[] = {0.25, -1, 7}, *out = buffer(m * classes, 8);
    int *bits = buffer(n, sizeof(int));
    struct onebit_layer layers[] = {
        {.n = n, .k = k, .lanes = w_lanes, .thresholds = thresholds, .flip = flip, .pixels = 1},
        {.n = classes, .k = n, .lanes = v_lanes, .scale = scale, .bias = bias,
         .dtype = ONEBIT_F64},
    };
    if (onebit_run_layers(path, threads, layers, 2, x, m, out)) exit(2);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            int32_t sum = 0;
            for (int64_t q = 0; q < k; q++)
                sum += x[i * k + q] * (2 * bit_at(w + j * ceil_div(k, 64), q) - 1);
            bits[j] = (sum >= thresholds[j]) ^ bit_at(flip, j);
        }
        for (int64_t c = 0; c < classes; c++) {
            int32_t sum = 0;
            for (int64_t j = 0; j < n; j++)
                sum += bits[j] == bit_at(v + c * ceil_div(n, 64), j) ? 1 : -1;
            if (out[i * classes + c] != sum * scale[c] + bias[c]) fail("a chain of pixels", path);
        }
    }
    free(x), free(w), free(v), free(flip), free(w_lanes), free(v_lanes), free(thresholds);
    free(out), free(bits);
}

static int64_t windows_in(int64_t size, int64_t kernel, int64_t stride, int64_t pad,
                          int64_t dilation) {
    return (size + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
}

static struct onebit_window random_window(void) {
    return (struct onebit_window){
        random_up_to(3), random_up_to(3), random_up_to(2), random_up_to(2),
        random_up_to(3) - 1, random_up_to(3) - 1, random_up_to(2), random_up_to(2)};
}

/* One product of a window, padding as its frame has it, tail bits agreeing. */
static int32_t product_at(const struct onebit_layer *l, const uint64_t *image, const uint64_t *row,
                          int64_t place) {
    const struct onebit_window *v = &l->window;
    int32_t sum = 0;
    for (int64_t tap = 0; tap < v->height * v->width; tap++) {
        int64_t y = place / l->out_width * v->stride_y - v->pad_y + tap / v->width * v->dilation_y;
        int64_t x = place % l->out_width * v->stride_x - v->pad_x + tap % v->width * v->dilation_x;
        int inside = y >= 0 && y < l->in_height && x >= 0 && x < l->in_width;
        const uint64_t *words =
            inside ? image + (y * l->in_width + x) * l->channel_words : l->frame;
        for (int64_t c = 0; c < 64 * l->channel_words; c++)
            sum += bit_at(words, c) == bit_at(row, tap * 64 * l->channel_words + c) ? 1 : -1;
    }
    return sum - l->surplus;
}

/* A convolution with everything: windows, frame, border, and either pooled bits or floats. */
static void check_convolution(int path, int threads) {
    struct onebit_layer l = {.n = random_up_to(70), .channel_words = random_up_to(2)};
    l.window = random_window(), l.pool = random_window();
    l.in_height = 6 + random_up_to(6), l.in_width = 6 + random_up_to(6);
    const struct onebit_window *v = &l.window, *p = &l.pool;
    l.out_height = windows_in(l.in_height, v->height, v->stride_y, v->pad_y, v->dilation_y);
    l.out_width = windows_in(l.in_width, v->width, v->stride_x, v->pad_x, v->dilation_x);
    l.pooled_height = windows_in(l.out_height, p->height, p->stride_y, p->pad_y, p->dilation_y);
    l.pooled_width = windows_in(l.out_width, p->width, p->stride_x, p->pad_x, p->dilation_x);
    if (l.pooled_height < 1 || l.pooled_width < 1 || random_bits() & 1) l.pool.height = 0;
    l.k = v->height * v->width * l.channel_words * 64;
    int64_t m = random_up_to(3), places = l.out_height * l.out_width, words = ceil_div(l.n, 64);
    int64_t image_words = l.in_height * l.in_width * l.channel_words;
    uint64_t *x = buffer(m * image_words, 8), *w = random_rows(l.n, l.k);
    uint64_t *frame = buffer(l.channel_words, 8);
    uint32_t *lanes = lay_out(w, l.n, l.k);
    int32_t *thresholds = random_thresholds(l.n, 20), *border = random_thresholds(places * l.n, 9);
    float *scale = buffer(l.n, 4), *floats = buffer(m * places * l.n, 4);
    int64_t pooled = l.pool.height ? l.pooled_height * l.pooled_width : 0;
    uint64_t *bits = buffer(m * (pooled ? pooled : places) * words, 8);
    for (int64_t j = 0; j < l.n; j++) scale[j] = (float)random_up_to(5);
    int to_floats = !l.pool.height && random_bits() & 1;
    l.lanes = lanes, l.frame = frame, l.border = random_bits() & 1 ? border : NULL;
    l.surplus = l.border || to_floats ? 5 : 0;
    if (to_floats)
        l.scale = scale, l.dtype = ONEBIT_F32;
    else
        l.thresholds = thresholds;
    if (onebit_run_layers(path, threads, &l, 1, x, m, to_floats ? (void *)floats : bits)) exit(2);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < l.n; j++) {
            const uint64_t *row = w + j * ceil_div(l.k, 64);
            int *reached = buffer(places, sizeof(int));
            for (int64_t q = 0; q < places; q++) {
                int32_t product = product_at(&l, x + i * image_words, row, q);
                if (l.border) product -= border[q * l.n + j];
                /* Thresholds have the surplus in, floats have it taken off. */
                reached[q] = product + l.surplus >= thresholds[j];
                if (to_floats && floats[(i * l.n + j) * places + q] != (float)product * scale[j])
                    fail("a convolution's floats", path);
                if (!to_floats && !l.pool.height &&
                    bit_at(bits + (i * places + q) * words, j) != reached[q])
                    fail("a convolution's bits", path);
            }
            for (int64_t q = 0; q < pooled; q++) {
                int any = 0;
                for (int64_t tap = 0; tap < p->height * p->width; tap++) {
                    int64_t y = q / l.pooled_width * p->stride_y - p->pad_y +
                                tap / p->width * p->dilation_y;
                    int64_t c = q % l.pooled_width * p->stride_x - p->pad_x +
                                tap % p->width * p->dilation_x;
                    if (y >= 0 && y < l.out_height && c >= 0 && c < l.out_width)
                        any |= reached[y * l.out_width + c];
                }
                if (bit_at(bits + (i * pooled + q) * words, j) != any) fail("pooling", path);
            }
            free(reached);
        }
    free(x), free(w), free(frame), free(lanes), free(thresholds), free(border), free(scale);
    free(floats), free(bits);
}

static void check_images(int path) {
    int64_t m = random_up_to(3), channels = random_up_to(130), places = random_up_to(300);
    int64_t words = ceil_div(channels, 64);
    float *x = buffer(m * channels * places, 4);
    double *y = buffer(m * channels * places, 8);
    uint64_t *bits = buffer(m * places * words, 8);
    for (int64_t i = 0; i < m * channels * places; i++)
        y[i] = x[i] = (float)(random_up_to(5) - 3) * (random_bits() & 1 ? 1.0f : -1.0f);
    for (int dtype = ONEBIT_F32; dtype <= ONEBIT_F64; dtype++) {
        const void *images = dtype == ONEBIT_F32 ? (void *)x : (void *)y;
        if (onebit_pack_images(path, dtype, images, m, channels, places, bits))
            fail("finding no NaN in images", path);
        for (int64_t i = 0; i < m * places; i++)
            for (int64_t c = 0; c < 64 * words; c++) {
                int64_t at = (i / places * channels + c) * places + i % places;
                if (bit_at(bits + i * words, c) != (c < channels && x[at] >= 0))
                    fail("packing of images", path);
            }
    }
    uint32_t nan = 0x7fc00000;
    memcpy(x + random_up_to(m * channels * places) - 1, &nan, 4);
    if (!onebit_pack_images(path, ONEBIT_F32, x, m, channels, places, bits))
        fail("finding NaN in images", path);
    free(x), free(y), free(bits);
}

void check_chains(int path, int threads, uint64_t seed) {
    state = seed | 1;
    check_pixels(path, threads);
    check_convolution(path, threads);
    check_images(path);
}

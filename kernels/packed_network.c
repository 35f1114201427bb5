/* A chain of packed layers in one call: words or pixels go in, words or floats come out.
 *
 * Between two binary layers stand only bits, so a chain needs no more memory than two buffers of
 * words that take turns. Samples go through in tiles: some of them pass all layers while what lies
 * between is still in the nearest cache, and threads take whole tiles. A layer of
 * 1024 x 1024 takes three microseconds for a row, and a call from Python more than that. For the MLP
 * of the benchmark this call takes 11 us at batch 1, and all that Python does around it 27.
 *
 * IMAGES are words [height][width][channel_words]: the channels of one place stand together. A
 * window of a convolution is then some runs of whole words, copied side by side into a row for the
 * matrix product, WINDOW_BYTES of rows at a time. Nothing is unfolded in floats, which for a 3 x 3
 * kernel would take 9 * 32 times the memory of the image's bits.
 *
 *     image row y      ... | x-1 | x | x+1 | ...       window of (y, x):
 *     image row y + 1  ... | x-1 | x | x+1 | ...       [y: x-1 x x+1 | y+1: x-1 x x+1 | ... ]
 *
 * Padding is a word too: `frame`, all bits of which are pad_value. Zero has no bit; it stands as +1,
 * and `border` tells what that has added at each place, to be taken off again. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.h"
#include "paths.h"
#include "thread_pool.h"
#include "xnor_popcount.h"

enum { MOST_SAMPLES = 32, TILE_BYTES = 1 << 20, WINDOW_BYTES = 16384, LEAST_POSITIONS = 8 };

static inline int is_convolution(const struct onebit_layer *l) { return l->channel_words != 0; }
static inline int64_t out_words(const struct onebit_layer *l) { return ceil_div(l->n, 64); }

/* ---- sizes of one sample ------------------------------------------------------------------------- */

static int64_t positions(const struct onebit_layer *l) {
    return is_convolution(l) ? l->out_height * l->out_width : 1;
}

static int64_t bytes_in(const struct onebit_layer *l) {
    if (l->pixels) return l->k;
    if (is_convolution(l)) return l->in_height * l->in_width * l->channel_words * 8;
    return ceil_div(l->k, 64) * 8;
}

static int64_t bytes_out(const struct onebit_layer *l) {
    if (!l->thresholds) return positions(l) * l->n * (l->dtype == ONEBIT_F64 ? 8 : 4);
    return (l->pool.height ? l->pooled_height * l->pooled_width : positions(l)) * out_words(l) * 8;
}

/* What run_layer needs besides input and output. */
static int64_t bytes_scratch(const struct onebit_layer *l) {
    if (l->pixels) return onebit_pixel_words(l->k) * 32 + 4;
    if (l->pool.height) return positions(l) * out_words(l) * 8;
    return is_convolution(l) ? 0 : l->n * 4;
}

/* ---- products become floats ---------------------------------------------------------------------- */

/* (product * scale) + bias, each step rounded on its own, as the float layers do it; `places` rows of
 * n products come in, and an output's places go out side by side, as torch keeps images. Along the
 * outputs the arithmetic is vector code; a few rows at a time are then turned while in the cache. */
enum { TURNED = 16 };

#define WRITE_FLOATS(NAME, FLOAT)                                                                  \
    static ALWAYS_INLINE void NAME##_block(const struct onebit_layer *l, int64_t first,            \
                                           const int32_t *restrict products, int64_t rows,         \
                                           int64_t columns, ptrdiff_t out_stride,                  \
                                           FLOAT *restrict out) {                                  \
        FLOAT block[TURNED][TURNED];                                                               \
        const FLOAT *restrict scale = (const FLOAT *)l->scale + first, *restrict bias = l->bias;   \
        int32_t surplus = l->surplus;                                                              \
        int64_t n = l->n;                                                                          \
        for (int64_t r = 0; r < rows; r++)                                                         \
            for (int64_t c = 0; c < columns; c++)                                                  \
                block[r][c] = (FLOAT)(products[r * n + c] - surplus) * scale[c];                   \
        for (int64_t r = 0; bias && r < rows; r++)                                                 \
            for (int64_t c = 0; c < columns; c++) block[r][c] += bias[first + c];                  \
        for (int64_t c = 0; c < columns; c++)                                                      \
            for (int64_t r = 0; r < rows; r++) out[c * out_stride + r] = block[r][c];              \
    }                                                                                              \
    static void NAME(const struct onebit_layer *l, const int32_t *products, int64_t places,        \
                     ptrdiff_t out_stride, FLOAT *out) {                                           \
        for (int64_t i = 0; i < places; i += TURNED)                                               \
            for (int64_t j = 0; j < l->n; j += TURNED) {                                           \
                int64_t rows = at_most(TURNED, places - i), columns = at_most(TURNED, l->n - j);   \
                const int32_t *block = products + i * l->n + j;                                    \
                FLOAT *to = out + j * out_stride + i;                                              \
                if (rows == TURNED && columns == TURNED) /* sizes that the compiler knows */       \
                    NAME##_block(l, j, block, TURNED, TURNED, out_stride, to);                     \
                else                                                                               \
                    NAME##_block(l, j, block, rows, columns, out_stride, to);                      \
            }                                                                                      \
    }
WRITE_FLOATS(write_f32, float)
WRITE_FLOATS(write_f64, double)

static void write_floats(const struct onebit_layer *l, const int32_t *products, int64_t places,
                         int64_t first, ptrdiff_t out_stride, void *out) {
    if (l->dtype == ONEBIT_F64)
        write_f64(l, products, places, out_stride, (double *)out + first);
    else
        write_f32(l, products, places, out_stride, (float *)out + first);
}

/* ---- convolution --------------------------------------------------------------------------------- */

struct convolution {
    const struct onebit_layer *layer;
    const uint64_t *image; /* of the first sample */
    char *out;
    int path;
    int64_t chunk, chunks; /* places in a task, and tasks in a sample */
    _Atomic int *no_memory;
};

/* Most runs are short: three words for a 3 x 3 kernel on 64 channels. A copy whose size the compiler
 * knows is one or two instructions, where a call or a loop takes ten times as long. */
static ALWAYS_INLINE void copy_words(uint64_t *to, const uint64_t *from, int64_t count) {
    switch (count) {
    case 1: memcpy(to, from, 8); break;
    case 2: memcpy(to, from, 16); break;
    case 3: memcpy(to, from, 24); break;
    case 4: memcpy(to, from, 32); break;
    case 6: memcpy(to, from, 48); break;
    default: memcpy(to, from, (size_t)count * 8);
    }
}

/* Copy the window whose first tap is (y, x): row by row where its columns lie in the image, otherwise
 * tap by tap. */
static void copy_window(const struct onebit_layer *l, const uint64_t *image, int64_t y, int64_t x,
                        uint64_t *row) {
    const struct onebit_window *v = &l->window;
    int64_t words = l->channel_words, run = v->width * words;
    int whole_rows = v->dilation_x == 1 && x >= 0 && x + v->width <= l->in_width;
    for (int64_t dy = 0; dy < v->height; dy++, y += v->dilation_y, row += run) {
        int inside = y >= 0 && y < l->in_height;
        const uint64_t *image_row = image + (inside ? y * l->in_width * words : 0);
        if (inside && whole_rows) {
            copy_words(row, image_row + x * words, run);
            continue;
        }
        for (int64_t dx = 0; dx < v->width; dx++) {
            int64_t column = x + dx * v->dilation_x;
            int known = inside && column >= 0 && column < l->in_width;
            copy_words(row + dx * words, known ? image_row + column * words : l->frame, words);
        }
    }
}

static void copy_windows(const struct onebit_layer *l, const uint64_t *image, int64_t first,
                         int64_t count, uint64_t *windows) {
    const struct onebit_window *v = &l->window;
    int64_t row_words = ceil_div(l->k, 64);
    int64_t row = first / l->out_width, column = first % l->out_width;
    for (int64_t i = 0; i < count; i++, windows += row_words) {
        copy_window(l, image, row * v->stride_y - v->pad_y, column * v->stride_x - v->pad_x,
                    windows);
        if (++column == l->out_width) column = 0, row++;
    }
}

static void take_border_off(const struct onebit_layer *l, int64_t first, int64_t count,
                            int32_t *restrict products) {
    const int32_t *restrict border = l->border + first * l->n;
    for (int64_t i = 0, all = count * l->n; i < all; i++) products[i] -= border[i];
}

/* Signs of product - threshold, as bytes first: compilers turn that into vector code, as they do not
 * when every comparison has a bit of its own. */
static void write_bits(int path, const struct onebit_layer *l, const int32_t *restrict products,
                       int64_t count, int8_t *restrict signs, uint64_t *out) {
    const int32_t *restrict thresholds = l->thresholds;
    int64_t n = l->n;
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < n; j++)
            signs[i * n + j] = products[i * n + j] >= thresholds[j] ? 1 : -1;
    onebit_pack_signs(path, ONEBIT_I8, signs, count, n, out);
}

/* One task: some places of one sample. */
static void convolve_part(const void *data, int64_t task) {
    const struct convolution *c = data;
    const struct onebit_layer *l = c->layer;
    int64_t sample = task / c->chunks, first = task % c->chunks * c->chunk;
    int64_t count = at_most(c->chunk, positions(l) - first), words = ceil_div(l->k, 64);
    const uint64_t *image = c->image + sample * l->in_height * l->in_width * l->channel_words;
    char *out = c->out + sample * (l->thresholds ? positions(l) * out_words(l) * 8 : bytes_out(l));
    uint64_t *windows = malloc((size_t)(c->chunk * (words * 8 + l->n * 5)));
    if (!windows) {
        *c->no_memory = 1;
        return;
    }
    int32_t *products = (int32_t *)(windows + c->chunk * words);
    int8_t *signs = (int8_t *)(products + c->chunk * l->n);
    copy_windows(l, image, first, count, windows);
    uint64_t *bits = (uint64_t *)out + first * out_words(l);
    if (l->thresholds && !l->border) {
        onebit_xnor_gemm_bits(c->path, 1, windows, words, l->lanes, count, l->n, l->k,
                              l->thresholds, NULL, bits, out_words(l));
    } else {
        onebit_xnor_gemm(c->path, 1, windows, words, l->lanes, count, l->n, l->k, products, l->n);
        if (l->border) take_border_off(l, first, count, products);
        if (l->thresholds)
            write_bits(c->path, l, products, count, signs, bits);
        else
            write_floats(l, products, count, first, positions(l), out);
    }
    free(windows);
}

static void convolve(int path, int threads, const struct onebit_layer *l, const uint64_t *images,
                     int64_t samples, void *out, _Atomic int *no_memory) {
    int64_t fitting = WINDOW_BYTES / (ceil_div(l->k, 64) * 8) / LEAST_POSITIONS * LEAST_POSITIONS;
    struct convolution c = {.layer = l, .image = images, .out = out, .path = path,
                            .chunk = at_least(fitting, LEAST_POSITIONS), .no_memory = no_memory};
    c.chunks = ceil_div(positions(l), c.chunk);
    onebit_run_tasks(threads, samples * c.chunks, convolve_part, &c);
}

/* A maximum reaches a threshold where one of its values does: the OR of the bits in the window. */
static void pool(const struct onebit_layer *l, const uint64_t *bits, uint64_t *out) {
    const struct onebit_window *v = &l->pool;
    int64_t words = out_words(l);
    for (int64_t place = 0; place < l->pooled_height * l->pooled_width; place++, out += words) {
        int64_t top = place / l->pooled_width * v->stride_y - v->pad_y;
        int64_t left = place % l->pooled_width * v->stride_x - v->pad_x;
        memset(out, 0, (size_t)words * sizeof *out);
        for (int64_t tap = 0; tap < v->height * v->width; tap++) {
            int64_t y = top + tap / v->width * v->dilation_y;
            int64_t x = left + tap % v->width * v->dilation_x;
            if (y < 0 || y >= l->out_height || x < 0 || x >= l->out_width) continue;
            const uint64_t *place_bits = bits + (y * l->out_width + x) * words;
            for (int64_t w = 0; w < words; w++) out[w] |= place_bits[w];
        }
    }
}

/* ---- one layer ----------------------------------------------------------------------------------- */

static void run_pixels(int path, int threads, const struct onebit_layer *l, const uint8_t *x,
                       int64_t samples, uint64_t *out, int32_t *scratch) {
    uint8_t *reordered = (uint8_t *)(scratch + samples);
    onebit_reorder_pixels(x, samples, l->k, reordered, scratch);
    onebit_pixel_gemm_bits(path, threads, reordered, scratch, l->lanes, samples, l->n, l->k,
                           l->thresholds, out);
}

static void run_linear(int path, int threads, const struct onebit_layer *l, const uint64_t *x,
                       int64_t samples, void *out, int32_t *scratch) {
    int64_t words = ceil_div(l->k, 64);
    if (l->thresholds) {
        onebit_xnor_gemm_bits(path, threads, x, words, l->lanes, samples, l->n, l->k,
                              l->thresholds, NULL, out, out_words(l));
        return;
    }
    onebit_xnor_gemm(path, threads, x, words, l->lanes, samples, l->n, l->k, scratch, l->n);
    for (int64_t i = 0; i < samples; i++)
        write_floats(l, scratch + i * l->n, 1, i * l->n, 1, out);
}

static void run_layer(int path, int threads, const struct onebit_layer *l, const void *x,
                      int64_t samples, void *out, void *scratch, _Atomic int *no_memory) {
    if (l->pixels)
        run_pixels(path, threads, l, x, samples, out, scratch);
    else if (!is_convolution(l))
        run_linear(path, threads, l, x, samples, out, scratch);
    else
        convolve(path, threads, l, x, samples, l->pool.height ? scratch : out, no_memory);
    if (l->pool.height)
        for (int64_t i = 0; i < samples; i++)
            pool(l, (uint64_t *)scratch + i * positions(l) * out_words(l),
                 (uint64_t *)((char *)out + i * bytes_out(l)));
    uint64_t *bits = out;
    for (int64_t row = 0; l->flip && row < samples * bytes_out(l) / 8; row += out_words(l))
        for (int64_t w = 0; w < out_words(l); w++) bits[row + w] ^= l->flip[w];
}

/* ---- the chain ----------------------------------------------------------------------------------- */

struct chain {
    const struct onebit_layer *layers;
    int64_t count;
    const char *x;
    char *out;
    int path, threads; /* threads inside a tile */
    int64_t samples, tile_samples, buffer_bytes;
    _Atomic int *no_memory;
};

/* One task: some samples through all layers. */
static void run_tile(const void *data, int64_t task) {
    const struct chain *c = data;
    int64_t first = task * c->tile_samples;
    int64_t samples = at_most(c->tile_samples, c->samples - first);
    const struct onebit_layer *last = c->layers + c->count - 1;
    char *buffers = malloc((size_t)(3 * c->buffer_bytes));
    if (!buffers) {
        *c->no_memory = 1;
        return;
    }
    const void *x = c->x + first * bytes_in(c->layers);
    for (const struct onebit_layer *l = c->layers; l <= last; l++) {
        int64_t turn = (l - c->layers) % 2;
        void *out = l == last ? c->out + first * bytes_out(l) : buffers + turn * c->buffer_bytes;
        run_layer(c->path, c->threads, l, x, samples, out, buffers + 2 * c->buffer_bytes,
                  c->no_memory);
        x = out;
    }
    free(buffers);
}

int onebit_run_layers(int path, int threads, const struct onebit_layer *layers, int64_t count,
                      const void *x, int64_t samples, void *out) {
    _Atomic int no_memory = 0;
    int64_t most = 8; /* bytes of a sample in any buffer */
    if (samples == 0) return 0;
    for (int64_t i = 0; i < count; i++) {
        most = at_least(most, bytes_scratch(layers + i));
        if (i < count - 1) most = at_least(most, bytes_out(layers + i));
    }
    int64_t tile = at_most(ceil_div(samples, threads), MOST_SAMPLES);
    tile = at_least(1, at_most(tile, TILE_BYTES / most));
    int64_t tiles = ceil_div(samples, tile);
    struct chain c = {
        .layers = layers, .count = count, .x = x, .out = out, .path = path,
        .threads = tiles < threads ? threads : 1, .samples = samples, .tile_samples = tile,
        .buffer_bytes = ceil_div(most * tile, 64) * 64, .no_memory = &no_memory,
    };
    onebit_run_tasks(tiles < threads ? 1 : threads, tiles, run_tile, &c);
    return no_memory;
}

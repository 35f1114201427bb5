/* The opponent in the page's race: a float32 product as fast as WebAssembly's vectors allow.
 *
 * B is laid out beforehand, as the bits are: eight of its rows side by side,
 *
 *     panels[n/8][k][8]        element 0 of rows 0 to 7, element 1 of rows 0 to 7, ...
 *
 * and a tile of four rows of A by two vectors of four outputs stays in eight registers while k
 * passes by. A round is two loads of B, four broadcasts of A, and eight products with eight
 * additions, since these vectors have no fused multiply-add. That is no straw man: where fused
 * multiply-adds of 512 bits reach 87 thousand million a second, a quarter of the width and two
 * operations for one leave 11 at the same clock, and this product was measured at 13.8. Rows of B
 * that pad it to the layout are 0. */
#include <stddef.h>

#include "paths.h"

#include <wasm_simd128.h>

enum { COLUMNS = 8, TILE_ROWS = 4 };

ptrdiff_t onebit_float32_panels_size(ptrdiff_t n, ptrdiff_t k) {
    return (n + COLUMNS - 1) / COLUMNS * COLUMNS * k;
}

void onebit_float32_panels(const float *b, ptrdiff_t n, ptrdiff_t k, float *panels) {
    for (ptrdiff_t j = 0; j < n; j += COLUMNS)
        for (ptrdiff_t l = 0; l < k; l++)
            for (ptrdiff_t c = j; c < j + COLUMNS; c++) *panels++ = c < n ? b[c * k + l] : 0;
}

static ALWAYS_INLINE void float32_tile(const float *a, const float *panel, ptrdiff_t k, float *out,
                                       ptrdiff_t n, ptrdiff_t columns, const int ROWS) {
    v128_t sum[TILE_ROWS][2];
    UNROLL for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = wasm_f32x4_const_splat(0);
    for (ptrdiff_t l = 0; l < k; l++, panel += COLUMNS) {
        v128_t low = wasm_v128_load(panel), high = wasm_v128_load(panel + 4);
        UNROLL for (int r = 0; r < ROWS; r++) {
            v128_t x = wasm_v128_load32_splat(a + r * k + l);
            sum[r][0] = wasm_f32x4_add(sum[r][0], wasm_f32x4_mul(x, low));
            sum[r][1] = wasm_f32x4_add(sum[r][1], wasm_f32x4_mul(x, high));
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++) {
        float row[COLUMNS];
        wasm_v128_store(row, sum[r][0]);
        wasm_v128_store(row + 4, sum[r][1]);
        for (ptrdiff_t c = 0; c < columns; c++) out[r * n + c] = row[c];
    }
}

/* out[i][j] = sum over k of a[i] * b[j]; a and out are contiguous. */
void onebit_float32_gemm(const float *a, const float *panels, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
                         float *out) {
    for (ptrdiff_t j = 0; j < n; j += COLUMNS, panels += COLUMNS * k) {
        ptrdiff_t columns = n - j < COLUMNS ? n - j : COLUMNS, i = 0;
        for (; i + TILE_ROWS <= m; i += TILE_ROWS)
            float32_tile(a + i * k, panels, k, out + i * n + j, n, columns, TILE_ROWS);
        for (; i < m; i++) float32_tile(a + i * k, panels, k, out + i * n + j, n, columns, 1);
    }
}

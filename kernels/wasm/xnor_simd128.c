/* The binary matrix product on WebAssembly's vectors of 128 bits.
 *
 * The layout is that of xnor_popcount.c: four lanes of 32 bits are four outputs, and four such
 * vectors the sixteen of a block. i8x16.popcnt counts within bytes, so counts are first kept there:
 *
 *     byte counts  +=  popcnt(a ^ b)      at most 8 a round, so that 31 rounds fit into a byte
 *     lane counts  +=  the four bytes of each lane
 *
 * A tile of two rows of A by two vectors of B shares every load twice. i8x16.popcnt is one
 * instruction of ARM's; on x86 a browser makes it of several, by the table look-up that the avx2
 * path spells out. Carry-save adders in front of it were tried there: less than a tenth was gained
 * with 1024 bits a row and more, a quarter lost with 519, and on ARM they must cost more than they
 * save. Loops count in ptrdiff_t, since addresses have 32 bits: int64_t took a tenth longer. */
#include "lanes.h"
#include "paths.h"

#include <wasm_simd128.h>

enum { WIDTH = 4, ROUNDS = 31 };

static ALWAYS_INLINE v128_t differing_bytes(const char *a, const uint32_t *b, ptrdiff_t w) {
    return wasm_v128_xor(wasm_v128_load32_splat(a + 4 * w), wasm_v128_load(b + w * LANES));
}

/* The four bytes of every lane added up. */
static ALWAYS_INLINE v128_t lane_sums(v128_t bytes) {
    return wasm_u32x4_extadd_pairwise_u16x8(wasm_u16x8_extadd_pairwise_u8x16(bytes));
}

static ALWAYS_INLINE void xnor_tile(const struct xnor_block *t, ptrdiff_t row, ptrdiff_t lane,
                                    const int ROWS) {
    const char *a = (const char *)(t->a + row * t->a_stride);
    const ptrdiff_t stride = t->a_stride * 8;
    const uint32_t *b = t->lanes + lane;
    const v128_t zero = wasm_i32x4_const_splat(0);
    const v128_t tail = wasm_u32x4_splat(~0u >> (-(uint32_t)t->k & 31));
    ptrdiff_t full = (ptrdiff_t)(t->k / 32), w = 0;
    v128_t d[2][2];
    UNROLL for (int r = 0; r < ROWS; r++) d[r][0] = d[r][1] = zero;
    while (w < full) {
        ptrdiff_t stop = (ptrdiff_t)at_most(full, w + ROUNDS);
        v128_t bytes[2][2];
        UNROLL for (int r = 0; r < ROWS; r++) bytes[r][0] = bytes[r][1] = zero;
        for (; w < stop; w++) {
            UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < 2; c++) {
                v128_t x = differing_bytes(a + r * stride, b + c * WIDTH, w);
                bytes[r][c] = wasm_i8x16_add(bytes[r][c], wasm_i8x16_popcnt(x));
            }
        }
        UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < 2; c++)
            d[r][c] = wasm_i32x4_add(d[r][c], lane_sums(bytes[r][c]));
    }
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int c = 0; c < 2; c++) {
        if (t->k % 32) {
            v128_t x = wasm_v128_and(differing_bytes(a + r * stride, b + c * WIDTH, w), tail);
            d[r][c] = wasm_i32x4_add(d[r][c], lane_sums(wasm_i8x16_popcnt(x)));
        }
        v128_t product = wasm_i32x4_sub(wasm_i32x4_splat((int32_t)t->k), wasm_i32x4_shl(d[r][c], 1));
        wasm_v128_store(t->out + (row + r) * t->out_stride + lane + c * WIDTH, product);
    }
}

void onebit_xnor_simd128(const struct xnor_block *t) {
    for (ptrdiff_t lane = 0; lane < LANES; lane += 2 * WIDTH) {
        ptrdiff_t i = 0;
        for (; i + 2 <= t->m; i += 2) xnor_tile(t, i, lane, 2);
        if (i < t->m) xnor_tile(t, i, lane, 1);
    }
}

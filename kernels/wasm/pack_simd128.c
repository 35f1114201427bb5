/* Packing float32 on WebAssembly's vectors: four compares, and the sign bits of sixteen bytes. */
#include "paths.h"

#include <wasm_simd128.h>

/* Sixteen floats as sixteen bits, 1 for x >= 0; `unordered` collects where there is a NaN. */
static ALWAYS_INLINE uint64_t sixteen_signs(const float *x, v128_t *unordered) {
    const v128_t zero = wasm_f32x4_const_splat(0);
    v128_t plus[4];
    UNROLL for (int i = 0; i < 4; i++) {
        v128_t four = wasm_v128_load(x + 4 * i);
        *unordered = wasm_v128_or(*unordered, wasm_f32x4_ne(four, four));
        plus[i] = wasm_f32x4_ge(four, zero);
    }
    v128_t low = wasm_i16x8_narrow_i32x4(plus[0], plus[1]);
    v128_t high = wasm_i16x8_narrow_i32x4(plus[2], plus[3]);
    return wasm_i8x16_bitmask(wasm_i8x16_narrow_i16x8(low, high));
}

int onebit_pack_rows_simd128(const char *bytes, int64_t rows, int64_t k, uint64_t *words) {
    const float *x = (const float *)bytes;
    v128_t unordered = wasm_i32x4_const_splat(0);
    int nan = 0;
    for (int64_t i = 0; i < rows; i++) {
        int64_t j = 0;
        for (; j + 64 <= k; j += 64, x += 64) {
            uint64_t word = 0;
            UNROLL for (int part = 0; part < 64; part += 16)
                word |= sixteen_signs(x + part, &unordered) << part;
            *words++ = word;
        }
        if (j == k) continue;
        uint64_t word = 0;
        for (int bit = 0; j < k; j++, bit++, x++) {
            nan |= *x != *x;
            word |= (uint64_t)(*x >= 0) << bit;
        }
        *words++ = word;
    }
    return nan | wasm_v128_any_true(unordered);
}

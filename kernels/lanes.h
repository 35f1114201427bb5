/* Sixteen outputs side by side, one in each 32-bit lane: what every product here counts in.
 *
 * n outputs are ceil_div(n, LANES) blocks, the last one padded; threads and caches are given whole
 * blocks; and of A the same four bytes go to all lanes, wherever in memory they stand. */
#ifndef ONEBIT_LANES_H
#define ONEBIT_LANES_H

#include <stdint.h>
#include <string.h>

enum { LANES = 16 };

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

/* One instruction, aligned or not. */
static inline uint32_t load32(const void *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

#endif

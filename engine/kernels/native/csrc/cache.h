/* The paged KV cache of one layer, in the order in which attention multiplies it.
 *
 * Memory is [block][layer][tile of the block][key head], so that a block is contiguous. A tile holds 16
 * tokens of one head: their keys, their values and, in an int8 cache, their scales. One instruction
 * multiplies n elements, 1 of float, 2 of bf16 and 4 of int8. These lie side by side, as dimensions of
 * keys and as tokens of values:
 *     keys [width / n][token][n], values [token / n][width][n], scales of keys [16], of values [16].
 * So the product of a query and a key needs no sum across a vector. A block of 16 m tokens has m tiles. */

#ifndef TIDEMILL_CACHE_H
#define TIDEMILL_CACHE_H

#include "rows.h"

#define TILE LANES /* tokens of a tile */
#define MAX_WIDTH 256
#define KEY_ZERO 128 /* keys are stored as unsigned bytes: k = scale (q - 128) */

typedef struct {
    int64_t kind;                          /* of its elements: KIND_F32, KIND_BF16 or KIND_INT8 */
    int64_t heads, kv_heads, width, tiles; /* tiles: in a block */
    int64_t tile_bytes, block_bytes, query_bytes; /* block_bytes: between blocks */
    uint8_t *memory;                              /* where this layer begins in the first block */
} cache;

INLINE uint8_t *tile_at(const cache *c, const int32_t *table, int64_t tile, int64_t kv_head) {
    return c->memory + table[tile / c->tiles] * c->block_bytes +
           (tile % c->tiles * c->kv_heads + kv_head) * c->tile_bytes;
}

INLINE float *key_scales(const cache *c, uint8_t *tile) {
    return (float *)(tile + 2 * TILE * c->width);
}

INLINE void store_f32(const cache *c, uint8_t *tile, int64_t at, const float *k, const float *v) {
    float *keys = (float *)tile, *values = keys + TILE * c->width;
    for (int64_t d = 0; d < c->width; d++) keys[d * TILE + at] = k[d];
    memcpy(values + at * c->width, v, c->width * sizeof *v);
}

INLINE void store_bf16(const cache *c, uint8_t *tile, int64_t at, const float *k, const float *v) {
    uint16_t *keys = (uint16_t *)tile, *values = keys + TILE * c->width, narrow[MAX_WIDTH];
    for (int64_t d = 0; d < c->width; d += LANES) put_bf16(narrow + d, load_f32(k + d));
    for (int64_t d = 0; d < c->width; d += 2) memcpy(keys + d * TILE + at * 2, narrow + d, 4);
    for (int64_t d = 0; d < c->width; d += LANES) put_bf16(narrow + d, load_f32(v + d));
    values += at / 2 * c->width * 2 + at % 2;
    for (int64_t d = 0; d < c->width; d++) values[d * 2] = narrow[d];
}

/* Round `width` floats to whole numbers from -127 to 127. Returns the scale: what 1 stands for. */
INLINE float quantize(const float *x, int64_t width, vf *q) {
    float scale = abs_max(x, width) / 127, inverse = scale > 0 ? 1 / scale : 0;
    for (int64_t d = 0; d < width; d += LANES) q[d / LANES] = rounded(load_f32(x + d) * inverse);
    return scale;
}

INLINE void store_int8(const cache *c, uint8_t *tile, int64_t at, const float *k, const float *v) {
    vf q[MAX_WIDTH / LANES];
    uint8_t bytes[MAX_WIDTH], *values = tile + TILE * c->width + at / 4 * c->width * 4;
    float *scales = key_scales(c, tile);
    scales[at] = quantize(k, c->width, q);
    for (int64_t d = 0; d < c->width; d += LANES) put_u8(bytes + d, q[d / LANES] + KEY_ZERO);
    for (int64_t d = 0; d < c->width; d += 4) memcpy(tile + d * TILE + at * 4, bytes + d, 4);
    scales[TILE + at] = quantize(v, c->width, q);
    for (int64_t d = 0; d < c->width; d += LANES) put_u8(bytes + d, q[d / LANES]);
    /* Byte by byte, as another thread may be writing the neighbouring tokens. */
    for (int64_t d = 0; d < c->width; d++) values[d * 4 + at % 4] = bytes[d];
}

/* Set what is not finite to 0. */
INLINE void mend(float *x, int64_t width) {
    for (int64_t d = 0; d < width; d += LANES) {
        vf y = load_f32(x + d);
        put_f32(x + d, pick(larger(y, -y) <= 3e38f, y, splat(0)));
    }
}

/* Store one token's key and value [width] of one head. What is not finite becomes 0, also in `k` and
 * `v`: the next sequence in the block multiplies by 0 what it does not see, and 0 times NaN is NaN. */
INLINE void store(const cache *c, uint8_t *tile, int64_t at, float *k, float *v) {
    mend(k, c->width);
    mend(v, c->width);
    switch (c->kind) {
    case KIND_F32: store_f32(c, tile, at, k, v); break;
    case KIND_BF16: store_bf16(c, tile, at, k, v); break;
    default: store_int8(c, tile, at, k, v);
    }
}

#endif

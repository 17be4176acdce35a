/* Attention of a few query rows over a range of one head's keys, a tile of four areas at a time.
 *
 * For each tile: scores of every row, softened to weights (online softmax, Milakov and Gimelshein
 * 2018; base 2, the queries being scaled for it), and the values mixed by them. Up to six rows share
 * each key and value in registers, up to MAX_ROWS in the first-level cache. Each step exists once an
 * element type. */

#ifndef TIDEMILL_ATTEND_H
#define TIDEMILL_ATTEND_H

#include "cache.h"

#define KEYS 64     /* of a tile */
#define AREAS 4     /* of a tile */
#define MAX_ROWS 24 /* query rows of a call */
#define ROOM 32     /* the same in whole vectors */
#define SHARED 6    /* rows that go through registers together */
#define HIDDEN -1e30f
#define NOTHING -1e20f /* the greatest score of a row that has seen no key */

typedef struct {
    float top[ROOM], total[MAX_ROWS][LANES];  /* greatest score; weights' sums relative to it */
    float peak[ROOM], shrink[ROOM];           /* greatest score of the tile; factor of what was */
    float unit[ROOM];                         /* what a weight of 1 stands for, of bytes */
    float scores[MAX_ROWS][KEYS];
    uint8_t weights[MAX_ROWS][4 * KEYS];      /* as the values' kind multiplies them */
    const uint8_t *query[MAX_ROWS];           /* encoded, scaled by log2(e) / sqrt(width) or so */
    float *out[MAX_ROWS];                     /* [width]: weighted sum of values, not divided yet */
    int64_t low[MAX_ROWS], high[MAX_ROWS];    /* keys that a row sees */
} __attribute__((aligned(64))) attending;

/* Queries, encoded. Of bytes: values, their scale, and KEY_ZERO times their sum. */

INLINE void encode_query(const int kind, uint8_t *to, const float *x, int64_t width) {
    if (kind == KIND_F32) {
        memcpy(to, x, width * sizeof *x);
    } else if (kind == KIND_BF16) {
        for (int64_t d = 0; d < width; d += LANES) put_bf16((uint16_t *)to + d, load_f32(x + d));
    } else {
        vf q[MAX_WIDTH / LANES], total = splat(0);
        float scale = quantize(x, width, q);
        for (int64_t d = 0; d < width; d += LANES) {
            put_u8(to + d, q[d / LANES]);
            total += q[d / LANES];
        }
        int32_t zero = KEY_ZERO * (int32_t)sum(total);
        memcpy(to + width, &scale, 4);
        memcpy(to + width + 4, &zero, 4);
    }
}

/* Scores of R rows with the keys of AREAS areas. */

INLINE void scores_f32(const int R, attending *a, int r, uint8_t *const *area, int64_t width) {
    vf acc[R][AREAS];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < AREAS; j++) acc[i][j] = splat(0);
    for (int64_t d = 0; d < width; d++)
        UNROLL for (int i = 0; i < R; i++) {
            float q = ((const float *)a->query[r + i])[d];
            UNROLL for (int j = 0; j < AREAS; j++)
                acc[i][j] += q * load_f32((const float *)area[j] + d * AREA);
        }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < AREAS; j++)
        put_f32(a->scores[r + i] + AREA * j, acc[i][j]);
}

INLINE void scores_bf16(const int R, attending *a, int r, uint8_t *const *area, int64_t width) {
    vf acc[R][AREAS];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < AREAS; j++) acc[i][j] = splat(0);
    for (int64_t d = 0; d < width; d += 2)
        UNROLL for (int i = 0; i < R; i++) {
            vi q = broadcast(a->query[r + i] + 2 * d);
            UNROLL for (int j = 0; j < AREAS; j++)
                acc[i][j] = dot_halves(acc[i][j], load_i32(area[j] + d * 2 * AREA), q);
        }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < AREAS; j++)
        put_f32(a->scores[r + i] + AREA * j, acc[i][j]);
}

INLINE void scores_int8(const int R, attending *a, int r, uint8_t *const *area, int64_t width) {
    vi acc[R][AREAS];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < AREAS; j++) acc[i][j] = (vi){};
    for (int64_t d = 0; d < width; d += 4)
        UNROLL for (int i = 0; i < R; i++) {
            vi q = broadcast(a->query[r + i] + d);
            UNROLL for (int j = 0; j < AREAS; j++)
                acc[i][j] = dot_bytes(acc[i][j], load_i32(area[j] + d * AREA), q);
        }
    UNROLL for (int i = 0; i < R; i++) {
        float scale;
        int32_t zero;
        memcpy(&scale, a->query[r + i] + width, 4);
        memcpy(&zero, a->query[r + i] + width + 4, 4);
        UNROLL for (int j = 0; j < AREAS; j++) {
            vf keys = load_f32((const float *)(area[j] + 2 * AREA * width));
            vf exact = __builtin_convertvector(acc[i][j] - zero, vf);
            put_f32(a->scores[r + i] + AREA * j, exact * (keys * scale));
        }
    }
}

/* The tile's scores of one row, minus infinity (or so) where it does not see the key. */
INLINE void hide(attending *a, int r, int64_t start) {
    int32_t low = a->low[r] - start > 0 ? least(a->low[r] - start, KEYS) : 0;
    int32_t high = a->high[r] - start > 0 ? least(a->high[r] - start, KEYS) : 0;
    UNROLL for (int j = 0; j < AREAS; j++) {
        vf s = load_f32(a->scores[r] + AREA * j);
        vi seen = (NUMBERS + AREA * j >= low) & (NUMBERS + AREA * j < high);
        put_f32(a->scores[r] + AREA * j, pick(seen, s, splat(HIDDEN)));
    }
}

/* The scales of a tile's values, stretched so that the greatest is 255; returns what 1 stands for.
 * Only the first `seen` keys count: behind them is what was there before. */
INLINE float stretch(uint8_t *const *area, int64_t width, int64_t seen, vf *scales) {
    int32_t end = least(seen, KEYS);
    vf greatest = splat(1e-30f);
    UNROLL for (int j = 0; j < AREAS; j++) {
        scales[j] = load_f32((const float *)(area[j] + 2 * AREA * width) + AREA);
        scales[j] = pick(NUMBERS + AREA * j < end, scales[j], splat(0));
        greatest = larger(greatest, scales[j]);
    }
    float unit = most(greatest) / 255;
    UNROLL for (int j = 0; j < AREAS; j++) scales[j] *= 1 / unit;
    return unit;
}

/* Scores to weights, of all rows. `start`: position of the tile's first key; `end`: past the last key
 * that any of them sees.
 *
 * Weights are relative to each row's greatest score so far; of bytes, to that of the tile, and with
 * the values' scales among them, so that they use all of their 256 steps. */
INLINE void soften(const int kind, attending *a, int rows, int64_t start, int64_t end,
                   uint8_t *const *area, int64_t width) {
    const int degree = kind == KIND_F32 ? 5 : kind == KIND_BF16 ? 4 : 3;
    vf scales[AREAS];
    float unit = kind == KIND_INT8 ? stretch(area, width, end - start, scales) : 0;
    for (int r = 0; r < rows; r++) {
        if (start < a->low[r] || start + KEYS > a->high[r]) hide(a, r, start);
        vf peak = splat(NOTHING);
        UNROLL for (int j = 0; j < AREAS; j++)
            peak = larger(peak, load_f32(a->scores[r] + AREA * j));
        a->peak[r] = most(peak);
    }
    for (int r = 0; r < rows; r += LANES) {
        vf peak = load_f32(a->peak + r), old = load_f32(a->top + r), top = larger(old, peak);
        put_f32(a->shrink + r, power_of_two(5, old - top));
        put_f32(a->unit + r, power_of_two(5, peak - top) * unit);
        put_f32(a->top + r, top);
    }
    for (int r = 0; r < rows; r++) {
        float base = kind == KIND_INT8 ? a->peak[r] : a->top[r];
        float weigh = kind == KIND_INT8 ? a->unit[r] / unit : 1;
        vf sum = splat(0);
        UNROLL for (int j = 0; j < AREAS; j++) {
            vf w = power_of_two(degree, load_f32(a->scores[r] + AREA * j) - base);
            sum += w;
            if (kind == KIND_F32)
                put_f32((float *)a->weights[r] + AREA * j, w);
            else if (kind == KIND_BF16)
                put_bf16((uint16_t *)a->weights[r] + AREA * j, w);
            else
                put_rounded_u8(a->weights[r] + AREA * j, w * scales[j]);
        }
        put_f32(a->total[r], load_f32(a->total[r]) * a->shrink[r] + sum * weigh);
    }
}

/* N vectors of R rows' output, from vector `v` on: the values of `count` areas, weighted. */

INLINE void mix_f32(const int R, const int N, attending *a, int r, uint8_t *const *area, int count,
                    int64_t width, int64_t v) {
    vf acc[R][N];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        acc[i][n] = load_f32(a->out[r + i] + LANES * (v + n)) * a->shrink[r + i];
    for (int j = 0; j < count; j++) {
        const float *values = (const float *)area[j] + AREA * width + LANES * v;
        for (int64_t at = 0; at < AREA; at++, values += width)
            UNROLL for (int i = 0; i < R; i++) {
                float w = ((const float *)a->weights[r + i])[j * AREA + at];
                UNROLL for (int n = 0; n < N; n++) acc[i][n] += w * load_f32(values + LANES * n);
            }
    }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        put_f32(a->out[r + i] + LANES * (v + n), acc[i][n]);
}

INLINE void mix_bf16(const int R, const int N, attending *a, int r, uint8_t *const *area, int count,
                     int64_t width, int64_t v) {
    vf acc[R][N];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        acc[i][n] = load_f32(a->out[r + i] + LANES * (v + n)) * a->shrink[r + i];
    for (int j = 0; j < count; j++) {
        const uint16_t *values = (const uint16_t *)area[j] + AREA * width + 2 * LANES * v;
        for (int64_t at = 0; at < AREA; at += 2, values += 2 * width)
            UNROLL for (int i = 0; i < R; i++) {
                vi w = broadcast((const uint16_t *)a->weights[r + i] + j * AREA + at);
                UNROLL for (int n = 0; n < N; n++)
                    acc[i][n] = dot_halves(acc[i][n], load_i32(values + 2 * LANES * n), w);
            }
    }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        put_f32(a->out[r + i] + LANES * (v + n), acc[i][n]);
}

INLINE void mix_int8(const int R, const int N, attending *a, int r, uint8_t *const *area, int count,
                     int64_t width, int64_t v) {
    vi acc[R][N];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++) acc[i][n] = (vi){};
    for (int j = 0; j < count; j++) {
        const uint8_t *values = area[j] + AREA * width + 4 * LANES * v;
        for (int64_t at = 0; at < AREA; at += 4, values += 4 * width)
            UNROLL for (int i = 0; i < R; i++) {
                vi w = broadcast(a->weights[r + i] + j * AREA + at);
                UNROLL for (int n = 0; n < N; n++)
                    acc[i][n] = dot_bytes(acc[i][n], w, load_i32(values + 4 * LANES * n));
            }
    }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++) {
        float *out = a->out[r + i] + LANES * (v + n);
        put_f32(out, load_f32(out) * a->shrink[r + i] +
                         __builtin_convertvector(acc[i][n], vf) * a->unit[r + i]);
    }
}

#endif

/* See product.h. */

#if defined(__GNUC__) && !defined(__clang__)
/* With it gcc 12 keeps the sums of a tile in memory and not in registers: half the speed. */
#pragma GCC optimize("no-tree-pre")
#endif

#include "product.h"

/* Where a tile's results go: `to` and from row to row `stride` floats on; added to what is there? */
typedef struct {
    float *to;
    int64_t stride;
    int add;
} place;

INLINE void leave(const place *out, int i, int64_t channel, const float *bias, vf y) {
    float *to = out->to + i * out->stride + channel % PANEL;
    if (bias) y += load_f32(bias + channel);
    if (out->add) y += load_f32(to);
    put_f32(to, y);
}

#define EACH_SUM UNROLL for (int i = 0; i < n; i++) UNROLL for (int j = 0; j < 4; j++)
#define LEAVE_ALL(y) \
    EACH_SUM leave(&out, i, panel * PANEL + LANES * j, p->w->bias, y)

INLINE void tile_f32(const int n, const product *p, int64_t t, int64_t panel, place out) {
    int64_t inputs = p->w->inputs;
    const float *w = (const float *)p->w->panels + panel * PANEL * inputs;
    const float *x = (const float *)p->x->values + t * inputs;
    vf acc[ROWS][4];
    EACH_SUM acc[i][j] = splat(0);
    for (int64_t k = 0; k < inputs; k++, w += PANEL)
        EACH_SUM acc[i][j] += x[i * inputs + k] * load_f32(w + LANES * j);
    LEAVE_ALL(acc[i][j]);
}

INLINE void tile_bf16(const int n, const product *p, int64_t t, int64_t panel, place out) {
    int64_t inputs = p->w->inputs;
    const uint16_t *w = (const uint16_t *)p->w->panels + panel * PANEL * inputs;
    const uint16_t *x = (const uint16_t *)p->x->values + t * inputs;
    vf acc[ROWS][4];
    EACH_SUM acc[i][j] = splat(0);
    for (int64_t k = 0; k < inputs; k += 2, w += 2 * PANEL)
        UNROLL for (int i = 0; i < n; i++) {
            vi pair = broadcast(x + i * inputs + k);
            UNROLL for (int j = 0; j < 4; j++)
                acc[i][j] = dot_halves(acc[i][j], load_i32(w + 2 * LANES * j), pair);
        }
    LEAVE_ALL(acc[i][j]);
}

/* With x = scale_x (q - 128) and w = scale_w v, each sum is
 *     sum x w = scale_x scale_w (sum q v - 128 sum v),  the last known beforehand: it begins with it. */
INLINE void tile_int8(const int n, const product *p, int64_t t, int64_t panel, place out) {
    int64_t inputs = p->w->inputs;
    const int8_t *w = (const int8_t *)p->w->panels + panel * PANEL * inputs;
    const uint8_t *x = (const uint8_t *)p->x->values + t * inputs;
    const float *scales = p->w->scales + panel * PANEL, *scale_x = p->x->scales + t;
    vi acc[ROWS][4];
    EACH_SUM acc[i][j] = load_i32(p->w->starts + panel * PANEL + LANES * j);
    for (int64_t k = 0; k < inputs; k += 4, w += 4 * PANEL)
        UNROLL for (int i = 0; i < n; i++) {
            vi four = broadcast(x + i * inputs + k);
            UNROLL for (int j = 0; j < 4; j++)
                acc[i][j] = dot_bytes(acc[i][j], four, load_i32(w + 4 * LANES * j));
        }
    LEAVE_ALL(__builtin_convertvector(acc[i][j], vf) * (load_f32(scales + LANES * j) * scale_x[i]));
}

/* With x = scale_x q and w = scale_w v + low in each group, the group's sum is
 *     sum x w = scale_x scale_w sum q v + low scale_x sum q,  the last factor the row's own.
 * Half a panel at a time, since each tile needs whole sums beside the group's. */
INLINE void tile_grouped(const int n, const int bits, const product *p, int64_t t, int64_t panel,
                         place out) {
    int64_t inputs = p->w->inputs, group = p->w->group, groups = inputs / group;
    const float *scale_x = p->x->scales + t * groups, *sum_x = p->x->sums + t * groups;
    for (int64_t half = 2 * panel; half < 2 * panel + 2; half++) {
        const uint8_t *w = (const uint8_t *)p->w->panels + half * HALF * inputs * bits / 8;
        const float *scale = p->w->scales + half * HALF * groups;
        const float *low = p->w->lows + half * HALF * groups;
        const int8_t *x = (const int8_t *)p->x->values + t * inputs;
        vf y[ROWS][2];
        UNROLL for (int i = 0; i < n; i++) UNROLL for (int j = 0; j < 2; j++) y[i][j] = splat(0);
        for (int64_t g = 0; g < groups; g++, scale += HALF, low += HALF) {
            vi acc[ROWS][2];
            UNROLL for (int i = 0; i < n; i++) acc[i][0] = acc[i][1] = (vi){};
            for (int64_t k = 0; k < group; k += 8, x += 8, w += HALF * bits) {
                vi v[2][2]; /* [four inputs][16 channels] */
                UNROLL for (int j = 0; j < 2; j++) {
                    v[0][j] = load_i32(w + 64 * j);
                    if (bits == 8) {
                        v[1][j] = load_i32(w + 128 + 64 * j);
                    } else {
                        v[1][j] = v[0][j] >> 4 & 0x0f0f0f0f;
                        v[0][j] &= 0x0f0f0f0f;
                    }
                }
                UNROLL for (int i = 0; i < n; i++) UNROLL for (int f = 0; f < 2; f++) {
                    vi four = broadcast(x + i * inputs + 4 * f);
                    UNROLL for (int j = 0; j < 2; j++)
                        acc[i][j] = dot_bytes(acc[i][j], v[f][j], four);
                }
            }
            UNROLL for (int j = 0; j < 2; j++) {
                vf s = load_f32(scale + LANES * j), l = load_f32(low + LANES * j);
                UNROLL for (int i = 0; i < n; i++) {
                    vf part = __builtin_convertvector(acc[i][j], vf) * scale_x[i * groups + g];
                    y[i][j] += part * s + l * sum_x[i * groups + g];
                }
            }
        }
        UNROLL for (int i = 0; i < n; i++) UNROLL for (int j = 0; j < 2; j++)
            leave(&out, i, half * HALF + LANES * j, p->w->bias, y[i][j]);
    }
}

/* Functions of their own: inlined into one, the compiler keeps the sums in memory. */
typedef void tile(const product *, int64_t, int64_t, place);
#define TILE(name, n, call)                                                                       \
    static __attribute__((noinline)) void name##_##n(const product *p, int64_t t, int64_t panel, \
                                                     place out) {                                \
        call;                                                                                    \
    }
#define TILES(name, call)                                                            \
    TILE(name, 1, call(1)) TILE(name, 2, call(2)) TILE(name, 3, call(3))             \
    TILE(name, 4, call(4)) TILE(name, 5, call(5)) TILE(name, 6, call(6))             \
    static tile *const name[ROWS] = {name##_1, name##_2, name##_3, name##_4, name##_5, name##_6};
#define F32(n) tile_f32(n, p, t, panel, out)
#define BF16(n) tile_bf16(n, p, t, panel, out)
#define INT8(n) tile_int8(n, p, t, panel, out)
#define BITS4(n) tile_grouped(n, 4, p, t, panel, out)
#define BITS8(n) tile_grouped(n, 8, p, t, panel, out)
TILES(f32_tiles, F32)
TILES(bf16_tiles, BF16)
TILES(int8_tiles, INT8)
TILES(bits4_tiles, BITS4)
TILES(bits8_tiles, BITS8)

static tile *const *tiles_of(const weight *w) {
    switch (w->kind) {
    case KIND_F32: return f32_tiles;
    case KIND_BF16: return bf16_tiles;
    case KIND_INT8: return int8_tiles;
    default: return w->bits == 4 ? bits4_tiles : bits8_tiles;
    }
}

INLINE void remember(best *known, const float *y, int64_t first, int64_t count) {
    for (int64_t c = 0; c < count; c++) {
        int earlier = y[c] == known->value && first + c < known->channel;
        if (y[c] > known->value || earlier) *known = (best){y[c], (int32_t)(first + c)};
    }
}

/* A row of a tile, y [PANEL], to where it belongs; the last panel may stand out over the edge. */
INLINE void finish(const product *p, int64_t t, int64_t panel, const float *y, int64_t me) {
    int64_t first = panel * PANEL, count = least(p->w->outputs - first, PANEL);
    float *out = p->out ? p->out + t * p->stride : NULL;
    switch (p->end) {
    case END_PUT: memcpy(out + first, y, count * sizeof *y); break;
    case END_ADD:
        for (int64_t c = 0; c < count; c++) out[first + c] += y[c];
        break;
    case END_GATE:
        for (int64_t c = 0; c < count; c += 2 * LANES) {
            vf gate = load_f32(y + c), other = load_f32(y + c + LANES);
            vf made = p->w->kind == KIND_F32 ? silu(0, gate) : silu(1, gate);
            put_f32(out + (first + c) / 2, made * other);
        }
        break;
    case END_BEST:
        if (out) memcpy(out + first, y, count * sizeof *y);
        best *known = p->bests + me * p->tokens + t;
        float top = -INFINITY;
        for (int64_t c = 0; c < count; c++) top = y[c] > top ? y[c] : top;
        if (top >= known->value) remember(known, y, first, count);
    }
}

void multiply(const product *p, team *all, int stage, int64_t me) {
    tile *const *tiles = tiles_of(p->w);
    int64_t panels = ceiling(p->w->outputs, PANEL);
    if (p->tokens == 0) return;
    /* As many blocks of rows as keep the panels in the cache, and the threads evenly busy. */
    int64_t blocks = ceiling(p->tokens, BLOCK);
    while (panels * blocks % all->threads && p->tokens / (blocks + 1) >= 2 * ROWS) blocks++;
    int64_t block = ceiling(ceiling(p->tokens, blocks), ROWS) * ROWS;
    blocks = ceiling(p->tokens, block);
    float y[ROWS * PANEL];
    for (int64_t unit; (unit = claim(all, stage)) < panels * blocks;) {
        int64_t panel = unit / blocks, t = unit % blocks * block;
        int64_t end = least(t + block, p->tokens);
        int whole = (panel + 1) * PANEL <= p->w->outputs;
        int direct = whole && (p->end == END_PUT || p->end == END_ADD);
        for (; t < end; t += ROWS) {
            int64_t n = least(end - t, ROWS);
            place out = {y, PANEL, 0};
            if (direct) out = (place){p->out + t * p->stride + panel * PANEL, p->stride, p->end == END_ADD};
            tiles[n - 1](p, t, panel, out);
            if (!direct)
                for (int64_t i = 0; i < n; i++) finish(p, t + i, panel, y + i * PANEL, me);
        }
    }
}

/* See product.h. */

#if defined(__GNUC__) && !defined(__clang__)
/* With this pass gcc 12 keeps a microkernel's sums in memory, not in registers: half the speed. */
#pragma GCC optimize("no-tree-pre")
#endif

#include "product.h"

/* Where a microkernel's results go: to rows `stride` floats apart, added to them or not. */
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
#define LEAVE_ALL(y) EACH_SUM leave(&out, i, panel *PANEL + LANES * j, p->w->bias, y)

INLINE void micro_f32(const int n, const product *p, int64_t t, int64_t panel, place out) {
    int64_t inputs = p->w->inputs;
    const float *w = (const float *)p->w->panels + panel * PANEL * inputs;
    const float *x = (const float *)p->x->values + t * inputs;
    vf acc[ROWS][4];
    EACH_SUM acc[i][j] = splat(0);
    for (int64_t k = 0; k < inputs; k++, w += PANEL)
        EACH_SUM acc[i][j] += x[i * inputs + k] * load_f32(w + LANES * j);
    LEAVE_ALL(acc[i][j]);
}

INLINE void micro_bf16(const int n, const product *p, int64_t t, int64_t panel, place out) {
    int64_t inputs = p->w->inputs;
    const uint16_t *w = (const uint16_t *)p->w->panels + panel * PANEL * inputs;
    const uint16_t *x = (const uint16_t *)p->x->values + t * inputs;
    vf acc[ROWS][4];
    EACH_SUM acc[i][j] = splat(0);
    for (int64_t k = 0; k < inputs; k += 2, w += 2 * PANEL) UNROLL for (int i = 0; i < n; i++) {
            vi pair = broadcast(x + i * inputs + k);
            UNROLL for (int j = 0; j < 4; j++)
                acc[i][j] = dot_halves(acc[i][j], load_i32(w + 2 * LANES * j), pair);
        }
    LEAVE_ALL(acc[i][j]);
}

/* With x = scale_x (q - 128) and w = scale_w v, each sum is
 *     sum x w = scale_x scale_w (sum q v - 128 sum v).  The second term is known: sums begin with it. */
INLINE void micro_int8(const int n, const product *p, int64_t t, int64_t panel, place out) {
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
 *     sum x w = scale_x scale_w sum q v + low scale_x sum q,  the last two factors known for the row.
 * Half a panel at a time, as both whole sums and a group's need registers. */
INLINE void micro_grouped(const int n, const int bits, const product *p, int64_t t, int64_t panel,
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
                    vf scaled = __builtin_convertvector(acc[i][j], vf) * scale_x[i * groups + g];
                    y[i][j] += scaled * s + l * sum_x[i * groups + g];
                }
            }
        }
        UNROLL for (int i = 0; i < n; i++) UNROLL for (int j = 0; j < 2; j++)
            leave(&out, i, half * HALF + LANES * j, p->w->bias, y[i][j]);
    }
}

/* Not inlined: in one function with others, the compiler keeps the sums in memory. */
typedef void microkernel(const product *, int64_t, int64_t, place);
#define KERNEL(name, n, call)                                                                       \
    static __attribute__((noinline)) void name##_##n(const product *p, int64_t t, int64_t panel, \
                                                     place out) {                                \
        call;                                                                                    \
    }
#define KERNELS(name, call)                                                            \
    KERNEL(name, 1, call(1)) KERNEL(name, 2, call(2)) KERNEL(name, 3, call(3))             \
    KERNEL(name, 4, call(4)) KERNEL(name, 5, call(5)) KERNEL(name, 6, call(6))             \
    static microkernel *const name[ROWS] = {name##_1, name##_2, name##_3, name##_4, name##_5, name##_6};
#define F32(n) micro_f32(n, p, t, panel, out)
#define BF16(n) micro_bf16(n, p, t, panel, out)
#define INT8(n) micro_int8(n, p, t, panel, out)
#define BITS4(n) micro_grouped(n, 4, p, t, panel, out)
#define BITS8(n) micro_grouped(n, 8, p, t, panel, out)
KERNELS(f32_kernels, F32)
KERNELS(bf16_kernels, BF16)
KERNELS(int8_kernels, INT8)
KERNELS(bits4_kernels, BITS4)
KERNELS(bits8_kernels, BITS8)

static microkernel *const *kernels_of(const weight *w) {
    switch (w->kind) {
    case KIND_F32: return f32_kernels;
    case KIND_BF16: return bf16_kernels;
    case KIND_INT8: return int8_kernels;
    default: return w->bits == 4 ? bits4_kernels : bits8_kernels;
    }
}

INLINE void remember(argmax *known, const float *y, int64_t first, int64_t count) {
    for (int64_t c = 0; c < count; c++) {
        int earlier = y[c] == known->value && first + c < known->channel;
        if (y[c] > known->value || earlier) *known = (argmax){y[c], (int32_t)(first + c)};
    }
}

/* Write row `t` of a microkernel's results, y [PANEL]. The last panel may have too many channels. */
INLINE void put_row(const product *p, int64_t t, int64_t panel, const float *y, int64_t me) {
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
    case END_ARGMAX:
        if (out) memcpy(out + first, y, count * sizeof *y);
        argmax *known = p->argmaxes + me * p->tokens + t;
        float top = -INFINITY;
        for (int64_t c = 0; c < count; c++) top = y[c] > top ? y[c] : top;
        if (top >= known->value) remember(known, y, first, count);
    }
}

void multiply(const product *p, team *all, int stage, int64_t me) {
    microkernel *const *kernels = kernels_of(p->w);
    int64_t panels = ceiling(p->w->outputs, PANEL);
    if (p->tokens == 0) return;
    /* Bands short enough for the cache, and as many as keep the threads evenly busy. */
    int64_t bands = ceiling(p->tokens, BAND);
    while (panels * bands % team_threads(all) && p->tokens / (bands + 1) >= 2 * ROWS) bands++;
    int64_t band = ceiling(ceiling(p->tokens, bands), ROWS) * ROWS;
    bands = ceiling(p->tokens, band);
    float y[ROWS * PANEL];
    for (int64_t unit; (unit = claim(all, stage, 1)) < panels * bands;) {
        int64_t panel = unit / bands, t = unit % bands * band;
        int64_t end = least(t + band, p->tokens);
        int whole = (panel + 1) * PANEL <= p->w->outputs;
        int direct = whole && (p->end == END_PUT || p->end == END_ADD);
        for (; t < end; t += ROWS) {
            int64_t n = least(end - t, ROWS);
            place out = {y, PANEL, 0};
            if (direct) out = (place){p->out + t * p->stride + panel * PANEL, p->stride, p->end == END_ADD};
            kernels[n - 1](p, t, panel, out);
            if (!direct)
                for (int64_t i = 0; i < n; i++) put_row(p, t + i, panel, y + i * PANEL, me);
        }
        finish(all, stage, 1, panels * bands);
    }
    wait_for(all, stage, panels * bands);
}

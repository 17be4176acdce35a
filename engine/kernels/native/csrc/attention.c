/* See attention.h. */

#include "attention.h"

/* A function for each number of rows, so that the compiler can keep all sums in registers. */
typedef void scorer(attending *, int, uint8_t *const *, int64_t);
typedef void accumulator(attending *, int, uint8_t *const *, int, int64_t, int64_t);
#define ALONE static __attribute__((noinline)) void
/* clang-format off: a formatter takes these macros for expressions */
#define SCORER(kind, R)                                                               \
    ALONE scores_##kind##_##R(attending *a, int r, uint8_t *const *tile, int64_t w) { \
        scores_##kind(R, a, r, tile, w);                                              \
    }
#define ACCUMULATOR(kind, R, N)                                                               \
    ALONE accumulate_##kind##_##R##_##N(attending *a, int r, uint8_t *const *tile, int count, \
                                        int64_t w, int64_t v) {                               \
        accumulate_##kind(R, N, a, r, tile, count, w, v);                                     \
    }
#define SCORERS(kind)                                                   \
    SCORER(kind, 1)                                                     \
    SCORER(kind, 2) SCORER(kind, 3) SCORER(kind, 4) SCORER(kind, 5)     \
        SCORER(kind, 6) static scorer *const kind##_scorers[SHARED] = { \
            scores_##kind##_1, scores_##kind##_2, scores_##kind##_3,    \
            scores_##kind##_4, scores_##kind##_5, scores_##kind##_6};
#define ACCUMULATORS(kind, N)                                               \
    ACCUMULATOR(kind, 1, N)                                                 \
    ACCUMULATOR(kind, 2, N) ACCUMULATOR(kind, 3, N) ACCUMULATOR(kind, 4, N) \
        ACCUMULATOR(kind, 5, N) ACCUMULATOR(kind, 6, N)
#define NAMES(kind, N)                                                                \
    {accumulate_##kind##_1_##N, accumulate_##kind##_2_##N, accumulate_##kind##_3_##N, \
     accumulate_##kind##_4_##N, accumulate_##kind##_5_##N, accumulate_##kind##_6_##N}
#define BY_ROWS(kind)                                                                      \
    SCORERS(kind)                                                                          \
    ACCUMULATORS(kind, 4)                                                                  \
        ACCUMULATORS(kind, 1) static accumulator *const kind##_accumulators[2][SHARED] = { \
            NAMES(kind, 1), NAMES(kind, 4)};
/* clang-format on */
BY_ROWS(f32)
BY_ROWS(bf16)
BY_ROWS(int8)

/* The next strip: tiles [first, last) of a table. */
typedef struct {
    const int32_t *table;
    int64_t first, last, head;
} following;

/* Fetch tiles [from, to) of the next strip into the cache: no processor foresees where a block table
 * leads. A few tiles at a time, as only so many lines can be on their way at once. */
INLINE void prefetch(const cache *c, const following *f, int64_t from, int64_t to) {
    for (int64_t tile = f->first + from; tile < least(f->first + to, f->last); tile++) {
        const uint8_t *memory = tile_at(c, f->table, tile, f->head);
        for (int64_t line = 0; line < c->tile_bytes; line += 64)
            __builtin_prefetch(memory + line, 0, 2);
    }
}

/* Attention of `rows` rows of `a` over the tiles of segment `s`; `next` is the segment after it, or NULL. */
INLINE void attend(const int kind, scorer *const *scorers,
                   accumulator *const accumulators[2][SHARED], attending *a, int rows,
                   const cache *c, const segment *s, int64_t head, const segment *next,
                   int64_t next_head) {
    int64_t width = c->width, whole = width / LANES / 4 * 4;
    int64_t end = 0;
    for (int r = 0; r < rows; r++) {
        end = a->high[r] > end ? a->high[r] : end;
        a->top[r] = NOTHING;
        put_f32(a->total[r], splat(0));
        memset(a->out[r], 0, width * sizeof(float));
    }
    for (int64_t at = s->first; at < s->last; at += STRIP) {
        uint8_t *tile[STRIP];
        int count = least(s->last - at, STRIP);
        for (int j = 0; j < STRIP; j++) /* past the end: the last one again, which `high` hides */
            tile[j] = tile_at(c, s->table, at + (j < count ? j : count - 1), head);
        following f = {s->table, at + STRIP, least(at + 2 * STRIP, s->last), head};
        if (f.first >= f.last && next)
            f = (following){next->table, next->first, least(next->first + STRIP, next->last),
                            next_head};
        prefetch(c, &f, 0, 1);
        for (int r = 0; r < rows; r += SHARED)
            scorers[least(rows - r, SHARED) - 1](a, r, tile, width);
        prefetch(c, &f, 1, 2);
        online_softmax(kind, a, rows, at * TILE, end, tile, width);
        prefetch(c, &f, 2, STRIP);
        for (int r = 0; r < rows; r += SHARED) {
            int64_t n = least(rows - r, SHARED) - 1;
            int64_t v = 0;
            for (; v < whole; v += 4) accumulators[1][n](a, r, tile, count, width, v);
            for (; v < width / LANES; v++) accumulators[0][n](a, r, tile, count, width, v);
        }
    }
}

/* Attention of `count` of a segment's members, with some query heads of one key head. */
static void attend_members(const segment_list *list, const step *s, const cache *c,
                           const uint8_t *queries, const segment *seg, int64_t member,
                           int64_t count, int64_t first_head, int64_t num_heads, int64_t kv_head,
                           const segment *next, int64_t next_head, attending *a) {
    int rows = 0;
    for (int64_t m = member; m < member + count; m++) {
        int64_t token = list->members[m], high = s->positions[token] + 1;
        int64_t low = list->window && high > list->window ? high - list->window : 0;
        for (int64_t h = first_head; h < first_head + num_heads; h++, rows++) {
            a->query[rows] = queries + (token * c->heads + h) * c->query_bytes;
            a->out[rows] = list->out + (m * c->heads + h) * c->width;
            a->low[rows] = low;
            a->high[rows] = least(high, seg->last * TILE);
        }
    }
#define ATTEND(kind, name) \
    attend(kind, name##_scorers, name##_accumulators, a, rows, c, seg, kv_head, next, next_head)
    switch (c->kind) {
    case KIND_F32: ATTEND(KIND_F32, f32); break;
    case KIND_BF16: ATTEND(KIND_BF16, bf16); break;
    default: ATTEND(KIND_INT8, int8);
    }
    rows = 0;
    for (int64_t m = member; m < member + count; m++)
        for (int64_t h = first_head; h < first_head + num_heads; h++, rows++) {
            list->top[m * c->heads + h] = a->top[rows];
            list->total[m * c->heads + h] = sum(load_f32(a->total[rows]));
        }
}

void attend_step(const segment_list *list, const step *s, const cache *c, const uint8_t *queries,
                 team *all, int stage) {
    int64_t group = c->heads / c->kv_heads;
    attending a;
    int64_t units = list->num_segments * c->kv_heads;
    for (int64_t unit = claim(all, stage, 1), next; unit < units; unit = next) {
        next = claim(all, stage, 1);
        const segment *after = next < units ? list->segments + next / c->kv_heads : NULL;
        const segment *seg = list->segments + unit / c->kv_heads;
        int64_t kv_head = unit % c->kv_heads, tokens = group < MAX_ROWS ? MAX_ROWS / group : 1;
        for (int64_t i = 0; i < seg->count; i += tokens)
            for (int64_t h = 0; h < group; h += MAX_ROWS)
                attend_members(list, s, c, queries, seg, seg->member + i,
                               least(tokens, seg->count - i), kv_head * group + h,
                               least(group - h, MAX_ROWS), kv_head, after, next % c->kv_heads, &a);
        finish(all, stage, 1, units);
    }
    wait_for(all, stage, units);
}

void merge(const segment_list *list, const cache *c, int64_t token, float *out) {
    const int32_t *partial = list->partials + list->partial_start[token];
    int64_t count = list->partial_start[token + 1] - list->partial_start[token];
    for (int64_t h = 0; h < c->heads; h++, out += c->width) {
        float top = NOTHING, total = 0;
        for (int64_t i = 0; i < count; i++) {
            float t = list->top[partial[i] * c->heads + h];
            top = t > top ? t : top;
        }
        for (int64_t i = 0; i < count; i++) {
            int64_t place = partial[i] * c->heads + h;
            total += list->total[place] * exp2f(list->top[place] - top);
        }
        for (int64_t i = 0; i < count; i++) {
            int64_t place = partial[i] * c->heads + h;
            const float *from = list->out + place * c->width;
            float factor = exp2f(list->top[place] - top) / total;
            for (int64_t d = 0; d < c->width; d += LANES) {
                vf more = load_f32(from + d) * factor;
                put_f32(out + d, i ? load_f32(out + d) + more : more);
            }
        }
    }
}

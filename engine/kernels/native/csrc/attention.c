/* See attention.h. */

#include "attention.h"

/* Functions of their own, one for each number of rows: registers are then the compiler's whole care. */
typedef void scorer(attending *, int, uint8_t *const *, int64_t);
typedef void mixer(attending *, int, uint8_t *const *, int, int64_t, int64_t);
#define SCORER(kind, R)                                                                      \
    static __attribute__((noinline)) void scores_##kind##_##R(attending *a, int r,           \
                                                              uint8_t *const *area, int64_t w) { \
        scores_##kind(R, a, r, area, w);                                                     \
    }
#define MIXER(kind, R, N)                                                                         \
    static __attribute__((noinline)) void mix_##kind##_##R##_##N(                                 \
        attending *a, int r, uint8_t *const *area, int count, int64_t w, int64_t v) {             \
        mix_##kind(R, N, a, r, area, count, w, v);                                                \
    }
#define BY_ROWS(kind)                                                                             \
    SCORER(kind, 1) SCORER(kind, 2) SCORER(kind, 3) SCORER(kind, 4) SCORER(kind, 5) SCORER(kind, 6) \
    MIXER(kind, 1, 4) MIXER(kind, 2, 4) MIXER(kind, 3, 4) MIXER(kind, 4, 4) MIXER(kind, 5, 4)     \
    MIXER(kind, 6, 4)                                                                             \
    MIXER(kind, 1, 1) MIXER(kind, 2, 1) MIXER(kind, 3, 1) MIXER(kind, 4, 1) MIXER(kind, 5, 1)     \
    MIXER(kind, 6, 1)                                                                             \
    static scorer *const kind##_scorers[SHARED] = {scores_##kind##_1, scores_##kind##_2,          \
                                                   scores_##kind##_3, scores_##kind##_4,          \
                                                   scores_##kind##_5, scores_##kind##_6};         \
    static mixer *const kind##_mixers[2][SHARED] = {                                              \
        {mix_##kind##_1_1, mix_##kind##_2_1, mix_##kind##_3_1, mix_##kind##_4_1, mix_##kind##_5_1, \
         mix_##kind##_6_1},                                                                       \
        {mix_##kind##_1_4, mix_##kind##_2_4, mix_##kind##_3_4, mix_##kind##_4_4, mix_##kind##_5_4, \
         mix_##kind##_6_4}};
BY_ROWS(f32)
BY_ROWS(bf16)
BY_ROWS(int8)

/* The tile after this one: areas [first, last) of a table. */
typedef struct {
    const int32_t *table;
    int64_t first, last, head;
} following;

/* That tile is fetched meanwhile: tables jump, and no processor foresees that. Areas [from, to) of it,
 * as only so many lines can be on their way at once, and the processor waits for the others. */
INLINE void prefetch(const cache *c, const following *f, int64_t from, int64_t to) {
    for (int64_t area = f->first + from; area < least(f->first + to, f->last); area++) {
        const uint8_t *memory = area_of(c, f->table, area, f->head);
        for (int64_t line = 0; line < c->area_bytes; line += 64)
            __builtin_prefetch(memory + line, 0, 2);
    }
}

/* `rows` rows of `a` over areas [first, last) of a table. */
INLINE void attend(const int kind, scorer *const *scorers, mixer *const mixers[2][SHARED],
                   attending *a, int rows, const cache *c, const segment *s, int64_t head,
                   const segment *next, int64_t next_head) {
    int64_t width = c->width, whole = width / LANES / 4 * 4;
    int64_t end = 0;
    for (int r = 0; r < rows; r++) {
        end = a->high[r] > end ? a->high[r] : end;
        a->top[r] = NOTHING;
        put_f32(a->total[r], splat(0));
        memset(a->out[r], 0, width * sizeof(float));
    }
    for (int64_t at = s->first; at < s->last; at += AREAS) {
        uint8_t *area[AREAS];
        int count = least(s->last - at, AREAS);
        for (int j = 0; j < AREAS; j++) /* past the end the last stands in, hidden by `high` */
            area[j] = area_of(c, s->table, at + (j < count ? j : count - 1), head);
        following f = {s->table, at + AREAS, least(at + 2 * AREAS, s->last), head};
        if (f.first >= f.last && next)
            f = (following){next->table, next->first, least(next->first + AREAS, next->last), next_head};
        prefetch(c, &f, 0, 1);
        for (int r = 0; r < rows; r += SHARED)
            scorers[least(rows - r, SHARED) - 1](a, r, area, width);
        prefetch(c, &f, 1, 2);
        soften(kind, a, rows, at * AREA, end, area, width);
        prefetch(c, &f, 2, AREAS);
        for (int r = 0; r < rows; r += SHARED) {
            int64_t n = least(rows - r, SHARED) - 1;
            int64_t v = 0;
            for (; v < whole; v += 4) mixers[1][n](a, r, area, count, width, v);
            for (; v < width / LANES; v++) mixers[0][n](a, r, area, count, width, v);
        }
    }
}

/* The rows of some of a segment's members: the query heads of one key head. */
static void attend_members(const plan *p, const step *s, const cache *c, const uint8_t *queries,
                           const segment *seg, int64_t member, int64_t count, int64_t first_head,
                           int64_t num_heads, int64_t kv_head, const segment *next,
                           int64_t next_head, attending *a) {
    int rows = 0;
    for (int64_t m = member; m < member + count; m++) {
        int64_t token = p->members[m], high = s->positions[token] + 1;
        int64_t low = p->window && high > p->window ? high - p->window : 0;
        for (int64_t h = first_head; h < first_head + num_heads; h++, rows++) {
            a->query[rows] = queries + (token * c->heads + h) * c->query_bytes;
            a->out[rows] = p->out + (m * c->heads + h) * c->width;
            a->low[rows] = low;
            a->high[rows] = least(high, seg->last * AREA);
        }
    }
    switch (c->kind) {
    case KIND_F32: attend(KIND_F32, f32_scorers, f32_mixers, a, rows, c, seg, kv_head, next, next_head); break;
    case KIND_BF16: attend(KIND_BF16, bf16_scorers, bf16_mixers, a, rows, c, seg, kv_head, next, next_head); break;
    default: attend(KIND_INT8, int8_scorers, int8_mixers, a, rows, c, seg, kv_head, next, next_head);
    }
    rows = 0;
    for (int64_t m = member; m < member + count; m++)
        for (int64_t h = first_head; h < first_head + num_heads; h++, rows++) {
            p->top[m * c->heads + h] = a->top[rows];
            p->total[m * c->heads + h] = sum(load_f32(a->total[rows]));
        }
}

void attend_step(const plan *p, const step *s, const cache *c, const uint8_t *queries, team *all,
                 int stage) {
    int64_t group = c->heads / c->kv_heads;
    attending a;
    int64_t units = p->num_segments * c->kv_heads;
    for (int64_t unit = claim(all, stage), next; unit < units; unit = next) {
        next = claim(all, stage);
        const segment *after = next < units ? p->segments + next / c->kv_heads : NULL;
        const segment *seg = p->segments + unit / c->kv_heads;
        int64_t kv_head = unit % c->kv_heads, tokens = group < MAX_ROWS ? MAX_ROWS / group : 1;
        for (int64_t i = 0; i < seg->count; i += tokens)
            for (int64_t h = 0; h < group; h += MAX_ROWS)
                attend_members(p, s, c, queries, seg, seg->member + i, least(tokens, seg->count - i),
                               kv_head * group + h, least(group - h, MAX_ROWS), kv_head,
                               after, next % c->kv_heads, &a);
    }
}

void merge(const plan *p, const cache *c, int64_t token, float *out) {
    const int32_t *part = p->parts + p->part_start[token];
    int64_t count = p->part_start[token + 1] - p->part_start[token];
    for (int64_t h = 0; h < c->heads; h++, out += c->width) {
        float top = NOTHING, total = 0;
        for (int64_t i = 0; i < count; i++) {
            float t = p->top[part[i] * c->heads + h];
            top = t > top ? t : top;
        }
        for (int64_t i = 0; i < count; i++) {
            int64_t place = part[i] * c->heads + h;
            total += p->total[place] * exp2f(p->top[place] - top);
        }
        for (int64_t i = 0; i < count; i++) {
            int64_t place = part[i] * c->heads + h;
            const float *from = p->out + place * c->width;
            float factor = exp2f(p->top[place] - top) / total;
            for (int64_t d = 0; d < c->width; d += LANES) {
                vf more = load_f32(from + d) * factor;
                put_f32(out + d, i ? load_f32(out + d) + more : more);
            }
        }
    }
}

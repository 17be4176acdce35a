/* The threads of one parallel region, and how they share work.
 *
 * A region is a function that the calling thread and its helpers run together, stage by stage. A thread
 * claims units of a stage until none is left, and a stage is over once all its units are finished: it
 * waits for units, not for threads. So a thread that has no processor for the moment, because another
 * program has it, is not waited for unless it holds a unit.
 *
 * Who waits spins first and then sleeps (see team.c). */

#ifndef TIDEMILL_TEAM_H
#define TIDEMILL_TEAM_H

#include <stdatomic.h>

#include "vector.h"

#define STAGES 16 /* of a region */

typedef struct team team;

/* What a region runs. `me`: the thread's number, 0 for the calling thread, below `threads`. */
typedef void body(const void *job, team *all, int64_t me);

/* Run `run` in this thread and in up to `threads` - 1 helpers, which are kept for its next call. */
void region(body *run, const void *job, int64_t threads);

/* How many threads the region has at most. */
int64_t team_threads(const team *all);

/* Take the next `count` units of a stage. Returns the first one. */
int64_t claim(team *all, int stage, int64_t count);

/* Tell that `count` claimed units are done, of `total` that the stage has. */
void finish(team *all, int stage, int64_t count, int64_t total);

/* Wait until all units of a stage are finished. What their threads wrote can be read then. */
void wait_for(team *all, int stage, int64_t total);

typedef struct {
    int64_t first, last;
} span;

/* Finish a span of a stage's `count` equal units and claim the next one. Returns whether there is one. */
INLINE int next_span(team *all, int stage, int64_t count, span *s) {
    int64_t size = ceiling(count, 4 * team_threads(all));
    if (s->last > s->first) finish(all, stage, s->last - s->first, count);
    s->first = claim(all, stage, size);
    s->last = least(s->first + size, count);
    return s->first < count;
}

/* A loop over the units of a stage that this thread claims. */
#define FOR_CLAIMED(i, count, all, stage)                                  \
    for (span i##_span = {0, 0}; next_span(all, stage, count, &i##_span);) \
        for (int64_t i = i##_span.first; i < i##_span.last; i++)

#endif

/* The threads of one parallel region, and how they share work. */

#ifndef TIDEMILL_TEAM_H
#define TIDEMILL_TEAM_H

#include <omp.h>
#include <stdatomic.h>

#include "vector.h"

#define STAGES 16 /* counters of a region: one for each loop in it that uses `claim` */

typedef struct {
    int64_t threads;
    _Alignas(64) atomic_long claimed[STAGES];
} team;

/* Every thread of the region waits here for the others. */
INLINE void together(void) {
#pragma omp barrier
}

/* Take the next unit of a stage. */
INLINE int64_t claim(team *all, int stage) { return atomic_fetch_add(&all->claimed[stage], 1); }

/* Where a thread's share of `count` equal units begins; it ends where the next thread's begins. */
INLINE int64_t share(int64_t count, int64_t threads, int64_t thread) {
    return count * thread / threads;
}

/* A loop over this thread's share. A region may have fewer threads than were asked for. */
#define FOR_SHARE(i, count, me)                                           \
    for (int64_t i = share(count, omp_get_num_threads(), me),             \
                 i##_end = share(count, omp_get_num_threads(), (me) + 1); \
         i < i##_end; i++)

#endif

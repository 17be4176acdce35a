/* The passes between products, each one walk over its rows. Called through `elementwise.py`. */

#include "vector.h"

#define SERIAL 8192 /* elements below which threads cost more than they save */

#define T float
#define FN(name) name##_f32
#include "elementwise.h"

#define T uint16_t
#define FN(name) name##_bf16
#include "elementwise.h"

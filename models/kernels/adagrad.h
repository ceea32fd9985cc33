/* Adagrad on n numbers; adagrad.py has the formula. Inlined where n is a constant, it takes no loop. */
#include <math.h>
#include <stdint.h>

static inline __attribute__((always_inline)) void
move(float *restrict w, float *restrict s, float *restrict v,
     const float *restrict g, int64_t d, float lr, float mu, float keep)
{
    if (v)
        for (int64_t j = 0; j < d; j++) {
            float square = s[j] + g[j] * g[j];
            float step = v[j] * mu - lr * g[j] / sqrtf(square);
            s[j] = square;
            v[j] = step;
            w[j] = w[j] * keep + step;
        }
    else
        for (int64_t j = 0; j < d; j++) {
            float square = s[j] + g[j] * g[j];
            s[j] = square;
            w[j] = w[j] * keep - lr * g[j] / sqrtf(square);
        }
}

/* The two loops over every probability, in C so that compilers turn them into vector instructions.

   Compiled with -ffp-contract=off, and with a logarithm of their own, they give the same bits on
   every processor, whichever instructions it has. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* With GNU tools on x86-64, both versions are built and the processor picks at run time. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#ifdef _MSC_VER
#define restrict __restrict
#endif

enum { BLOCK = 16, GROUP = 4 }; /* pixels and classes looked at together */

/* Natural logarithm of a positive normal number, relative error below 2e-7.

   x = 2^exponent * (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), and
   ln(1 + f) = f - f^2 / 2 + f^3 q(f) with q fitted for the least relative error. Exact at 1. */
static inline float natural_log(float x)
{
    int32_t bits, exponent;
    float f, f2, q;
    memcpy(&bits, &x, sizeof bits);
    exponent = (bits - 0x3f3504f3) >> 23; /* 0x3f3504f3: sqrt(1/2) */
    bits -= (int32_t)((uint32_t)exponent << 23);
    memcpy(&f, &bits, sizeof f);
    f -= 1.0f;
    f2 = f * f;
    q = 0.0870040953f * f2 + (0.149147779f - 0.142674923f * f);
    q = q * f2 + (0.199630633f - 0.165775836f * f);
    q = q * f2 + (0.333339095f - 0.250013381f * f);
    return ((float)exponent * 0.693147182f + f) + f2 * (f * q - 0.5f);
}

/* Copy GROUP classes of n pixels, class by class, from the class `first_class` on; `absent` in the
   place of classes that are not there. */
static inline void read_group(
    const float *pixels, int n, ptrdiff_t class_count, ptrdiff_t first_class, float absent,
    float p[GROUP][BLOCK])
{
    const float *from = pixels + first_class;
    if (class_count - first_class >= GROUP)
        for (int i = 0; i < n; i++)
            for (int k = 0; k < GROUP; k++)
                p[k][i] = from[i * class_count + k];
    else
        for (int k = 0; k < GROUP; k++)
            for (int i = 0; i < n; i++)
                p[k][i] = first_class + k < class_count ? from[i * class_count + k] : absent;
}

/* Find the class and the three heat maps of pixels; see score_pixels in _segments.pyx.
   Returns 1 if all probabilities are finite and in [lowest, highest], else 0. */
FOR_EACH_PROCESSOR
static int score_block_of_pixels(
    const float *restrict probabilities, ptrdiff_t pixels, ptrdiff_t class_count,
    float entropy_scale, float epsilon, float lowest, float highest,
    uint16_t *restrict classes, float *restrict maps)
{
    int allowed = 1;
    for (ptrdiff_t start = 0; start < pixels; start += BLOCK) {
        const int n = pixels - start < BLOCK ? (int)(pixels - start) : BLOCK;
        float p[GROUP][BLOCK] = {{0}}, first[BLOCK], second[BLOCK], least[BLOCK], total[BLOCK];
        int32_t best[BLOCK];
        for (int i = 0; i < BLOCK; i++) {
            first[i] = second[i] = -1.0f; /* below every value that is allowed */
            least[i] = total[i] = 0.0f;
            best[i] = 0;
        }
        for (ptrdiff_t c = 0; c < class_count; c += GROUP) {
            read_group(probabilities + start * class_count, n, class_count, c, lowest, p);
            for (int i = 0; i < BLOCK; i++)
                for (int k = 0; k < GROUP; k++) { /* of equal ones the first class stays */
                    const int32_t better = -(p[k][i] > first[i]);
                    const float smaller = p[k][i] < first[i] ? p[k][i] : first[i];
                    best[i] = (((int32_t)c + k) & better) | (best[i] & ~better);
                    first[i] = p[k][i] > first[i] ? p[k][i] : first[i];
                    second[i] = second[i] > smaller ? second[i] : smaller;
                    least[i] = p[k][i] < least[i] ? p[k][i] : least[i];
                }
            for (int i = 0; i < BLOCK; i++)
                for (int k = 0; k < GROUP; k++) { /* what is below 0 counts as 0 */
                    const float positive = 0.5f * (p[k][i] + fabsf(p[k][i]));
                    total[i] += positive * natural_log(positive + epsilon);
                }
        }
        for (int i = 0; i < n; i++) {
            const float runner_up = class_count > 1 ? second[i] : 0.0f;
            classes[start + i] = (uint16_t)best[i];
            maps[3 * (start + i)] = -entropy_scale * total[i];
            maps[3 * (start + i) + 1] = 1.0f - first[i] + runner_up;
            maps[3 * (start + i) + 2] = 1.0f - first[i];
            /* NaN takes no part in a comparison but stays in the total */
            allowed &= (first[i] <= highest) & (least[i] >= lowest) & (total[i] == total[i]);
        }
    }
    return allowed;
}

/* Add the probabilities (pixels, class_count) of some pixels to the sums of their segment. */
FOR_EACH_PROCESSOR
static void add_probabilities(
    const float *restrict probabilities, ptrdiff_t pixels, ptrdiff_t class_count,
    double *restrict sums)
{
    const float *p = probabilities;
    for (; pixels >= 2; pixels -= 2, p += 2 * class_count)
        for (ptrdiff_t c = 0; c < class_count; c++)
            sums[c] += (double)p[c] + (double)p[class_count + c];
    if (pixels > 0)
        for (ptrdiff_t c = 0; c < class_count; c++)
            sums[c] += p[c];
}

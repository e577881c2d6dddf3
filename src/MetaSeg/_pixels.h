/* The loops over probabilities, pixels and runs that take most of the time, in C so that compilers
   turn them into vector instructions; _segments.pyx says what they are for.

   Compiled with -ffp-contract=off, with a logarithm of their own and a fixed order of every sum, they
   give the same bits on every processor, whichever instructions it has. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* With GNU tools on x86-64, all versions are built and the processor picks at run time. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define FOR_EACH_PROCESSOR \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#endif
#elif defined(__GNUC__)
#define FOR_EACH_PROCESSOR __attribute__((noinline))
#else
#define FOR_EACH_PROCESSOR
#endif

/* Four numbers in one register; loops do the same where a compiler does not know these. */
#if defined(__GNUC__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define HAS_FOUR
typedef float four __attribute__((vector_size(16)));
typedef double four_doubles __attribute__((vector_size(32)));
#endif
#endif

#ifdef _MSC_VER
#define restrict __restrict
#endif

enum {
    BLOCK = 16, /* pixels looked at together: those of one register of 512 bits */
    GROUP = 32, /* classes looked at together, at most */
    STRETCH = 16, /* pixels summed in single precision, at most */
    MANY = 8, /* segments looked at together */
    SPAN = 64 /* pixels compared together */
};

/* Columns of a table of sums, see define_segments in _segments.pyx. */
enum { HITS, ROWS, COLUMNS, SCORES, FURTHER = SCORES + 16 };

/* Split a positive normal number: x = 2^exponent * (1 + rest), 1 + rest in [sqrt(1/2), sqrt(2)). */
static inline float split(float x, float *exponent)
{
    int32_t bits, above;
    float rest;
    memcpy(&bits, &x, sizeof bits);
    above = bits - 0x3f3504f3; /* sqrt(1/2); the exponent is in the bits from 23 on */
    bits -= above & (int32_t)0xff800000;
    memcpy(&rest, &bits, sizeof rest);
    *exponent = (float)(above >> 23);
    return rest - 1.0f;
}

/* Logarithm to base 2 of a number that is split, relative error below 1.3e-6. Exact at 1.

   log2(1 + f) = f q(f) with q fitted for the least relative error. */
static inline float log_2(float exponent, float f)
{
    const float f2 = f * f;
    return exponent
        + f * ((1.44269645f - 0.72136358f * f)
            + f2 * ((0.48062677f - 0.35937164f * f)
                + f2 * ((0.29569952f - 0.26932022f * f) + f2 * 0.17162456f)));
}

#ifdef HAS_FOUR
/* Make columns of rows, and rows of columns. */
static inline void transpose(four row[4])
{
    four low[2], high[2];
    for (int k = 0; k < 2; k++) {
        low[k] = __builtin_shufflevector(row[2 * k], row[2 * k + 1], 0, 4, 1, 5);
        high[k] = __builtin_shufflevector(row[2 * k], row[2 * k + 1], 2, 6, 3, 7);
    }
    row[0] = __builtin_shufflevector(low[0], low[1], 0, 1, 4, 5);
    row[1] = __builtin_shufflevector(low[0], low[1], 2, 3, 6, 7);
    row[2] = __builtin_shufflevector(high[0], high[1], 0, 1, 4, 5);
    row[3] = __builtin_shufflevector(high[0], high[1], 2, 3, 6, 7);
}
#endif

/* Copy `count` classes of n pixels class by class. */
static inline void separate(
    const float *pixels, int n, ptrdiff_t class_count, int count, float p[GROUP][BLOCK])
{
#ifdef HAS_FOUR
    for (int c = 0; n == BLOCK && count >= 4 && c < count; c += 4) {
        const int first = c < count - 4 ? c : count - 4; /* the last ones may come twice */
        for (int i = 0; i < BLOCK; i += 4) {
            four row[4];
            for (int k = 0; k < 4; k++)
                memcpy(&row[k], pixels + (i + k) * class_count + first, sizeof row[k]);
            transpose(row);
            for (int k = 0; k < 4; k++)
                memcpy(&p[first + k][i], &row[k], sizeof row[k]);
        }
    }
    if (n == BLOCK && count >= 4)
        return;
#endif
    for (int i = 0; i < n; i++)
        for (int c = 0; c < count; c++)
            p[c][i] = pixels[i * class_count + c];
}

/* Copy `count` classes, or maps, of n pixels pixel by pixel: the way back. */
static inline void interleave(
    const float p[][BLOCK], int n, ptrdiff_t class_count, int count, float *restrict pixels)
{
#ifdef HAS_FOUR
    for (int c = 0; n == BLOCK && count >= 4 && c < count; c += 4) {
        const int first = c < count - 4 ? c : count - 4;
        for (int i = 0; i < BLOCK; i += 4) {
            four row[4];
            for (int k = 0; k < 4; k++)
                memcpy(&row[k], &p[first + k][i], sizeof row[k]);
            transpose(row);
            for (int k = 0; k < 4; k++)
                memcpy(pixels + (i + k) * class_count + first, &row[k], sizeof row[k]);
        }
    }
    if (n == BLOCK && count >= 4)
        return;
#endif
    for (int i = 0; i < n; i++)
        for (int c = 0; c < count; c++)
            pixels[i * class_count + c] = p[c][i];
}

/* Lay the classes of a row side by side, which come as whole multiples of `step`, class by class and
   `stride` numbers apart. */
FOR_EACH_PROCESSOR
static void join_steps(
    const uint16_t *restrict steps, ptrdiff_t stride, ptrdiff_t pixels, ptrdiff_t class_count,
    float step, float *restrict probabilities)
{
    float p[GROUP][BLOCK];
    for (ptrdiff_t start = 0; start < pixels; start += BLOCK) {
        const int n = pixels - start < BLOCK ? (int)(pixels - start) : BLOCK;
        for (ptrdiff_t c0 = 0; c0 < class_count; c0 += GROUP) {
            const int count = class_count - c0 < GROUP ? (int)(class_count - c0) : GROUP;
            for (int c = 0; c < count; c++) {
                const uint16_t *own = steps + (c0 + c) * stride + start;
                if (n == BLOCK) /* a number that compilers know */
                    for (int i = 0; i < BLOCK; i++)
                        p[c][i] = own[i] * step;
                else
                    for (int i = 0; i < n; i++)
                        p[c][i] = own[i] * step;
            }
            interleave(p, n, class_count, count, probabilities + start * class_count + c0);
        }
    }
}

/* What is known of the pixels of a block after some of their classes. */
struct scores {
    float first[BLOCK], second[BLOCK]; /* the two largest probabilities */
    float least[BLOCK], total[BLOCK];  /* the smallest one, and the sum of p log2(p) */
    int32_t best[BLOCK];               /* the most probable class, the first of equals */
};

/* Go on with `count` classes from the class `c0` on. */
FOR_EACH_PROCESSOR
static void score_classes(
    const float p[GROUP][BLOCK], int count, int c0, float epsilon, struct scores *restrict of)
{
    const float *all = p[0];
    float positive[GROUP * BLOCK], exponents[GROUP * BLOCK], rests[GROUP * BLOCK];
    if (count < 1)
        return; /* what a compiler must know to look at many pixels at a time */
    for (int i = 0; i < BLOCK; i++) {
        float first = of->first[i], second = of->second[i], least = of->least[i];
        int32_t best = of->best[i], own = c0;
        for (int c = 0; c < count; c++, own++) {
            const float v = p[c][i], smaller = v < first ? v : first;
            best = v > first ? own : best;
            first = v > first ? v : first;
            second = second > smaller ? second : smaller;
            least = v < least ? v : least;
        }
        of->first[i] = first, of->second[i] = second, of->least[i] = least, of->best[i] = best;
    }
    /* in two loops, as processors look ahead only so far */
    for (int k = 0; k < count * BLOCK; k++) {
        positive[k] = all[k] < 0.0f ? 0.0f : all[k]; /* NaN stays */
        rests[k] = split(positive[k] + epsilon, &exponents[k]);
    }
    for (int i = 0; i < BLOCK; i++) {
        float total = of->total[i];
        for (int c = 0; c < count; c++) {
            const int k = c * BLOCK + i;
            total += positive[k] * log_2(exponents[k], rests[k]);
        }
        of->total[i] = total;
    }
}

/* Find the class and the three heat maps of pixels; see score_pixels in _segments.pyx.
   Returns 1 if all probabilities are finite and in [lowest, highest], else 0. */
FOR_EACH_PROCESSOR
static int score_row(
    const float *restrict probabilities, ptrdiff_t pixels, ptrdiff_t class_count,
    float entropy_scale, float epsilon, float lowest, float highest,
    uint16_t *restrict classes, float *restrict maps)
{
    int allowed = 1;
    float p[GROUP][BLOCK] = {{0}}, block_maps[4][BLOCK];
    struct scores of;
    for (ptrdiff_t start = 0; start < pixels; start += BLOCK) {
        const int n = pixels - start < BLOCK ? (int)(pixels - start) : BLOCK;
        for (int i = 0; i < BLOCK; i++) {
            of.first[i] = of.second[i] = -1.0f; /* below every value that is allowed */
            of.least[i] = of.total[i] = 0.0f;
            of.best[i] = 0;
        }
        for (ptrdiff_t c = 0; c < class_count; c += GROUP) {
            const int count = class_count - c < GROUP ? (int)(class_count - c) : GROUP;
            separate(probabilities + start * class_count + c, n, class_count, count, p);
            score_classes(p, count, (int)c, epsilon, &of);
        }
        for (int i = 0; i < BLOCK; i++) {
            block_maps[0][i] = -entropy_scale * of.total[i];
            block_maps[1][i] = 1.0f - of.first[i] + (class_count > 1 ? of.second[i] : 0.0f);
            block_maps[2][i] = 1.0f - of.first[i];
            block_maps[3][i] = 1.0f; /* its sums are numbers of pixels */
        }
        interleave(block_maps, n, 4, 4, maps + 4 * start);
        for (int i = 0; i < n; i++) {
            classes[start + i] = (uint16_t)of.best[i];
            /* NaN takes no part in a comparison but stays in the total */
            allowed &= (of.first[i] <= highest) & (of.least[i] >= lowest)
                & (of.total[i] == of.total[i]);
        }
    }
    return allowed;
}

/* Sum classes of n pixels side by side, four times `fours` of them. */
static inline void sum_fours(
    const float *pixels, ptrdiff_t n, ptrdiff_t class_count, int fours, float *restrict sums)
{
#ifdef HAS_FOUR
    four sum[4] = {{0.0f}}, p;
    for (ptrdiff_t i = 0; i < n; i++)
        for (int k = 0; k < fours; k++) {
            memcpy(&p, pixels + i * class_count + 4 * k, sizeof p);
            sum[k] += p;
        }
    for (int k = 0; k < fours; k++)
        memcpy(sums + 4 * k, &sum[k], sizeof sum[k]);
#else
    for (int k = 0; k < 4 * fours; k++) {
        sums[k] = 0.0f;
        for (ptrdiff_t i = 0; i < n; i++)
            sums[k] += pixels[i * class_count + k];
    }
#endif
}

/* Sum classes of n pixels, in single precision for STRETCH of them and in double precision beyond. */
static inline void sum_pixels(
    const float *pixels, ptrdiff_t n, ptrdiff_t class_count, int fours, float *restrict sums)
{
    double total[16] = {0.0};
    float part[16];
    if (n <= STRETCH) {
        sum_fours(pixels, n, class_count, fours, sums);
        return;
    }
    for (; n > 0; n -= STRETCH, pixels += STRETCH * class_count) {
        sum_fours(pixels, n < STRETCH ? n : STRETCH, class_count, fours, part);
        for (int k = 0; k < 4 * fours; k++)
            total[k] += part[k];
    }
    for (int k = 0; k < 4 * fours; k++)
        sums[k] = (float)total[k];
}

/* Sum the probabilities of each class over the pixels of each run, (runs, class_count) out. */
FOR_EACH_PROCESSOR
static void sum_runs(
    const float *restrict probabilities, const int *restrict starts, int runs,
    ptrdiff_t class_count, float *restrict sums)
{
    for (int run = 0; run < runs; run++, sums += class_count) {
        const float *pixels = probabilities + (starts[run] - starts[0]) * class_count;
        const ptrdiff_t n = starts[run + 1] - starts[run];
        ptrdiff_t c = 0;
        for (; c + 16 <= class_count; c += 16)
            sum_pixels(pixels + c, n, class_count, 4, sums + c);
        for (; c + 4 <= class_count; c += 4)
            sum_pixels(pixels + c, n, class_count, 1, sums + c);
        if (c < class_count && class_count >= 4) /* some come twice */
            sum_pixels(pixels + class_count - 4, n, class_count, 1, sums + class_count - 4);
        else
            for (; c < class_count; c++) {
                double total = 0.0;
                for (ptrdiff_t i = 0; i < n; i++)
                    total += pixels[i * class_count + c];
                sums[c] = (float)total;
            }
    }
}

/* Sum four maps and their squares over the inner and the boundary pixels of n: values and squares of
   inner ones, then of boundary ones. Returns how many of the pixels are hits. */
static inline int sum_maps(
    const float *restrict maps, const uint8_t *restrict boundary, const uint8_t *restrict hits,
    ptrdiff_t n, double sums[16])
{
    int hit = 0;
#ifdef HAS_FOUR
    static const double weights[2] = {0.0, 1.0};
    four_doubles of[4] = {{0.0}};
    for (ptrdiff_t i = 0; i < n; i++) {
        four map;
        four_doubles inner, outer;
        memcpy(&map, maps + 4 * i, sizeof map);
        inner = __builtin_convertvector(map, four_doubles);
        outer = inner * weights[boundary[i]];
        inner -= outer; /* exactly 0 or the value */
        of[0] += inner;
        of[1] += inner * inner;
        of[2] += outer;
        of[3] += outer * outer;
        hit += hits[i];
    }
    memcpy(sums, of, sizeof of);
#else
    memset(sums, 0, 16 * sizeof sums[0]);
    for (ptrdiff_t i = 0; i < n; i++) {
        for (int k = 0; k < 4; k++) {
            const double v = maps[4 * i + k];
            sums[8 * boundary[i] + k] += v;
            sums[8 * boundary[i] + 4 + k] += v * v;
        }
        hit += hits[i];
    }
#endif
    return hit;
}

/* Add what is known of the runs of a row to the sums of their segments; see measure_segments in
   _segments.pyx. Of everything the first pixel is that of the row. */
FOR_EACH_PROCESSOR
static void measure_row(
    const float *restrict maps, const uint8_t *restrict boundary, const uint8_t *restrict hits,
    const int *restrict starts, const int *restrict labels, int runs, double row,
    const float *restrict class_sums, ptrdiff_t class_count, double *restrict sums, ptrdiff_t sum_count, ptrdiff_t class_column)
{
    for (int run = 0; run < runs; run++, class_sums += class_count) {
        const ptrdiff_t start = starts[run] - starts[0], size = starts[run + 1] - starts[run];
        double *own = sums + labels[run] * sum_count, of_maps[16];
        own[HITS] += sum_maps(
            maps + 4 * start, boundary + start, hits + start, size, of_maps);
        own[ROWS] += size * row;
        own[COLUMNS] += size * (start + (size - 1) / 2.0);
        for (int k = 0; k < 16; k++)
            own[SCORES + k] += of_maps[k];
        for (ptrdiff_t c = 0; c < class_count; c++)
            own[class_column + c] += class_sums[c];
    }
}

/* Find what the prediction missed and what it hit. */
FOR_EACH_PROCESSOR
static void compare_row(
    const uint16_t *restrict classes, const uint16_t *restrict truth, int width,
    uint16_t class_count, uint16_t no_label, uint16_t nothing, uint16_t *restrict missed,
    uint8_t *restrict hits)
{
    for (int i = 0; i < width; i++) {
        const int counts = (truth[i] < class_count) & (truth[i] != no_label);
        const int same = truth[i] == classes[i];
        missed[i] = (counts & !same) ? truth[i] : nothing;
        hits[i] = counts & same;
    }
}

/* Write a number into all pixels of each run of a row, and perhaps into 15 pixels beyond the row. */
FOR_EACH_PROCESSOR
static void fill_row(
    const int *restrict starts, const int *restrict numbers, int runs, int *restrict filled)
{
    for (int run = 0; run < runs; run++)
        for (int i = starts[run] - starts[0]; i < starts[run + 1] - starts[0]; i += 16)
            for (int k = 0; k < 16; k++)
                filled[i + k] = numbers[run];
}

/* List which of n places are marked, from `first` on; returns how many. `marks` holds zeros up to a
   multiple of 8, and no bits but the lower seven. */
static inline int list_marked(const uint8_t *marks, int n, int first, int *restrict list)
{
    int count = 0;
#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (int i = 0; i < n; i += 64) { /* a bit for a mark, 64 in a number */
        uint64_t bits = 0, eight;
        for (int k = 0; k < 64 && i + k < n; k += 8) {
            memcpy(&eight, marks + i + k, sizeof eight);
            eight = (eight + 0x7f7f7f7f7f7f7f7f) >> 7 & 0x0101010101010101;
            bits |= eight * 0x0102040810204080 >> 56 << k;
        }
        for (; bits; bits &= bits - 1)
            list[count++] = first + i + __builtin_ctzll(bits);
    }
#else
    for (int i = 0; i < n; i++)
        if (marks[i])
            list[count++] = first + i;
#endif
    return count;
}

/* Cut a row into runs of equal class; returns how many. */
FOR_EACH_PROCESSOR
static int cut_row(const uint16_t *restrict classes, int width, int first, int *restrict starts)
{
    int count = 1, n;
    starts[0] = first;
    for (int i = 1; i < width; i += n) {
        uint8_t is_new[SPAN] = {0};
        const uint16_t *own = classes + i, *before = own - 1;
        n = width - i < SPAN ? width - i : SPAN;
        if (n == SPAN) /* a number that compilers know */
            for (int k = 0; k < SPAN; k++)
                is_new[k] = own[k] != before[k];
        else
            for (int k = 0; k < n; k++)
                is_new[k] = own[k] != before[k];
        count += list_marked(is_new, n, first + i, starts + count);
    }
    return count;
}

/* List where a value of a row touches the same value in another row, above, below or the same: the
   first pixels that two of their runs share, marked by 1, and those where they touch at a side or a
   corner alone, marked by 2 if the run of `own` starts there and by 4 if that of `other` does.
   `nothing` is no value. `marks` has 7 zeros behind the row. Returns how many. */
FOR_EACH_PROCESSOR
static int find_joints(
    const uint16_t *restrict other, const uint16_t *restrict own, int width, uint16_t nothing,
    uint8_t *restrict marks, int *restrict list)
{
    marks[0] = (own[0] == other[0]) & (own[0] != nothing);
    for (int i = 1; i < width; i++) { /* all bits or none, and no branches: for vectors */
        const uint16_t starts = -(own[i] != own[i - 1]), value = -(own[i] != nothing);
        const uint16_t other_starts = -(other[i] != other[i - 1]);
        const uint16_t other_value = -(other[i] != nothing);
        const uint16_t shared = -(own[i] == other[i]) & value & (starts | other_starts);
        const uint16_t own_first = -(own[i] == other[i - 1]) & value;
        const uint16_t other_first = -(own[i - 1] == other[i]) & other_value;
        const uint16_t mark
            = (shared & 1) | (starts & other_starts & ((own_first & 2) | (other_first & 4)));
        marks[i] = (uint8_t)mark;
    }
    return list_marked(marks, width, 0, list);
}

/* One column of many segments. */
static inline void read_many(const double *const rows[MANY], ptrdiff_t column, double values[MANY])
{
    for (int i = 0; i < MANY; i++)
        values[i] = rows[i][column];
}

static inline double one_at_least(double x)
{
    return x > 1.0 ? x : 1.0;
}

/* Mean and variance of a map on all pixels, inner ones and those of the boundary, and both times the
   relative sizes of the segment and its inside. Its sums are `step` columns apart. */
static inline void define_map(
    const double *const rows[MANY], ptrdiff_t column, ptrdiff_t step, double sizes[3][MANY],
    double relative[2][MANY], double out[10][MANY])
{
    double of[4][MANY];
    for (int k = 0; k < 4; k++)
        read_many(rows, column + k * step, of[k]);
    for (int i = 0; i < MANY; i++) {
        const double values[3] = {of[0][i] + of[2][i], of[0][i], of[2][i]};
        const double squares[3] = {of[1][i] + of[3][i], of[1][i], of[3][i]};
        for (int k = 0; k < 3; k++) {
            const double count = one_at_least(sizes[k][i]), mean = values[k] / count;
            out[k][i] = mean;
            out[5 + k][i] = squares[k] / count - mean * mean;
        }
        for (int k = 0; k < 2; k++) {
            out[3 + k][i] = out[k][i] * relative[k][i];
            out[8 + k][i] = out[5 + k][i] * relative[k][i];
        }
    }
}

/* Copy columns of n of MANY segments into a table with `stride` numbers a column; returns its place
   for the next column. */
static inline double *put_many(
    const double values[][MANY], int columns, int n, ptrdiff_t stride, double *restrict out)
{
    for (int k = 0; k < columns; k++, out += stride)
        if (n == MANY)
            memcpy(out, values[k], sizeof values[k]);
        else
            memcpy(out, values[k], n * sizeof values[k][0]);
    return out;
}

/* Work out all metrics of n segments, at most MANY. */
FOR_EACH_PROCESSOR
static void define_many(
    const double *const rows[MANY], const double classes[MANY], const double missed[MANY], int n,
    ptrdiff_t further, ptrdiff_t class_count, ptrdiff_t stride, double *restrict out)
{
    double sizes[3][MANY], relative[2][MANY], of[10][MANY], pairs[MANY] = {0.0};
    const ptrdiff_t by_class = FURTHER + 4 * further;
    read_many(rows, SCORES + 3, sizes[1]);
    read_many(rows, SCORES + 11, sizes[2]);
    for (int i = 0; i < MANY; i++) {
        sizes[0][i] = sizes[1][i] + sizes[2][i];
        for (int k = 0; k < 2; k++)
            relative[k][i] = sizes[k][i] / one_at_least(sizes[2][i]);
        of[0][i] = rows[i][HITS] / (sizes[0][i] + missed[i]); /* NaN where it is unknown */
        of[1][i] = of[0][i] != of[0][i] ? of[0][i] : of[0][i] == 0.0;
        of[2][i] = classes[i];
        of[3][i] = rows[i][ROWS] / sizes[0][i];
        of[4][i] = rows[i][COLUMNS] / sizes[0][i];
    }
    out = put_many(of, 5, n, stride, out);
    for (int k = 0; k < 3; k++) {
        define_map(rows, SCORES + k, 4, sizes, relative, of);
        out = put_many(of, 10, n, stride, out);
    }
    for (ptrdiff_t k = 0; k < further; k++) {
        define_map(rows, FURTHER + k, further, sizes, relative, of);
        out = put_many(of, 10, n, stride, out);
    }
    out = put_many(sizes, 3, n, stride, out);
    out = put_many(relative, 2, n, stride, out);
    for (ptrdiff_t c = 0; c < class_count; c++) {
        read_many(rows, by_class + c, of[0]);
        for (int i = 0; i < MANY; i++)
            of[0][i] /= sizes[0][i];
        out = put_many(of, 1, n, stride, out);
    }
    for (ptrdiff_t c = 0; c < class_count; c++) {
        read_many(rows, by_class + class_count + c, of[0]);
        for (int i = 0; i < MANY; i++)
            pairs[i] += of[0][i];
    }
    for (ptrdiff_t c = 0; c < class_count; c++) {
        read_many(rows, by_class + class_count + c, of[0]);
        for (int i = 0; i < MANY; i++)
            of[0][i] /= one_at_least(pairs[i]);
        out = put_many(of, 1, n, stride, out);
    }
}

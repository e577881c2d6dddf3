# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The loops of the segment metrics: no checks and no allocation, see metrics.py for both.

Every function works on a strip of rows, without the GIL. H x W pixels, C classes, S segments.
Pixel (row, column) has the flat index row * W + column. A run is a maximal stretch of equal
values within one row: run r covers the pixels starts[r] to starts[r + 1] - 1, and the runs of a
row are rows[row] to rows[row + 1] - 1. An image has ten times fewer runs than pixels, so
what can be told from runs is.
"""

from libc.string cimport memcpy

cdef extern from "_pixels.h" nogil:
    int score_row(
        const float* probabilities, Py_ssize_t pixels, Py_ssize_t class_count,
        float entropy_scale, float epsilon, float lowest, float highest,
        unsigned short* classes, float* maps,
    )
    void join_steps(
        const unsigned short* steps, Py_ssize_t stride, Py_ssize_t pixels, Py_ssize_t class_count,
        float step, float* probabilities,
    )
    int cut_row(const unsigned short* classes, int width, int first, int* starts)
    void sum_runs(
        const float* probabilities, const int* starts, int runs, Py_ssize_t class_count,
        float* sums,
    )
    void measure_row(
        const float* maps, const unsigned char* boundary, const unsigned char* hits,
        const int* starts, const int* labels, int runs, double row,
        const float* class_sums, Py_ssize_t class_count,
        double* sums, Py_ssize_t sum_count, Py_ssize_t class_column,
    )
    void compare_row(
        const unsigned short* classes, const unsigned short* truth, int width,
        unsigned short class_count, unsigned short no_label, unsigned short nothing,
        unsigned short* missed, unsigned char* hits,
    )
    void define_many(
        const double** rows, const double* classes, const double* missed, int n,
        Py_ssize_t further, Py_ssize_t class_count, Py_ssize_t stride, double* out,
    )
    enum:
        FURTHER
        MANY
    void fill_row(const int* starts, const int* numbers, int runs, int* filled)
    int find_joints(
        const unsigned short* other, const unsigned short* own, int width, unsigned short nothing,
        unsigned char* marks, int* list,
    )


FURTHER_COLUMN = FURTHER  # of a table of sums: the first that further maps have, or classes


def join_planes(
    const unsigned short[:, :, :] planes,  # (C, H, W) steps, the pixels of a row side by side
    float step,
    float[:, :, ::1] probabilities,        # (H, W, C) out: multiples of the step
):
    """Read probabilities that are stored in steps, class by class."""
    cdef Py_ssize_t stride = planes.strides[0] // sizeof(unsigned short)
    cdef Py_ssize_t row
    with nogil:
        for row in range(planes.shape[1]):
            join_steps(
                &planes[0, row, 0], stride, planes.shape[2], planes.shape[0], step,
                &probabilities[row, 0, 0],
            )


def score_pixels(
    const float[:, :, ::1] probabilities,  # (H, W, C)
    float entropy_scale,                   # 1 / log2 C; 0 for one class
    float epsilon,                         # keeps the logarithm finite at zero
    float lowest, float highest,           # probabilities allowed
    unsigned short[:, ::1] classes,        # (H, W) out: most probable class, the first of equals
    float[:, :, ::1] maps,                 # (H, W, 4) out: E, D, V, 1
):
    """Find each pixel's class and the three heat maps; returns whether all values are allowed."""
    cdef Py_ssize_t row
    cdef bint allowed = True
    with nogil:
        for row in range(probabilities.shape[0]):
            allowed &= score_row(
                &probabilities[row, 0, 0], probabilities.shape[1], probabilities.shape[2],
                entropy_scale, epsilon, lowest, highest, &classes[row, 0], &maps[row, 0, 0],
            )
    return allowed


def read_strip(
    const float[:, :, ::1] probabilities,  # (H, W, C)
    float entropy_scale,                   # this and the next three: as of score_pixels
    float epsilon,
    float lowest, float highest,
    const unsigned short[:, ::1] known,    # (H, W) class of each pixel; None: the most probable one
    Py_ssize_t top, Py_ssize_t bottom,     # first row to sum, and the first one below
    unsigned short[:, ::1] classes,        # (H, W) out
    float[:, :, ::1] maps,                 # (H, W, 4) out: E, D, V, 1
    int[::1] starts,                       # (H * W + 1,) out: first pixel of each run, then H * W
    int[::1] rows,                         # (H + 1,) out: first run of each row, then their number
    float[:, ::1] class_sums,              # (H * W, C) out: probabilities summed over each run
):
    """Do all that needs the probabilities, while they are in the cache: score the pixels, cut the
    rows into runs of equal class, sum over these; returns whether all values are allowed.
    """
    cdef int width = <int>probabilities.shape[1]
    cdef Py_ssize_t class_count = probabilities.shape[2]
    cdef Py_ssize_t row
    cdef int run = 0
    cdef bint allowed = True
    cdef bint is_known = known is not None
    with nogil:
        for row in range(probabilities.shape[0]):
            allowed &= score_row(
                &probabilities[row, 0, 0], width, class_count,
                entropy_scale, epsilon, lowest, highest, &classes[row, 0], &maps[row, 0, 0],
            )
            if is_known:
                memcpy(&classes[row, 0], &known[row, 0], width * sizeof(unsigned short))
            rows[row] = run
            run += cut_row(&classes[row, 0], width, <int>row * width, &starts[run])
            starts[run] = <int>(row + 1) * width
            if top <= row < bottom:
                sum_runs(
                    &probabilities[row, 0, 0], &starts[rows[row]], run - rows[row], class_count,
                    &class_sums[rows[row], 0],
                )
        rows[probabilities.shape[0]] = run
    return allowed


# runs, and what hangs together


cdef inline int* touch(
    const int* a, int i, int end, const int* b, int j, int shift, int* pairs
) noexcept nogil:
    """List the pairs of runs of two rows that share a pixel's side or corner; returns their end.

    Run `i` to run `end` - 1 of `a`, run `j` and so on of `b`, `shift` pixels away. After the two
    runs comes the number of pairs of a pixel of one and a neighbour in the other. Without branches:
    what may not hold is written and then written over.
    """
    cdef int left = a[i]
    cdef int same_left = 1
    cdef int same_right, right, a_right, b_right
    while i < end:
        a_right, b_right = a[i + 1], b[j + 1] + shift
        right = min(a_right, b_right)
        same_right = a_right == b_right
        pairs[0], pairs[1], pairs[2] = i, j, 3 * (right - left) - same_left - same_right
        pairs[3], pairs[4], pairs[5] = i, j + 1, 1  # corners
        pairs[6], pairs[7], pairs[8] = i + 1, j, 1
        pairs += 3 + 6 * (same_right & (i + 1 < end))
        i += a_right == right
        j += b_right == right
        left, same_left = right, same_right
    return pairs


def find_touching(
    const int[::1] starts,
    const int[::1] rows,
    int[:, ::1] pairs,   # (4 * runs, 3) out: run, run in the row below, pairs of their pixels
    int[::1] row_pairs,  # (H,) out: first of the pairs of each row and the one below, and their end
):
    """List the runs that touch, row by row; returns how many."""
    cdef int width = starts[rows[1]] - starts[0]
    cdef int* end = &pairs[0, 0]
    cdef Py_ssize_t row
    with nogil:
        for row in range(rows.shape[0] - 2):
            row_pairs[row] = <int>((end - &pairs[0, 0]) // 3)
            end = touch(
                &starts[0], rows[row], rows[row + 1], &starts[0], rows[row + 1], -width, end
            )
        row_pairs[rows.shape[0] - 2] = <int>((end - &pairs[0, 0]) // 3)
    return (end - &pairs[0, 0]) // 3


ctypedef fused whole:
    int
    long long


cdef inline whole find_root(whole* parent, whole item) noexcept nogil:
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


cdef inline void join(whole* parent, whole a, whole b) noexcept nogil:
    """Unite two trees under the smaller root."""
    a = find_root(parent, a)
    b = find_root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


cdef inline int number_trees(int* parent, int count) noexcept nogil:
    """Replace each parent by the number of its tree, in the order of the roots; returns how many.

    A root comes before its tree, so it holds its number when the others ask for it.
    """
    cdef int item
    cdef int trees = 0
    for item in range(count):
        if parent[item] == item:
            parent[item] = trees
            trees += 1
        else:
            parent[item] = parent[parent[item]]
    return trees


def label_runs(
    const unsigned short[:, ::1] values,  # (H, W)
    const int[::1] starts,
    const int[:, ::1] pairs,              # (n, 3) runs that touch, see find_touching
    int[::1] labels,                      # (runs,) out: number of each run's segment from 0
    unsigned short[::1] segment_values,   # (runs,) out: value of each segment
):
    """Number the 8-connected sets of equal value in raster order; returns how many."""
    cdef const unsigned short* value = &values[0, 0]
    cdef int runs = <int>labels.shape[0]
    cdef int* parent = &labels[0]
    cdef Py_ssize_t pair
    cdef int run, count
    with nogil:
        for run in range(runs):
            parent[run] = run
        for pair in range(pairs.shape[0]):
            if value[starts[pairs[pair, 0]]] == value[starts[pairs[pair, 1]]]:
                join(parent, pairs[pair, 1], pairs[pair, 0])
        count = number_trees(parent, runs)
        for run in range(runs):
            segment_values[parent[run]] = value[starts[run]]
    return count


def fill_segments(
    const int[::1] starts,
    const int[::1] rows,
    const int[::1] labels,
    int[::1] segments,      # (H * W + 15,) out: segment of each pixel
):
    """Tell the segment of each pixel."""
    cdef Py_ssize_t row
    with nogil:
        for row in range(rows.shape[0] - 1):
            fill_row(
                &starts[rows[row]], &labels[rows[row]], rows[row + 1] - rows[row],
                &segments[starts[rows[row]]],
            )


# sums over segments; `top` and `bottom` are the first row to count and the first one below


def find_boundary(
    const unsigned short[:, ::1] classes,  # (H, W)
    Py_ssize_t top, Py_ssize_t bottom,
    unsigned char[:, ::1] boundary,        # (H, W) out: 1 where a neighbour has another class
):
    """Mark the pixels with another class among their 8 neighbours within the image."""
    cdef Py_ssize_t width = classes.shape[1]
    cdef Py_ssize_t last = width - 1
    cdef Py_ssize_t row, column
    cdef const unsigned short* above
    cdef const unsigned short* own
    cdef const unsigned short* below
    cdef unsigned char* out
    with nogil:
        for row in range(top, bottom):
            above = &classes[max(row - 1, 0), 0]
            own = &classes[row, 0]
            below = &classes[min(row + 1, classes.shape[0] - 1), 0]
            out = &boundary[row, 0]
            out[0] = differs(above, own, below, 0, 0, min(1, last))
            for column in range(1, last):
                out[column] = differs(above, own, below, column - 1, column, column + 1)
            out[last] = differs(above, own, below, max(last - 1, 0), last, last)


cdef inline bint differs(
    const unsigned short* above, const unsigned short* own, const unsigned short* below,
    Py_ssize_t left, Py_ssize_t column, Py_ssize_t right,
) noexcept nogil:
    """Whether a pixel has another class than one of those around it; without branches."""
    cdef unsigned short value = own[column]
    return (
        (above[left] != value) | (above[column] != value) | (above[right] != value)
        | (own[left] != value) | (own[right] != value)
        | (below[left] != value) | (below[column] != value) | (below[right] != value)
    )


cdef inline void count_neighbours(
    const unsigned short* value, const int* starts, const int* labels, int run, int end,
    const int* pairs, const int* pairs_end, double* sums, Py_ssize_t width,
) noexcept nogil:
    """Count pairs of a pixel and one of its 8 neighbours of another class, by that class.

    Counts those within a row, of run `run` to `end` - 1, and those of its `pairs` with the row
    below, for both pixels, in a table of rows so wide.
    """
    cdef int a, b, a_class, b_class, count
    for a in range(run, end - 1):
        sums[labels[a] * width + value[starts[a + 1]]] += 1
        sums[labels[a + 1] * width + value[starts[a]]] += 1
    while pairs < pairs_end:
        a, b = pairs[0], pairs[1]
        a_class, b_class = value[starts[a]], value[starts[b]]
        count = pairs[2] * (a_class != b_class)
        sums[labels[a] * width + b_class] += count
        sums[labels[b] * width + a_class] += count
        pairs += 3


def measure_segments(
    const float[:, :, ::1] maps,           # (H, W, 4)
    const unsigned short[:, ::1] classes,  # (H, W)
    const int[::1] starts,
    const int[::1] rows,
    const int[::1] labels,
    const int[:, ::1] pairs,               # (n, 3) runs that touch, see find_touching
    const int[::1] row_pairs,
    const unsigned char[:, ::1] boundary,  # (H, W)
    const unsigned char[:, ::1] hits,      # (H, W) 1 where the true class is predicted
    const float[:, ::1] class_sums,        # (runs or more, C) probabilities summed over each run
    Py_ssize_t top, Py_ssize_t bottom,
    Py_ssize_t first_row,                  # row of the image that is row 0 here
    double[:, ::1] sums,                   # (S, F) in and out: all but further maps, see
    Py_ssize_t column,                     # define_segments; `column` is the first by class
):
    """Sum the pixels of the segments, their positions, maps, probabilities and neighbours."""
    cdef Py_ssize_t class_count = class_sums.shape[1]
    cdef Py_ssize_t row
    with nogil:
        for row in range(top, bottom):
            measure_row(
                &maps[row, 0, 0], &boundary[row, 0], &hits[row, 0], &starts[rows[row]],
                &labels[rows[row]], rows[row + 1] - rows[row], first_row + row,
                &class_sums[rows[row], 0], class_count, &sums[0, 0], sums.shape[1], column,
            )
            count_neighbours(
                &classes[0, 0], &starts[0], &labels[0], rows[row], rows[row + 1],
                &pairs[0, 0] + 3 * row_pairs[row],
                &pairs[0, 0] + 3 * row_pairs[min(row + 1, classes.shape[0] - 1)],
                &sums[0, column + class_count], sums.shape[1],
            )


def sum_further(
    const double[:, :, ::1] maps,          # (M, H, W)
    const int[::1] starts,
    const int[::1] rows,
    const int[::1] labels,
    const unsigned char[:, ::1] boundary,  # (H, W)
    Py_ssize_t top, Py_ssize_t bottom,
    double[:, ::1] sums,                   # (S, F) in and out: from `column` on of each map the
    Py_ssize_t column,                     # values on inner pixels, of each their squares, and
                                           # both on boundary pixels
):
    """Sum maps and their squares over the inner and the boundary pixels of each segment."""
    cdef const unsigned char* on_boundary = &boundary[0, 0]
    cdef Py_ssize_t map_count = maps.shape[0]
    cdef Py_ssize_t m
    cdef const double* value
    cdef double* own
    cdef double of[4]
    cdef int run, pixel
    cdef double* part
    with nogil:
        for m in range(map_count):
            value = &maps[m, 0, 0]
            for run in range(rows[top], rows[bottom]):
                of[0] = of[1] = of[2] = of[3] = 0
                for pixel in range(starts[run], starts[run + 1]):
                    part = of + 2 * on_boundary[pixel]
                    part[0] += value[pixel]
                    part[1] += value[pixel] * value[pixel]
                own = &sums[labels[run], column + m]
                own[0] += of[0]
                own[map_count] += of[1]
                own[2 * map_count] += of[2]
                own[3 * map_count] += of[3]


# the ground truth


def compare_truth(
    const unsigned short[:, ::1] classes,  # (H, W) predicted class
    const unsigned short[:, ::1] truth,    # (H, W) true class
    unsigned short class_count,            # C; no other true class is ever predicted
    unsigned short no_label,               # true class that means no label
    unsigned short nothing,                # for pixels where nothing is missed
    unsigned short[:, ::1] missed,         # (H, W) out: the true class where another is predicted
    unsigned char[:, ::1] hits,            # (H, W) out: 1 where it is predicted
):
    """Collect what the prediction missed and what it hit."""
    cdef Py_ssize_t row
    with nogil:
        for row in range(classes.shape[0]):
            compare_row(
                &classes[row, 0], &truth[row, 0], <int>classes.shape[1],
                class_count, no_label, nothing, &missed[row, 0], &hits[row, 0],
            )


def find_regions(
    const unsigned short[:, ::1] missed,  # (H, W) missed true class
    unsigned short nothing,               # in `missed`, where nothing is missed
    int[::1] places,                      # (W + 1,) scratch
    int[::1] row_runs,                    # (W,) scratch
    unsigned char[::1] marks,             # (W + 7,) scratch, zeros on entry
    Py_ssize_t top, Py_ssize_t bottom,    # the rows whose pixels count
    int[::1] runs,                        # (H * W + 15,) out: run of each pixel, without those of
                                          # `nothing`; -1 there
    int[::1] rows,                        # (H + 1,) out: first run of each row, then their number
    int[::1] regions,                     # (H * W,) out: region of each run from 0
    int[::1] lengths,                     # (H * W,) out: pixels of each run that count
):
    """Number the 8-connected sets of equal value in raster order; returns how many."""
    cdef int width = <int>missed.shape[1]
    cdef int* parent = &regions[0]
    cdef int* own
    cdef Py_ssize_t row
    cdef int i, column, found, is_missed
    cdef int count = 0
    with nogil:
        for row in range(missed.shape[0]):
            rows[row] = count
            own = &runs[row * width]
            found = cut_row(&missed[row, 0], width, 0, &places[0])
            places[found] = width
            for i in range(found):
                is_missed = missed[row, places[i]] != nothing
                row_runs[i] = count if is_missed else -1
                parent[count] = count
                lengths[count] = (places[i + 1] - places[i]) * (top <= row < bottom)
                count += is_missed
            fill_row(&places[0], &row_runs[0], found, own)
            if row == 0:
                continue
            found = find_joints(
                &missed[row - 1, 0], &missed[row, 0], width, nothing, &marks[0], &places[0]
            )
            for i in range(found):
                column = places[i]
                if marks[column] & 1:
                    join(parent, own[column], own[column - width])
                if marks[column] & 2:
                    join(parent, own[column], own[column - width - 1])
                if marks[column] & 4:
                    join(parent, own[column - 1], own[column - width])
        rows[missed.shape[0]] = count
        found = number_trees(parent, count)
    return found


cdef struct Touching:
    int* last  # segment of each region's last pair
    int* pairs  # the next region, segment


cdef inline void add_pair(Touching* to, int region, int segment) noexcept nogil:
    """Add a pair, unless it came last."""
    to.pairs[0], to.pairs[1] = region, segment
    to.pairs += 2 * (to.last[region] != segment)
    to.last[region] = segment


def pair_regions(
    const unsigned short[:, ::1] missed,   # (H, W) missed true class
    unsigned short nothing,                # in `missed`, where nothing is missed
    const int[::1] runs,                   # (H * W or more,) run of `missed` of each pixel
    const int[::1] regions,                # region of each of these runs
    const int[::1] lengths,                # pixels of each of these runs
    const unsigned short[:, ::1] classes,  # (H, W) predicted class
    const int[::1] segments,               # (H * W or more,) segment of each pixel
    Py_ssize_t top, Py_ssize_t bottom,
    int[::1] places,                       # (W + 1,) scratch
    unsigned char[::1] marks,              # (W + 7,) scratch, zeros on entry
    int[::1] last,                         # (regions,) scratch, -1 on entry
    double[::1] sizes,                     # (regions,) out, zeros on entry: pixels that count
    int[:, ::1] pairs,                     # (6 * H * W + 1, 2) out: region, segment
):
    """List the missed regions and the segments of their class that touch; returns how many pairs.

    Most pairs come once, but not all.
    """
    cdef int width = <int>missed.shape[1]
    cdef Touching to
    cdef Py_ssize_t row, other
    cdef const int* own_runs
    cdef const int* other_segments
    cdef int i, column
    with nogil:
        for i in range(<int>lengths.shape[0]):
            sizes[regions[i]] += lengths[i]
        to.last, to.pairs = &last[0], &pairs[0, 0]
        for row in range(top, bottom):
            own_runs = &runs[row * width]
            for other in range(max(row - 1, 0), min(row + 2, missed.shape[0])):
                other_segments = &segments[other * width]
                for i in range(find_joints(
                    &classes[other, 0], &missed[row, 0], width, nothing, &marks[0], &places[0]
                )):
                    column = places[i]
                    if marks[column] & 1:
                        add_pair(&to, regions[own_runs[column]], other_segments[column])
                    if marks[column] & 2:
                        add_pair(&to, regions[own_runs[column]], other_segments[column - 1])
                    if marks[column] & 4:
                        add_pair(&to, regions[own_runs[column - 1]], other_segments[column])
    return (to.pairs - &pairs[0, 0]) // 2


# the whole image


def join_labels(
    long long[::1] parent,   # (N,) in and out: a forest over all labels of all strips
    const int[::1] a,        # (n,) labels of some runs in one strip
    const int[::1] b,        # (n,) labels of the same runs in the next strip
    long long a_first,       # index in `parent` of the first label of either strip
    long long b_first,
):
    """Unite the trees of labels that stand for the same run."""
    cdef Py_ssize_t i
    with nogil:
        for i in range(a.shape[0]):
            join(&parent[0], a_first + a[i], b_first + b[i])


def find_roots(
    const long long[::1] parent,  # (N,) a forest in which every parent is before its children
    long long[::1] roots,         # (N,) out: root of each label's tree
    long long[::1] numbers,       # (N,) out: number of its tree, from 0 in the order of the roots
):
    """Number the trees of a forest; returns how many."""
    cdef Py_ssize_t i
    cdef long long count = 0
    with nogil:
        for i in range(parent.shape[0]):
            if parent[i] == i:
                roots[i] = i
                numbers[i] = count
                count += 1
            else:
                roots[i] = roots[parent[i]]
                numbers[i] = numbers[parent[i]]
    return count


def add_rows(
    const double[:, ::1] source,       # (n, F)
    const long long[::1] source_rows,  # (m,)
    double[:, ::1] target,             # (k, F) in and out
    const long long[::1] target_rows,  # (m,) may hold a row more than once
):
    """Add rows of one table to rows of another, in order."""
    cdef Py_ssize_t i, column
    with nogil:
        for i in range(source_rows.shape[0]):
            for column in range(source.shape[1]):
                target[target_rows[i], column] += source[source_rows[i], column]


def define_segments(
    const double[:, ::1] sums,             # (n, F) sums over segments of a strip
    const long long[::1] which,            # (m,) those to work out
    const unsigned short[::1] classes,     # (n,)
    const double[::1] missed,              # (m,) pixels of missed regions that touch; NaN: unknown
    Py_ssize_t further,                    # M further maps
    Py_ssize_t first,                      # number of the first one in the image, from 0
    double[:, ::1] metrics,                # (40 + 10 M + 2 C, S) out: in the order of
                                           # `metric_names`; only of these segments
):
    """Work out all metrics of segments from their sums over pixels.

    `sums` has columns of: pixels of the true class, sum of rows, sum of columns; of E, D, V and 1
    the sums over inner pixels, of the squares, and both over boundary pixels; the same of the
    further maps; probabilities by class; pairs with a pixel of another class by that class.
    """
    cdef Py_ssize_t class_count = (sums.shape[1] - FURTHER - 4 * further) // 2
    cdef Py_ssize_t begin = 0
    cdef Py_ssize_t n, i, segment
    cdef const double* rows[MANY]
    cdef double own_classes[MANY]
    cdef double own_missed[MANY]
    with nogil:
        while begin < which.shape[0]:
            n = min(which.shape[0] - begin, MANY)
            for i in range(MANY):  # the last one takes the places that are left over
                segment = begin + min(i, n - 1)
                rows[i] = &sums[which[segment], 0]
                own_classes[i] = classes[which[segment]]
                own_missed[i] = missed[segment]
            define_many(
                rows, own_classes, own_missed, <int>n, further, class_count, metrics.shape[1],
                &metrics[0, first + begin],
            )
            begin += MANY


def sketch_segments(
    const int[::1] segments,               # (H * W or more,) segment of each pixel
    const unsigned char[:, ::1] boundary,  # (H, W)
    Py_ssize_t top, Py_ssize_t bottom,
    int[:, ::1] components,                # (bottom - top, W) out: segment in the strip from 1,
                                           # negative on the boundary
):
    """Draw the component map of a strip with the strip's own numbers."""
    cdef Py_ssize_t width = boundary.shape[1]
    cdef Py_ssize_t row, column
    cdef const int* own
    cdef const unsigned char* on_boundary
    cdef int* component
    with nogil:
        for row in range(top, bottom):
            own, on_boundary = &segments[row * width], &boundary[row, 0]
            component = &components[row - top, 0]
            for column in range(width):
                component[column] = (own[column] + 1) * (1 - 2 * on_boundary[column])


def renumber(
    int[:, ::1] components,  # (H, W) in and out
    const int[::1] numbers,  # (2 S + 1,) new number for -S, ..., S
):
    """Give each segment its number in the image."""
    cdef const int* new = &numbers[numbers.shape[0] // 2]
    cdef int* component = &components[0, 0]
    cdef Py_ssize_t pixel
    with nogil:
        for pixel in range(components.shape[0] * components.shape[1]):
            component[pixel] = new[component[pixel]]

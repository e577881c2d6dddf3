# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The loops of the segment metrics: no checks and no allocation, see metrics.py for both.

Every function works on a strip of rows, without the GIL. H x W pixels, C classes, S segments.
Pixel (row, column) has the flat index row * W + column. A run is a maximal stretch of equal
values within one row: run r covers the pixels starts[r] to starts[r + 1] - 1, and the runs of a
row are rows[row] to rows[row + 1] - 1. An image has ten times fewer runs than pixels, so
what can be told from runs is.
"""

from cython cimport floating

cdef extern from "_pixels.h" nogil:
    int score_block_of_pixels(
        const float* probabilities, Py_ssize_t pixels, Py_ssize_t class_count,
        float entropy_scale, float epsilon, float lowest, float highest,
        unsigned short* classes, float* maps,
    )
    void add_probabilities(
        const float* probabilities, Py_ssize_t pixels, Py_ssize_t class_count, double* sums,
    )


def score_pixels(
    const float[:, :, ::1] probabilities,  # (H, W, C)
    float entropy_scale,                   # 1 / ln C; 0 for one class
    float epsilon,                         # keeps the logarithm finite at zero
    float lowest, float highest,           # probabilities allowed
    unsigned short[:, ::1] classes,        # (H, W) out: most probable class, the first of equals
    float[:, :, ::1] maps,                 # (H, W, 3) out: E, D, V
):
    """Find each pixel's class and the three heat maps; returns whether all values are allowed."""
    cdef Py_ssize_t pixels = probabilities.shape[0] * probabilities.shape[1]
    cdef bint allowed
    with nogil:
        allowed = score_block_of_pixels(
            &probabilities[0, 0, 0], pixels, probabilities.shape[2],
            entropy_scale, epsilon, lowest, highest,
            &classes[0, 0], &maps[0, 0, 0],
        )
    return allowed


# runs, and what hangs together


def find_runs(
    const unsigned short[:, ::1] values,  # (H, W)
    int[::1] starts,                      # (H * W + 1,) out: first pixel of each run, then H * W
    int[::1] rows,                        # (H + 1,) out: first run of each row, then their number
):
    """Cut the rows into runs of equal value; returns how many."""
    cdef Py_ssize_t row, column
    cdef int count = 0
    cdef int pixel = 0
    cdef int last
    with nogil:
        for row in range(values.shape[0]):
            rows[row] = count
            last = -1
            for column in range(values.shape[1]):
                starts[count] = pixel  # stays where the value is new
                count += values[row, column] != last
                last = values[row, column]
                pixel += 1
        rows[values.shape[0]] = count
        starts[count] = pixel
    return count


cdef inline long long find_root(long long* parent, long long item) noexcept nogil:
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


cdef inline void join(long long* parent, long long a, long long b) noexcept nogil:
    """Unite two trees under the smaller root."""
    a = find_root(parent, a)
    b = find_root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


cdef inline long long number_trees(long long* parent, long long count) noexcept nogil:
    """Replace each parent by the number of its tree, in the order of the roots; returns how many.

    A root comes before its tree, so it holds its number when the others ask for it.
    """
    cdef long long item
    cdef long long trees = 0
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
    const int[::1] rows,
    long long[::1] labels,                # (runs,) out: number of each run's segment from 0
    unsigned short[::1] segment_values,   # (runs,) out: value of each segment
):
    """Number the 8-connected sets of equal value in raster order; returns how many."""
    cdef const unsigned short* value = &values[0, 0]
    cdef int width = <int>values.shape[1]
    cdef long long* parent = &labels[0]
    cdef Py_ssize_t row
    cdef int run, above, k, left, right
    cdef long long count
    with nogil:
        for run in range(rows[1]):
            parent[run] = run
        for row in range(1, values.shape[0]):
            above = rows[row - 1]
            for run in range(rows[row], rows[row + 1]):
                parent[run] = run
                left, right = starts[run] - width, starts[run + 1] - width
                while starts[above + 1] < left:  # ends before it could touch a corner
                    above += 1
                k = above
                while k < rows[row] and starts[k] <= right:
                    if value[starts[k]] == value[starts[run]]:
                        join(parent, run, k)
                    k += 1
        count = number_trees(parent, rows[values.shape[0]])
        for run in range(rows[values.shape[0]]):
            segment_values[parent[run]] = value[starts[run]]
    return count


# sums over segments; `top` and `bottom` are the first row to count and the first one below


def count_neighbours(
    const unsigned short[:, ::1] classes,  # (H, W)
    const int[::1] starts,
    const int[::1] rows,
    const long long[::1] labels,
    Py_ssize_t top, Py_ssize_t bottom,
    double[:, ::1] sums,                   # (S, F) in and out: columns `column` to `column + C - 1`
    Py_ssize_t column,
):
    """Count the pairs of a pixel and one of its 8 neighbours of another class, by that class.

    Counts the pairs within each row and with the row below it, for both pixels.
    """
    cdef const unsigned short* value = &classes[0, 0]
    cdef int width = <int>classes.shape[1]
    cdef Py_ssize_t row
    cdef int run, below, k, left, right, count, own, other
    with nogil:
        for row in range(top, bottom):
            for run in range(rows[row], rows[row + 1] - 1):
                sums[labels[run], column + value[starts[run + 1]]] += 1
                sums[labels[run + 1], column + value[starts[run]]] += 1
            if row + 1 == classes.shape[0]:
                break
            below = rows[row + 1]
            for run in range(rows[row], rows[row + 1]):
                own = value[starts[run]]
                left, right = starts[run] + width, starts[run + 1] + width
                while starts[below + 1] < left:
                    below += 1
                k = below
                while k < rows[row + 2] and starts[k] <= right:
                    other = value[starts[k]]
                    if other != own:
                        count = (
                            overlap(left, right, starts[k] - 1, starts[k + 1] - 1)
                            + overlap(left, right, starts[k], starts[k + 1])
                            + overlap(left, right, starts[k] + 1, starts[k + 1] + 1)
                        )
                        sums[labels[run], column + other] += count
                        sums[labels[k], column + own] += count
                    k += 1


cdef inline int overlap(int a, int a_end, int b, int b_end) noexcept nogil:
    """How many pixels two stretches share."""
    return max(0, min(a_end, b_end) - max(a, b))


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


def measure_segments(
    const int[::1] starts,
    const int[::1] rows,
    const long long[::1] labels,
    const unsigned char[:, ::1] boundary,  # (H, W)
    Py_ssize_t top, Py_ssize_t bottom,
    Py_ssize_t first_row,                  # row of the image that is row 0 here
    double[:, ::1] sums,                   # (S, F) in and out: from `column` on inner pixels,
    Py_ssize_t column,                     # boundary pixels, sum of rows, sum of columns
):
    """Sum the pixels of the segments and their positions."""
    cdef Py_ssize_t width = boundary.shape[1]
    cdef const unsigned char* on_boundary = &boundary[0, 0]
    cdef Py_ssize_t row
    cdef int run, pixel, edge
    cdef double size
    cdef double* own
    with nogil:
        for row in range(top, bottom):
            for run in range(rows[row], rows[row + 1]):
                edge = 0
                for pixel in range(starts[run], starts[run + 1]):
                    edge += on_boundary[pixel]
                size = starts[run + 1] - starts[run]
                own = &sums[labels[run], column]
                own[0] += size - edge
                own[1] += edge
                own[2] += size * (first_row + row)
                own[3] += size * (starts[run] - row * width + (size - 1) / 2)


def sum_maps(
    const floating[:, :, ::1] values,      # (H, W, M)
    const int[::1] starts,
    const int[::1] rows,
    const long long[::1] labels,
    const unsigned char[:, ::1] boundary,  # (H, W)
    Py_ssize_t top, Py_ssize_t bottom,
    double[:, ::1] sums,                   # (S, F) in and out: from `column` on each map's sum of
    Py_ssize_t column,                     # values and of squares over the inner pixels, then over
                                           # the boundary
):
    """Sum maps and their squares over the inner and the boundary pixels of each segment."""
    cdef const unsigned char* on_boundary = &boundary[0, 0]
    cdef const floating* value = &values[0, 0, 0]
    cdef int map_count = <int>values.shape[2]
    cdef int run, pixel, m
    cdef double v
    cdef double* own
    cdef double* part
    with nogil:
        for run in range(rows[top], rows[bottom]):
            own = &sums[labels[run], column]
            for pixel in range(starts[run], starts[run + 1]):
                part = own + 2 * map_count * on_boundary[pixel]
                for m in range(map_count):
                    v = value[map_count * pixel + m]
                    part[2 * m] += v
                    part[2 * m + 1] += v * v


def sum_probabilities(
    const float[:, :, ::1] probabilities,  # (H, W, C)
    const int[::1] starts,
    const int[::1] rows,
    const long long[::1] labels,
    Py_ssize_t top, Py_ssize_t bottom,
    double[:, ::1] sums,                   # (S, F) in and out: columns `column` to `column + C - 1`
    Py_ssize_t column,
):
    """Sum the probabilities of each class over the pixels of each segment."""
    cdef Py_ssize_t class_count = probabilities.shape[2]
    cdef const float* first = &probabilities[0, 0, 0]
    cdef int run
    with nogil:
        for run in range(rows[top], rows[bottom]):
            add_probabilities(
                first + starts[run] * class_count, starts[run + 1] - starts[run], class_count,
                &sums[labels[run], column],
            )


# the ground truth


def compare_truth(
    const unsigned short[:, ::1] classes,  # (H, W) predicted class
    const unsigned short[:, ::1] truth,    # (H, W) true class
    unsigned short class_count,            # C; no other true class is ever predicted
    unsigned short no_label,               # true class that means no label
    unsigned short nothing,                # for pixels where nothing is missed
    unsigned short[:, ::1] missed,         # (H, W) out: the true class where another is predicted
):
    """Collect what the prediction missed."""
    cdef const unsigned short* predicted = &classes[0, 0]
    cdef const unsigned short* true_class = &truth[0, 0]
    cdef unsigned short* out = &missed[0, 0]
    cdef Py_ssize_t pixel
    cdef bint is_missed
    with nogil:
        for pixel in range(classes.shape[0] * classes.shape[1]):
            is_missed = (
                (true_class[pixel] != predicted[pixel])
                & (true_class[pixel] < class_count) & (true_class[pixel] != no_label)
            )
            out[pixel] = true_class[pixel] if is_missed else nothing


def count_hits(
    const unsigned short[:, ::1] classes,  # (H, W) predicted class
    const unsigned short[:, ::1] truth,    # (H, W) true class
    unsigned short no_label,               # true class that means no label
    const int[::1] starts,
    const int[::1] rows,
    const long long[::1] labels,
    Py_ssize_t top, Py_ssize_t bottom,
    double[:, ::1] sums,                   # (S, F) in and out: column `column`
    Py_ssize_t column,
):
    """Count the pixels of each segment that have its true class."""
    cdef const unsigned short* predicted = &classes[0, 0]
    cdef const unsigned short* true_class = &truth[0, 0]
    cdef int run, pixel, count
    cdef unsigned short own
    with nogil:
        for run in range(rows[top], rows[bottom]):
            own = predicted[starts[run]]
            if own != no_label:
                count = 0
                for pixel in range(starts[run], starts[run + 1]):
                    count += true_class[pixel] == own
                sums[labels[run], column] += count


def pair_regions(
    const unsigned short[:, ::1] missed,   # (H, W) missed true class
    unsigned short nothing,                # in `missed`, where nothing is missed
    const int[::1] region_starts,          # runs of `missed` and their regions
    const int[::1] region_rows,
    const long long[::1] regions,
    const unsigned short[:, ::1] classes,  # (H, W) predicted class
    const int[::1] starts,                 # runs of `classes` and their segments
    const int[::1] rows,
    const long long[::1] labels,
    Py_ssize_t top, Py_ssize_t bottom,
    long long[::1] last,                   # (regions,) scratch, -1 on entry
    double[::1] sizes,                     # (regions,) out, zeros on entry: pixels
    long long[:, ::1] pairs,               # (H * W + 5 * runs of `missed`, 2) out: region, segment
):
    """List the missed regions and the segments of their class that touch; returns how many pairs.

    Most pairs come once, but not all. A run of n pixels touches at most n + 5 runs of a class: one
    on each side, and every other pixel of the n + 2 above and below.
    """
    cdef const unsigned short* missed_class = &missed[0, 0]
    cdef const unsigned short* predicted = &classes[0, 0]
    cdef Py_ssize_t row, other
    cdef Py_ssize_t count = 0
    cdef int run, first, k, shift, left, right, own
    with nogil:
        for row in range(top, bottom):
            for run in range(region_rows[row], region_rows[row + 1]):
                sizes[regions[run]] += region_starts[run + 1] - region_starts[run]
            for other in range(max(row - 1, 0), min(row + 2, classes.shape[0])):
                shift = <int>((other - row) * classes.shape[1])
                first = rows[other]
                for run in range(region_rows[row], region_rows[row + 1]):
                    own = missed_class[region_starts[run]]
                    if own == nothing:
                        continue
                    left, right = region_starts[run] + shift, region_starts[run + 1] + shift
                    while starts[first + 1] < left:
                        first += 1
                    k = first
                    while k < rows[other + 1] and starts[k] <= right:
                        if predicted[starts[k]] == own and last[regions[run]] != labels[k]:
                            last[regions[run]] = labels[k]
                            pairs[count, 0] = regions[run]
                            pairs[count, 1] = labels[k]
                            count += 1
                        k += 1
    return count


# the whole image


def join_labels(
    long long[::1] parent,   # (N,) in and out: a forest over all labels of all strips
    const long long[::1] a,  # (n,) labels of some runs in one strip
    const long long[::1] b,  # (n,) labels of the same runs in the next strip
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


def draw_segments(
    const int[::1] starts,
    const int[::1] rows,
    const long long[::1] labels,
    const long long[::1] numbers,          # (S,) number of each segment in the image, from 0
    const unsigned char[:, ::1] boundary,  # (H, W)
    Py_ssize_t top, Py_ssize_t bottom,
    int[:, ::1] components,                # (bottom - top, W) out: number from 1, negative on the
                                           # boundary
):
    """Draw the component map."""
    cdef const unsigned char* on_boundary = &boundary[0, 0]
    cdef int* component = &components[0, 0] - top * boundary.shape[1]
    cdef int run, pixel, number
    with nogil:
        for run in range(rows[top], rows[bottom]):
            number = <int>numbers[labels[run]] + 1
            for pixel in range(starts[run], starts[run + 1]):
                component[pixel] = number - 2 * number * on_boundary[pixel]

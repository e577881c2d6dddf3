# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The loops of the segment metrics: no checks and no allocation, see metrics.py for both.

Every function runs without the GIL in time linear in the pixels. H x W pixels, C classes,
S segments; H * W must fit in an int. Pixel (row, column) has the flat index row * W + column.
"""

from cython cimport floating
from libc.math cimport log


def score_pixels(
    const float[:, :, ::1] probabilities,  # (H, W, C)
    double entropy_scale,                  # 1 / ln C; 0 for one class
    double epsilon,                        # keeps the logarithm finite at zero
    int[:, ::1] classes,                   # (H, W) out: most probable class, the first of equals
    float[:, ::1] entropy,                 # (H, W) out: E
    float[:, ::1] difference,              # (H, W) out: D
    float[:, ::1] variation,               # (H, W) out: V
):
    """Find each pixel's class and the three heat maps."""
    cdef Py_ssize_t row, column, c
    cdef float p, first, second
    cdef double total
    cdef int best
    with nogil:
        for row in range(probabilities.shape[0]):
            for column in range(probabilities.shape[1]):
                first, second, best, total = -1, -1, 0, 0  # below every value that gets here
                for c in range(probabilities.shape[2]):
                    p = probabilities[row, column, c]
                    if p > first:
                        second = first
                        first = p
                        best = <int>c
                    elif p > second:
                        second = p
                    if p > 0:  # zero adds nothing; rounding below zero has no logarithm
                        total += p * log(p + epsilon)
                if probabilities.shape[2] == 1:
                    second = 0
                classes[row, column] = best
                entropy[row, column] = <float>(-entropy_scale * total)
                difference[row, column] = <float>(1.0 - first + second)
                variation[row, column] = <float>(1.0 - first)


cdef inline int find_root(int* parent, int pixel) noexcept nogil:
    while parent[pixel] != pixel:
        parent[pixel] = parent[parent[pixel]]
        pixel = parent[pixel]
    return pixel


cdef inline void join(int* parent, int a, int b) noexcept nogil:
    """Unite two trees under their first pixel."""
    a = find_root(parent, a)
    b = find_root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


def label_segments(
    const int[:, ::1] classes,  # (H, W) class ids; negative pixels belong to no segment
    int[:, ::1] components,     # (H, W) out: segment number from 1, 0 = no segment
):
    """Number the 8-connected sets of equal class in raster order; returns how many."""
    cdef Py_ssize_t height = classes.shape[0]
    cdef Py_ssize_t width = classes.shape[1]
    cdef Py_ssize_t row, column
    cdef int* parent = &components[0, 0]
    cdef int step = <int>width
    cdef int pixel = 0
    cdef int count = 0
    cdef int own
    with nogil:
        for row in range(height):
            for column in range(width):
                own = classes[row, column]
                parent[pixel] = pixel if own >= 0 else -1
                if own < 0:
                    pass
                elif row > 0 and classes[row - 1, column] == own:
                    join(parent, pixel, pixel - step)  # it already holds the other three
                else:
                    if column > 0 and classes[row, column - 1] == own:
                        join(parent, pixel, pixel - 1)
                    elif row > 0 and column > 0 and classes[row - 1, column - 1] == own:
                        join(parent, pixel, pixel - step - 1)
                    if row > 0 and column + 1 < width and classes[row - 1, column + 1] == own:
                        join(parent, pixel, pixel - step + 1)
                pixel += 1
        # A parent comes before its children, so it holds its number when they ask for it.
        for pixel in range(<int>(height * width)):
            if parent[pixel] < 0:
                parent[pixel] = 0
            elif parent[pixel] == pixel:
                count += 1
                parent[pixel] = count
            else:
                parent[pixel] = parent[parent[pixel]]
    return count


def measure_segments(
    const int[:, ::1] classes,       # (H, W) predicted class
    int[:, ::1] components,          # (H, W) segment number; negated here on the boundary
    long long[::1] segment_classes,  # (S,) out: predicted class
    double[:, ::1] sizes,            # (2, S) out, zeros on entry: inner and boundary pixels
    double[:, ::1] positions,        # (2, S) out, zeros on entry: sums of rows and of columns
    double[:, ::1] neighbours,       # (S, C) out, zeros on entry: adjacent pixel pairs by class
):
    """Find the boundary pixels; sum sizes, positions and the classes around each segment."""
    cdef Py_ssize_t height = classes.shape[0]
    cdef Py_ssize_t width = classes.shape[1]
    cdef Py_ssize_t row, column, i, j, k
    cdef bint boundary
    cdef int own
    with nogil:
        for row in range(height):
            for column in range(width):
                own = classes[row, column]
                k = components[row, column] - 1
                boundary = False
                for i in range(max(row - 1, 0), min(row + 2, height)):
                    for j in range(max(column - 1, 0), min(column + 2, width)):
                        if classes[i, j] != own:
                            neighbours[k, classes[i, j]] += 1
                            boundary = True
                if boundary:
                    components[row, column] = -components[row, column]
                segment_classes[k] = own
                sizes[boundary, k] += 1
                positions[0, k] += row
                positions[1, k] += column


def sum_map(
    const floating[:, ::1] values,   # (H, W)
    const int[:, ::1] components,    # (H, W) signed segment number
    double[:, :, ::1] sums,          # (2, 2, S) out, zeros on entry: inner and boundary pixels'
                                     # sums of value and of squared value
):
    """Sum a map and its square over the inner and the boundary pixels of each segment."""
    cdef Py_ssize_t row, column, k
    cdef double value
    cdef bint boundary
    with nogil:
        for row in range(values.shape[0]):
            for column in range(values.shape[1]):
                value = values[row, column]
                boundary = components[row, column] < 0
                k = abs(components[row, column]) - 1
                sums[boundary, 0, k] += value
                sums[boundary, 1, k] += value * value


def sum_probabilities(
    const float[:, :, ::1] probabilities,  # (H, W, C)
    const int[:, ::1] components,          # (H, W) signed segment number
    double[:, ::1] sums,                   # (S, C) out, zeros on entry
):
    """Sum the probabilities of each class over the pixels of each segment."""
    cdef Py_ssize_t row, column, c, k
    with nogil:
        for row in range(probabilities.shape[0]):
            for column in range(probabilities.shape[1]):
                k = abs(components[row, column]) - 1
                for c in range(probabilities.shape[2]):
                    sums[k, c] += probabilities[row, column, c]


def compare_truth(
    const int[:, ::1] classes,                # (H, W) predicted class
    const unsigned short[:, ::1] truth,       # (H, W) true class
    const int[:, ::1] components,             # (H, W) signed segment number
    int class_count,                          # C; no other true class is ever predicted
    int void,                                 # true class that means no label
    double[::1] hits,                         # (S,) out, zeros on entry: pixels of the true class
    int[:, ::1] missed,                       # (H, W) out: the true class where another one is
                                              # predicted, else -1
):
    """Count the confirmed pixels of each segment and collect what the prediction missed."""
    cdef Py_ssize_t row, column
    cdef int true_class
    with nogil:
        for row in range(classes.shape[0]):
            for column in range(classes.shape[1]):
                true_class = truth[row, column]
                missed[row, column] = -1
                if true_class == void or true_class >= class_count:
                    continue
                if true_class == classes[row, column]:
                    hits[abs(components[row, column]) - 1] += 1
                else:
                    missed[row, column] = true_class


def sum_touching_regions(
    const int[:, ::1] classes,     # (H, W) predicted class
    const int[:, ::1] components,  # (H, W) signed segment number
    const int[:, ::1] missed,      # (H, W) missed true class or -1
    const int[:, ::1] regions,     # (H, W) number of the missed region from 1, 0 = none
    int[::1] ends,                 # (R + 2,) scratch, zeros on entry; R regions
    int[::1] pixels,               # (H * W,) scratch: flat indices, region by region
    int[::1] charged,              # (S,) scratch, zeros on entry: last region charged to a segment
    double[::1] sums,              # (S,) out, zeros on entry
):
    """Sum, for each segment, the sizes of the missed regions of its class that touch it."""
    cdef Py_ssize_t height = classes.shape[0]
    cdef Py_ssize_t width = classes.shape[1]
    cdef Py_ssize_t row, column, i, j, k, n, region
    cdef int start
    with nogil:
        # Counting sort: `ends[r]` is where region r starts, and once it is filled, where it ends.
        for row in range(height):
            for column in range(width):
                if regions[row, column] > 0:
                    ends[regions[row, column] + 1] += 1
        for region in range(1, ends.shape[0]):
            ends[region] += ends[region - 1]
        for row in range(height):
            for column in range(width):
                region = regions[row, column]
                if region > 0:
                    pixels[ends[region]] = <int>(row * width + column)
                    ends[region] += 1

        # Region by region, one number a segment remembers that it was charged already.
        for region in range(1, ends.shape[0] - 1):
            start = ends[region - 1]
            for n in range(start, ends[region]):
                row = pixels[n] // width
                column = pixels[n] % width
                for i in range(max(row - 1, 0), min(row + 2, height)):
                    for j in range(max(column - 1, 0), min(column + 2, width)):
                        k = abs(components[i, j]) - 1
                        if classes[i, j] == missed[row, column] and charged[k] != region:
                            charged[k] = <int>region
                            sums[k] += ends[region] - start

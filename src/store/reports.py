"""Figures of merit for people: tables as text and CSV, pictures as PNG and PDF."""

import csv
import logging
import warnings
from contextlib import contextmanager
from functools import lru_cache
from unicodedata import category

import matplotlib
import numpy as np
from matplotlib.font_manager import get_font_names
from matplotlib.text import Text

from src.store.files import whole_file

DPI = 200  # of every PNG
MOST_PX = 60_000  # of a side; matplotlib refuses 65,536
LONGEST_NAME = 32
CJK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP"),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("IPAexGothic", "IPAGothic", "TakaoGothic", "UnDotum", "NanumGothic", "PingFang SC"),
    *("Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("SimHei", "MS Gothic", "Arial Unicode MS"),
)
EMOJI_FONTS = "Noto Emoji", "Symbola", "Segoe UI Emoji", "Segoe UI Symbol"  # outlines, no bitmaps
JOINERS = "\u200c\u200d"  # of letters and emoji; other signs of format turn what follows around
_IN_LATEX = str.maketrans(
    {sign: rf"\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"[": "{[}"}  # at the start of a line it would belong to the end of the one before
)

_log = logging.getLogger(__name__)


def text_table(header, rows):
    """A table as text, for the log.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequences
        Cells: text, stands left; whole numbers; other numbers, with 3 decimals; None, as "-".

    Returns
    -------
    text : str
        A line each, joined by line breaks.
    """
    columns = list(zip(header, *rows, strict=True))
    is_text = [all(isinstance(cell, str) for cell in column) for column in columns]
    texts = [[_cell(cell) for cell in column] for column in columns]
    widths = [max(map(len, column)) for column in texts]
    aligned = [
        [cell.ljust(width) if left else cell.rjust(width) for cell in column]
        for column, width, left in zip(texts, widths, is_text, strict=True)
    ]
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned, strict=True))


def _cell(value):
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, str) and value:
        return one_line(value)
    return "-" if value is None else str(value)


def plain(values):
    """Numbers as tables and JSON know them, nested lists: None for NaN."""
    values = np.asarray(values)
    return np.where(np.isnan(values), None, values).tolist()


def write_csv(path, header, rows):
    """Write a table as CSV; None becomes an empty cell, and missing folders are made."""
    how = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}  # not all is UTF-8
    with whole_file(path) as part, part.open("w", **how) as file:
        csv.writer(file).writerows([header, *rows])


def write_latex(path, header, rows):
    """Write a table as a tabular of LaTeX; cells are those of `text_table`."""
    columns = zip(*rows, strict=True)
    aligned = ["l" if all(isinstance(cell, str) for cell in column) else "r" for column in columns]
    lines = [" & ".join(latex(_cell(cell)) for cell in row) + r" \\" for row in (header, *rows)]
    lines = [rf"\begin{{tabular}}{{{''.join(aligned)}}}", f"{lines[0]} \\hline", *lines[1:]]
    with whole_file(path) as part:
        part.write_text("\n".join([*lines, r"\end{tabular}", ""]), encoding="utf-8")


def latex(text):
    """A text as LaTeX shows it: what would be a command of it stands for itself."""
    return text.translate(_IN_LATEX)


@lru_cache
def fonts():
    """Font families of texts: matplotlib's, then for its gaps those here with CJK and emoji."""
    there = set(get_font_names())
    others = (name for name in (*CJK_FONTS, *EMOJI_FONTS) if name in there)
    return *matplotlib.rcParams["font.family"], *others


def drawable(text):
    """A text that fonts can draw: escapes for what of a file name is not UTF-8."""
    return str(text).encode(errors="backslashreplace").decode()


def one_line(name):
    """A name without line breaks, tabs and what else cannot be seen, and not empty."""
    signs = ((sign, category(sign)) for sign in drawable(name))
    seen = (
        " " if kind == "Cc" else sign for sign, kind in signs if kind != "Cf" or sign in JOINERS
    )
    return " ".join("".join(seen).split()) or "(no name)"


def label(name):
    """A name as a plot can show it: one line, not too long, nor hidden for a `_` at its start."""
    name = one_line(name)
    if len(name) > LONGEST_NAME:
        half = LONGEST_NAME // 2
        name = f"{name[: half - 1]}…{name[-half:]}"
    return f" {name}" if name.startswith("_") else name


def save_figure(path, figure, suffixes=("png", "pdf")):
    """Write a matplotlib figure as <path>.png and <path>.pdf; missing folders are made.

    Its texts are taken as they are, a `$` begins no formula. Letters that no font here has become
    boxes, which is logged.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_fontfamily(fonts())
    dpi = min(DPI, MOST_PX / max(figure.get_size_inches()))
    with missing_letters_told(path):
        for suffix in suffixes:
            with whole_file(f"{path}.{suffix}") as part:
                figure.savefig(part, dpi=dpi, format=suffix)


@contextmanager
def missing_letters_told(path):
    """Log, instead of matplotlib's warnings, that no font here has all letters of a picture."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph")
        yield
    if any(str(warning.message).startswith("Glyph") for warning in caught):
        _log.warning(
            "%s: no font here has all its letters; install fonts-noto-cjk or fonts-symbola and "
            "delete %s",
            path, matplotlib.get_cachedir(),
        )  # fmt: skip

"""Figures of merit for people: tables as text and CSV, pictures as PNG and PDF."""

import csv

import numpy as np

from src.store.files import whole_file


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
    return "-" if value is None else str(value)


def plain(values):
    """Numbers as tables and JSON know them, nested lists: None for NaN."""
    values = np.asarray(values)
    return np.where(np.isnan(values), None, values).tolist()


def write_csv(path, header, rows):
    """Write a table as CSV; None becomes an empty cell, and missing folders are made."""
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def save_figure(path, figure):
    """Write a matplotlib figure as <path>.png and <path>.pdf; missing folders are made."""
    for suffix in ("png", "pdf"):
        with whole_file(f"{path}.{suffix}") as part:
            figure.savefig(part, dpi=100, format=suffix)

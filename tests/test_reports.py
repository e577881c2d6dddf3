"""Tables and pictures as files and text."""

import csv

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from src.discover.figures import save_figure
from src.discover.quick import Words
from src.store import reports


def test_a_table_as_text_stands_in_columns():
    rows = [["road", 12, 0.25], ["car", 3, None]]
    assert reports.text_table(["class", "pixels", "IoU"], rows).splitlines() == [
        "class  pixels    IoU",
        "road       12  0.250",
        "car         3      -",
    ]


def test_a_table_as_csv_has_every_digit_and_an_empty_cell_for_none(tmp_path):
    path = tmp_path / "new" / "table.csv"
    reports.write_csv(path, ["class", "IoU"], [["a, b", 1 / 3], ["c", None]])
    assert path.read_text().splitlines() == ["class,IoU", f'"a, b",{1 / 3}', "c,"]


def test_a_table_as_latex_shows_every_sign_of_a_name_as_it_is(tmp_path):
    rows = [["a_b & 5 %", 12, 0.25], ["[x] \\~^{}$#", 3, None]]
    reports.write_latex(tmp_path / "new" / "table.tex", ["class", "pixels", "IoU"], rows)
    assert (tmp_path / "new" / "table.tex").read_text().splitlines() == [
        r"\begin{tabular}{lrr}",
        r"class & pixels & IoU \\ \hline",
        r"a\_b \& 5 \% & 12 & 0.250 \\",
        r"{[}x] \textbackslash{}\textasciitilde{}\textasciicircum{}\{\}\$\# & 3 & - \\",
        r"\end{tabular}",
    ]


def test_a_figure_is_there_for_screen_and_for_paper(tmp_path):
    figure = Figure()
    figure.add_subplot()
    reports.save_figure(tmp_path / "new" / "v1.5", figure)  # a dot is part of the name
    assert (tmp_path / "new" / "v1.5.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "new" / "v1.5.pdf").read_bytes().startswith(b"%PDF")


def texts(figure):
    """What a figure says in its legends, titles and ticks."""
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("car", "car"),
        ("_car", " _car"),  # matplotlib leaves what begins with _ out of a legend
        ("a\nb\t c", "a b c"),
        ("\udce9", "\\udce9"),  # of a file name that is not UTF-8
        ("a" * 30 + "b" * 30, "a" * 15 + "…" + "b" * 16),
        ("a & $b$ \U0001f600 \u05d0\u05d1", "a & $b$ \U0001f600 \u05d0\u05d1"),
        ("a\u202eb\x00c", "ab c"),  # turns around what follows
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # joins letters
        ("\u200b\n", "(no name)"),
    ],
)
def test_a_name_is_one_line_that_a_plot_can_show(name, shown):
    assert reports.label(name) == shown


def test_names_in_tables_for_people_are_one_line_and_in_files_as_they_are(tmp_path):
    assert reports.text_table(["class"], [["a\nb"]]).splitlines() == ["class", "a b"]
    reports.write_csv(tmp_path / "a.csv", ["class"], [["a\n$b$ \U0001f600"], ["\udce9"]])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert [*csv.reader(file)] == [["class"], ["a\n$b$ \U0001f600"], ["\\udce9"]]


def test_a_name_with_dollars_is_no_formula(tmp_path):
    figure = Figure()
    figure.add_subplot(title=r"$\broken").set_yticks([0], [r"a $\wrong$ b"])
    reports.save_figure(tmp_path / "a", figure)  # mathematics would raise ValueError
    assert r"a $\wrong$ b" in texts(figure)


def test_pictures_have_200_dots_an_inch_and_fewer_where_matplotlib_cannot(tmp_path):
    for height, pixels in ((2, (200, 400)), (600, (100, 60_000))):
        reports.save_figure(tmp_path / "a", Figure((1, height)), ["png"])
        with Image.open(tmp_path / "a.png") as picture:
            assert picture.size == pixels
    assert not (tmp_path / "a.pdf").exists()


@pytest.fixture
def other_fonts(monkeypatch):
    """As if STIXGeneral, which comes with matplotlib, were a font of CJK."""
    monkeypatch.setattr(reports, "CJK_FONTS", ("not here", "STIXGeneral"))
    reports.fonts.cache_clear()
    yield
    reports.fonts.cache_clear()


def test_letters_that_the_first_font_lacks_come_from_one_that_has_them(
    tmp_path, caplog, other_fonts
):
    figure = Figure()
    figure.suptitle("\u1d81")  # is in STIXGeneral, not in DejaVu Sans
    assert reports.fonts()[-1] == "STIXGeneral" and "not here" not in reports.fonts()
    reports.save_figure(tmp_path / "a", figure)
    assert not caplog.records
    figure.suptitle("\U000f0000")  # is in none
    reports.save_figure(tmp_path / "b", figure)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{tmp_path / 'b'}: no font here has all its letters")


def test_the_explorers_words_take_letters_from_the_other_fonts_too(other_fonts):
    def drawn(text):
        figure = Figure((1, 1))
        figure.add_artist(Words(0.2, 0.5, text))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())

    assert not np.array_equal(drawn("\u1d81"), drawn("\u1d84"))  # two letters, not two boxes


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_explorers_words_are_taken_as_they_are_in_every_format(tmp_path, suffix, caplog):
    figure = Figure((2, 1))
    figure.add_artist(Words(0.1, 0.5, "$\\broken & \udce9 \u05d0\u05d1 \U0001f6cb"))
    save_figure(figure, tmp_path / f"a.{suffix}")  # mathematics would raise ValueError
    assert len(caplog.records) == (suffix != "png")  # that a letter is in no font

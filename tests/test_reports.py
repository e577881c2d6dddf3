"""Tables and pictures as files and text."""

from matplotlib.figure import Figure

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


def test_a_figure_is_there_for_screen_and_for_paper(tmp_path):
    figure = Figure()
    figure.add_subplot()
    reports.save_figure(tmp_path / "new" / "v1.5", figure)  # a dot is part of the name
    assert (tmp_path / "new" / "v1.5.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "new" / "v1.5.pdf").read_bytes().startswith(b"%PDF")

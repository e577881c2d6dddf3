"""What a user can do: the one list behind the help, the handlers of keys, and docs/explorer.md."""

from src.discover import state

UNDOING = "ctrl+z"  # however Ctrl is called on a keyboard
COMMANDS = (  # what to press; key -> method of Explorer, way to colour, or button; what it does
    ("hover", {}, "thumbnail and facts of the segment"),
    ("left click, 1", {"1": 1}, "the full image, the segment in a red box; in a sheet only 1 does"),
    ("left click in a sheet", {}, "tick or untick: what is ticked is selected; Shift for a range"),
    (
        "middle click, 2",
        {"2": 2},
        "overview: entropy, predicted IoU, ground truth, prediction",
    ),
    (
        "right click, 3",
        {"3": 3},
        "nearest neighbours of the segment; from there on in their window",
    ),
    (
        "0",
        {"0": "grouping.show"},
        "groups that look alike, at a glance: click a row, type its name",
    ),
    ("wheel", {}, "zoom the map; pages of a selection; lines of the legend"),
    (
        "+ / -",
        {"+": "more_neighbours", "-": "fewer_neighbours"},
        "more or fewer neighbours; in their window the wheel, too",
    ),
    ("middle / right drag", {}, "from where nothing is: move the map"),
    ("z", {"z": "show_whole"}, "the whole map again; the toolbar's Home does the same"),
    ("Backspace", {"backspace": "go_back"}, "from neighbours of neighbours back to those before"),
    ("p", {"p": "keep_window"}, "keep this picture or these neighbours: the next open beside them"),
    ("q", {"q": "copy_path"}, "copy the path of the segment's picture"),
    ("Ctrl or s + left / middle", {}, "the same picture saved to disk"),
    ("t + left click", {}, "only the segment's crop saved to disk"),
    ("/", {"/": "asking.words"}, "words: the objects that look most like them"),
    (".", {".": "asking.picture"}, "a picture from outside: the objects that look most like it"),
    ("m", {"m": "next_metric"}, "next distance metric: euclid, cos"),
    ("f", {"f": "next_space"}, "find neighbours in the reduced or in the full feature space"),
    (
        "g / h / b",
        {"g": state.BY_TRUTH, "h": state.BY_PREDICTION, "b": state.ALL_BLUE},
        "colour by true class, predicted class, one blue",
    ),
    (
        "i / w / y",
        {"i": state.BY_IOU, "w": state.BY_SUSPICION, "y": state.BY_NOVELTY},
        "colour by predicted IoU, suspicion, novelty",
    ),
    (
        "o / k / a",
        {"o": state.BY_DATASET, "k": state.BY_CLUSTER, "a": state.BY_TAG},
        "colour by dataset, cluster, tag",
    ),
    (
        "click on the legend",
        {},
        "filter a group out, or in again; right or Shift: this one only; Ctrl or s: select it",
    ),
    ("slider", {}, "range of predicted IoU, or of the suspicion or novelty"),
    (
        "=",
        {"=": "joining.toggle"},
        "near duplicates as one point with their number, or apart again",
    ),
    ("r", {"r": "filtering.reset"}, "all filters off"),
    ("d", {"d": "toggle_density"}, "density behind the points, on or off"),
    (
        "c",
        {"c": "clustering.ask"},
        "cluster: asks for the number; `8 map`: in the map's plane; `elbow`: a curve",
    ),
    (
        "#",
        {"#": "clustering.next_algorithm"},
        "next algorithm: k-means, spectral, agglomerative (Ward)",
    ),
    (
        "l, then draw",
        {"l": "selecting.next_tool"},
        "select by lasso, by rectangle, off; Shift adds, Ctrl or x removes",
    ),
    ("*", {"*": "selecting.select_all"}, "select all that the map, or the sheet, shows"),
    ("v", {"v": "selecting.show"}, "the selection as a sheet of thumbnails"),
    (
        "j",
        {"j": "selecting.more_like_these"},
        "more like those selected; in their sheet, accept what is ticked and go on",
    ),
    ("Tab", {"tab": "next_order"}, "sort a sheet by suspicion, novelty, picture, size"),
    ("n", {"n": "selecting.ask_name"}, "name the selection: a tag, kept for the next time"),
    ("e", {"e": "selecting.export"}, "export the selection: COCO, Label Studio, CSV, crops"),
    (
        "u, Ctrl+z",
        {"u": "undo", UNDOING: "undo"},
        "undo the last colouring, clustering, selection, filter, tag",
    ),
    ("?, F1", {"?": "helping.toggle", "f1": "helping.toggle"}, "these commands, on or off"),
    (
        "Escape",
        {"escape": "escape"},
        "cancel a question, close the top window or this list, end or clear a selection",
    ),
)
KEYS = {key: method for _, keys, _ in COMMANDS for key, method in keys.items()}
KEY_OF = {method: key for key, method in reversed(KEYS.items())}  # the first one

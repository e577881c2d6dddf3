"""The name of every file that the stages exchange, and which of them are there."""

import os
import re
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from src.errors import SettingError

MAKERS = {  # of the files whose names begin like that
    "input": "pred_images.py",
    "stray": "pred_images.py",
    "metrics": "src/MetaSeg/main.py",
    "components": "src/MetaSeg/main.py",
    "vectors": "compute_embeddings.py",
    "embeddings": "compute_embeddings.py",
    "classes": "search_classes.py",
}
GONE = ".gone"  # behind the name of what was made of a picture that its dataset has no more
_TABLE = r"embeddings_([\d.]+)_([\d.]+)_(.+)\.p"


@dataclass(frozen=True)
class Results:
    """What the stages write about the pictures of a dataset, seen by one segmentation network."""

    io_path: str | os.PathLike  # folder of all results
    model: str | None = None  # name of its entry; None where a file does not depend on it
    dataset: str | None = None  # likewise

    def __post_init__(self):
        for name in (self.model, self.dataset):
            if name is not None:
                plain_name(name)

    def folder(self, kind):
        """Folder of the files of one kind: "input", "metrics", "components", "pictures/rating"."""
        return Path(self.io_path, kind, self.model, self.dataset)

    def prediction(self, index):
        """Path of the class probabilities of one picture, written by stage 1."""
        return self.folder("input") / f"input{index}.hdf5"

    def stray_ids(self, index):
        """Path of the label ids without a class in one picture that has any, noted by stage 1."""
        return self.folder("input") / f"stray{index}.p"

    def metrics(self, index):
        """Path of the table of the segments of one picture, written by stage 2."""
        return self.folder("metrics") / f"metrics{index}.p"

    def components(self, index):
        """Path of the component map of one picture, written by stage 2."""
        return self.folder("components") / f"components{index}.hdf5"

    def of_pictures(self):
        """Paths of all that the stages made of single pictures: a list.

        Names of files that were set aside end in `GONE`.
        """
        kinds = "input", "metrics", "components", "pictures/rating"
        folders = [self.folder(kind) for kind in kinds]
        folders += Path(self.io_path, "embeddings", self.model).glob(f"*/{escape(self.dataset)}")
        return [path for folder in folders for path in _files(folder) if index_of(path) >= 0]

    def rating(self, index):
        """Path of the drawing of true and predicted IoU of one picture, by stage 2."""
        return self.folder("pictures/rating") / f"rating{index}.png"

    @property
    def analysis(self):
        """Folder of tables and plots for people."""
        return Path(self.io_path, "analysis", self.model, self.dataset)

    def embeddings(self, min_size, net):
        """Path of the table of embedded segments, collected by stage 4.

        `min_size` is the smallest height and width of a segment, pixels or shares of the picture's
        height; `net` the network that made the vectors, such as timm/<name>, see `net_of`.
        """
        height, width = min_size
        name = f"embeddings_{height:g}_{width:g}_{stored_net(net)}.p"
        return Path(self.io_path, "embeddings", self.model, name)

    def all_embeddings(self):
        """Paths of the tables that are there, the one that was written last first."""
        folder = Path(self.io_path, "embeddings", self.model)
        tables = [path for path in _files(folder) if re.fullmatch(_TABLE, path.name)]
        return sorted(tables, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def vectors(self, index, table):
        """Path of the vectors of one picture, written by stage 4 for such a table."""
        return vectors_folder(table) / self.dataset / f"vectors{index}.p"

    def classes(self, index):
        """Path of the classes in one picture, written by search_classes.py."""
        return self.overview.with_name(f"classes{index}.p")

    @property
    def fitted_scores(self):
        """Path of what the scores of logits that learn have learnt for the network, by stage 1."""
        return Path(self.io_path, "scores", self.model, "fitted_scores.pth")

    @property
    def overview(self):
        """Path of the list of pictures by class, written by search_classes.py."""
        return Path(self.io_path, "overviews", self.dataset, "overview.json")

    def indices(self, kind, missing_ok=False):
        """Indices of the pictures that have a file of a kind, see `folder`: an ascending list.

        Other files in the folder do not matter. Without such a folder it is empty if that is
        `missing_ok`, or else a SettingError, which lists the folders that exist.
        """
        folder = self.folder(kind)
        if not folder.is_dir() and not missing_ok:
            others = ", ".join(sorted(path.name for path in _files(folder.parent))) or "nothing"
            raise SettingError(
                f"{folder} has no {kind} files; run {MAKERS[kind]} with "
                f"args.model_name={self.model} args.dataset={self.dataset} first; {folder.parent} "
                f"has {others}"
            )
        return indices_in(folder, f"(?:{kind}|probs_)" if kind == "input" else kind)


def plain_name(name):
    """The name of a dataset or model, which folders and files have; a SettingError for a path."""
    if not name or name == ".." or "\0" in name or Path(name).name != name:
        raise SettingError(f"{name!r} is no name of a dataset or model: it would name a path")
    return name


def name_path(io_path, kind, name):
    """Path of what is known of a name: JSON; `kind` is "datasets" or "models"."""
    return Path(io_path, "names", kind, f"{plain_name(name)}.json")


def learnt_folder(io_path, name):
    """Folder of a network that has learnt further classes, and of all that belongs to it."""
    return Path(io_path, "learnt", plain_name(name))


def learnt_facts(folder):
    """Path of what such a network is and was made from: JSON; it is there once all is."""
    return Path(folder, "learnt.json")


def learnt_weights(folder, sha256):
    """Path of the weights of such a network, by what they are."""
    return Path(folder, f"weights_{sha256[:12]}.pth")


def all_learnt_weights(folder):
    """Paths of all weights that are there: a list."""
    return [*Path(folder).glob("weights_*.pth")]


def learnt_checkpoint(folder):
    """Path of what its training goes on from after a kill."""
    return Path(folder, "checkpoint.pth")


def learnt_curves(folder):
    """Path, without its suffix, of the picture of how it learnt."""
    return Path(folder, "curves")


def learnt_labels(folder, dataset, index):
    """Path of the labels of one picture that such a network learns from."""
    return Path(folder, "labels", plain_name(dataset), f"{index}.png")


def learnt_sheet(folder, number):
    """Path, without its suffix, of a contact sheet of these labels; numbers count from 1."""
    return Path(folder, f"sheet_{number}")


def learnt_from(folder):
    """Paths of all labels and contact sheets that are there: a list."""
    return [*Path(folder).glob("labels/*/*.png"), *Path(folder).glob("sheet_*.png")]


def drawings_below(folder):
    """Folders of pictures that were drawn for people, where a folder is one of results: a list."""
    is_of_results = Path(folder, "names").is_dir() and Path(folder, "input").is_dir()
    return [Path(folder, kind) for kind in ("pictures/rating", "analysis") if is_of_results]


def indices_in(folder, stem):
    """Ascending numbers of the files <stem><number>.hdf5 and .p in a folder, if there is one."""
    names = (re.fullmatch(rf"{stem}(\d+)\.(?:hdf5|p)", path.name) for path in _files(folder))
    return sorted({int(name[1]) for name in names if name})


def index_of(path):
    """Index of the picture that a file was made of; -1: it is another file."""
    name = re.fullmatch(rf"[a-z_]+?(\d+)\.(?:hdf5|p|png)(?:{re.escape(GONE)})?", path.name)
    return int(name[1]) if name else -1


def find_components(places, index):
    """Path of a picture's component map in the first of some Results that has it.

    Where none has it, the path that it has in the last.
    """
    paths = [results.components(index) for results in places]
    there = (path for path in paths if path.is_file() or path.with_suffix(".p").is_file())
    return next(there, paths[-1])


def vectors_folder(table):
    """Folder that a table of embedded segments is collected from: a folder a dataset in it."""
    return Path(table).with_suffix("")


def known_vectors(table):
    """Path of the vectors of known segments that go with a table of embedded segments."""
    return vectors_folder(table) / "known.p"


def seen_vectors(table):
    """Path of what stage 4 has seen of the files that a table is collected from; see `seen`."""
    return vectors_folder(table) / "seen.json"


def judged_pictures(table):
    """Path of what is known of all segments of the pictures that a table is collected from."""
    return vectors_folder(table) / "judged.p"


def tags_path(table):
    """Path of the tags of a table of embedded segments: JSON, beside it."""
    path = Path(table)
    return path.with_name(f"{path.name.removesuffix('.p')}_tags.json")


def groups_path(table):
    """Path of the groups found in a table of embedded segments: JSON, beside its tags."""
    path = Path(table)
    return path.with_name(f"{path.name.removesuffix('.p')}_groups.json")


def duplicates_path(table):
    """Path, without its suffix, of the picture of a table's near duplicates: beside it."""
    path = Path(table)
    return path.with_name(f"{path.name.removesuffix('.p')}_duplicates")


def min_size_of(table):
    """Smallest height and width in the name of a table of embedded segments.

    Whole numbers are pixels, others shares of the picture's height. A SettingError if that is no
    name that `Results.embeddings` gives.
    """
    name = re.fullmatch(_TABLE, Path(table).name)
    if not name:
        raise SettingError(
            f"a file of embedded segments must be called embeddings_<height>_<width>_<net>.p, "
            f"got {table}"
        )
    return tuple(float(size) if "." in size else int(size) for size in name.group(1, 2))


def stored_net(net):
    """Name of a network that makes vectors as the names of files have it."""
    return net.replace("/", "_", 1).replace("/", "--")


def net_of(table):
    """Name of the network that made the vectors, as the name of their table has it, or None."""
    name = re.fullmatch(_TABLE, Path(table).name)
    return name and re.sub("^(timm|hf)_", r"\1/", name[3]).replace("--", "/")


def _files(folder):
    return list(folder.iterdir()) if folder.is_dir() else []

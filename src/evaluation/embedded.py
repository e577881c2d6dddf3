"""The embedded objects that an evaluation looks at."""

from dataclasses import dataclass
from pathlib import Path

from src import entries
from src.embedding.table import only_datasets, read_table
from src.model_card import known_card
from src.records import ObjectTable
from src.run import choice
from src.store.paths import Results


@dataclass(frozen=True)
class Embedded:
    """Those of a table of stage 4 that lie in the datasets asked for."""

    results: Results  # whose dataset is the names of all of them, with + between
    path: Path  # of the table
    table: ObjectTable
    datasets: dict[str, tuple]  # DatasetConfig of each dataset in the table, by its name
    known: dict[int, tuple]  # classes of the network; see `ModelCard.classes`

    @classmethod
    def from_args(cls, args, configuration, log):
        """Those that the settings of a script name; `configuration` has the entries."""
        io_path, every = args["io_path"], configuration.datasets
        names = entries.dataset_names(every, args["datasets"], io_path)
        model = entries.choose_model(configuration.models, args["model_name"], io_path)
        known = known_card(io_path, model, configuration.CONFIG.TRAIN_DATASET).classes
        path = choice.embeddings_file(args, model.name, log)
        table = only_datasets(path, read_table(path), names)
        there = sorted(set(table["dataset"]))
        datasets = {name: entries.choose_dataset(every, name, io_path) for name in there}
        results = Results(io_path, model.name, "+".join(names or there))
        return cls(results, path, table, datasets, known)

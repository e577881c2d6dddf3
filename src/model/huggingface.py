"""Segmentation networks of Hugging Face's transformers, from its hub or from a folder."""

import json
import logging
from pathlib import Path

import torch
from torch import nn

from src.errors import SettingError, reason_of

# which take pictures of their configuration's `image_size` only
_OF_ONE_SIZE = "beit", "data2vec-vision", "dpt", "eomt", "eomt_dinov3"
_OF_QUERIES = "maskformer", "mask2former", "oneformer", "eomt", "eomt_dinov3"
_FLIPPED = "mobilevit", "mobilevitv2"  # trained with BGR, where their image processor says nothing
_TASK = "the task is semantic"  # what OneFormer was taught to be told
_TOKENS = "tokenizer.json", "vocab.json"
# weights that no output depends on; the published DPT lacks the last
_UNUSED = "auxiliary_head.", "criterion.", "neck.fusion_stage.layers.0.residual_layer1."
_SETTINGS = "*.json", "*.txt"  # of a repository: all but its weights
_LISTED = 3  # weights named in a message
_WAIT = 10  # seconds for the hub to answer

_log = logging.getLogger(__name__)


class HuggingFace(nn.Module):
    """A segmentation network of transformers with its weights, of one of two kinds.

    Per pixel (SegFormer, UperNet, DPT, BEiT, Data2Vec, MobileViT, MobileNetV2 with DeepLabv3+): its
    output are logits.

    By queries (MaskFormer, Mask2Former, OneFormer, EoMT): each has a mask and class logits, the
    last of them "no object". The score of class c at a pixel is the sum over the queries q of
    softmax(class logits of q)[c] * sigmoid(mask of q): what transformers'
    `post_process_semantic_segmentation` takes the largest of, and what "rejected by all" (Nayal et
    al., arXiv 2211.14293) is computed from.

    Parameters
    ----------
    name : str
        A name on huggingface.co, or a folder with what `save_pretrained` wrote or a download gave.

    Raises
    ------
    SettingError
        There is no such folder, or nothing to download; it is no segmentation network; its weights
        are damaged, or some are missing or of another shape: none is left at random.
    """

    has_weights = True

    def __init__(self, name):
        super().__init__()
        transformers = library()
        folder = folder_of(name, with_weights=True)
        config = _config_of(name, folder)
        self.by_queries = config.model_type in _OF_QUERIES
        self.outputs = "scores" if self.by_queries else "logits"
        self.is_flipped = _is_flipped(config, rule_of(folder))
        if config.model_type == "oneformer":
            config.is_training = False  # which would want texts
            self.register_buffer("task", _task_tokens(name, folder, config), persistent=False)
        kind = "UniversalSegmentation" if self.by_queries else "SemanticSegmentation"
        self.network = load(getattr(transformers, f"AutoModelFor{kind}"), name, folder, config)
        if self.by_queries:  # per pixel, what the last layer is given is found without it
            self.features = self._mask_features
        elif hasattr(self.network, "auxiliary_head"):
            self.network.auxiliary_head = None  # a second opinion, used in training only

    def forward(self, images):
        """Logits or class scores of a batch; which of them, `outputs` says.

        Parameters
        ----------
        images : Tensor of shape (N, 3, H, W), float32
            RGB, normalised; of `describe(name)["size"]`, where that is a pair.

        Returns
        -------
        maps : Tensor of shape (N, C, h, w)
            Without "no object"; smaller than the images by the network's stride. Scores are 0 to
            the number of queries.
        """
        output = self._run(images)
        if not self.by_queries:
            return output.logits
        classes = output.class_queries_logits.float().softmax(-1)[..., :-1]
        masks = output.masks_queries_logits.float().sigmoid()
        with torch.autocast(images.device.type, enabled=False):  # the sums keep their digits
            return torch.einsum("nqc,nqhw->nchw", classes, masks)

    @staticmethod
    def describe(name):
        """What the network says of itself, from its small files alone.

        Parameters
        ----------
        name : str
            As for the class.

        Returns
        -------
        facts : dict
            classes : dict of int to str, or int
                `id2label`; where it has nobody's names, "LABEL_0" and so on, their number.
            mean, std : list of 3 float
                Of RGB in 0..1; missing where there is no image processor.
            size : (int, int) or dict
                (height, width) where the network takes no other; else {"shortest_edge": pixels},
                and perhaps "longest_edge", as the image processor scales pictures. Where that
                squeezes them into a square, its side is the shortest edge: their shape stays.
            multiple_of : int
                Where the image processor has a `size_divisor`.
            from : str

        Raises
        ------
        SettingError
            As for the class, the weights aside.
        """
        library()
        folder = folder_of(name)
        config, rule = _config_of(name, folder), rule_of(folder)
        is_named = config.id2label != {k: f"LABEL_{k}" for k in range(config.num_labels)}
        facts = {"classes": dict(config.id2label) if is_named else config.num_labels}
        facts |= normalisation(rule)
        if size := _only_size(config) or _scaling(rule):
            facts["size"] = size
        if divisor := rule.get("size_divisor", rule.get("size_divisibility")):
            facts["multiple_of"] = divisor
        origin = "id2label and image processor" if rule else "id2label"
        return facts | {"from": f"{origin} of {name}"}

    def _mask_features(self, images):
        """The map (N, F, h, w) that the masks of the queries are found in."""
        output = self._run(images, output_hidden_states=True)
        config = self.network.config
        if config.model_type == "oneformer":
            return output.pixel_decoder_hidden_states[0]
        if not config.model_type.startswith("eomt"):
            return output.pixel_decoder_last_hidden_state
        height, width = (length // config.patch_size for length in images.shape[2:])
        patches = output.last_hidden_state[:, -height * width :].transpose(1, 2)
        return self.network.upscale_block(patches.unflatten(2, (height, width)))

    def _run(self, images, **kwargs):
        images = images.flip(1) if self.is_flipped else images
        if self.network.config.model_type == "oneformer":
            kwargs["task_inputs"] = self.task.expand(len(images), -1)
        return self.network(pixel_values=images, return_dict=True, **kwargs)


def library():
    """The library, which from now on keeps to itself what it thinks: what matters is told here."""
    try:
        import huggingface_hub
        import transformers  # optional, and slow to import
    except ImportError as error:
        raise SettingError(
            "networks of Hugging Face (`hf/...`) need transformers: `pip install .[hf]`"
        ) from error
    huggingface_hub.utils.logging.set_verbosity(logging.CRITICAL)
    huggingface_hub.utils.disable_progress_bars()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    return transformers


def folder_of(name, with_weights=False, setting="args.model_name"):
    """The folder of a network: its own, or the copy of its repository in the hub's cache.

    The `setting` is what a SettingError says to name a folder by.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(_fetch(name, with_weights))
    except Exception as error:  # without a network, or with half of one, it may be nearly any
        if isinstance(error, HFValidationError):
            problem = (
                "nothing on huggingface.co can be called so: `hf/` is followed by a folder with a "
                "config.json, or by a name such as nvidia/segformer-b0-finetuned-ade-512-512"
            )
        elif isinstance(error, RepositoryNotFoundError):
            problem = (
                "huggingface.co shows no network of that name: look it up there; one that is "
                "private or gated needs `hf auth login`"
            )
        else:
            problem = (
                f"it could not be fetched from huggingface.co ({_first_line(error)}): fetch it "
                f"where that is possible (`hf download {name} --local-dir <folder>`), copy the "
                f"folder here and name it, {setting}=hf/<folder>"
            )
        raise SettingError(f"there is no folder {name}, and {problem}") from error


def _fetch(name, with_weights):
    """Folder of a repository in the hub's cache, brought up to date where the hub answers."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    try:  # asks once; the download itself would ask again and again
        found = HfApi().model_info(name, timeout=_WAIT)
    except (RepositoryNotFoundError, ValueError):
        raise
    except Exception as error:
        try:
            return snapshot_download(name, local_files_only=True)
        except LocalEntryNotFoundError:
            raise error from None
    patterns = [*_SETTINGS]
    if with_weights:
        _log.info("%s: fetching from huggingface.co what is not in its cache yet", name)
        files = [file.rfilename for file in found.siblings or ()]
        patterns.append("*.safetensors" if "model.safetensors" in " ".join(files) else "*.bin")
    return snapshot_download(name, allow_patterns=patterns)


def config_of(name, folder):
    """The configuration in a folder, of any network of transformers."""
    try:
        return library().AutoConfig.from_pretrained(folder)
    except Exception as error:  # a file that is damaged or something else raises nearly anything
        raise SettingError(
            f"{name} is no network of transformers ({_first_line(error)}): `hf/` takes a folder "
            "that `save_pretrained` wrote or a download gave, with a config.json that has a "
            "`model_type`"
        ) from error


def _config_of(name, folder):
    """The configuration of a segmentation network of one of the two kinds; no other is taken."""
    transformers, config = library(), config_of(name, folder)
    per_pixel = transformers.models.auto.modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
    made = (config.architectures or ["no class at all"])[0]
    is_task = "Segmentation" in made or not config.architectures
    if config.model_type in (*per_pixel, *_OF_QUERIES) and is_task:
        return config
    raise SettingError(
        f"{name} is no network for semantic segmentation: its config.json says {made} of type "
        f"{config.model_type}; those of {', '.join(sorted([*per_pixel, *_OF_QUERIES]))} can be "
        "taken, as ...ForSemanticSegmentation, ...ForUniversalSegmentation or "
        "...ForInstanceSegmentation"
    )


def load(auto_class, name, folder, config, does="segment"):
    """The network, with each of its weights read from the folder; what it `does` is for errors."""
    try:
        network, info = auto_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are told below
            output_loading_info=True,
        )
    except Exception as error:  # a damaged file raises nearly anything
        raise SettingError(
            f"the weights of {name} cannot be read ({_first_line(error)}): the folder needs a "
            "model.safetensors, or all its parts, whole; fetch or save the network again"
        ) from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(_UNUSED))
    misshapen = [
        f"{key}, which is {tuple(got)} in the file and {tuple(wanted)} in config.json"
        for key, got, wanted in sorted(info["mismatched_keys"])
        if not key.startswith(_UNUSED)
    ]
    if wrong := missing or misshapen:
        few = ", ".join(wrong[:_LISTED]) + (", ..." if len(wrong) > _LISTED else "")
        raise SettingError(
            f"{name} would {does} by random numbers, because its weights are not those of a "
            f"{type(network).__name__}: {'lacking' if missing else 'of another shape'} are {few}; "
            f"name a network that was trained to {does}, not the trunk that training begins with"
        )
    return network


def _task_tokens(name, folder, config):
    """What tells OneFormer to segment by classes: (1, `task_seq_len`) int64, padded by zeros."""
    tokenizer = tokenizer_of(name, folder, "OneFormer is told its task in words")
    length = config.task_seq_len
    words = tokenizer(_TASK, padding="max_length", max_length=length, truncation=True)
    return torch.tensor([words["input_ids"]]) * torch.tensor([words["attention_mask"]])


def tokenizer_of(name, folder, reason):
    """The tokenizer in a folder; without one a SettingError, which gives the `reason` for it."""
    try:
        if not any((folder / file).is_file() for file in _TOKENS):
            raise FileNotFoundError(f"none of {', '.join(_TOKENS)}")  # it would take an empty one
        return library().AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise SettingError(
            f"the tokenizer of {name} cannot be read ({_first_line(error)}): {reason}, so its "
            "folder needs the files of its tokenizer beside config.json"
        ) from error


def rule_of(folder):
    """What the image processor in a folder was set to, by name; empty where there is none."""
    whole = _read(folder / "processor_config.json")
    return whole.get("image_processor") or _read(folder / "preprocessor_config.json")


def _read(file):
    """The mapping in a JSON file; empty where there is no file."""
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise SettingError(f"{file} is damaged: {_first_line(error)}") from error


def normalisation(rule):
    """`mean` and `std` of RGB in 0..1; empty where the image processor does not tell them."""
    is_wanted = rule.get("do_normalize", "image_mean" in rule)
    if not rule or (is_wanted and "image_mean" not in rule):
        return {}
    mean, std = (rule["image_mean"], rule["image_std"]) if is_wanted else ([0.0] * 3, [1.0] * 3)
    scale = 255 * rule.get("rescale_factor", 1 / 255) if rule.get("do_rescale", True) else 255
    return {"mean": [value / scale for value in mean], "std": [value / scale for value in std]}


def _only_size(config):
    """(height, width) in pixels of a network that takes no other; else None."""
    size = getattr(config, "image_size", None) if config.model_type in _OF_ONE_SIZE else None
    return (size, size) if isinstance(size, int) else size and tuple(size)


def _scaling(rule):
    """{"shortest_edge": pixels, ...} as the image processor scales pictures; None: as they are."""
    size = rule.get("size") if rule.get("do_resize", True) else None
    if isinstance(size, list):  # width and height, or a number: as it was written once
        size = {"shortest_edge": min(size)}
    if isinstance(size, int):
        size = {"shortest_edge": size, "longest_edge": rule.get("max_size")}
    if not isinstance(size, dict):
        return None
    if "height" in size and "width" in size:
        size = {"shortest_edge": min(size["height"], size["width"])}
    edges = {key: size[key] for key in ("shortest_edge", "longest_edge") if size.get(key)}
    return edges if "shortest_edge" in edges else None


def _is_flipped(config, rule):
    """Whether the network wants blue, green, red."""
    return bool(rule.get("do_flip_channel_order", config.model_type in _FLIPPED))


def _first_line(error):
    return f"{type(error).__name__}: {reason_of(error)}".partition("\n")[0].rstrip(".: ")

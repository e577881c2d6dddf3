"""Networks that see pictures and read words: CLIP and SigLIP of Hugging Face's transformers."""

from torch import nn
from torch.nn.functional import normalize

from src.errors import SettingError
from src.model import huggingface

_KINDS = "clip", "siglip"


class Clip(nn.Module):
    """(N, 3, h, w) -> (N, F), of length 1; a line of words becomes a vector of the same space.

    Parameters
    ----------
    name : str
        A name on huggingface.co, or a folder with what `save_pretrained` wrote or a download gave:
        the network, its image processor and its tokenizer.

    Raises
    ------
    SettingError
        As `huggingface.HuggingFace`; or it is none of CLIP and SigLIP.
    """

    has_weights = True

    def __init__(self, name):
        super().__init__()
        folder = huggingface.folder_of(name, with_weights=True, setting="args.net")
        config = huggingface.config_of(name, folder)
        if config.model_type not in _KINDS:
            raise SettingError(
                f"{name} is of type {config.model_type}: as args.net, `hf/` takes networks of type "
                f"{' or '.join(_KINDS)}, which see pictures and read words"
            )
        look = huggingface.normalisation(huggingface.rule_of(folder))
        if not look:
            raise SettingError(
                f"{name} does not say how its pictures are normalised: its folder needs the "
                "preprocessor_config.json of its image processor beside config.json"
            )
        self.mean, self.std = look["mean"], look["std"]
        self.crop_size = (config.vision_config.image_size,) * 2
        self.tokenizer = huggingface.tokenizer_of(name, folder, "it reads words")
        auto_class = huggingface.library().AutoModel
        self.network = huggingface.load(auto_class, name, folder, config, does="embed")

    def forward(self, images):
        """Vectors of a batch."""
        return normalize(self.network.get_image_features(images).pooler_output)

    def encode_text(self, line):
        """Vector (F,) of a line of words, of length 1; what is too long for the network is cut."""
        length = self.network.config.text_config.max_position_embeddings
        words = self.tokenizer(
            line, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        tokens = words["input_ids"].to(self.network.device)
        # no mask: CLIP looks back only, from the first end of a text, and SigLIP learnt without
        return normalize(self.network.get_text_features(tokens).pooler_output)[0]

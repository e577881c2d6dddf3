"""Networks of Hugging Face's transformers: tiny ones of each family, saved to a folder and read."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from src.errors import SettingError
from src.model.huggingface import HuggingFace

transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

NAMES = ["road", "sky", "car"]
PER_PIXEL = "segformer", "upernet", "dpt", "beit", "data2vec", "mobilevit", "mobilenet_v2"
BY_QUERIES = "maskformer", "mask2former", "oneformer", "eomt", "eomt_dinov3"
OF_ONE_SIZE = "dpt", "beit", "data2vec", "eomt", "eomt_dinov3"
VIT = dict(
    hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
    image_size=64, patch_size=16,
)  # fmt: skip
SWIN = dict(
    embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
    out_features=["stage1", "stage2", "stage3", "stage4"],
)  # fmt: skip


def swin():
    return transformers.SwinConfig(**SWIN)


def configurations():
    """A tiny configuration of each family, as a function of its arguments in common."""
    t = transformers
    return {
        "segformer": lambda **kw: t.SegformerConfig(
            depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16, **kw,
        ),
        "upernet": lambda **kw: t.UperNetConfig(
            backbone_config=swin(), hidden_size=16, auxiliary_in_channels=32,
            auxiliary_channels=8, **kw,
        ),
        "dpt": lambda **kw: t.DPTConfig(
            **VIT, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=16, **kw,
        ),
        "beit": lambda **kw: t.BeitConfig(**VIT, out_indices=[1, 2, 3, 4], **kw),
        "data2vec": lambda **kw: t.Data2VecVisionConfig(**VIT, out_indices=[0, 1, 2, 3], **kw),
        "mobilevit": lambda **kw: t.MobileViTConfig(
            hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8, 8, 8, 8, 16, 16, 16],
            num_attention_heads=2, aspp_out_channels=16, **kw,
        ),
        "mobilenet_v2": lambda **kw: t.MobileNetV2Config(depth_multiplier=0.25, **kw),
        "maskformer": lambda **kw: t.MaskFormerConfig(
            backbone_config=swin(), fpn_feature_size=32, mask_feature_size=32,
            decoder_config=t.DetrConfig(
                d_model=32, decoder_layers=1, decoder_ffn_dim=16, decoder_attention_heads=2,
                num_queries=5,
            ), **kw,
        ),
        "mask2former": lambda **kw: t.Mask2FormerConfig(
            backbone_config=swin(), feature_size=32, mask_feature_size=32, hidden_dim=32,
            encoder_feedforward_dim=32, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
            dim_feedforward=16, num_queries=5, **kw,
        ),
        "oneformer": lambda **kw: t.OneFormerConfig(
            backbone_config=swin(), conv_dim=32, mask_dim=32, hidden_dim=32, num_queries=5,
            encoder_feedforward_dim=32, dim_feedforward=16, encoder_layers=1, decoder_layers=2,
            num_attention_heads=2, text_encoder_width=64, text_encoder_num_layers=1,
            text_encoder_vocab_size=64, query_dec_layers=1, task_seq_len=8, is_training=True, **kw,
        ),
        "eomt": lambda **kw: t.EomtConfig(**VIT, num_blocks=1, num_queries=5, **kw),
        "eomt_dinov3": lambda **kw: t.EomtDinov3Config(**VIT, num_blocks=1, num_queries=5, **kw),
    }  # fmt: skip


def build(family, names=NAMES):
    """A network of a family with random weights, in evaluation mode."""
    config = configurations()[family](id2label=dict(enumerate(names)), label2id={})
    is_mask = family in BY_QUERIES
    kind = transformers.AutoModelForUniversalSegmentation if is_mask else (
        transformers.AutoModelForSemanticSegmentation
    )  # fmt: skip
    torch.manual_seed(0)
    network = kind.from_config(config).eval()
    with torch.no_grad():  # far enough from 0 for what is computed from them to be told apart
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def save_tokenizer(folder):
    """A tokenizer like that of CLIP, of single letters, and the few words that it knows whole."""
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[]
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def write(folder, name="preprocessor_config.json", **values):
    (folder / name).write_text(json.dumps(values), encoding="utf-8")


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A function: family -> the network, and the folder where it was saved once."""
    known = {}

    def save(family):
        if family not in known:
            folder = tmp_path_factory.mktemp(family)
            known[family] = build(family), folder
            known[family][0].save_pretrained(folder)
            if family == "oneformer":
                save_tokenizer(folder)
        return known[family]

    return save


@pytest.fixture
def copied(saved, tmp_path):
    """A function: family and file names -> a folder with copies of what was saved under them."""

    def copy(family, *names):
        for name in names:
            shutil.copy(saved(family)[1] / name, tmp_path)
        return tmp_path

    return copy


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """No network, and a cache of the hub that is empty: its folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def pictures(family):
    torch.manual_seed(1)
    return torch.randn(2, 3, *((64, 64) if family in OF_ONE_SIZE else (64, 96)))


def inputs_of_last_layer(network, images):
    """What is given to the last convolution or linear layer that makes one map a class."""
    seen = []
    for module in network.modules():
        if getattr(module, "out_channels", getattr(module, "out_features", 0)) == len(NAMES):
            module.register_forward_hook(lambda module, given, made: seen.append((given[0], made)))
    network(images)
    return seen[-1]


# --- per pixel


@pytest.mark.parametrize("family", PER_PIXEL)
@torch.inference_mode()
def test_logits_of_pixels_are_those_of_transformers(family, saved):
    original, folder = saved(family)
    network, images = HuggingFace(str(folder)).eval(), pictures(family)
    given = images.flip(1) if family == "mobilevit" else images  # it was trained with BGR
    expected = original(given).logits
    logits = network(images)
    assert network.outputs == "logits"
    assert expected.shape[:2] == (2, 3)
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("family", PER_PIXEL)
@torch.inference_mode()
def test_the_last_layer_of_pixels_is_given_a_map(family, saved):
    network, images = HuggingFace(str(saved(family)[1])).eval(), pictures(family)
    given, made = inputs_of_last_layer(network, images)
    assert given.ndim == 4
    assert given.shape[0] == 2
    assert given.shape[1] > len(NAMES)
    logits = nn.functional.interpolate(network(images), made.shape[2:], mode="bilinear")
    assert (made.argmax(1) == logits.argmax(1)).float().mean() > 0.9  # no head of training's
    assert not hasattr(network, "features")


# --- by queries


@pytest.mark.parametrize("family", BY_QUERIES)
@torch.inference_mode()
def test_scores_are_the_sums_over_queries_without_no_object(family, saved):
    original, folder = saved(family)
    network, images = HuggingFace(str(folder)).eval(), pictures(family)
    given = {"pixel_values": images}
    if family == "oneformer":
        for module in original.modules():
            module.is_training = False  # else it wants texts and drops at random
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        processor = transformers.OneFormerProcessor(
            transformers.OneFormerImageProcessor(), tokenizer, task_seq_length=8
        )
        tokens = processor._preprocess_text(["the task is semantic"], max_length=8)
        given["task_inputs"] = tokens.expand(2, -1)
    output = original(**given)
    classes, masks = output.class_queries_logits, output.masks_queries_logits
    assert classes.shape == (2, 5, 4)
    scores = network(images)
    assert network.outputs == "scores"
    assert scores.shape == (2, 3, *masks.shape[2:])
    shares = classes.exp() / classes.exp().sum(-1, keepdim=True)
    for c, row, col in [(0, 0, 0), (1, 5, 7), (2, 15, 15)]:
        expected = sum(
            shares[1, query, c] / (1 + (-masks[1, query, row, col]).exp()) for query in range(5)
        )
        torch.testing.assert_close(scores[1, c, row, col], expected)
    assert scores.min() >= 0
    assert scores.sum(1).max() <= 5


@pytest.mark.parametrize("family", BY_QUERIES)
@torch.inference_mode()
def test_features_are_the_map_of_the_masks(family, saved):
    network, images = HuggingFace(str(saved(family)[1])).eval(), pictures(family)
    features = network.features(images)
    assert features.shape == (2, 32, *network(images).shape[2:])
    masks = network._run(images).masks_queries_logits.flatten(2)
    flat = features.flatten(2).transpose(1, 2)  # masks are products of these and of query vectors
    weights = torch.linalg.lstsq(flat, masks.transpose(1, 2)).solution
    torch.testing.assert_close((flat @ weights).transpose(1, 2), masks, atol=1e-2, rtol=1e-2)


@torch.inference_mode()
def test_scores_keep_their_digits_in_half_precision(saved):
    network, images = HuggingFace(str(saved("mask2former")[1])).eval(), pictures("mask2former")
    with torch.autocast("cpu", torch.bfloat16):
        scores = network(images)
    assert scores.dtype == torch.float32
    assert (scores != scores.bfloat16().float()).any()


# --- what it says of itself


def test_a_network_says_its_classes_and_input_without_weights(copied):
    folder = copied("segformer", "config.json")
    transformers.SegformerImageProcessor(size={"height": 512, "width": 640}).save_pretrained(folder)
    says = HuggingFace.describe(str(folder))
    assert says.pop("mean") == pytest.approx([0.485, 0.456, 0.406])
    assert says.pop("std") == pytest.approx([0.229, 0.224, 0.225])
    assert says == {
        "classes": {0: "road", 1: "sky", 2: "car"},
        "size": {"shortest_edge": 512},  # not squeezed into the shape of what it was trained on
        "from": f"id2label and image processor of {folder}",
    }


def test_without_an_image_processor_nothing_is_said_of_the_input(copied):
    folder = copied("upernet", "config.json")
    assert HuggingFace.describe(str(folder)) == {
        "classes": {0: "road", 1: "sky", 2: "car"},
        "from": f"id2label of {folder}",
    }


@pytest.mark.parametrize("family", OF_ONE_SIZE)
def test_a_network_of_one_size_says_it(family, copied):
    folder = copied(family, "config.json")
    write(folder, size={"height": 640, "width": 640})
    assert HuggingFace.describe(str(folder))["size"] == (64, 64)


def test_labels_that_are_nobodys_names_are_a_number(copied):
    folder = copied("segformer", "config.json")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(k): f"LABEL_{k}" for k in range(150)}
    write(folder, "config.json", **config)
    assert HuggingFace.describe(str(folder))["classes"] == 150


@pytest.mark.parametrize(
    ("rule", "mean", "std"),
    [
        (dict(do_normalize=False, image_mean=[0.5] * 3, image_std=[0.5] * 3), 0, 1),
        (dict(do_normalize=None), 0, 1),
        (dict(size=544), 0, 1),  # as that of MobileViT was published
        (dict(do_normalize=True, image_mean=[0.5] * 3, image_std=[0.25] * 3), 0.5, 0.25),
        (dict(do_rescale=False, image_mean=[127.5] * 3, image_std=[51] * 3), 0.5, 0.2),
        (dict(do_rescale=False, do_normalize=False), 0, 1 / 255),
        (dict(rescale_factor=2 / 255, image_mean=[1] * 3, image_std=[1] * 3), 0.5, 0.5),
    ],
)
def test_mean_and_std_are_of_values_from_0_to_1(rule, mean, std, copied):
    folder = copied("segformer", "config.json")
    write(folder, **rule)
    says = HuggingFace.describe(str(folder))
    assert says["mean"] == pytest.approx([mean] * 3)
    assert says["std"] == pytest.approx([std] * 3)


def test_a_mean_that_only_the_processors_class_knows_is_left_out(copied):
    folder = copied("segformer", "config.json")
    write(folder, do_normalize=True)
    assert "mean" not in HuggingFace.describe(str(folder))


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        (dict(size={"shortest_edge": 800, "longest_edge": 1333}), (800, 1333)),
        (dict(size={"shortest_edge": 800, "longest_edge": None}), (800, None)),
        (dict(size=800, max_size=1333), (800, 1333)),  # as they were written in 2022
        (dict(size=512), (512, None)),
        (dict(size=512, do_resize=False), None),
        (dict(size=[640, 480]), (480, None)),
        (dict(do_resize=True), None),
    ],
)
def test_pictures_are_scaled_as_the_image_processor_does(rule, size, copied):
    folder = copied("maskformer", "config.json")
    write(folder, **rule)
    names = "shortest_edge", "longest_edge"
    expected = {} if size is None else {k: n for k, n in zip(names, size, strict=True) if n}
    assert HuggingFace.describe(str(folder)).get("size", {}) == expected


def test_a_processor_of_texts_and_pictures_is_understood(copied):
    folder = copied("oneformer", "config.json")
    write(folder, "processor_config.json", image_processor={"size_divisor": 32}, task_seq_length=8)
    assert HuggingFace.describe(str(folder))["multiple_of"] == 32


# --- what it refuses, and how


@pytest.mark.parametrize("call", [HuggingFace, HuggingFace.describe])
def test_no_transformers_says_what_to_install(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SettingError, match=r"need transformers: `pip install \.\[hf\]`"):
        call(str(tmp_path))


@pytest.mark.parametrize("call", [HuggingFace, HuggingFace.describe])
def test_no_hub_says_which_folder_to_name(call, no_hub):
    with pytest.raises(SettingError) as caught:
        call("nobody/net")
    message = str(caught.value)
    assert message.startswith(
        "there is no folder nobody/net, and it could not be fetched from huggingface.co (Offline"
    )
    assert message.endswith(
        "fetch it where that is possible (`hf download nobody/net --local-dir <folder>`), copy the "
        "folder here and name it, args.model_name=hf/<folder>"
    )
    assert "\n" not in message


def test_the_copy_in_the_cache_does_without_the_hub(no_hub, saved):
    inside = no_hub / "models--nobody--net"
    shutil.copytree(saved("segformer")[1], inside / "snapshots" / "abc")
    (inside / "refs").mkdir()
    (inside / "refs" / "main").write_text("abc")
    assert len(HuggingFace.describe("nobody/net")["classes"]) == 3
    assert HuggingFace("nobody/net").outputs == "logits"


@pytest.mark.parametrize("name", ["/no/such/folder", "photos/nets/mine", "my net!"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(name):
    with pytest.raises(SettingError, match=f"no folder {name}, and nothing on .* can be called so"):
        HuggingFace.describe(name)


@pytest.mark.parametrize("text", [None, "{}", "{", '{"model_type": "unheard-of"}'])
def test_a_folder_without_a_network_is_refused(text, tmp_path):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(SettingError, match="is no network of transformers .*with a config.json"):
        HuggingFace.describe(str(tmp_path))


@pytest.mark.parametrize("kind", ["SegformerForImageClassification", "SegformerModel"])
def test_a_network_of_another_task_is_refused(kind, copied):
    folder = copied("segformer", "config.json", "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    write(folder, "config.json", **config | {"architectures": [kind]})
    for call in HuggingFace, HuggingFace.describe:
        with pytest.raises(SettingError, match=f"no network for .* says {kind} of type segformer"):
            call(str(folder))


def test_a_type_that_segments_nothing_is_refused(tmp_path):
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(SettingError, match="says no class at all of type vit; those of beit, "):
        HuggingFace.describe(str(tmp_path))


def test_a_head_that_was_never_trained_is_refused(copied, capfd):
    folder = copied("segformer", "config.json", "model.safetensors")
    file = folder / "model.safetensors"
    state = safetensors.load_file(file)
    kept = {key: value for key, value in state.items() if not key.startswith("decode_head.class")}
    safetensors.save_file(kept, file, {"format": "pt"})
    with pytest.raises(SettingError) as caught:
        HuggingFace(str(folder))
    assert (
        "random numbers, because its weights are not those of a SegformerForSemanticSegmentation: "
        "lacking are decode_head.classifier.bias, decode_head.classifier.weight; name a network"
    ) in str(caught.value)
    assert capfd.readouterr() == ("", "")  # transformers' own table of it does not show


def test_weights_of_another_number_of_classes_are_refused(copied):
    folder = copied("segformer", "config.json", "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(k): f"class {k}" for k in range(5)}
    write(folder, "config.json", **config)
    shapes = r"classifier.weight, which is \(3, 16, 1, 1\) in the file and \(5, 16, 1, 1\) in con"
    with pytest.raises(SettingError, match=shapes):
        HuggingFace(str(folder))


@pytest.mark.parametrize(
    ("family", "unused"),
    [
        ("upernet", "auxiliary_head."),
        ("dpt", "neck.fusion_stage.layers.0.residual_layer1."),  # as in the published ones
    ],
)
@torch.inference_mode()
def test_weights_that_no_logit_depends_on_may_be_lacking(family, unused, copied, saved):
    folder = copied(family, "config.json", "model.safetensors")
    file, images = folder / "model.safetensors", pictures(family)
    state = safetensors.load_file(file)
    kept = {key: value for key, value in state.items() if not key.startswith(unused)}
    assert len(kept) < len(state)
    safetensors.save_file(kept, file, {"format": "pt"})
    network = HuggingFace(str(folder)).eval()
    torch.testing.assert_close(network(images), saved(family)[0](images).logits)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_weights_that_cannot_be_read_are_refused(damage, copied, saved):
    folder = copied("segformer", "config.json")
    if damage == "cut":
        whole = (saved("segformer")[1] / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SettingError, match="the weights of .* cannot be read .*save the network"):
        HuggingFace(str(folder))


def test_weights_that_would_run_code_are_refused(copied, tmp_path):
    class Harm:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harmed",)

    folder = copied("segformer", "config.json")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Harm()}))
    with pytest.raises(SettingError, match="the weights of .* cannot be read") as caught:
        HuggingFace(str(folder))
    assert "weights_only" not in str(caught.value)  # torch's advice to read it all the same
    assert not (tmp_path / "harmed").exists()


@torch.inference_mode()
def test_weights_that_torch_saved_are_read(copied, saved):
    original, _ = saved("segformer")
    folder, images = copied("segformer", "config.json"), pictures("segformer")
    torch.save(original.state_dict(), folder / "pytorch_model.bin")
    network = HuggingFace(str(folder)).eval()
    torch.testing.assert_close(network(images), original(images).logits)


def test_a_oneformer_without_its_tokenizer_is_refused(copied):
    folder = copied("oneformer", "config.json", "model.safetensors")
    with pytest.raises(SettingError, match="the tokenizer of .* cannot .* none of tokenizer.json"):
        HuggingFace(str(folder))


def test_a_damaged_image_processor_is_refused(copied):
    folder = copied("segformer", "config.json")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(SettingError, match="preprocessor_config.json is damaged: JSONDecodeError"):
        HuggingFace.describe(str(folder))


def test_weights_in_half_precision_are_taken_in_float32(tmp_path):
    build("segformer").half().save_pretrained(tmp_path)
    network = HuggingFace(str(tmp_path))
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_loading_says_nothing(saved, capfd):
    HuggingFace(str(saved("mask2former")[1]))
    assert capfd.readouterr() == ("", "")

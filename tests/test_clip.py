"""Networks that see pictures and read words, and objects found by a line of words."""

import json
import logging
import threading

import numpy as np
import pytest
import torch
import transformers
from factories import object_table
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from test_discover import Hand
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import discover_embedding_space as script
from configuration import embedding_networks
from src.discover.query import Queries, embed_words, read_part, typed_part
from src.embedding.maps import MAPS
from src.embedding.networks import choose_entry
from src.embedding.space import nearest
from src.embedding.vectors import CropEmbedder
from src.errors import SettingError
from src.model import huggingface
from src.model.clip import Clip
from src.store.paths import Results, net_of
from src.store.provenance import identity
from src.store.tables import write_embeddings

LOG = logging.getLogger(__name__)
WORDS = ["<pad>", "<end>", "<unknown>", "a", "cow", "tent", "on", "the", "road"]
LENGTH = 6  # of a text, its end among them
SIDE = 8  # pixels of a picture
MEAN, STD = [0.25, 0.5, 0.75], [0.5, 0.25, 0.5]
SMALL = dict(hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=1)
EYES = dict(SMALL, image_size=SIDE, patch_size=4)
READER = dict(
    SMALL, vocab_size=len(WORDS), max_position_embeddings=LENGTH, eos_token_id=1, pad_token_id=0
)


def build(kind):
    """A network with random weights, of 5 (CLIP) or 8 values (SigLIP)."""
    torch.manual_seed(0)
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=READER, vision_config=EYES, projection_dim=5)
        return transformers.CLIPModel(config).eval()
    config = transformers.SiglipConfig(text_config=READER, vision_config=EYES)
    return transformers.SiglipModel(config).eval()


def save_tokenizer(folder):
    """A tokenizer of whole words, which puts an end behind them."""
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, "<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A <end>", None, [("<end>", 1)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>"
    ).save_pretrained(folder)


@pytest.fixture(scope="module", params=["clip", "siglip"])
def saved(request, tmp_path_factory):
    """A network, and the folder that it, its tokenizer and its image processor are saved in."""
    folder = tmp_path_factory.mktemp(request.param)
    network = build(request.param)
    network.save_pretrained(folder)
    save_tokenizer(folder)
    rule = {"image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(rule))
    return network, folder


def embedder_of(folder):
    entry = choose_entry(embedding_networks, f"hf/{folder}")
    return CropEmbedder(entry, None, 2, torch.device("cpu"))


def unit(vectors):
    return (vectors / vectors.norm(dim=-1, keepdim=True)).detach().numpy()


def test_crops_become_what_transformers_makes_of_them(saved):
    network, folder = saved
    crops = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    images = (crops / 255 - MEAN) / STD
    images = torch.tensor(images, dtype=torch.float32).permute(0, 3, 1, 2)
    expected = unit(network.get_image_features(images).pooler_output)
    embedder = embedder_of(folder)
    assert embedder.network.crop_size == (SIDE, SIDE)
    ((_, vectors),) = embedder.embed([("picture", list(crops))])
    assert_allclose(vectors, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("a cow", [3, 4, 1, 0, 0, 0]),
        ("zebra", [2, 1, 0, 0, 0, 0]),
        ("a cow on the road the road", [3, 4, 6, 7, 8, 1]),  # cut, but for its end
    ],
)
def test_words_become_what_transformers_makes_of_them(saved, line, tokens):
    network, folder = saved
    expected = unit(network.get_text_features(torch.tensor([tokens])).pooler_output)
    vector = embedder_of(folder).encode_text(line)
    assert vector.dtype == np.float32
    assert_allclose(vector, expected[0], atol=1e-6)


def test_what_comes_behind_the_end_of_a_text_does_not_count_for_clip():
    network = build("clip")
    alone, filled = ([3, 4, 1], [3, 4, 1, 0, 0, 0])
    vectors = (
        network.get_text_features(torch.tensor([ids])).pooler_output for ids in (alone, filled)
    )
    assert_allclose(*map(unit, vectors), atol=1e-6)


def test_a_line_of_words_ranks_the_objects_by_cosine(saved):
    _, folder = saved
    embedder = embedder_of(folder)
    vector = embedder.encode_text("a tent on the road")
    across = np.eye(len(vector), dtype=np.float32)[0]
    across -= (across @ vector) * vector
    shares = np.array([0, 1, -1, 0.5, 0.9, 0.2], np.float32)  # of what the line says
    vectors = shares[:, None] * vector + (1 - abs(shares[:, None])) * across
    made_from = {"made_from": {"net": identity(embedder.entry), "crop_size": None}}
    table = object_table(6, made_from, embeddings=vectors, **dict.fromkeys(MAPS, vectors[:, :2]))
    query = embed_words(LOG, "a tent on the road", table, "hf/...", embedder)
    assert query.name == "a tent on the road"
    assert query.plot_embeddings.shape == (2,)
    rows, _ = nearest(vectors, query.embeddings, 6, "cos")
    assert_array_equal(rows, [1, 4, 3, 5, 0, 2])


def test_a_line_of_words_opens_the_ranked_objects(saved, tmp_path, monkeypatch):
    _, folder = saved
    vector = embedder_of(folder).encode_text("a cow")
    others = np.random.default_rng(0).normal(size=(9, len(vector))).astype(np.float32)
    vectors = np.vstack([others, vector[None]])
    path = Results(tmp_path, "net").embeddings((8, 8), f"hf/{folder}")
    assert net_of(path) == f"hf/{folder}"
    made_from = {"net": identity(choose_entry(embedding_networks, net_of(path))), "crop_size": None}
    write_embeddings(path, object_table(10, embeddings=vectors), made_from)
    shown = []
    monkeypatch.setattr(script, "write_pictures", lambda log, explorer, *_: shown.append(explorer))
    args = {"load_file": str(path), "text": "a cow", "method": "pca", "io_path": str(tmp_path)}
    script.ex.run(config_updates={"args": args, "mainplot": {"save_path": "map.png"}})
    (sheet,) = shown[0].sheets.views
    assert sheet.rows[:2].tolist() == [-1, 9]
    assert_allclose(sheet.distances[1], 0, atol=1e-6)
    assert (np.diff(sheet.distances) >= 0).all()
    assert sheet.search[:3] == (-1, "full", "cos")


def test_a_network_without_words_says_which_has_some():
    entry = choose_entry(embedding_networks, "resnet18")._replace(kwargs={"weights": None})
    with pytest.raises(SettingError, match="'resnet18'.* reads no words.* args.net=clip"):
        CropEmbedder(entry, None, 1, torch.device("cpu")).encode_text("a cow")


# asked in the window


def open_window(tmp_path, embedder, **columns):
    """A Hand on ten objects with random vectors, and what their Queries are made by."""
    vectors = np.random.default_rng(0).normal(size=(10, 5)).astype(np.float32)
    maps = dict.fromkeys(MAPS, vectors[:, :2])
    table = object_table(10, **{"embeddings": vectors, **maps, **columns})
    queries = Queries(LOG, table, "tiny", lambda: embedder)
    return Hand(tmp_path, table, tmp_path / "saved", queries=queries)


def wait(hand):
    """Let the answer come, as the timer does."""
    waiting = hand.explorer.question
    waiting.job.exception()  # waits for it
    waiting.work()


def ask(hand, key, text):
    hand.press(key, *text, "enter")
    wait(hand)


def test_words_typed_in_the_window_rank_the_objects_which_are_then_selected_and_named(
    saved, tmp_path
):
    embedder = embedder_of(saved[1])
    vectors = np.stack([embedder.encode_text(line) for line in ("a tent", "a cow", "the road")])
    vectors = np.repeat(vectors, [3, 3, 4], axis=0) + 0.01 * np.arange(10)[:, None]
    hand = open_window(tmp_path, embedder, embeddings=vectors.astype(np.float32))
    ask(hand, "/", "a cow")
    assert hand.explorer.question is None
    assert not hand.map.banner.get_visible()
    title = hand.grid.title.get_text()
    assert title == "Nearest neighbours (cos, full space) of a cow"  # though those are others here
    assert (hand.explorer.metric, hand.explorer.space) == ("euclid", "reduced")
    assert "“a cow”" in [words.get_text() for words in hand.grid.axes.texts]
    rows, distances = nearest(vectors, embedder.encode_text("a cow"), 9, "cos")
    assert hand.grid.rows.tolist() == [-1, *rows]
    assert_allclose(hand.grid.distances[1:], distances, atol=1e-6)
    hand.press(*"------", "*", view=hand.grid)  # the three nearest
    hand.press("n", *"cow", "enter", view=hand.grid)
    assert hand.selected() == [3, 4, 5] == sorted(rows[:3])
    assert [hand.explorer.tag_of(row) for row in range(10)] == [""] * 3 + ["cow"] * 3 + [""] * 4


@pytest.mark.parametrize("saved", ["clip"], indirect=True)
def test_the_network_is_kept_for_the_next_question_and_backspace_goes_back(saved, tmp_path):
    hand = open_window(tmp_path, embedder_of(saved[1]))
    ask(hand, "/", "a cow")
    assert hand.explorer.asking.queries.doing() == "asking the network tiny"
    ask(hand, "/", "a tent")
    assert hand.titles() == ["Nearest neighbours"]
    assert hand.grid.title.get_text().endswith(" of a tent")
    stars = [line for line in hand.map.axes.lines if line.get_marker() == "*"]
    assert len(stars) == 1
    rows = list(hand.grid.rows)
    hand.press("backspace", view=hand.grid)
    assert hand.grid.title.get_text().endswith(" of a cow")
    assert list(hand.grid.rows) != rows


@pytest.mark.parametrize("saved", ["clip"], indirect=True)
def test_escape_leaves_a_question_that_takes_its_time(saved, tmp_path):
    begun = threading.Event()

    def make_embedder():
        begun.wait()
        return embedder_of(saved[1])

    hand = open_window(tmp_path, None)
    hand.explorer.asking.queries = queries = Queries(LOG, hand.explorer.table, "", make_embedder)
    hand.press("/", *"a cow", "enter")
    waiting = hand.explorer.question
    assert hand.map.banner.get_text() == "building the network  ...  0 s\nEscape: leave it"
    waiting.work()
    assert hand.map.banner.get_visible()
    hand.press("m", "enter")  # no commands meanwhile
    assert hand.explorer.metric == "euclid"
    hand.hover(3)  # the window goes on
    assert hand.map.status.get_text() != ""
    hand.press("escape")
    begun.set()
    assert hand.explorer.question is None
    assert hand.message() == "cancelled"
    waiting.job.exception()
    waiting.work()
    assert hand.titles() == []  # what came too late is not shown
    assert not hand.map.banner.get_visible()
    assert queries.doing().startswith("asking")  # but the network is there


def test_a_network_that_reads_no_words_is_told_above_the_question_before_it_is_built(tmp_path):
    embedder = CropEmbedder(
        choose_entry(embedding_networks, "resnet18"), None, 1, torch.device("cpu")
    )
    hand = open_window(tmp_path, embedder)
    hand.press("/", "enter")
    assert hand.map.banner.get_text().startswith("nothing was typed\nFind by words: ▏")
    hand.press(*"a cow", "enter")
    wait(hand)
    remark, _, asked = hand.map.banner.get_text().partition("Find by words: ")
    assert "'resnet18' that embedded the objects reads no words" in remark.replace("\n", " ")
    assert "args.net=clip, args.net=siglip or args.net=hf/<name>" in remark.replace("\n", " ")
    assert asked.startswith("a cow▏")
    assert "network" not in vars(embedder)
    hand.press("escape", "/", *"b", "backspace", "escape")
    assert hand.explorer.question is None


@pytest.mark.parametrize("saved", ["clip"], indirect=True)
def test_a_picture_typed_in_the_window_ranks_the_objects_by_it_or_a_part(saved, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "my photo.png")
    embedder = embedder_of(saved[1])
    hand = open_window(tmp_path, embedder)
    ask(hand, ".", f"{tmp_path}/my photo.png")
    assert hand.grid.title.get_text().endswith("(euclid, reduced space) of my photo.png")
    ask(hand, ".", f"{tmp_path}/my photo.png [10, 5,30,25]")
    asking = hand.explorer.asking
    for row, box in ((-1, None), (-2, [10, 5, 30, 25])):
        expected = asking.queries.of_part(read_part(tmp_path / "my photo.png", box))
        assert asking.query(row).thumbnail == expected.thumbnail
        assert_array_equal(asking.query(row).embeddings, expected.embeddings)


@pytest.mark.parametrize("name", ["gone.png", "folder", "words.png", "\0", "~nobody/a.png"])
def test_what_is_no_picture_is_told_in_one_sentence_that_says_nothing_of_it(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "words.png").write_text("secret")
    with pytest.raises(SettingError) as told:
        typed_part(f"{tmp_path}/{name}" if name[0] != "~" else name)
    path = str(told.value).removesuffix(" is no picture that can be read here")
    assert path in (f"{tmp_path}/{name}", name)


def test_a_part_that_is_typed_must_lie_inside_the_picture(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    assert typed_part(f"{tmp_path}/a.png[0,0,40,30]").box == [0, 0, 40, 30]
    for box in ("0,0,41,30", "9,0,9,30"):
        with pytest.raises(SettingError, match="the part must lie inside .*40 x 30 pixels"):
            typed_part(f"{tmp_path}/a.png [{box}]")


def test_a_fault_of_the_network_is_told_and_asked_again(tmp_path, capsys):
    class Broken:
        def encode_text(self, line):
            raise RuntimeError("out of memory")

    hand = open_window(tmp_path, Broken())
    ask(hand, "/", "a cow")
    assert hand.map.banner.get_text().startswith("that has failed; the terminal")
    assert "out of memory" in capsys.readouterr().err
    assert hand.explorer.question.answer == "a cow"


def test_without_a_network_nothing_is_asked(tmp_path):
    hand = open_window(tmp_path, None)
    hand.explorer.asking.queries = None
    hand.press("/", ".")
    assert hand.explorer.question is None
    assert hand.message().startswith("no network is at hand")


def test_names_of_networks_come_back_from_the_names_of_tables(tmp_path):
    for net in ("hf/openai/clip-vit-base-patch32", "timm/vit_tiny", "clip", "wide_resnet101"):
        assert net_of(Results(tmp_path, "net").embeddings((8, 0.5), net)) == net


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("preprocessor_config.json", "does not say how its pictures are normalised"),
        ("tokenizer.json", "the tokenizer of .* cannot be read .*it reads words"),
        ("model.safetensors", "the weights of .* cannot be read"),
        ("config.json", "is no network of transformers"),
    ],
)
def test_a_folder_that_lacks_something_says_what(saved, tmp_path, lost, words):
    for file in saved[1].iterdir():
        if file.name != lost:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(SettingError, match=words):
        Clip(str(tmp_path))


def test_other_networks_and_lacking_weights_are_refused(saved, tmp_path):
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(SettingError, match="type vit: .*clip or siglip"):
        Clip(str(tmp_path))
    for file in saved[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    saved[0].vision_model.save_pretrained(tmp_path / "part")
    weights = tmp_path / "part" / "model.safetensors"
    (tmp_path / "model.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(SettingError, match="would embed by random numbers.*trained to embed"):
        Clip(str(tmp_path))


def test_a_name_that_cannot_be_fetched_says_which_folder_to_name(monkeypatch):
    def offline(*_):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface, "_fetch", offline)
    with pytest.raises(SettingError, match="name it, args.net=hf/<folder>"):
        Clip("openai/clip-vit-base-patch32")


@pytest.mark.parametrize("text", ["", " ", 5, ["cow"]])
def test_words_are_a_line(text):
    with pytest.raises(SettingError, match=r"`args\.text` must be a line of words"):
        script.ex.run(config_updates={"args": {"text": text}})


def test_a_picture_and_words_are_two_questions(monkeypatch):
    monkeypatch.setattr(script, "check_options", lambda *_, **__: None)
    with pytest.raises(SettingError, match="args.query and args.text are two questions"):
        script.ex.run(config_updates={"args": {"text": "a cow", "query": "photo.jpg"}})

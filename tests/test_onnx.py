"""Networks in ONNX files: the values of torch, what they say of themselves, what is refused."""

import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from src.errors import SettingError
from src.model.onnx import Onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CLASSES = {"0": {"name": "road", "color": [1, 2, 3]}, "1": "car", "2": "sky"}


class Small(nn.Module):
    """Half as large as its pictures; logits, or their softmax."""

    def __init__(self, end):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), end)

    def forward(self, images):
        return self.body(images)


def export(network, path, is_free, dynamo):
    """Export a network for pictures of 16 x 24 pixels, or of any size."""
    images = torch.rand(1, 3, 16, 24)
    if dynamo:
        pytest.importorskip("onnxscript")
        names = {0: "n", 2: "height", 3: "width"}
        form = {"dynamic_shapes": ({k: torch.export.Dim(n) for k, n in names.items()},)}
        images = images.expand(2, -1, -1, -1) if is_free else images  # 1 would become fixed
    else:
        form = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n", 2: "height", 3: "width"}}}
    with warnings.catch_warnings():  # torch's exporters announce each other's end
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (images,), path, dynamo=dynamo, verbose=False, **(form if is_free else {})
        )


def write(path, taken, given, kinds=("FLOAT", "FLOAT"), **attributes):
    """A file that has an input, an output and one node between them."""
    kinds = [getattr(onnx.TensorProto, kind) for kind in kinds]
    node = onnx.helper.make_node(attributes.pop("op", "Identity"), ["x"], ["y"], **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "net",
        [onnx.helper.make_tensor_value_info("x", kinds[0], taken)],
        [onnx.helper.make_tensor_value_info("y", kinds[1], given)],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return str(path)


@pytest.mark.parametrize("dynamo", [False, True], ids=["script", "dynamo"])
@pytest.mark.parametrize("is_free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize("end", [nn.Identity(), nn.Softmax(1)], ids=["logits", "probabilities"])
def test_an_exported_network_gives_what_it_gave_in_torch(end, is_free, dynamo, tmp_path):
    network, path = Small(end).eval(), str(tmp_path / "net.onnx")
    export(network, path, is_free, dynamo)
    loaded = pickle.loads(pickle.dumps(Onnx(path)))  # as for another process
    sizes = [(1, 3, 16, 24), (2, 3, 16, 24)] + [(1, 3, 30, 22)] * is_free
    for size in sizes:
        images = torch.randn(size)
        with torch.inference_mode():
            torch.testing.assert_close(loaded(images), network(images), rtol=1e-4, atol=1e-5)
    assert Onnx.describe(path).get("size") == (None if is_free else (16, 24))
    assert pickle.dumps(loaded)  # after it has run, too


def test_the_classes_beside_a_file_are_its_own(tmp_path):
    path = write(tmp_path / "net.onnx", ["n", 3, 8, 9], ["n", 3, 8, 9])
    assert Onnx.describe(path) == {"size": (8, 9), "from": path}
    content = {"classes": CLASSES, "mean": [0.1, 0.2, 0.3], "std": [1, 1, 0.5]}
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert Onnx.describe(path) == {
        "classes": {0: ("road", (1, 2, 3)), 1: "car", 2: "sky"},
        "mean": (0.1, 0.2, 0.3),
        "std": (1.0, 1.0, 0.5),
        "size": (8, 9),
        "from": f"{tmp_path / 'classes.json'} and {path}",
    }
    (tmp_path / "classes.json").write_text(json.dumps(["road", "car"]))
    with pytest.raises(SettingError, match=r"net\.onnx gives 3 classes, .*classes\.json .* 2"):
        Onnx.describe(path)


def test_half_precision_is_fed_and_comes_back_as_float32(tmp_path):
    path = write(tmp_path / "a.onnx", [1, 3, "h", "w"], [1, 3, "h", "w"], ("FLOAT16", "FLOAT16"))
    images = torch.rand(2, 3, 4, 5)
    given = Onnx(path)(images)
    assert given.dtype == torch.float32
    assert torch.equal(given, images.half().float())


@pytest.mark.parametrize(
    ("taken", "kinds", "expected"),
    [
        ([1, 8, 9, 3], ("FLOAT", "FLOAT"), r"channels first.* takes float \(1, 8, 9, 3\)"),
        ([1, 3, 8, 9], ("UINT8", "UINT8"), r"one floating input .* takes uint8 \(1, 3, 8, 9\)"),
        ([3, 8, 9], ("FLOAT", "FLOAT"), r"one floating input .* takes float \(3, 8, 9\)"),
        ([4, 3, 8, 9], ("FLOAT", "FLOAT"), r"one floating input .* takes float \(4, 3, 8, 9\)"),
    ],
)
def test_inputs_of_another_form_are_refused_by_what_came(taken, kinds, expected, tmp_path):
    path = write(tmp_path / "a.onnx", taken, taken, kinds)
    for what in (Onnx, Onnx.describe):
        with pytest.raises(SettingError, match=rf"a\.onnx must take .*{expected}"):
            what(path)


def test_classes_instead_of_scores_are_refused_with_the_reason(tmp_path):
    form = {"op": "ArgMax", "axis": 1, "keepdims": 1}
    path = write(tmp_path / "a.onnx", [1, 3, 8, 9], [1, 1, 8, 9], ("FLOAT", "INT64"), **form)
    with pytest.raises(SettingError, match=r"gives int64 \(1, 1, 8, 9\).*without the arg-max"):
        Onnx(path)


def test_the_first_floating_output_of_four_dimensions_is_taken(tmp_path):
    info = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("ArgMax", ["x"], ["ids"], axis=1, keepdims=1),
        onnx.helper.make_node("ReduceMax", ["x"], ["top"], axes=[1], keepdims=0),
        onnx.helper.make_node("Neg", ["x"], ["scores"]),
    ]
    kind = onnx.TensorProto
    outputs = [
        info("ids", kind.INT64, [1, 1, 4, 5]),
        info("top", kind.FLOAT, [1, 4, 5]),
        info("scores", kind.FLOAT, [1, 3, 4, 5]),
    ]
    taken = [info("x", kind.FLOAT, [1, 3, 4, 5])]
    graph = onnx.helper.make_graph(nodes, "net", taken, outputs)
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    images = torch.rand(1, 3, 4, 5)
    assert torch.equal(Onnx(tmp_path / "a.onnx")(images), -images)


def test_a_picture_of_another_size_fails_alone_with_the_sizes(tmp_path):
    network = Onnx(write(tmp_path / "a.onnx", [1, 3, 8, 9], [1, 3, 8, 9]))
    with pytest.raises(ValueError, match=r"a\.onnx failed: .*Expected: 8"):
        network(torch.rand(1, 3, 10, 9))


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"there is no ONNX file .*gone\.onnx"):
        Onnx(tmp_path / "gone.onnx")
    for content in (b"", b"<html>404</html>", np.random.default_rng(0).bytes(300)):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(SettingError, match=r"bad\.onnx is no ONNX file that"):
            Onnx(tmp_path / "bad.onnx")

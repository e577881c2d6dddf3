"""Networks in ONNX files, run by onnxruntime."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import nn

from src.errors import SettingError
from src.model import classes_json

_log = logging.getLogger(__name__)
_FLOATS = {"tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64"}


class Onnx(nn.Module):
    """A segmentation network in an ONNX file.

    It computes where its input lies; on a GPU where onnxruntime has its CUDA provider, else on the
    CPU, with one warning. Copies for other processes open the file again.

    Parameters
    ----------
    path : path-like
        One floating input (N or 1, 3, H, W), of fixed or free H and W. The first floating output
        of four dimensions is taken as logits or probabilities (N, C, h, w).

    Raises
    ------
    SettingError
        If onnxruntime or the file is missing, or it is damaged or of another form.
    """

    has_weights = True

    def __init__(self, path):
        super().__init__()
        self.path = str(path)
        taken, given = _interface(self.path)
        self.input, self.output = taken.name, given.name
        self.kind, self.is_single = _FLOATS[taken.type], taken.shape[0] == 1
        self.register_buffer("device_marker", torch.empty(0), persistent=False)  # moved by `to`
        self._sessions = {}

    def forward(self, images):
        """Output (N, C, h, w) float32, on the device of the images (N, 3, H, W) float32."""
        session, device = self._session_on(images.device), images.device
        arrays = images.detach().cpu().numpy().astype(self.kind)
        parts = np.split(arrays, len(arrays)) if self.is_single else [arrays]
        try:
            parts = [session.run([self.output], {self.input: part})[0] for part in parts]
        except Exception as error:  # onnxruntime's own kinds cannot be sent to other processes
            raise ValueError(f"{self.path} failed: {_in_a_line(error)}") from None
        return torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(device)

    def _session_on(self, device):
        if device not in self._sessions:
            self._sessions[device] = _open(self.path, device)
        return self._sessions[device]

    def __getstate__(self):
        return {**self.__dict__, "_sessions": {}}

    @staticmethod
    def describe(path):
        """What the file and `classes.json` beside it say; a dict, see `classes_json.describe_by`.

        "size" is the (height, width) that the network takes only, where they are fixed. A
        SettingError as above, or if the file has another number of classes than `classes.json`.
        """
        taken, given = _interface(path)
        said = classes_json.describe_by(Path(path).parent)
        count, known = given.shape[1], len(said.get("classes", ()))
        if known and isinstance(count, int) and count != known:
            raise SettingError(
                f"{path} gives {count} classes, {said['from']} beside it names {known}: "
                "they must be the same"
            )
        size = tuple(taken.shape[2:])
        if all(isinstance(length, int) for length in size):
            said |= {
                "size": size,
                "from": " and ".join([*filter(None, [said.get("from")]), str(path)]),
            }
        return said


def _interface(path):
    """The input and the output of a file; a SettingError if they are not of the form it takes."""
    session = _open(path)
    inputs = session.get_inputs()
    if not all(_is_images(value.shape, value.type) for value in inputs) or len(inputs) != 1:
        raise SettingError(_refusal(path, "take one floating input (N or 1, 3, H, W)", session))
    (taken,), shape = inputs, inputs[0].shape
    if shape[1] not in (3, *_free(shape)):
        raise SettingError(_refusal(path, "take the channels first, as (N, 3, H, W)", session))
    for given in session.get_outputs():
        if given.type in _FLOATS and len(given.shape) == 4:
            return taken, given
    raise SettingError(
        _refusal(path, "give logits or probabilities (N, C, h, w), not the classes alone", session)
    )


def _is_images(shape, kind):
    return len(shape) == 4 and kind in _FLOATS and shape[0] in (1, *_free(shape))


def _free(shape):
    """The lengths that a file leaves open: names, or None."""
    return [length for length in shape if not isinstance(length, int)]


def _refusal(path, what, session):
    there = [
        f"{word} {value.type[7:-1]} {tuple(value.shape)}"
        for word, values in (("takes", session.get_inputs()), ("gives", session.get_outputs()))
        for value in values
    ]
    return (
        f"the network in {path} must {what}; it {', '.join(there)}. Export the network itself, "
        "without what is done to pictures before it and without the arg-max after it: the classes "
        "alone do not say how sure the network was"
    )


def _open(path, device=None):
    """A session of onnxruntime; without a device one that only tells what the file holds."""
    try:
        import onnxruntime  # optional: only who has such a file needs it
    except ImportError:
        raise SettingError(f"{path}: running it needs `pip install .[onnx]`") from None
    if not Path(path).is_file():
        raise SettingError(f"there is no ONNX file {path}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    if device is None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    if device is not None and device.type == "cuda":
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
        else:
            _log.warning("%s runs on the CPU: `pip install onnxruntime-gpu` for the GPU", path)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # of kinds that onnxruntime does not publish
        raise SettingError(
            f"{path} is no ONNX file that onnxruntime {onnxruntime.__version__} can run, or "
            f"damaged: {_in_a_line(error)}"
        ) from None


def _in_a_line(error):
    return " ".join(str(error).split())[:400]

"""Networks in .keras files (Keras 3), of which no code is ever run."""

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deltaball.base.errors import InputError
from deltaball.exchange.conventions import Convention, Layout, arranged, laid_out, presented
from deltaball.exchange.files import SOFTMAX_TAKEN_OFF, NetworkFile
from deltaball.exchange.keras_graphs import MODELS, RULES, Place, Tracer, last_softmax
from deltaball.exchange.tracing import NoLayerError, nothing, traced
from deltaball.networks.layers import Shape

if TYPE_CHECKING:
    import keras
    import torch

    from deltaball.exchange.files import Forward

PARTS = ("config.json", "model.weights.h5")

# Beside those with a rule: layers of which Keras runs nothing that the file brings.
HARMLESS = frozenset(RULES) | {
    *MODELS, "__numpy__", "InputLayer", "Average", "Concatenate", "Conv2DTranspose", "Cropping2D", "DepthwiseConv2D",
    "Dot", "ELU", "GlobalMaxPooling2D", "GroupNormalization", "LayerNormalization", "Maximum", "Minimum",
    "MultiHeadAttention", "PReLU", "RMSNormalization", "RepeatVector", "SeparableConv2D", "UnitNormalization",
    "UpSampling2D",
}  # fmt: skip
# What layers are made with.
HARMLESS_MODULES = ("keras.initializers", "keras.regularizers", "keras.constraints", "keras.dtype_policies")


def read(path: Path, shape: tuple[int, int, int], convention: Convention) -> NetworkFile:
    """The network of a .keras file for images [height, width, channels]. Raises InputError with what is wrong."""
    config = _config(path)
    _check_harmless(config)
    if config["class_name"] not in MODELS:
        raise InputError(f"is a {config['class_name']}; it should be a Sequential or a functional model")
    layout, order = arranged(shape, _entering(config), convention.layout)
    model = cache(partial(_model, path))
    layers, arrays, lacking = None, nothing, ""
    try:
        softmax = last_softmax(config)
    except NoLayerError as problem:
        raise InputError(f"has {problem}; it should have one of each") from None
    try:
        tracer = Tracer(lambda place: _at(model(), place).get_weights(), softmax)
        value = tracer.follow(config, laid_out(convention.entering(shape), layout, order))
        layers, arrays = traced(value)
    except NoLayerError as problem:
        lacking = str(problem)
    logits = cache(lambda: _without_softmax(model(), softmax))
    runtime = partial(_evaluated, logits, convention, layout, order)
    classes = layers.output[0] if layers else runtime(np.zeros((1, *shape), np.float32)).shape[1]
    forward = partial(_on_torch, logits, convention, layout, order)
    remarks = (SOFTMAX_TAKEN_OFF,) if softmax else ()
    return NetworkFile(path, shape, convention, classes, layers, lacking, arrays, runtime, forward, remarks)


def _config(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in PARTS if name not in archive.namelist()]
            if missing:
                raise InputError(f"not a .keras file of Keras 3: it has no {missing[0]}; save it again by model.save")
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum does not fit")
            config = json.loads(archive.read("config.json"))
    except OSError as problem:
        raise InputError(f"cannot be read ({problem.strerror or problem})") from None
    # RuntimeError and NotImplementedError: a damaged header that asks for encryption or another zip version.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"not a readable .keras file ({problem}); save it again by model.save") from None
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict) or "class_name" not in config:
        raise InputError(
            "not a .keras file of Keras 3: its config.json describes no model; save it again by model.save"
        )
    return config


def _check_harmless(content: Any) -> None:
    """Raise InputError for what Keras would have to run code of the file for: Lambda layers, custom objects."""
    if isinstance(content, dict):
        if "class_name" in content and content["class_name"] != "__keras_tensor__":
            _check_class(content)
        content = [value for key, value in content.items() if key != "compile_config"]
    if isinstance(content, list):
        for one in content:
            _check_harmless(one)


def _check_class(content: Mapping[str, Any]) -> None:
    name, module, registered = (content.get(key) for key in ("class_name", "module", "registered_name"))
    if name in ("Lambda", "__lambda__"):
        raise InputError("has a Lambda layer, which is code; it is not run. Write it as layers, and save it again")
    own = str(module or "keras").partition(".")[0] == "keras" and ">" not in str(registered or "")
    if own and (module in HARMLESS_MODULES or name in HARMLESS or name == "DTypePolicy"):
        return
    raise InputError(
        f"has '{registered or name}' of {module or 'no module'}, which is none of the Keras layers that are read; "
        "custom objects are code, and are not run"
    )


def _entering(config: Mapping[str, Any]) -> Sequence[int | None]:
    """The shape of what enters the model, without the batch."""
    layers = config["config"]["layers"]
    inputs = [one["config"] for one in layers if one["class_name"] == "InputLayer"]
    found = config["config"].get("build_input_shape") or (config.get("build_config") or {}).get("input_shape")
    if inputs:
        found = inputs[0].get("batch_shape") or inputs[0].get("batch_input_shape")
    if len(inputs) > 1 or not found:
        raise InputError(f"has {len(inputs)} inputs and should say the shape of one; save it once it is built")
    return found[1:]


def _model(path: Path) -> "keras.Model":
    """The file's model as Keras has it, on torch."""
    import h5py
    import keras

    keras.config.set_floatx("float32")
    try:
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read(PARTS[1])), "r") as weights:
            _check_links(weights)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except InputError:
        raise
    except Exception as problem:  # of whatever a damaged or wrong file makes Keras or HDF5 do
        raise InputError(f"Keras cannot read it ({' '.join(str(problem).split())[:200]}); save it again") from None


def _check_links(group: Any) -> None:
    """Raise InputError where weights lie in other files."""
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        found = group[name] if isinstance(link, h5py.HardLink) else None
        if found is None or (isinstance(found, h5py.Dataset) and found.external):
            raise InputError("its weights lie in another file, which is not read; save it again by model.save")
        if isinstance(found, h5py.Group):
            _check_links(found)


def _at(model: "keras.Model", place: Place) -> "keras.Layer":
    for name in place:
        model = model.get_layer(name)
    return model


def _without_softmax(model: "keras.Model", place: Place | None) -> "keras.Model":
    import keras

    if place is not None:
        last = _at(model, place)
        if isinstance(last, keras.layers.Softmax):
            last.call = lambda inputs, mask=None: inputs
        else:
            last.activation = keras.activations.linear
    return model


def _evaluated(
    model: "Callable[[], keras.Model]", convention: Convention, layout: Layout, order: Shape, images: np.ndarray
) -> np.ndarray:
    import torch

    with torch.no_grad():
        found = model()(torch.from_numpy(presented(convention.shown(images), layout, order)), training=False)
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        raise InputError("gives something else than one number for each class of an image")
    return found.cpu().numpy()


def _on_torch(
    model: "Callable[[], keras.Model]", convention: Convention, layout: Layout, order: Shape, device: str
) -> "Forward":
    network = model().to(device)

    def forward(images: "torch.Tensor") -> "torch.Tensor":
        scale, shift = (images.new_tensor(one) for one in convention.constants())
        shown = images * scale + shift
        moved = shown.movedim(-1, 1) if layout == "channels_first" else shown
        return network(moved.reshape(len(images), *order), training=False)

    return forward

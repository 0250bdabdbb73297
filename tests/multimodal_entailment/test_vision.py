"""Vision encoders: shapes, dependencies of features, and the parameters that they load and refuse."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from multimodal_entailment import vision
from multimodal_entailment.convert_image_weights import ConvertImageWeightsOptions, convert, main
from multimodal_entailment.vision import VISION_ENCODERS, VisionEncoder, make_vision_encoder
from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.model.parameters import save_arrays
from tests import torch_writer

# By the image's size: mean and standard deviation of all features; and every hundredth feature of the four regions.
GOLDEN_MOMENTS = {64: [0.376896, 0.615243], 75: [0.534338, 0.864321]}  # 75 has odd feature maps

GOLDEN = [
    [0.0, 2.1847, 0.0481, 0.2515, 0.0, 2.7847, 0.8314, 0.0633, 0.043, 0.0, 0.8093],
    [0.0, 0.0, 0.0, 0.0, 0.0, 3.5596, 0.0, 0.6454, 0.2907, 0.0, 0.5113],
    [0.0, 0.0, 0.0, 0.0, 0.0, 1.6203, 0.7103, 0.4581, 0.0745, 0.0, 0.5708],
    [0.0, 2.716, 0.0, 0.0, 0.0, 2.2534, 1.1123, 0.0, 0.4726, 0.0607, 0.0803],
]


def images(count: int = 2, size: int = 64) -> np.ndarray:
    """Return pixels that are the same on every machine, `[count, 3, size, size] uint8`."""
    numbers = np.arange(count * 3 * size * size, dtype=np.float64)
    pixels: np.ndarray = (127.5 + 127.5 * np.sin(numbers * 0.0137)).astype(np.uint8).reshape(count, 3, size, size)
    return pixels


def features_of(encoder: VisionEncoder, pixels: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        features: np.ndarray = encoder(encoder.normalise(pixels)).numpy()
    return features


@pytest.fixture(scope="module")
def encoders() -> dict[str, VisionEncoder]:
    paddle.seed(5)
    return {name: make_vision_encoder(name) for name in VISION_ENCODERS}


@pytest.mark.unit
@pytest.mark.parametrize("name", VISION_ENCODERS)
def test_an_image_has_its_regions_whatever_the_batch(encoders: dict[str, VisionEncoder], name: str) -> None:
    encoder, pixels = encoders[name], images(3)
    encoder.train()  # in training as well: there are no batch statistics
    together = features_of(encoder, pixels)
    assert together.shape == (3, 4, encoder.width) and encoder.regions(64) == 4 and encoder.training
    alone = np.concatenate([features_of(encoder, pixels[row : row + 1]) for row in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())
    encoder.eval()
    np.testing.assert_array_equal(features_of(encoder, pixels), together)


@pytest.mark.unit
def test_every_parameter_of_a_batch_normalised_network_learns(encoders: dict[str, VisionEncoder]) -> None:
    encoder = encoders["resnet18"]
    encoder.train()
    before = encoder.network.bn1._mean.numpy()
    features = encoder(encoder.normalise(images()))
    (features * paddle.to_tensor(images(1, 32).reshape(1, -1)[:, : encoder.width].astype(np.float32))).sum().backward()
    learning = [parameter for parameter in encoder.parameters() if not parameter.stop_gradient]
    assert len(learning) == 60 and all(parameter.grad is not None for parameter in learning)
    assert float(np.abs(encoder.network.bn1.weight.grad.numpy()).max()) > 0
    assert (encoder.network.bn1._mean.numpy() == before).all()
    encoder.clear_gradients()


@pytest.mark.unit
def test_regions_go_row_by_row(encoders: dict[str, VisionEncoder]) -> None:
    encoder = encoders["small"]
    wide = encoder.normalise(images(1, 96)[:, :, :64])
    with paddle.no_grad():
        regions, places = encoder(wide).numpy(), encoder.network(wide).numpy()
    assert places.shape == (1, 128, 2, 3)
    for region in range(6):
        assert (regions[0, region] == places[0, :, region // 3, region % 3]).all()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("small", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("resnet50", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("efficientnet_lite0", (127 / 255,) * 3, (128 / 255,) * 3),
    ],
)
def test_normalisation(encoders: dict[str, VisionEncoder], name: str, mean: Any, std: Any) -> None:
    normalised = encoders[name].normalise(images()).numpy()
    expected = (images() / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised, expected, atol=1e-6)


@pytest.mark.unit
def test_parameters_come_from_a_file(encoders: dict[str, VisionEncoder], tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pdparams"
    source = encoders["resnet18"]
    classifier = {"fc.weight": np.zeros((512, 1000), np.float32), "fc.bias": np.zeros(1000, np.float32)}
    state = {name: value.numpy() for name, value in source.network.state_dict().items()}
    save_arrays({**state, **classifier}, path)
    loaded = make_vision_encoder("resnet18", path)
    assert loaded.digest() == source.digest() != make_vision_encoder("resnet18").digest()
    np.testing.assert_array_equal(features_of(loaded, images()), features_of(source, images()))

    with pytest.raises(CheckpointError, match=r"resnet18\.pdparams: layer1\.0\.conv1\.weight has the shape|lacks"):
        make_vision_encoder("resnet50", path)
    save_arrays({**state, "extra": np.zeros(1, np.float32)}, path)
    with pytest.raises(CheckpointError, match="holds extra, which resnet18 lacks"):
        make_vision_encoder("resnet18", path)
    del state["conv1.weight"]
    save_arrays(state, path)
    with pytest.raises(CheckpointError, match=r"lacks conv1\.weight, a parameter of resnet18"):
        make_vision_encoder("resnet18", path)
    with pytest.raises(CheckpointError, match="there is no such parameter file"):
        make_vision_encoder("small", tmp_path / "none.pdparams")


@pytest.mark.unit
def test_download(encoders: dict[str, VisionEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paddle.vision.models import resnet

    from paddle_ranker.storage import download

    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path))
    published = tmp_path / "published"
    save_arrays({name: value.numpy() for name, value in encoders["resnet18"].network.state_dict().items()}, published)
    fetched: list[str] = []

    def fetch(address: str, part: Path) -> None:
        fetched.append(address)
        part.write_bytes(published.read_bytes())

    def fail(address: str, part: Path) -> None:
        raise RankerError(f"{address}: out of reach")

    monkeypatch.setattr(download, "fetch", fail)
    with pytest.raises(CheckpointError, match=r"out of reach.*convert-image-weights .*--vision_encoder resnet18"):
        make_vision_encoder("resnet18", "download")
    monkeypatch.setattr(download, "fetch", fetch)
    with pytest.raises(CheckpointError, match="damaged on its way"):
        make_vision_encoder("resnet18", "download")
    digest = hashlib.md5(published.read_bytes()).hexdigest()
    monkeypatch.setitem(resnet.model_urls, "resnet18", ("https://published/resnet18.pdparams", digest))
    for _ in range(2):
        assert make_vision_encoder("resnet18", "download").digest() == encoders["resnet18"].digest()
    assert len(fetched) == 2 and fetched[-1] == "https://published/resnet18.pdparams"
    for name in ("small", "efficientnet_lite0"):
        with pytest.raises(CheckpointError, match=f"Paddle publishes no parameters for {name}"):
            make_vision_encoder(name, vision.DOWNLOAD)


def lite_state() -> dict[str, np.ndarray]:
    """Return parameters of EfficientNet-Lite0 under PyTorch's names, the same on every machine."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(convolution: str, norm: str, inputs: int, outputs: int, kernel: int) -> None:
        shapes[f"{convolution}.weight"] = (outputs, inputs, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = (outputs,)

    add("_conv_stem", "_bn0", 3, 32, 3)
    # Blocks, kernel, expansion, width.
    stages = [
        (1, 3, 1, 16),
        (2, 3, 6, 24),
        (2, 5, 6, 40),
        (3, 3, 6, 80),
        (3, 5, 6, 112),
        (4, 5, 6, 192),
        (1, 3, 6, 320),
    ]
    number, inputs = 0, 32
    for blocks, kernel, expansion, outputs in stages:
        for _ in range(blocks):
            inner, name = inputs * expansion, f"_blocks.{number}"
            if expansion > 1:
                add(f"{name}._expand_conv", f"{name}._bn0", inputs, inner, 1)
            add(f"{name}._depthwise_conv", f"{name}._bn1", 1, inner, kernel)
            add(f"{name}._project_conv", f"{name}._bn2", inner, outputs, 1)
            number, inputs = number + 1, outputs
    add("_conv_head", "_bn1", 320, 1280, 1)
    shapes["_fc.weight"], shapes["_fc.bias"] = (1000, 1280), (1000,)
    state = {}
    for place, (name, shape) in enumerate(shapes.items()):
        # No two filters are alike.
        waves = np.sin(np.arange(np.prod(shape)) ** 2 % 10_007 * 1.37 + place).reshape(shape)
        if name.endswith("running_var"):
            waves = 1.0 + 0.5 * waves
        elif "_bn" in name and name.endswith("weight"):
            waves = 1.0 + 0.2 * waves
        elif len(shape) == 4:
            waves = waves * 1.4 / np.sqrt(np.prod(shape[1:]))
        else:
            waves = 0.2 * waves
        state[name] = waves.astype(np.float32)
    state["_bn0.num_batches_tracked"] = np.array(7)
    return state


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torch_writer.save(tmp_path_factory.mktemp("lite") / "lite0.pth", lite_state())


@pytest.fixture(scope="module")
def converted(lite: Path) -> VisionEncoder:
    target = lite.with_name("lite0.pdparams")
    assert convert(ConvertImageWeightsOptions(source=str(lite), target=str(target))).endswith("1280 features a region")
    encoder = make_vision_encoder("efficientnet_lite0", target)
    encoder.eval()
    return encoder


@pytest.mark.parity
def test_efficientnet_lite_gives_pytorchs_features(converted: VisionEncoder) -> None:
    """The expected values come from the same network in PyTorch 2.13's functions, on this file and image."""
    for size, moments in GOLDEN_MOMENTS.items():
        features = features_of(converted, images(1, size))[0]
        np.testing.assert_allclose([features.mean(), features.std()], moments, rtol=1e-4)
    features = features_of(converted, images(1, 64))[0]
    np.testing.assert_allclose(features[:, 100:1200:100], GOLDEN, atol=2e-4)


@pytest.mark.unit
def test_files_that_do_not_fit(lite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.pdparams"
    assert main([str(lite), str(target), "--vision_encoder", "resnet18"]) == 1
    assert "lacks conv1.weight, a parameter of resnet18" in capsys.readouterr().err
    larger = {**lite_state(), "_blocks.1._se_reduce.weight": np.zeros((4, 96, 1, 1), np.float32)}
    assert main([str(torch_writer.save(tmp_path / "b0.pth", larger)), str(target)]) == 1
    assert "_blocks.1._se_reduce.weight: not a parameter of EfficientNet-Lite0" in capsys.readouterr().err
    assert not target.exists()
    target.write_bytes(b"mine")
    assert main([str(lite), str(target)]) == 1
    assert "already exists" in capsys.readouterr().err and target.read_bytes() == b"mine"


@pytest.mark.parity
def test_torchvisions_resnet_converts_there(encoders: dict[str, VisionEncoder], tmp_path: Path) -> None:
    ours = {name: value.numpy() for name, value in encoders["resnet18"].network.state_dict().items()}
    theirs = {
        name.replace("._mean", ".running_mean").replace("._variance", ".running_var"): a for name, a in ours.items()
    }
    theirs["fc.weight"] = np.zeros((1000, 512), np.float32)
    source, target = torch_writer.save(tmp_path / "resnet18.pth", theirs), tmp_path / "resnet18.pdparams"
    assert main([str(source), str(target), "--vision_encoder", "resnet18"]) == 0
    assert make_vision_encoder("resnet18", target).digest() == encoders["resnet18"].digest()

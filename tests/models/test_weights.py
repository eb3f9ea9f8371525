from __future__ import annotations

from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest
from nnabla.utils.save import save

from nnmpq.models import build
from nnmpq.models.imagenet_weights import FILES, load_imagenet
from nnmpq.models.structure import load_by_structure
from nnmpq.models.weights import WeightsError, load_weights, read_weights

SMALL = {"width_multiplier": 0.25}


def scramble(seed: int) -> dict[str, np.ndarray]:
    """Give all parameters of the scope numbers that no initialization gives; return copies."""
    rng = np.random.RandomState(seed)
    for name, variable in nn.get_parameters(grad_only=False).items():
        variable.d = rng.uniform(0.5, 1.5, variable.shape) * (1 if name.endswith("var") else 0.3)
    return {name: v.d.copy() for name, v in nn.get_parameters(grad_only=False).items()}


def image(side: int = 33) -> nn.Variable:
    return nn.Variable.from_numpy_array(np.random.RandomState(5).randn(1, 3, side, side))


def result(y: nn.Variable) -> np.ndarray:
    y.forward()
    return y.d.copy()


def write_nnp(path: Path, x: nn.Variable, y: nn.Variable, name: str = "Training") -> None:
    network = {"name": name, "batch_size": 1, "names": {"x": x}, "outputs": {"y": y}}
    executor = {"name": "run", "network": name, "data": ["x"], "output": ["y"]}
    save(str(path), {"networks": [network], "executors": [executor]})


@pytest.mark.parametrize("ending", ["h5", "nnp"])
def test_weights_come_back_into_the_scope_that_is_current(tmp_path: Path, ending: str) -> None:
    x, path = image(), tmp_path / f"weights.{ending}"
    y = build("mobilenet_v1", x, 5, test=True, **SMALL)
    saved, expected = scramble(1), result(y)
    if ending == "h5":
        nn.save_parameters(str(path))
    else:
        write_nnp(path, x, y)
    nn.clear_parameters()
    with nn.parameter_scope("elsewhere"):
        y = build("mobilenet_v1", x, 5, test=True, **SMALL)
        assert load_weights(path) == list(saved)
        assert set(nn.get_parameters(grad_only=False)) == set(saved)
    np.testing.assert_allclose(result(y), expected, rtol=1e-6)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, nn.Variable, dict[str, np.ndarray]]:
    """A file of two affine layers, and the network with other numbers in it."""
    y = PF.affine(F.relu(PF.affine(nn.Variable((1, 4)), 3, name="first")), 2, name="second")
    path = tmp_path / "two.h5"
    nn.save_parameters(str(path))
    return path, y, scramble(2)


def refused(path: Path, y: nn.Variable | None, before: dict[str, np.ndarray], match: str) -> None:
    with pytest.raises(WeightsError, match=match) as error:
        load_weights(path, y)
    assert str(path) in str(error.value)
    for name, variable in nn.get_parameters(grad_only=False).items():
        np.testing.assert_array_equal(variable.d, before[name])


def test_what_is_missing_unknown_or_of_another_shape_is_named_and_nothing_is_set(
    two: tuple[Path, nn.Variable, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    path, y, before = two
    nn.parameter.pop_parameter("second/affine/b")
    nn.parameter.set_parameter("second/affine/bias", nn.Variable.from_numpy_array(before["second/affine/b"]))
    before["second/affine/bias"] = before["second/affine/b"]
    refused(path, None, before, "affine/bias is missing .the nearest there is second/affine/b.; second/affine/b is not")
    nn.parameter.pop_parameter("second/affine/bias")
    refused(path, None, before, "second/affine/b is not in this network$")
    nn.parameter.set_parameter("second/affine/b", nn.Variable((5,)))
    before["second/affine/b"] = np.zeros(5)
    refused(path, None, before, r"second/affine/b has the shape \(2,\), needed is \(5,\)")


def test_numbers_that_are_not_finite_are_refused(two: tuple[Path, nn.Variable, dict[str, np.ndarray]]) -> None:
    path, y, before = two
    nn.get_parameters()["first/affine/b"].d = np.nan
    nn.save_parameters(str(path))
    nn.get_parameters()["first/affine/b"].d = before["first/affine/b"]
    refused(path, y, before, "first/affine/b holds numbers that are not finite")


def test_another_networks_faults_are_counted_not_all_listed(tmp_path: Path) -> None:
    build("mobilenet_v1", image(), 5, **SMALL)
    nn.save_parameters(str(tmp_path / "one.h5"))
    ours = len(nn.get_parameters(grad_only=False))
    nn.clear_parameters()
    PF.affine(nn.Variable((1, 4)), 3, name="first")
    with pytest.raises(WeightsError, match=f"and {ours + 2 - 8} more"):
        load_weights(tmp_path / "one.h5")


def test_only_the_networks_own_parameters_count(two: tuple[Path, nn.Variable, dict[str, np.ndarray]]) -> None:
    path, y, before = two
    nn.parameter.set_parameter("quantizer/delta", nn.Variable.from_numpy_array(np.float32(7)))
    assert len(load_weights(path, y)) == 4
    assert nn.get_parameters(grad_only=False)["quantizer/delta"].d == 7


def test_a_scope_can_keep_what_it_has(two: tuple[Path, nn.Variable, dict[str, np.ndarray]]) -> None:
    path, y, before = two
    assert load_weights(path, y, skip=["second/"]) == ["first/affine/W", "first/affine/b"]
    now = nn.get_parameters()
    np.testing.assert_array_equal(now["second/affine/W"].d, before["second/affine/W"])
    np.testing.assert_array_equal(now["first/affine/W"].d, read_weights(path)["first/affine/W"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    PF.affine(nn.Variable((1, 4)), 3)
    for name, match in [("a.npz", "ends in one of"), ("a.h5", "no such file"), ("a.nnp", "no such file")]:
        with pytest.raises(WeightsError, match=match):
            load_weights(tmp_path / name)
    for name in ("damaged.h5", "damaged.nnp"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(WeightsError, match=f"{name}: cannot be read as parameters"):
            load_weights(tmp_path / name)
    with pytest.raises(WeightsError, match="damaged.nnp: cannot be read as a network"):
        load_by_structure(tmp_path / "damaged.nnp", nn.Variable((1, 2)))
    nn.clear_parameters()
    PF.affine(nn.Variable((1, 4)), 3)
    nn.save_parameters(str(tmp_path / "good.h5"))
    nn.clear_parameters()
    with pytest.raises(WeightsError, match="build the network first"):
        load_weights(tmp_path / "good.h5")


def drawn_convolution(
    h: nn.Variable, channels: int, kernel: int, stride: int, number: int, group: int = 1
) -> nn.Variable:
    """Convolution and batch normalization, named after the boxes of a drawing, with another eps than ours."""
    pad = (kernel // 2, kernel // 2)
    h = PF.convolution(
        h, channels, (kernel, kernel), pad, (stride, stride), group=group, with_bias=False, name=f"Convolution_{number}"
    )
    return PF.batch_normalization(h, eps=1e-3, batch_stat=False, name=f"BatchNormalization_{number}")


def drawn_resnet18(x: nn.Variable, stride: int = 2, last: str = "affine") -> nn.Variable:
    """ResNet-18 as another author draws it: the shortcut comes first, and the images are scaled in the graph."""
    h = F.add_scalar(F.mul_scalar(x, 0.01735), -1.99)
    h = F.max_pooling(F.relu(drawn_convolution(h, 64, 7, 2, 0)), (3, 3), (2, 2), pad=(1, 1))
    number = 0
    for channels in (64, 128, 256, 512):
        for block in range(2):
            step, number, s = (stride if channels > 64 and block == 0 else 1), number + 3, h
            if channels > 64 and block == 0:
                s = drawn_convolution(h, channels, 1, step, number)
            m = F.relu(drawn_convolution(h, channels, 3, step, number + 1))
            h = F.relu(F.add2(s, drawn_convolution(m, channels, 3, 1, number + 2)))
    h = F.average_pooling(h, h.shape[2:])
    if last == "affine":
        return PF.affine(h, 5, name="Affine")
    return F.reshape(PF.convolution(h, 5, (1, 1), name="Affine"), (h.shape[0], 5))


@pytest.mark.parametrize("last", ["affine", "convolution"])
def test_a_resnet18_under_other_names_computes_the_same(tmp_path: Path, last: str) -> None:
    x, path = image(64), tmp_path / FILES["ResNet18"]
    theirs = drawn_resnet18(x, last=last)
    scramble(3)
    for name, variable in nn.get_parameters(grad_only=False).items():
        if name.endswith("conv/W"):
            variable.d = (variable.d - 0.3) / np.sqrt(np.prod(variable.shape[1:]))
    expected = result(theirs)
    write_nnp(path, x, theirs)
    nn.clear_parameters()
    ours = nn.Variable.from_numpy_array(x.d * np.float32(0.01735) - np.float32(1.99))
    y = build("resnet18", ours, 5, test=True)
    names = set(nn.get_parameters(grad_only=False))
    before = load_imagenet("ResNet18", y, tmp_path)
    assert [text.split(",")[0].split("(")[0] for text in before] == ["MulScalar", "AddScalar"]
    assert "val=-1.99" in before[1]
    assert set(nn.get_parameters(grad_only=False)) == names
    np.testing.assert_allclose(result(y), expected, rtol=1e-4, atol=1e-5)


def test_a_depthwise_convolution_may_be_a_grouped_one(tmp_path: Path) -> None:
    x, path = image(8), tmp_path / "grouped.nnp"
    h = F.relu(drawn_convolution(x, 4, 3, 1, 0))
    h = F.relu6(drawn_convolution(h, 4, 3, 2, 1, group=4))
    theirs = PF.affine(F.global_average_pooling(F.dropout(h)), 2, name="Affine")
    scramble(4)
    theirs.need_grad = False
    without_dropout = PF.affine(F.global_average_pooling(h), 2, name="Affine")
    expected = result(without_dropout)
    write_nnp(path, x, theirs)
    nn.clear_parameters()

    def ours(activation: str) -> nn.Variable:
        h = PF.convolution(x, 4, (3, 3), pad=(1, 1), with_bias=False, name="a")
        h = F.relu(PF.batch_normalization(h, batch_stat=False, name="a"))
        h = PF.depthwise_convolution(h, (3, 3), pad=(1, 1), stride=(2, 2), with_bias=False, name="b")
        h = getattr(F, activation)(PF.batch_normalization(h, batch_stat=False, name="b"))
        return PF.affine(F.global_average_pooling(h), 2, name="c")

    y = ours("relu6")
    load_by_structure(path, y)
    np.testing.assert_allclose(result(y), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(WeightsError, match="c/affine/W of a .* without counterpart there; Affine/affine/W"):
        load_by_structure(path, ours("relu"))
    with pytest.raises(WeightsError, match="no network 'Trainig'; the nearest is 'Training'"):
        load_by_structure(path, y, network="Trainig")


def test_the_first_difference_is_named_and_nothing_is_set(tmp_path: Path) -> None:
    x, path = image(), tmp_path / "drawn.nnp"
    write_nnp(path, x, drawn_resnet18(x, stride=1))
    nn.clear_parameters()
    y = build("resnet18", x, 5, test=True)
    before = scramble(6)
    with pytest.raises(WeightsError) as error:
        load_by_structure(path, y)
    # Convolution_9 is the shortcut, which comes first there.
    assert "res2/block1/conv1/conv/W of a layer of weight (128, 64, 3, 3), stride (2, 2), pad (1, 1)" in str(
        error.value
    )
    assert "Convolution_9/conv/W of a layer of weight (128, 64) is the first without" in str(error.value)
    for name, variable in nn.get_parameters(grad_only=False).items():
        np.testing.assert_array_equal(variable.d, before[name])


def test_other_paddings_are_accepted_on_request(tmp_path: Path) -> None:
    def network(pad: int, name: str) -> nn.Variable:
        h = F.max_pooling(PF.convolution(image(9), 4, (3, 3), pad=(1, 1), name=name), (3, 3), (2, 2), pad=(pad, pad))
        return PF.affine(F.global_average_pooling(h), 2, name=name)

    x = image(9)
    h = F.max_pooling(PF.convolution(x, 4, (3, 3), pad=(1, 1), name="t"), (3, 3), (2, 2))
    write_nnp(tmp_path / "t.nnp", x, PF.affine(F.global_average_pooling(h), 2, name="t"))
    weights = nn.get_parameters()["t/conv/W"].d.copy()
    nn.clear_parameters()
    y = network(1, "ours")
    with pytest.raises(WeightsError, match="ours/affine/W"):
        load_by_structure(tmp_path / "t.nnp", y)
    load_by_structure(tmp_path / "t.nnp", y, padding=False)
    np.testing.assert_array_equal(nn.get_parameters()["ours/conv/W"].d, weights)


def test_names_of_imagenet_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nearest is 'ResNet18'"):
        load_imagenet("Resnet18", nn.Variable((1, 5)), tmp_path)
    with pytest.raises(WeightsError, match=r"Resnet-50.nnp: no such file; .*ResNet50\(\) fetches it"):
        load_imagenet("ResNet50", nn.Variable((1, 5)), tmp_path)
    # The class of each name asks for the file of that name.
    import nnabla.models.imagenet as published

    asked: list[str] = []
    for name in FILES:
        network = getattr(published, name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(published.base.ImageNetBase, "_load_nnp", lambda self, file, url: asked.append(file))
            network()
    assert asked == list(FILES.values())

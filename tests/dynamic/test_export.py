"""One file with all networks, and the runner that reads it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nnabla as nn
import numpy as np
import pytest
from nnabla.utils.nnp_graph import NnpLoader

import nnmpq.dynamic.export as module
import nnmpq.dynamic.runner as runner_module
from nnmpq.dynamic.decide import Decision, greedy
from nnmpq.dynamic.export import MEMBER, save_gated_nnp
from nnmpq.dynamic.network import DynamicNetwork
from nnmpq.dynamic.runner import GatedRunner, main
from tests.dynamic.small import COSTS, at_price, choices, network

BATCH = 7


def saved(path: Path, price: float = 0.0, **options: object) -> DynamicNetwork:
    made = network(BATCH, decide=at_price(price), **options)
    costs = COSTS if len(made.settings.precisions) == 2 else np.linspace(0, 1, len(made.settings.precisions))
    save_gated_nnp(path, made, price, costs)
    return made


def logits(made: DynamicNetwork) -> np.ndarray:
    made.output.forward()
    return np.array(made.output.d)


@pytest.mark.parametrize("pre_gate", [False, True])
def test_the_runner_computes_what_the_network_does(pre_gate: bool, tmp_path: Path) -> None:
    made = saved(tmp_path / "model.nnp", pre_gate=pre_gate)
    expected, taken = logits(made), choices(made)
    assert 0 < taken.mean() < 1
    images = np.array(made.images.d)
    nn.clear_parameters()
    runner = GatedRunner(str(tmp_path / "model.nnp"))
    for image, row, chosen in zip(images, expected, taken):
        found, bits = runner(image)
        assert bits == [(1, 4)[choice] for choice in chosen]
        np.testing.assert_allclose(found, row, atol=1e-4)


def test_the_price_of_the_file_moves_the_choices(tmp_path: Path) -> None:
    made = saved(tmp_path / "free.nnp")
    image = np.array(made.images.d[0])
    saved(tmp_path / "dear.nnp", price=1e6)
    saved(tmp_path / "gift.nnp", price=-1e6)
    free, dear, gift = (GatedRunner(str(tmp_path / f"{name}.nnp"))(image)[1] for name in ("free", "dear", "gift"))
    assert dear == [1] * 9 and gift == [4] * 9
    assert free not in (dear, gift)


@pytest.mark.parametrize("pre_gate", [False, True])
def test_the_file_says_which_networks_a_block_runs(pre_gate: bool, tmp_path: Path) -> None:
    saved(tmp_path / "model.nnp", price=0.25, pre_gate=pre_gate)
    with zipfile.ZipFile(tmp_path / "model.nnp") as archive:
        gates = json.loads(archive.read(MEMBER))
    assert gates["precisions"] == [1, 4] and gates["price"] == 0.25 and gates["costs"] == [0.0, 1.0]
    assert [block["block"] for block in gates["blocks"]] == [f"res{s}/block{n}" for s in (1, 2, 3) for n in (1, 2, 3)]
    names = set(NnpLoader(str(tmp_path / "model.nnp")).get_network_names())
    expected = {"stem", "tail"}
    for number, block in enumerate(gates["blocks"], start=1):
        assert block["paths"] == [f"block{number}_1bit", f"block{number}_4bit"]
        assert block["gate"] == (f"block{number}_gate" if pre_gate else None)
        expected |= {*block["paths"], *([block["gate"]] if pre_gate else [])}
    assert names == expected


def test_three_precisions_have_three_networks_a_block(tmp_path: Path) -> None:
    made = network(BATCH, precisions=(1, 2, 4), decide=three_ways)
    save_gated_nnp(tmp_path / "model.nnp", made, 0.0, np.array([0.0, 0.3, 1.0]))
    taken = choices(made)
    assert set(np.unique(taken)) == {0, 1, 2}
    runner = GatedRunner(str(tmp_path / "model.nnp"))
    for image, chosen in zip(np.array(made.images.d), taken):
        assert runner(image)[1] == [(1, 2, 4)[choice] for choice in chosen]


def three_ways(block: int, x: nn.Variable) -> Decision:
    return greedy(x, np.array([0.0, 0.3, 1.0]), nn.Variable.from_numpy_array(np.zeros((1, 1), np.float32)))


def test_paths_that_no_image_chose_are_not_even_loaded(tmp_path: Path) -> None:
    made = saved(tmp_path / "model.nnp", price=1e6)
    runner = GatedRunner(str(tmp_path / "model.nnp"))
    for _ in range(2):
        runner(np.array(made.images.d[0]))
    assert not any(name.endswith("_4bit") for name in runner.networks)
    assert runner.calls == {"stem": 2, "tail": 2, **{f"block{n}_1bit": 2 for n in range(1, 10)}}


def test_weights_in_the_file_are_quantized(tmp_path: Path) -> None:
    saved(tmp_path / "model.nnp")
    loader = NnpLoader(str(tmp_path / "model.nnp"))
    for name, levels in (("block1_1bit", 2), ("block1_4bit", 16)):
        with nn.parameter_scope("file"):
            loader.get_network(name, batch_size=1)
            found = {key: v.d for key, v in nn.get_parameters(grad_only=False).items()}
        weights = [v for key, v in found.items() if name in key and key.endswith("conv/W") and "gate" not in key]
        assert len(weights) == 2
        assert all(1 < len(np.unique(w)) <= levels for w in weights)
        nn.clear_parameters()


def test_another_ending_is_refused(tmp_path: Path) -> None:
    made = network(BATCH)
    with pytest.raises(ValueError, match="model.onnx: .* ends in .nnp"):
        save_gated_nnp(tmp_path / "model.onnx", made, 0.0, COSTS)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.nnp"
    made = saved(path)
    before = path.read_bytes()

    def fails(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(module, "save", fails)
    with pytest.raises(OSError, match="disk is full"):
        save_gated_nnp(path, made, 0.0, COSTS)
    assert [p.name for p in tmp_path.iterdir()] == ["model.nnp"]
    assert path.read_bytes() == before


def test_saving_leaves_the_parameters_as_they_were(tmp_path: Path) -> None:
    made = network(BATCH)
    before = {name: np.array(v.d, np.float32) for name, v in nn.get_parameters(grad_only=False).items()}
    save_gated_nnp(tmp_path / "folder" / "model.nnp", made, 0.0, COSTS)
    after = nn.get_parameters(grad_only=False)
    assert after.keys() == before.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name].d, values, err_msg=name)
    assert (tmp_path / "folder" / "model.nnp").stat().st_mode & 0o777 == 0o644


def test_a_file_without_gates_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.nnp", "w") as archive:
        archive.writestr("network.nntxt", "")
    with pytest.raises(ValueError, match="other.nnp: no network with gates"):
        GatedRunner(str(tmp_path / "other.nnp"))


def test_the_command_prints_a_line_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = saved(tmp_path / "model.nnp")
    expected, taken = logits(made), choices(made)
    np.save(tmp_path / "images.npy", np.array(made.images.d, np.float32))
    assert main([str(tmp_path / "model.nnp"), str(tmp_path / "images.npy")]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ": class " in line]
    bits = [" ".join(str((1, 4)[choice]) for choice in row) for row in taken]
    assert lines == [f"{n}: class {row.argmax()}, bits {bits[n]}" for n, row in enumerate(expected)]


@pytest.mark.parametrize("arguments", [[], ["model.nnp"], ["model.nnp", "images.npy", "more"]])
def test_the_command_says_how_it_is_used(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage: python runner.py MODEL.nnp IMAGES.npy" in capsys.readouterr().err


def test_images_are_never_unpickled(tmp_path: Path) -> None:
    saved(tmp_path / "model.nnp")
    np.save(tmp_path / "images.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        main([str(tmp_path / "model.nnp"), str(tmp_path / "images.npy")])


def test_the_runner_needs_nothing_of_the_package(tmp_path: Path) -> None:
    made = saved(tmp_path / "model.nnp")
    np.save(tmp_path / "images.npy", np.array(made.images.d[:1], np.float32))
    (tmp_path / "runner.py").write_text(Path(runner_module.__file__).read_text())
    # The package is made impossible to import.
    hidden = "import sys; sys.modules['nnmpq'] = None; sys.path.insert(0, '.'); import runner; "
    program = f"{hidden}sys.exit(runner.main(['model.nnp', 'images.npy']))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert f"0: class {logits(made)[0].argmax()}" in done.stdout

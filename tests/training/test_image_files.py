"""A run on images that are in files."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from nnmpq.config.scheme import build_scheme
from nnmpq.data import DataError, ImageOptions, load
from nnmpq.training import loop as loop_module
from nnmpq.training import train
from nnmpq.training.evaluate import evaluate, quantizer_inputs
from nnmpq.training.graphs import build_evaluation
from nnmpq.training.machine import Machine
from tests.data.made_up import imagenette
from tests.training.tiny import MIXED, experiment

KEYS = {"dataset": "imagenette", "augmentation": "random_resized_crop", "image_size": 8, "batch_size": 10}


@pytest.fixture
def nette(tmp_path):
    """Thirty training, ten validation and twenty test images of ten classes."""
    imagenette(tmp_path)
    options = ImageOptions("random_resized_crop", 8)
    return load("imagenette", data_dir=str(tmp_path), validation_images=10, options=options)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_workers_and_a_break_change_no_bit(nette, tmp_path, monkeypatch):
    chosen = experiment(**KEYS, w_quantize="parametric_fp_d_xmax", a_quantize="parametric_fp_d_xmax_relu")
    whole = train(chosen, nette, tmp_path / "whole", quiet=True)
    train(chosen, nette, tmp_path / "workers", quiet=True, machine=Machine(workers=2))
    assert files(tmp_path / "whole").keys() == files(tmp_path / "workers").keys()
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (tmp_path / "workers" / "metrics.csv").read_bytes()

    original = loop_module.run_epoch

    def broken(graph, solvers, batches, epoch, *rest):
        if epoch == 2:
            next(iter(batches))
            raise KeyboardInterrupt
        return original(graph, solvers, batches, epoch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "run_epoch", broken)
        with pytest.raises(KeyboardInterrupt):
            train(chosen, nette, tmp_path / "broken", quiet=True)
    resumed = train(chosen, nette, tmp_path / "broken", quiet=True, resume=True, machine=Machine(workers=1))
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (tmp_path / "broken" / "metrics.csv").read_bytes()
    assert resumed.test_accuracy == whole.test_accuracy


def test_a_corrupt_image_stops_evaluation_by_name(nette, tmp_path):
    nette.validation.path(4).write_bytes(b"no image")
    with pytest.raises(DataError, match=nette.validation.path(4).name):
        train(experiment(**KEYS), nette, tmp_path / "run", quiet=True)


def test_evaluation_sees_every_image_once_whatever_the_batch(nette):
    found = []
    for size in (3, 20):
        chosen = experiment(**{**KEYS, "batch_size": size})
        found.append(evaluate(build_evaluation(chosen, nette, build_scheme(chosen)), nette, nette.test))
    assert found[0].error == found[1].error
    assert found[0].cross_entropy == pytest.approx(found[1].cross_entropy, rel=1e-5)


def test_calibration_sees_many_classes_and_skips_what_cannot_be_read(nette, monkeypatch):
    chosen = experiment(**{**KEYS, **MIXED})
    graph = build_evaluation(chosen, nette, build_scheme(chosen))
    seen: list[str] = []
    original = type(nette.train).path

    def path(self, index):
        found = original(self, index)
        seen.append(found.parent.name)
        return found

    monkeypatch.setattr(type(nette.train), "path", path)
    first = quantizer_inputs(graph, nette, 10)
    assert list(first) == [name for name in graph.quantized.sites if not name.endswith(("/W", "/b"))]
    # The list is sorted by class: its first ten images are of four.
    assert len(set(seen[:10])) > 4
    again = quantizer_inputs(graph, nette, 10)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    lenient = attrs.evolve(nette, settings=attrs.evolve(nette.settings, corrupt_share=0.5))
    for index in range(0, 30, 3):
        original(nette.train, index).write_bytes(b"no image")
    assert list(quantizer_inputs(graph, lenient, 20)) == list(first)

from __future__ import annotations

import attrs
import nnabla as nn
import numpy as np
import pytest

from nnmpq.config.scheme import build_scheme
from nnmpq.data import Split
from nnmpq.training.evaluate import SAMPLE, evaluate, quantizer_inputs
from nnmpq.training.graphs import build_evaluation
from tests.training.tiny import MIXED, data, experiment


def graph_of(batch_size, **changes):
    chosen = experiment(batch_size=batch_size, **changes)
    return build_evaluation(chosen, data(), build_scheme(chosen))


def test_an_evaluation_is_the_mean_over_all_images_whatever_the_batch_size():
    split = data().validation  # 40 images: batches of 16 leave 8, with 8 images of filler
    whole = graph_of(40)
    whole.images.d = (split.images.astype(np.float32) - 8) / 8
    whole.quantized.output.forward()
    logits = whole.quantized.output.d.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    likelihood = shifted[np.arange(40), split.labels] - np.log(np.exp(shifted).sum(axis=1))
    for batch_size in (16, 40, 64):
        found = evaluate(graph_of(batch_size), data(), split)
        assert found.error == np.mean(logits.argmax(axis=1) != split.labels)
        assert found.cross_entropy == pytest.approx(-likelihood.mean(), rel=1e-5)


def test_equal_logits_answer_with_the_first_class():
    """nnabla's own top-n error counts every tie as wrong; a device that runs the network takes one of them."""
    graph = graph_of(40)
    for name in ("fc/affine/W", "fc/affine/b"):
        nn.get_parameters()[name].d = 0
    assert evaluate(graph, data(), data().validation).error == np.mean(data().validation.labels != 0)


def test_what_is_not_a_number_is_no_right_answer():
    graph = graph_of(40)
    nn.get_parameters()["fc/affine/b"].d = np.nan
    assert evaluate(graph, data(), data().validation).error == 1.0


def test_filler_is_left_out():
    # Seven images in batches of four: were the filler counted, eight answers would be averaged.
    full = data().validation
    split = Split(full.images[:7], full.labels[:7])
    one_by_one = [
        evaluate(graph_of(1), data(), Split(full.images[i : i + 1], full.labels[i : i + 1])) for i in range(7)
    ]
    found = evaluate(graph_of(4), data(), split)
    assert found.error == pytest.approx(np.mean([one.error for one in one_by_one]))
    assert found.cross_entropy == pytest.approx(np.mean([one.cross_entropy for one in one_by_one]), rel=1e-5)


def test_evaluation_changes_no_parameter():
    graph = graph_of(16, **MIXED)
    before = {name: np.array(v.d) for name, v in nn.get_parameters(grad_only=False).items()}
    evaluate(graph, data(), data().validation)
    after = nn.get_parameters(grad_only=False)
    assert all(np.array_equal(before[name], after[name].d) for name in before)


def test_an_empty_split_is_refused():
    empty = Split(data().train.images[:0], data().train.labels[:0])
    with pytest.raises(ValueError, match="empty"):
        evaluate(graph_of(4), data(), empty)


def test_quantizer_inputs_are_what_the_quantizers_see():
    graph = graph_of(8, **MIXED)
    evaluate(graph, data(), data().validation)  # leaves cleared buffers behind
    found = quantizer_inputs(graph, data(), 8)
    sites = {n: s for n, s in graph.quantized.sites.items() if not n.endswith(("/W", "/b"))}
    assert list(found) == list(sites)
    graph.images.d = (data().train.images[:8].astype(np.float32) - 8) / 8
    graph.quantized.output.forward()
    for name, site in sites.items():
        assert np.array_equal(np.sort(found[name]), np.sort(site.source.d.reshape(-1)))
        assert found[name].min() < 0, "what a ReLU's quantizer sees is not clipped yet"


def test_large_inputs_are_sampled():
    graph = graph_of(32, **MIXED)
    found = quantizer_inputs(graph, data(), 160)
    sizes = {name: numbers.size for name, numbers in found.items()}
    # conv1/relu has 16 x 8 x 8 numbers an image: 163840 in all.
    assert sizes["conv1/conv/relu"] == SAMPLE // 5 * 5
    assert all(size <= SAMPLE for size in sizes.values())


def test_calibration_takes_training_images_alone():
    full = data()
    empty = Split(full.test.images[:0], full.test.labels[:0])
    poisoned = attrs.evolve(full, validation=empty, test=empty)
    assert quantizer_inputs(graph_of(8, **MIXED), poisoned, 8)

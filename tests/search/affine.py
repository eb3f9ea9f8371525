"""Two affine layers with a ReLU between them: a network whose derivatives are known in closed form."""

from __future__ import annotations

from typing import Any

import attrs
import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np

from nnmpq.budget import Budget
from nnmpq.config.experiment import Experiment
from nnmpq.data import load
from nnmpq.models import MODELS
from nnmpq.search.task import SearchTask

HIDDEN, CLASSES = 5, 10
SITES = ("a/affine/W", "a/affine/b", "b/affine/W", "b/affine/b", "a/affine/relu")


def affine(x: nn.Variable, classes: int, **options: Any) -> nn.Variable:
    return PF.affine(F.relu(PF.affine(x, HIDDEN, name="a")), classes, name="b")


def task(monkeypatch, tmp_path, images=24, **options: Any) -> SearchTask:
    """A task on that network, with random parameters, in the place of the digits' ResNet."""
    monkeypatch.setitem(MODELS, "resnet_digits", affine)
    keys = {"arch": "resnet_digits", "dataset": "digits", "augmentation": "none", "batch_size": 8}
    experiment = Experiment("AFFINE", **{**keys, **options.pop("keys", {})})
    rng = np.random.default_rng(5)
    shapes = {
        "a/affine/W": (64, HIDDEN),
        "a/affine/b": (HIDDEN,),
        "b/affine/W": (HIDDEN, CLASSES),
        "b/affine/b": (CLASSES,),
    }
    for name, shape in shapes.items():
        variable = nn.parameter.get_parameter_or_create(name, shape)
        variable.d = (rng.normal(size=shape) * 0.5).astype(np.float32)
    data = load("digits", validation_images=200, seed=experiment.seed)
    budget = options.pop("budget", Budget(mean_bits=4.0))
    options = {"weight_widths": (2, 3, 5), "activation_widths": (2, 4), "score_images": images, **options}
    return SearchTask(experiment, data, budget, tmp_path, **options)


@attrs.frozen
class Numbers:
    """The network in numpy, float64, on all images of a score."""

    x: np.ndarray
    t: np.ndarray
    wa: np.ndarray
    ba: np.ndarray
    wb: np.ndarray
    bb: np.ndarray

    @classmethod
    def of(cls, graphs):
        x = np.concatenate([images[:valid] for images, _, valid in graphs.batches]).reshape(-1, 64).astype(np.float64)
        labels = np.concatenate([labels[:valid] for _, labels, valid in graphs.batches])[:, 0]
        own = nn.get_parameters()
        return cls(x, np.eye(CLASSES)[labels], *(np.array(own[name].d, np.float64) for name in SITES[:4]))

    def hidden(self):
        return np.maximum(self.x @ self.wa + self.ba, 0)

    def logits(self, hidden=None):
        return (self.hidden() if hidden is None else hidden) @ self.wb + self.bb

    def probabilities(self):
        e = np.exp(self.logits())
        return e / e.sum(axis=1, keepdims=True)

    def gradients(self):
        """Of each image's cross entropy, by each site: (N, ...)."""
        by_logits = self.probabilities() - self.t
        by_hidden = by_logits @ self.wb.T
        before = by_hidden * (self.hidden() > 0)
        return {
            "a/affine/W": self.x[:, :, None] * before[:, None, :],
            "a/affine/b": before,
            "b/affine/W": self.hidden()[:, :, None] * by_logits[:, None, :],
            "b/affine/b": by_logits,
            "a/affine/relu": by_hidden,
        }

    def traces(self):
        """Of the Hessian of the mean cross entropy by each site; by an activation, of each image's own, averaged."""
        p, h = self.probabilities(), self.hidden()
        curvature = np.einsum("nk,kl->nkl", p, np.eye(CLASSES)) - np.einsum("nk,nl->nkl", p, p)
        by_hidden = np.einsum("jk,nkl,jl->nj", self.wb, curvature, self.wb)
        by_logits = np.trace(curvature, axis1=1, axis2=2)
        before = np.sum(by_hidden * (h > 0), axis=1)
        return {
            "a/affine/W": np.mean(np.sum(self.x**2, axis=1) * before),
            "a/affine/b": np.mean(before),
            "b/affine/W": np.mean(np.sum(h**2, axis=1) * by_logits),
            "b/affine/b": np.mean(by_logits),
            "a/affine/relu": np.mean(np.sum(by_hidden, axis=1)),
        }

"""A small trained network for the tests of the progressive search."""

from __future__ import annotations

import nnabla as nn

from nnmpq.budget import Budget
from nnmpq.config.experiment import Experiment
from nnmpq.config.scheme import build_scheme
from nnmpq.data import load
from nnmpq.data.feed import Feed
from nnmpq.graph.schemes import Float
from nnmpq.search.task import SearchTask
from nnmpq.training.epoch import run_epoch
from nnmpq.training.graphs import build_training
from nnmpq.training.machine import Machine
from nnmpq.training.parameters import save_h5
from nnmpq.training.solvers import build_groups

KEYS = {
    "arch": "resnet_digits",
    "dataset": "digits",
    "augmentation": "none",
    "validation_images": 64,
    "train_images": 96,
    "batch_size": 32,
    "lam": 3,
    "search_epochs": 1,
    "interval": 2,
    "method": "progressive",
}


def experiment(**keys) -> Experiment:
    return Experiment("SMALL", **{**KEYS, **keys})


def digits(of: Experiment):
    return load("digits", validation_images=of.validation_images, train_images=of.train_images, seed=of.seed)


def trained(path, **keys) -> str:
    """A float network after some updates, or one of the experiment's archtype, in a file."""
    own = experiment(**keys)
    data = digits(own)
    with nn.context_scope(nn.Context(["cpu:float"], "CpuCachedArray", "0")), nn.auto_forward(False):
        nn.clear_parameters()
        scheme = Float() if own.archtype is None else build_scheme(own)
        graph = build_training(own, data, scheme, accelerate=True)
        solvers = build_groups(own, graph.quantized.sites, learn_bits=True)
        with Feed(data, own.batch_size, seed=0) as feed:
            for epoch in range(10):
                run_epoch(graph, solvers, feed.training(epoch), epoch)
        save_h5(path)
        nn.clear_parameters()
    return str(path)


def make_task(folder, weightfile, limits=None, **keys) -> SearchTask:
    """A task on those weights; options of the task and keys of the experiment together."""
    options = {key: keys.pop(key) for key in ("seed", "steps", "deadline", "resume", "report") if key in keys}
    own = experiment(weightfile=weightfile, **keys)
    return SearchTask(own, digits(own), Budget(**(limits or {})), folder, machine=Machine(), **options)

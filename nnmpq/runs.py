"""One experiment from the command line to its run folder; shared by the ``train_*.py`` scripts."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import attrs
import nnabla as nn

from nnmpq.config.arguments import parse_arguments
from nnmpq.config.errors import ConfigError
from nnmpq.config.experiment import Experiment
from nnmpq.config.reader import read_experiment, resolve_weightfile, to_cfg
from nnmpq.config.scheme import budget_of
from nnmpq.data import DataError, DataSet, ImageOptions, load
from nnmpq.data.worker_pool import default_workers
from nnmpq.export.nnp import save_nnp
from nnmpq.files import atomic_write
from nnmpq.graph.rewrite import RewriteError
from nnmpq.parallel import ALONE, Communicator
from nnmpq.parallel.launch import run_processes
from nnmpq.parallel.mpi import MpiCommunicator, started_by_mpi
from nnmpq.policy import PolicyError
from nnmpq.report import bits_plot, bits_table
from nnmpq.threads import available_threads, set_threads
from nnmpq.training import Result, TrainingError, train
from nnmpq.training.machine import Machine
from nnmpq.training.scaling import scale_for

logger = logging.getLogger("nnmpq")

# Takes an experiment, the folder of all runs, and the keywords of `run`; a function of a module, as it is pickled.
Action = Callable[..., object]


def context_of(name: str, device_id: str, type_config: str) -> nn.Context:
    """Return the nnabla context of a device.

    Args:
        name: "cpu" or "cudnn".
        device_id: number of the GPU, as text.
        type_config: "float", "half" or "mixed_half".

    Raises:
        ConfigError: the extension for that device is not installed.
    """
    from nnabla.ext_utils import get_extension_context

    try:
        return get_extension_context(name, device_id=device_id, type_config=type_config)
    except ImportError as error:
        raise ConfigError(
            f"--context {name}: {error}; install the extra with: pip install 'nnmpq[cuda]', or run with --context cpu"
        ) from error


def write_outputs(folder: Path, experiment: Experiment, result: Result) -> str:
    """Write what a finished run hands over; return the table of bits per layer.

    Args:
        folder: the run folder.
        experiment: what ran.
        result: what `nnmpq.training.train` returned.
    """
    quantized = result.quantized
    bits = quantized.bit_numbers()
    used = result.cost
    budget = budget_of(experiment)
    policy = result.policy
    policy.save(folder / "policy.yaml")
    save_nnp(folder / "model.nnp", quantized, policy)
    table = bits_table(quantized.network, bits, used, budget)
    atomic_write(folder / "bits.txt", table + "\n")
    bits_plot(folder / "bits.png", quantized.network, bits, title=experiment.name)
    summary = {
        "experiment": experiment.name,
        "test_accuracy": result.test_accuracy,
        "validation_accuracy": result.validation_accuracy,
        "best_epoch": result.best_epoch,
        "seed": experiment.seed,
        "cost": attrs.asdict(used),
        "budget": attrs.asdict(budget),
        "budget_met": budget.met_by(used),
    }
    atomic_write(folder / "result.json", json.dumps(summary, indent=2) + "\n")
    return table


def start_of(experiment: Experiment) -> str:
    """Return a line about the run that an experiment started from, empty where its result is not beside its weights."""
    if experiment.weightfile is None:
        return ""
    try:
        found = json.loads((Path(experiment.weightfile).parent / "result.json").read_text())
        accuracy, kib = 100 * found["test_accuracy"], found["cost"]["weights_kib"]
        return f"{found['experiment']}: test accuracy {accuracy:.2f} %, weights {kib:.1f} KiB, where this run started"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def image_options(experiment: Experiment) -> ImageOptions:
    """Return what an experiment's keys say about its images."""
    return ImageOptions(
        experiment.augmentation,
        experiment.image_size,
        experiment.resize,
        experiment.colour,
        experiment.crop_to_box,
        experiment.corrupt_share,
    )


def load_data(experiment: Experiment) -> DataSet:
    """Return an experiment's data set, divided and cut down as its keys say."""
    return load(
        experiment.dataset,
        data_dir=experiment.data_dir,
        validation_images=experiment.validation_images,
        train_images=experiment.train_images,
        test_images=experiment.test_images,
        seed=experiment.seed,
        options=image_options(experiment),
    )


def run(
    experiment: Experiment,
    runs_dir: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    monitor_path: str | None = None,
    machine: Machine | None = None,
) -> Result:
    """Train one experiment and fill its run folder.

    Args:
        experiment: what to train; its ``weightfile`` is already resolved to a path.
        runs_dir: folder of all runs; this one writes into ``runs_dir/<name>``.
        resume: continue from the last checkpoint of that folder.
        quiet: no progress bar.
        monitor_path: folder for nnabla's Monitor series, default ``monitor`` in the run's.
        machine: what it runs on; fast CPU functions in one process if None.

    Returns:
        The result with the best parameters in place.
    """
    folder = runs_dir / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    machine = machine or Machine()
    leads = machine.communicator.rank == 0
    data = load_data(experiment)
    # A resumed run keeps the file of the run that it goes on with; a changed experiment is refused by the checkpoint.
    if leads and not (resume and (folder / "config.cfg").exists()):
        atomic_write(folder / "config.cfg", to_cfg(experiment))
    result = train(experiment, data, folder, resume=resume, quiet=quiet, monitor_folder=monitor_path, machine=machine)
    if not leads:
        return result
    table = write_outputs(folder, experiment, result)
    print(table)
    started = start_of(experiment)
    if started:
        print(started)
    print(
        f"{experiment.name}: test accuracy {100 * result.test_accuracy:.2f} %, "
        f"validation {100 * result.validation_accuracy:.2f} % (epoch {result.best_epoch}); files in {folder}"
    )
    return result


def main(
    program: str,
    architectures: Sequence[str],
    argv: Sequence[str] | None = None,
    *,
    cfg: Path | None = None,
    action: Action = run,
) -> int:
    """Run a script that does something with one experiment.

    Args:
        program: name of the script, for its help.
        architectures: values of ``arch`` that it trains.
        argv: command line without the program, default `sys.argv`.
        cfg: the file where the command line names none; without, it must.
        action: what is done with the experiment: trained by the ``train_*.py`` scripts.

    Returns:
        The exit status: 0, or 2 when something given by the user was wrong.
    """
    arguments = parse_arguments(program, argv, cfg)
    if arguments.processes > 1:
        if arguments.context != "cpu":
            print("error: --processes shares the cores of a CPU; for several GPUs: mpirun -n N", file=sys.stderr)
            return 2
        threads = arguments.threads or max(1, available_threads() // arguments.processes)
        arguments.threads = threads
        return run_processes(arguments.processes, do_one, (arguments, program, tuple(architectures), action))
    return do_one(arguments, program, architectures, action, ALONE)


def do_one(
    arguments: argparse.Namespace,
    program: str,
    architectures: Sequence[str],
    action: Action,
    communicator: Communicator,
) -> int:
    """Act in this process, alone or as one of several; arguments as parsed, exit status as of `main`."""
    leads = communicator.rank == 0
    logging.basicConfig(level=logging.INFO if leads else logging.ERROR, format="%(message)s", stream=sys.stderr)
    # nnabla tells of every file that it writes, the temporary ones too.
    logging.getLogger("nnabla").setLevel(logging.WARNING)
    set_threads(arguments.threads)
    try:
        context = context_of(arguments.context, arguments.device_id, arguments.type_config)
        if arguments.context != "cpu" and started_by_mpi():
            communicator = MpiCommunicator.start(context)
            context = context_of(arguments.context, str(communicator.local_rank), arguments.type_config)
        workers = default_workers(communicator.size) if arguments.workers is None else arguments.workers
        machine = Machine(arguments.accelerate, communicator, scale_for(arguments.type_config), workers)
        with nn.context_scope(context):
            experiment = read_experiment(arguments.cfg, arguments.experiment, arguments.overrides)
            if experiment.arch not in architectures:
                raise ConfigError(
                    f"{arguments.cfg}: [{experiment.name}] arch = {experiment.arch}: "
                    f"{program} takes {', '.join(architectures)}"
                )
            runs_dir = Path(arguments.model_save_path)
            if experiment.weightfile is not None:
                found = resolve_weightfile(experiment.weightfile, runs_dir, cfg=arguments.cfg, name=experiment.name)
                experiment = attrs.evolve(experiment, weightfile=str(found))
            action(
                experiment,
                runs_dir,
                resume=arguments.resume,
                quiet=arguments.quiet,
                monitor_path=arguments.monitor_path,
                machine=machine,
            )
    except (ConfigError, DataError, TrainingError, PolicyError, RewriteError) as error:
        if leads:
            print(f"error: {error}", file=sys.stderr)
        return 2
    return 0

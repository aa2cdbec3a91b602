"""A run: from a composed config to its objects, through training and test, to its files."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from torch import nn

from mmavlm.callbacks import (
    WholeCheckpoints,
    check_loggers,
    check_trainer,
    memory_told,
    monitor_told,
)
from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.files import claimed
from mmavlm.core.given_files import AUTO
from mmavlm.core.metrics_file import write_metrics, write_text
from mmavlm.core.settings import seed_given
from mmavlm.data.mix import MixedDataModule
from mmavlm.data.readers.annotations import SPLITS
from mmavlm.metrics.headline import headline
from mmavlm.metrics.table import score_table
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.model.instructblip import take_instructblip
from mmavlm.report import write_report
from mmavlm.run.features import build_encoder, take_features
from mmavlm.run.report import describe
from mmavlm.run.resume import checkpoint_to_resume, go_on_logging
from mmavlm.run.secrets import refuse_secrets
from mmavlm.stages import FineTune
from mmavlm.stages.base import Stage
from mmavlm.weights.allocation import allocation_limit
from mmavlm.weights.checkpoint import load_trainable, read_checkpoint
from mmavlm.weights.pretrained import PretrainedFolder, instructblip_parts
from mmavlm.weights.untrained import allow_untrained
from mmavlm.weights.weight_files import ENCODER, PARTS, WeightFile

log = logging.getLogger(__name__)

# Stage 1 has none of the first three; the form of the alignment loss may change.
DIFFERS_BETWEEN_STAGES = (
    "backbone.vision.projector.",
    "backbone.llm.",
    "backbone.vision.fusion.",
    "backbone.alignment.",
)


class Run:
    """One stage of one experiment: `config` composed, `overrides` the command line it came from.

    `splits` are those whose features `data.cache` must hold; all that are used by default.
    """

    def __init__(
        self, config: DictConfig, overrides: Sequence[str], splits: Sequence[str] | None = None
    ) -> None:
        check_trainer(config.trainer)
        check_loggers(config.logger)
        seed_given("", config.seed)
        self.config = config
        self.started_s = time.monotonic()
        self.resumed = False
        self.folder = Path(config.paths.run)
        leave_mix(config)
        L.seed_everything(config.seed, workers=True, verbose=False)
        if config.prepare is not None:
            instantiate(config.prepare)
        self.data = instantiate(config.data)
        # behind the data, which say what is not set
        refuse_secrets(OmegaConf.to_container(config, resolve=True))
        used = SPLITS if config.test else SPLITS[:2]
        self.stage = self._build_stage(list(overrides), used if splits is None else splits)
        self.trainer = self._build_trainer()
        self.metrics: dict[str, float] = {}

    def claim(self) -> AbstractContextManager[None]:
        """Keep the run's folder for this run; of several processes the first does it for all."""
        return claimed(self.folder) if self.trainer.is_global_zero else nullcontext()

    def fit(self) -> None:
        """Train, from another stage's or this run's own checkpoint if given, then test."""
        config = self.config
        path, step = checkpoint_to_resume(config) or (None, 0)
        self.resumed = path is not None
        if path is not None:
            go_on_logging(self.trainer, step)
        elif config.init.alignment is not None:
            start_from_alignment(self.stage, config.init.alignment)
        monitor = config.stage.monitor
        with memory_told(self.trainer, self.stage), monitor_told(self.trainer, monitor):
            self.trainer.fit(self.stage, datamodule=self.data, ckpt_path=path, weights_only=True)
        self._collect()
        if config.test and not self.trainer.interrupted:
            if (best := self.best_checkpoint) is not None:
                self.load(best)
            self.test()

    def load(self, path: str | Path) -> None:
        """Take the trainable weights of a checkpoint of this stage."""
        load_trainable(self.stage, read_checkpoint(path)["state_dict"], f"checkpoint {path}")

    def take_untrained(self) -> None:
        """Take the model as it was built, if everything it answers with was loaded.

        Raises:
            ConfigError: if a part has random weights that the config does not allow, or the
                config says to start from a stage that is to be run or loaded first.
        """
        for key in ("alignment", "experiment"):
            if self.config.init[key] is not None:
                raise ConfigError(
                    f"init.{key}={self.config.init[key]} is where training starts; without a "
                    "checkpoint nothing is trained, so leave it out, or give checkpoint=…"
                )
        answers = isinstance(self.stage, FineTune)
        allow_untrained(self.config, self.stage.backbone, answers=answers)

    def test(self) -> None:
        """Run the test split through the weights as they are."""
        with memory_told(self.trainer, self.stage):
            self.trainer.test(self.stage, datamodule=self.data, verbose=False)
        self._collect()

    def write(self, earlier: Sequence[Run] = ()) -> None:
        """Leave config, metrics, predictions and report in the run's folder (first process only).

        `earlier` runs, such as the stage before, are told of in the same report.
        """
        predictions = getattr(self.stage, "predictions", None)
        if predictions is not None:
            predictions.gather()
        if not self.trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        metrics = dict(self.metrics)
        for run in earlier:
            metrics |= {f"{run.folder.name}/{name}": v for name, v in run.metrics.items()}
        write_metrics(self.folder / "metrics.json", metrics)
        if predictions is not None and predictions.rows:
            predictions.write(self.folder / "predictions.jsonl")
        write_report(self.folder / "report.html", describe(self, earlier))
        # last, since it says that all the rest is there (see `run.resume.is_finished`)
        write_text(self.folder / "config.yaml", OmegaConf.to_yaml(self.config, resolve=True))

    def tell(self) -> None:
        """Print the test's scores and, last, where the report lies (first process only)."""
        if not self.trainer.is_global_zero:
            return
        predictions = getattr(self.stage, "predictions", None)
        rows = [] if predictions is None else list(predictions.rows.values())
        if scores := headline(self.metrics, rows):
            Console().print(score_table(f"{self.folder}, test", scores))
        log.info("report: %s", self.folder / "report.html")

    @property
    def duration_s(self) -> float:
        """How long ago this run was begun, by this process."""
        return time.monotonic() - self.started_s

    @property
    def job(self) -> str:
        """The command that made this run: train, evaluate."""
        return HydraConfig.get().job.name if HydraConfig.initialized() else "train"

    @property
    def command_line(self) -> list[str]:
        """The settings it was given, those of Hydra's own among them."""
        own = HydraConfig.get().overrides.hydra if HydraConfig.initialized() else []
        shown = [o for o in own if o.startswith("hydra.run.") or o.startswith("hydra.sweep.")]
        return [*map(str, self.stage.run["overrides"]), *shown]

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint with the best monitored metric, or None if none was written."""
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor:
                best = Path(callback.best_model_path) if callback.best_model_path else None
                return best if best is None or self._may_hold(best, callback) else None
        return None

    def _may_hold(self, path: Path, callback: ModelCheckpoint) -> bool:
        """Whether a checkpoint that is said to be the best lies where this run would look.

        A resumed checkpoint says which was the best so far, and it may come from elsewhere.
        """
        resumed = [] if self.config.resume in (None, AUTO) else [Path(self.config.resume).parent]
        folders = [Path(str(callback.dirpath)), *resumed]
        if path.parent.resolve() in [folder.resolve() for folder in folders]:
            return True
        log.warning("the resumed checkpoint names %s as the best, which is not looked at", path)
        return False

    def _collect(self) -> None:
        logged = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        self.metrics = self.stage.metrics_before | self.metrics | logged

    def _build_stage(self, overrides: list[str], splits: Sequence[str]) -> Stage:
        config = self.config
        stage_class = get_class(config.stage._target_)
        require_settings_of(stage_class, config.stage)
        cached = self.data.cache is not None
        backbone = build_backbone(
            config, take_features(config, self.data, splits) if cached else None
        )
        if self.data.image_size is None:
            self.data.image_size = backbone.vision.encoder.image_size
        settings: dict[str, Any] = {
            "backbone": backbone,
            "optimizer": instantiate(config.optimizer),
            "run": {"config": OmegaConf.to_container(config, resolve=True), "overrides": overrides},
        }
        if issubclass(stage_class, FineTune):
            settings |= {
                "tasks": self.data.tasks(splits),
                "tasks_with_options": self.data.tasks_with_options(splits),
                "classes": self.data.classes,
            }
        if self.data.sets:
            settings["sets"] = self.data.sets
        # called, not handed to Hydra, which would turn dataclasses and dicts into configs
        return instantiate(config.stage, _partial_=True)(**settings)

    def _build_trainer(self) -> L.Trainer:
        config = self.config
        return instantiate(
            config.trainer,
            callbacks=[instantiate(c) for c in config.callbacks.values() if c is not None],
            logger=[instantiate(c) for c in config.logger.values() if c is not None],
            plugins=[*(config.trainer.get("plugins") or ()), WholeCheckpoints()],
        )


def require_settings_of(stage_class: type[Stage], given: DictConfig) -> None:
    """Refuse settings that a stage does not take, as of an experiment made for the other stage.

    Raises:
        ConfigError: naming them.
    """
    taken = signature(stage_class).parameters
    foreign = [key for key in map(str, given) if not key.startswith("_") and key not in taken]
    if foreign:
        raise ConfigError(
            f"stage {stage_class.__name__} takes no {', '.join(foreign)}: the experiment is made "
            f"for another stage; choose one of this stage, or leave out stage=… and these settings"
        )


def leave_mix(config: DictConfig) -> None:
    """Take out what an experiment says of its mix, where another set was laid over it.

    Groups are merged, so the sets of a mix and rules for them would stay beside the other set.
    """
    data, compare = config.data, config.stage.get("compare")
    if "sets" not in data or issubclass(get_class(data._target_), MixedDataModule):
        return
    with open_dict(config):
        sets = data.pop("sets")
        for key in ("weights", "temperature", "epoch_items"):
            data.pop(key, None)
        if isinstance(compare, DictConfig):
            config.stage.compare = {n: rule for n, rule in compare.items() if n not in sets}


def build_backbone(config: DictConfig, encoder: nn.Module | None = None) -> VideoLanguageModel:
    """The model, with pretrained parts where `pretrained` names them, and those of `init.weights`.

    `encoder` is taken instead of the config's, if given.

    Raises:
        NoMemoryError: if it needs more memory than is free.
    """
    with allocation_limit("the model of these settings"):
        encoder = build_encoder(config) if encoder is None else encoder
        vision = instantiate(config.backbone.vision, encoder=encoder)
        backbone: VideoLanguageModel = instantiate(config.backbone, vision=vision)
    if config.pretrained is not None:
        take_instructblip(backbone, instructblip_parts(PretrainedFolder(config.pretrained)))
    if config.init.weights is not None:
        # the encoder has its own already, since the feature cache needs it before all else
        WeightFile(config.init.weights).load(backbone, [p for p in PARTS if p != ENCODER])
    return backbone


def start_from_alignment(stage: Stage, path: str | Path) -> None:
    """Copy the weights of a stage-1 checkpoint into a stage-2 model.

    What stage 1 does not have (projector, LLM, fusion) keeps its weights, and the alignment may
    take another form; the rest must fit.

    Raises:
        CheckpointError: if the checkpoint is missing, unreadable, or of another architecture.
    """
    checkpoint = read_checkpoint(path)
    absent = load_trainable(
        stage,
        checkpoint["state_dict"],
        f"the stage-1 checkpoint {path}",
        may_differ=DIFFERS_BETWEEN_STAGES,
    )
    if not any(name.startswith("backbone.vision.projector.") for name in absent):
        raise CheckpointError(
            f"{path} is a checkpoint of stage 2; init.alignment takes one of stage 1. "
            "To go on with a run give resume=…, to test it use mmavlm.evaluate"
        )
    log.info("started from %s; %d parameters of stage 2 are not in it", path, len(absent))

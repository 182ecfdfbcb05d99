# The commands of this project; each does its own set-up (tools/setup). `make` alone lists them.
#
#   JOBS=N             compile jobs at a time (about 1.5 GB each)
#   DSV3_TORCH=FOLDER  an installed torch 2.11 instead of the wheel in .deps

JOBS ?= $(shell nproc)
export DSV3_TORCH
CONFIGURE := $(if $(DSV3_TORCH),-DDSV3_TORCH=$(abspath $(DSV3_TORCH)))
CMAKE := cmake --log-level=NOTICE
CTEST := ctest --output-on-failure --no-tests=error
PEERS := .deps/peers/bin/python

.PHONY: help
help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup:
	@tools/setup

.PHONY: build
build: setup   ## the program, at build/release/bin/dsv3
	@$(CMAKE) --preset release $(CONFIGURE)
	@ninja -C build/release -j$(JOBS) dsv3_program dsv3_engine

.PHONY: tests
tests: build
	@ninja -C build/release -j$(JOBS)

.PHONY: demo
demo: build    ## train a small DeepSeek-V3 on a real English text, here and now
	@tools/demo

.PHONY: test
test: tests    ## the tests
	@$(CTEST) --test-dir build/release

.PHONY: test-full
test-full: tests asan fuzz mutate  ## also what takes longer: long runs, sanitizers, fuzzing, mutations
	@DSV3_LONG_TESTS=1 $(CTEST) --test-dir build/release
	@tools/check_launchers
	@tools/check_memory.py
	@tools/setup faults
	@tools/check_kills.py --every 5
	@tools/check_convert_faults.py
	@tools/setup peers
	@$(PEERS) tools/peers/tokenizer.py
	@$(PEERS) tools/peers/train_tokenizer.py
	@$(PEERS) tools/peers/prepare.py --memory
	@tools/demo trigram

.PHONY: test-peers
test-peers: build  ## against transformers: goldens made anew and compared (fetches 5 GB)
	@tools/setup peers
	@$(PEERS) tools/peers/run.py
	@$(PEERS) tools/peers/unicode_tables.py --check
	@$(PEERS) tools/peers/tokenizer.py --mb 1 --fuzz 5000
	@$(PEERS) tools/peers/train_tokenizer.py --mb 1 --rounds 1
	@$(PEERS) tools/peers/prepare.py

.PHONY: bench
bench: build   ## speed beside others, in turns: training (transformers), tokenizer, prepare; conversion against cp
	@tools/setup peers
	@$(PEERS) tools/peers/bench.py
	@$(PEERS) tools/peers/bench.py --ranks 2
	@$(PEERS) tools/peers/tokenizer.py --speed
	@$(PEERS) tools/peers/prepare.py --speed --memory
	@tools/bench_convert.py --check --peer $(PEERS)

.PHONY: lint
lint: setup    ## format, clang-tidy, include order, headers that compile alone
	@tools/setup lint
	@tools/lint

.PHONY: asan
asan: setup    ## the tests of the torch-free rooms under ASan and UBSan
	@$(CMAKE) --preset asan $(CONFIGURE)
	@ninja -C build/asan -j$(JOBS) core_tests
	@$(CTEST) --test-dir build/asan -L core

.PHONY: fuzz
fuzz: setup    ## the parsers of untrusted files under libFuzzer; FUZZ_SECONDS=120 each
	@tools/setup fuzz
	@tools/fuzz $(or $(FUZZ_SECONDS),120)

.PHONY: mutate
mutate: setup  ## known mistakes, put in one at a time: each must fail a test
	@tools/mutate

.PHONY: cuda
cuda: setup    ## compile and link the CUDA files (no GPU needed)
	@tools/setup cuda
	@$(CMAKE) --preset cuda $(CONFIGURE)
	@ninja -C build/cuda -j$(JOBS)
	@tools/check_cuda

.PHONY: clean
clean:         ## remove what was built; .deps stays
	@rm -rf build

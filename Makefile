# Two commands matter: `make start` and `make test`. The scripts are in make/.

.PHONY: help build start test image-test fresh-root bench torture check clean-all

help:
	@echo 'make start      from nothing to a container in a virtual machine of its own (under target/)'
	@echo 'make test       every test that can run here; says what it skipped and why'
	@echo 'make image-test two images from one lock, compared byte by byte'
	@echo 'make fresh-root SUITE=bookworm  start and test in a new root file system (root only)'
	@echo 'make build      target/release/colima and the guest program beside it'
	@echo 'make check      formatting, lints, documentation, dependencies'
	@echo 'make bench      measurements, results in benches/'
	@echo 'make torture    the long forms of the tests, SECONDS=3600'
	@echo 'make clean-all  ends the machine and removes target/'

build:
	@make/build.sh

start:
	@make/start.sh

test:
	@make/test.sh

image-test:
	@make/image-test.sh

fresh-root:
	@make/fresh-root.sh $(SUITE)

bench:
	@make/bench.sh

torture:
	@make/torture.sh $(SECONDS)

check:
	@make/check.sh

clean-all:
	@make/clean-all.sh

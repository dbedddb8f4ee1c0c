# up: run the fabric    check: lint and types    quick: check, fast unit tests, 50 seeds; under a minute
# test: check, then all tests; coverage is of the unit tests alone, for it makes the simulator seven times slower
# bench: measure the fan-out
# simulate: SEEDS (1000) of simulated weather a profile, over zim's own deciding code
# chaos: for SECONDS (60) kill, stop and cut off real nodes under load, then look for what is lost; the same SEED (1)
#   does the same. EVERY and KILLS: seconds between two faults, nodes killed a minute
# soak: what is too long for CI, about an hour: SEEDS (5000) a profile from SEED on, every broken rule, chaos for
#   SECONDS (600)
# images: builds the container image in a chroot, and boots systemd with the units: Linux, root, some minutes
# fuzz: for SECONDS (60) any bytes into every parser, by atheris where it can be had; then mutations of the same SEED
# One at a time installs into .venv; the folder .installing says who.
# Works with BSD make and GNU make from 3.81. `make PYTHON=/path/to/python3.12 up` chooses the interpreter.

PYTHON =
WORKERS = 4
COVERED = 80
INSTALLED = .venv/.installed
INSTALLING = .installing

.PHONY: up check quick test bench simulate chaos soak images fuzz

up: $(INSTALLED)
	@.venv/bin/zim up

check: $(INSTALLED)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

quick: check
	.venv/bin/python -m pytest tests/unit -n $(WORKERS) --dist worksteal -m 'not slow' -q
	.venv/bin/python -m tests.simulation --seeds 5

test: check
	.venv/bin/python -m pytest tests/unit -n $(WORKERS) --dist worksteal --cov --cov-report= --cov-fail-under=$(COVERED)
	.venv/bin/python -m pytest tests --ignore=tests/unit -n $(WORKERS) --dist worksteal

bench: $(INSTALLED)
	.venv/bin/python -m benchmarks.fanout

images: $(INSTALLED)
	ZIM_TEST_IMAGES=1 .venv/bin/python -m pytest tests/integration/test_containers.py tests/integration/test_systemd.py

simulate: $(INSTALLED)
	@seeds="$(SEEDS)"; .venv/bin/python -m tests.simulation --seeds "$${seeds:-1000}"

chaos: $(INSTALLED)
	@seed="$(SEED)"; for_s="$(SECONDS)"; every="$(EVERY)"; kills="$(KILLS)"; \
	.venv/bin/python -m tests.fault.chaos --seed "$${seed:-1}" --seconds "$${for_s:-60}" --every "$${every:-0}" \
	  --kills "$${kills:-0}"

soak: $(INSTALLED)
	@seed="$(SEED)"; seeds="$(SEEDS)"; first=$${seed:-1}; \
	.venv/bin/python -m tests.simulation --seeds "$$first:$$((first + $${seeds:-5000}))"
	.venv/bin/python -m pytest tests/simulation/test_rules.py -n $(WORKERS) --dist worksteal -q
	@seed="$(SEED)"; for_s="$(SECONDS)"; \
	.venv/bin/python -m tests.fault.chaos --seed "$${seed:-1}" --seconds "$${for_s:-600}"

fuzz: $(INSTALLED)
	@.venv/bin/python -c 'import atheris' 2>/dev/null || .venv/bin/python -m pip install --quiet \
	  --disable-pip-version-check -e '.[fuzz]' || echo "atheris cannot be had here: mutations alone"
	@seed="$(SEED)"; for_s="$(SECONDS)"; \
	.venv/bin/python -m tests.fuzz --seed "$${seed:-0}" --seconds "$${for_s:-60}"

# A virtual environment that an interrupted attempt, or a Python since removed, left without a working pip is made anew.
$(INSTALLED): pyproject.toml
	@tries=0; \
	while ! mkdir $(INSTALLING) 2>/dev/null; do \
	  owner=`cat $(INSTALLING)/pid 2>/dev/null`; \
	  if [ $$tries -gt 5 ] && ! kill -0 "$${owner:-x}" 2>/dev/null; then rm -rf $(INSTALLING); fi; \
	  [ $$tries -ne 1 ] || echo "another make installs into .venv: waiting for it"; \
	  tries=$$((tries + 1)); sleep 1; \
	done; \
	trap 'rm -rf $(INSTALLING)' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; echo $$$$ >$(INSTALLING)/pid; \
	if [ -e $(INSTALLED) ] && [ -z "`find pyproject.toml -newer $(INSTALLED)`" ]; then exit 0; fi; \
	python=; \
	for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "zim needs Python 3.11 or later, and there is none in PATH. Debian: apt-get install python3 python3-venv;" \
	    "macOS: brew install python. One elsewhere: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	if ! $$python -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	  version=`$$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'`; \
	  echo "$$python has no venv module. Debian and Ubuntu: apt-get install python3-venv" \
	    "(or python$$version-venv)" >&2; \
	  exit 1; \
	fi; \
	if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then \
	  echo "making .venv with $$python"; \
	  $$python -m venv --clear .venv || exit 1; \
	fi; \
	echo "installing zim and what it needs into .venv"; \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' && touch $(INSTALLED)

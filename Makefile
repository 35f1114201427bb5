# Everything the course can do, one target each. `make help` lists them.
# Works with GNU make 3.81 (macOS) and later. Paths are relative, so the tree may lie anywhere.
#
#   PYTHON=python3.12 make book     choose the interpreter (otherwise the first of 3.11 to 3.13)
#   ONEBIT_REQUIRE_KERNEL=1         fail where the C kernel cannot be built
#   ONEBIT_REPOSITORY_URL=https://… add buttons for Binder and Colab, which need the repository
#   ONEBIT_SITE_URL=https://…       add what a shared link shows, which needs the book's own address

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book test quick lab serve speed execute bench reproduce exercises wasm zip lint clean FORCE

# A second OpenMP thread that spins beside a busy core slows torch many times over. A short spin,
# some tens of microseconds, made training twice as fast on two idle cores, and half as fast on busy.
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 10000

PY := .venv/bin/python
PORT ?= 8000
comma := ,

# Test files on several cores, each file (and each notebook) whole on one of them.
side_by_side := -n auto --maxprocesses 4 --dist loadscope

book_sources := $(shell find _config.yml _toc.yml references.bib chapters src/onebit \
  tools/onebit_book exercises -type f \
  ! -path 'exercises/work/*' ! -path '*/.*' ! -path '*/__pycache__/*' ! -name '*.so' ! -name '*.o' 2>/dev/null | sort)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: _build/html/.complete ## Set up .venv, build the kernel and the book, tell where to open it
	@sh tools/bootstrap.sh announce

test: _build/html/.complete ## Prove everything: unit tests, every notebook, the book, the pages in a browser
	@$(PY) -m pytest $(side_by_side)

quick: .venv/installed ## Run the tests that take less than a minute in all (no notebooks, no browser)
	@$(PY) -m pytest $(side_by_side) -m "not slow and not browser" tests src

lab: .venv/installed ## Open the chapters in JupyterLab
	@$(PY) -m jupyterlab chapters

serve: _build/html/.complete ## Serve the built book at http://localhost:8000 (PORT=…), search included
	@$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

speed: _build/html/.complete ## Weigh the pages and time how they open in a browser (a quiet machine, for a minute)
	@$(PY) tools/page_speed.py

execute: .venv/installed ## Run the notebooks anew and store their outputs
	@$(PY) tools/execute.py

bench: .venv/bench ## Time the kernels against their peers and the machine (a quiet one, for minutes)
	@mkdir -p _build
	@$(PY) -m onebit bench --json _build/bench.json --svg _build/roofline.svg

reproduce: .venv/installed ## List the long runs and their cost; TABLE=… [BUDGET=book] trains one
	@$(PY) -m onebit reproduce $(TABLE) $(if $(BUDGET),--budget $(BUDGET))

exercises: .venv/installed ## Copy the exercises that you have not begun to exercises/work, where you write
	@$(PY) -m onebit exercises

# Free-standing: no C library, no imports. -Os gives the same speed as -O3 at half the size.
WASM ?= src/onebit/widgets/kernel_race.wasm
wasm_sources := $(addprefix kernels/,xnor_popcount.c bit_packing.c paths.c wasm/xnor_simd128.c \
  wasm/pack_simd128.c wasm/float32.c wasm/one_thread.c)
wasm_exports := __heap_base onebit_path_count onebit_path_name onebit_pack_signs onebit_lanes_size \
  onebit_lanes_from_words onebit_xnor_gemm onebit_float32_panels_size onebit_float32_panels \
  onebit_float32_gemm

wasm: ## Compile the kernel for the race in the page (clang and lld; the result is committed)
	@clang --version >/dev/null 2>&1 && wasm-ld --version >/dev/null 2>&1 || { echo "onebit: make wasm" \
	  "needs clang and lld: \`sudo apt-get install clang lld\` on Debian, \`brew install llvm lld\`" \
	  "on macOS." >&2; exit 1; }
	@clang --target=wasm32 -std=c11 -Os -msimd128 -mbulk-memory -ffp-contract=off -ffreestanding \
	  -nostdlib -Ikernels -Ikernels/wasm -Wall -Wextra \
	  -Wl,--no-entry,--strip-debug,--stack-first $(addprefix -Wl$(comma)--export=,$(wasm_exports)) \
	  -o $(WASM) $(wasm_sources)
	@chmod 644 $(WASM)

zip: _build/html/.complete ## Pack the book into one zip file to read offline, with its checksum
	@$(PY) tools/release.py

lint: .venv/installed ## Check style, types and the source of every number in the prose
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy
	@$(PY) tools/lint_numbers.py

clean: ## Remove what was built, the kernel included (for the environment: rm -r .venv)
	@rm -rf _build build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -f src/onebit/_xnor_popcount* .venv/installed

# What lies outside the tree and decides how to install: interpreter, compiler, headers, place.
# Looked at on every run, rewritten only when something differs.
.venv/toolchain: FORCE
	@sh tools/bootstrap.sh toolchain

.venv/installed: pyproject.toml constraints.txt tools/bootstrap.sh $(wildcard setup.py kernels/*) .venv/toolchain
	@sh tools/bootstrap.sh install

# The benchmark's peers, one by one: where one cannot be had, the others still compete, the benchmark
# names the gap, and the next run tries again. bnn-lab's dependencies are older than they need be.
.venv/bench: $(wildcard constraints-bench.txt) | .venv/installed
	@peers=$$($(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"])'); \
	pip="$(PY) -m pip install -q --only-binary :all: -c constraints.txt -c constraints-bench.txt"; \
	missing=; \
	for peer in $$peers '--no-deps bnn-lab'; do $$pip $$peer || missing="$$missing $$peer"; done; \
	if [ -z "$$missing" ]; then touch $@; else echo "Not installed:$$missing"; fi

# The list of the book's files and the addresses it names, rewritten when one comes, goes or changes.
addresses := 'repository: $(ONEBIT_REPOSITORY_URL)' 'site: $(ONEBIT_SITE_URL)'
_build/sources: FORCE
	@mkdir -p _build
	@printf '%s\n' $(book_sources) $(addresses) | cmp -s - $@ || \
	  printf '%s\n' $(book_sources) $(addresses) > $@

# --all, since a page left over from a build that failed would not be read again, and its warning
# would be lost; it also copies changed styles and scripts.
_build/html/.complete: $(book_sources) _build/sources .venv/installed
	@echo 'Building the book'
	@$(PY) .venv/bin/jupyter-book build -q -W -n --keep-going --all .
	@touch $@

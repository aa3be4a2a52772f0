#!/usr/bin/env bash
# Sets up .venv beside this file when it is missing or out of date, then runs one civillaw command in it.
# Results go to stdout; everything this script itself says goes to stderr.
set -euo pipefail

here="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
venv="$here/.venv"
python="$venv/bin/python"

say() { printf 'civillaw: %s\n' "$*" >&2; }

show_help() {
    cat <<'HELP'
civillaw: teach a Llama Korean civil law, ask it, and check every article it cites

Usage: ./run_scripts.sh COMMAND [options]      (COMMAND --help lists the options of one command)

  full          the whole job on the bundled data and a small model: check, train, evaluate, report
  check_system  this machine: Python, packages, CPU, GPU, disk, and what it can train
  bases         embedded base models, and which of them were fetched
  find          the nearest rules and articles of a question, without a model
  check_csv     read a file of questions and answers and report its faults by line
  plan          the memory that training needs, before anything is downloaded
  train         train an adapter
  chat          talk with the trained model in the terminal
  ask           one question, one answer
  batch         answer a file of questions into a report: .md, .csv or .jsonl
  evaluate      the base model against the tuned one on held-out questions
  benchmark     measure training, inference, data, memory, threads or cuda
  export        write a merged model for other programs
  setup         only set up .venv (setup --dev: with JupyterLab, nbdev and the test tools)
  test          run every check and test (test --slow: the long forms too)
  outputs       run the notebooks and store what their cells say (outputs --slow: the slow ones too)
  help          this screen

Examples:
  ./run_scripts.sh full
  ./run_scripts.sh full --minutes 60 --output_dir ./longer_model
  ./run_scripts.sh check_csv --csv_path my.csv
  ./run_scripts.sh train --csv_path my.csv --output_dir ./model --epochs 5
  ./run_scripts.sh chat --model_path ./model
  ./run_scripts.sh ask --model_path ./model --question "전세권이란 무엇인가요?"
  ./run_scripts.sh batch --model_path ./model --questions_file questions.txt --output_file results.md

Without options the bundled CSV is read and the model folder is ./fine_tuned_model.
HELP
}

# Changes when a requirement changes or the folder is moved (the environment holds absolute paths).
fingerprint() {
    { cat "$here/settings.ini" "$here/setup.py" "$here/requirements.txt"; echo "$here"; } | cksum
}

# A stamp is written at the very end of a set-up, so an unfinished one has none.  $1 is "run" or "dev".
is_ready() {
    [ "$(cat "$venv/civillaw-$1.stamp" 2>/dev/null)" = "$(fingerprint)" ] && "$python" -c '' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3; do
        # Try each one out: a version manager leaves names that only print an error, and Debian packs ensurepip apart.
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    say "no Python 3.11, 3.12 or 3.13 with venv was found; install one (Debian, Ubuntu: apt-get install python3-venv)"
    return 1
}

make_venv() {
    # A set-up that broke off may have left half a package behind, which pip cannot mend: start anew.
    if [ -e "$venv/civillaw.installing" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
        local base
        base="$(find_python)"
        "$base" -m venv --clear "$venv" >&2
    fi
}

# The pins were tested together; as constraints they add no package of their own.
pip_install() {
    "$python" -m pip install -qq --disable-pip-version-check -c requirements.txt "$@" >&2
}

install_packages() {
    local extra="" what="transformers, peft, datasets and the others"
    if [ "$1" = dev ]; then
        extra="[dev]"
        what="$what, JupyterLab, nbdev and the test tools"
    fi
    # torch goes first, pinned by requirements.txt, so that nothing after it chooses another build.  pip takes the
    # CUDA build on Linux whether there is an NVIDIA card or not (several gigabytes), unless it is offered a CPU
    # wheel by the way pip is configured here; no package host is named in this file.
    local size="about 1 to 5 minutes"
    if [ "$(uname -s)" = Linux ] && ! nvidia-smi >/dev/null 2>&1; then
        size="$size; without a CPU wheel at hand pip draws the CUDA build, several gigabytes"
    fi
    say "1 of 2: installing torch ($size)"
    pip_install torch
    say "2 of 2: installing $what (1 to 5 minutes)"
    pip_install -e ".$extra"
}

setup() {
    if is_ready "$1"; then return; fi
    (
        cd "$here"
        # Two commands started together must not install into each other.
        if command -v flock >/dev/null; then exec 9>.venv.lock; flock 9; fi
        if is_ready "$1"; then exit 0; fi
        say "setting up $venv; this happens once"
        make_venv
        trap 'say "the set-up did not finish; the same command starts it again"' EXIT
        trap 'exit 130' INT TERM  # pip handles Ctrl-C itself, and without this the script would go on
        touch "$venv/civillaw.installing"
        rm -f "$venv"/civillaw-*.stamp
        install_packages "$1"
        fingerprint > "$venv/civillaw-run.stamp"
        if [ "$1" = dev ]; then fingerprint > "$venv/civillaw-dev.stamp"; fi
        rm -f "$venv/civillaw.installing"
        trap - EXIT
    )
}

# The chat is tested in a browser with Korean glyphs.  Without one its tests are skipped by name.
setup_browser() {
    if chromium --version >/dev/null 2>&1 || ! command -v apt-get >/dev/null; then return; fi
    local root=""
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 0
        root="sudo -n"
    fi
    say "installing chromium and a Korean font for the browser tests (about 1 minute)"
    # shellcheck disable=SC2086  # $root is empty or two words
    { $root apt-get -qq update && $root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
        --no-install-recommends chromium fonts-nanum; } >/dev/null || say "chromium could not be installed"
}

command="${1:-help}"
if [ $# -gt 0 ]; then shift; fi
case "$command" in
    help | -h | --help)
        show_help
        exit 0
        ;;
    setup)
        case "$*" in
            "") setup run ;;
            --dev) setup dev ;;
            *) say "setup takes --dev or nothing, not: $*"; exit 2 ;;
        esac
        echo "ready: $python"
        exit 0
        ;;
    test)
        setup dev
        setup_browser
        exec "$python" "$here/.ci/checks.py" "$@"
        ;;
    outputs)
        setup dev
        exec "$python" "$here/.ci/outputs.py" --write "$@"
        ;;
    check_system | bases | find | check_csv | train | chat | full | ask | batch | evaluate | benchmark | plan | export)
        setup run
        export CIVILLAW_COMMAND=./run_scripts.sh  # for the next steps that a command prints
        exec "$python" -m civillaw "$command" "$@"
        ;;
    *)
        say "unknown command '$command'; ./run_scripts.sh help lists the commands"
        exit 2
        ;;
esac

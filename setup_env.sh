#!/usr/bin/env bash
# Installs what this project needs: a Python environment, packages, ffmpeg, and the published weights where they can be downloaded.
#   ./setup_env.sh                  what inference, training, evaluation, data processing and the app need (requirements.txt)
#   ./setup_env.sh --with-speech    also what the renderer in embedded/ needs: requirements-embedded.txt, flite, espeak-ng
#   ./setup_env.sh --with-dev       also what the tests need: requirements-dev.txt and requirements-embedded.txt; tries to install flite,
#                                   espeak-ng and chromium at most once a day: tests that need a missing program are skipped
#   source setup_env.sh             the same as the first, and activates the environment in your shell
# It uses the active conda or virtual environment, or else .venv beside this file. Finished parts are not repeated: a second call
# takes a moment and needs no network. LATENTSYNC_DOWNLOAD=0 downloads no weights, LATENTSYNC_SETUP=0 installs nothing.
# Messages go to stderr; the one line on stdout is the folder of the environment.

if [[ "${BASH_SOURCE[0]:-}" != "$0" ]]; then # sourced: the work happens in a child process, so that your shell keeps its options
    _latentsync_here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]:-$0}")" && pwd)"
    _latentsync_env="$(bash "$_latentsync_here/setup_env.sh")" || {
        unset _latentsync_here _latentsync_env
        return 1
    }
    if [[ "$(command -v python || true)" != "$_latentsync_env/bin/python" ]]; then
        if [[ -f "$_latentsync_env/pyvenv.cfg" && -f "$_latentsync_env/bin/activate" ]]; then source "$_latentsync_env/bin/activate"; fi
        # conda keeps no such script in an environment, and a folder that was moved keeps its old address there
        if [[ "$(command -v python || true)" != "$_latentsync_env/bin/python" ]]; then export PATH="$_latentsync_env/bin:$PATH"; fi
    fi
    unset _latentsync_here _latentsync_env
    return 0
fi

set -euo pipefail
here="$(cd -- "$(dirname -- "$0")" && pwd)"
venv="$here/.venv"

say() { echo "setup_env: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

suits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

apt_install() { # as root, or where sudo asks for no password
    local as_root=(env DEBIAN_FRONTEND=noninteractive)
    command -v apt-get >/dev/null || return 1
    if [[ "$(id -u)" != 0 ]]; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n "${as_root[@]}")
    fi
    say "installing $* with apt-get"
    "${as_root[@]}" apt-get update -qq >&2 || true
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@" >&2
}

find_python() { # prints a Python that suits; with an argument, one that can also do what that line of code says
    local name
    for name in python3.11 python3.12 python3.10 python3 python; do
        if suits "$name" && "$name" -c "${1:-pass}" >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    return 1
}

choose_environment() { # sets env_dir; makes .venv where there is none
    local active python
    for active in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
        [[ -n "$active" && -x "$active/bin/python" ]] || continue
        env_dir="$active"
        suits "$active/bin/python" && return
        say "the active environment $active has no Python 3.10, 3.11 or 3.12; using $venv instead"
    done
    env_dir="$venv"
    if suits "$venv/bin/python"; then return; fi
    if "$venv/bin/python" -c pass 2>/dev/null; then
        fail "$venv has $("$venv/bin/python" -V) and 3.10, 3.11 or 3.12 is needed; rename or remove that folder and run this again"
    fi
    if ! python="$(find_python 'import venv, ensurepip')"; then
        python="$(find_python)" || apt_install python3 || true
        python="$(find_python)" || fail "no Python 3.10, 3.11 or 3.12 was found; install one, or activate an environment that has it"
        apt_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" || true
        "$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python cannot make environments; install its venv package (python3-venv)"
    fi
    say "making $venv with $python"
    "$python" -m venv --clear "$venv" >&2 || fail "$python could not make $venv; see the lines above"
}

is_installed() { [[ -f "$1" && "$(<"$1")" == "$2" ]]; } # STAMP CONTENT

install_packages() { # PART: base, dev or embedded; skipped where its stamp in the environment fits its requirements
    local python="$env_dir/bin/python" stamp="$env_dir/.latentsync-setup" wanted files=("$here/requirements.txt" "$here/requirements-nodeps.txt")
    if [[ "$1" != base ]]; then stamp+="-$1" files=("$here/requirements-$1.txt"); fi
    wanted="$(cat "${files[@]}" | cksum) $("$python" -V)"
    if is_installed "$stamp" "$wanted"; then return; fi
    [[ -w "$env_dir" ]] || fail "nothing can be written into the environment $env_dir; activate one of your own and run this again"
    if command -v flock >/dev/null; then # of two calls at once the second waits, and then finds the work done
        exec 9>"$env_dir/.latentsync-lock"
        flock 9
        if is_installed "$stamp" "$wanted"; then return; fi
    fi
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >&2 || fail "$env_dir has no pip; install pip there and run this again"
    if [[ "$1" == base ]]; then
        say "installing packages into $env_dir (several gigabytes, some minutes; an interrupted installation can be continued)"
    else
        say "installing ${files[0]##*/} into $env_dir"
    fi
    local refused="the packages could not be installed; see pip's last lines above, then run this again"
    "$python" -m pip install --disable-pip-version-check -r "${files[0]}" >&2 || fail "$refused"
    if [[ "$1" == base ]]; then
        "$python" -m pip install --disable-pip-version-check --no-deps -r "${files[1]}" >&2 || fail "$refused"
        "$python" -c 'import cv2, torch' >&2 ||
            fail "the installed packages cannot be imported; see the lines above (a second OpenCV in $env_dir? uninstall opencv-python, run this again)"
    fi
    echo "$wanted" >"$stamp"
}

name_clone() { # lets the environment's python run this project's modules from any folder; PYTHONPATH and the working folder come first
    local clone="$here" site note
    if [[ -f "${env_dir%/*}/setup_env.sh" ]]; then clone="${env_dir%/*}"; fi # the .venv of another clone stays that clone's
    for site in "$env_dir"/lib/python3.*/site-packages; do
        note="$site/latentsync.pth"
        if [[ ! -d "$site" || (-f "$note" && "$(<"$note")" == "$clone") ]]; then continue; fi
        { echo "$clone" >"$note"; } 2>/dev/null || say "$note cannot be written: python -m finds the modules in $clone alone"
    done
}

install_ffmpeg() {
    if command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null; then return; fi
    if [[ -x "$env_dir/bin/ffmpeg" && -x "$env_dir/bin/ffprobe" ]]; then return; fi
    if [[ -d "$env_dir/conda-meta" ]] && command -v conda >/dev/null; then
        say "installing ffmpeg with conda"
        conda install --yes --quiet --prefix "$env_dir" -c conda-forge ffmpeg >&2 && return
    fi
    apt_install ffmpeg || fail "ffmpeg is missing and could not be installed; install ffmpeg (with ffprobe) and run this again"
}

install_speech() {
    if command -v flite >/dev/null && command -v espeak-ng >/dev/null; then return; fi
    apt_install flite espeak-ng || fail "flite or espeak-ng is missing and could not be installed; install both and run this again"
}

try_programs() { # for the tests; tried at most once a day
    local tried="$here/.setup/programs-tried" program missing=()
    for program in "$@"; do command -v "$program" >/dev/null || missing+=("$program"); done
    if ((${#missing[@]} == 0)) || [[ -n "$(find "$tried" -mmin -1440 2>/dev/null)" ]]; then return; fi
    for program in "${missing[@]}"; do
        apt_install "$program" || say "$program could not be installed: the tests that need it will be skipped"
    done
    mkdir -p "$here/.setup" && touch "$tried"
}

download_weights() { # tried at most once a day
    local tried="$here/.setup/weights-tried"
    if [[ "${LATENTSYNC_DOWNLOAD:-1}" == 0 || -n "$(find "$tried" -mmin -1440 2>/dev/null)" ]]; then return; fi
    (cd "$here" && "$env_dir/bin/python" -m scripts.download_weights >&2) || say "continuing without the missing weights"
    mkdir -p "$here/.setup" && touch "$tried"
}

with_speech=0 with_dev=0
for argument in "$@"; do
    case "$argument" in
        --with-speech) with_speech=1 ;;
        --with-dev | --with-browser) with_dev=1 ;; # the second name is that of an earlier release
        -h | --help)
            sed -n 2,10p "$0" | cut -c3-
            exit
            ;;
        *) fail "the argument $argument is unknown; there are --with-speech and --with-dev" ;;
    esac
done

if [[ "${LATENTSYNC_SETUP:-1}" == 0 ]]; then
    env_dir="${VIRTUAL_ENV:-${CONDA_PREFIX:-$venv}}"
else
    choose_environment
    install_packages base
    if ((with_dev)); then install_packages dev; fi
    if ((with_dev || with_speech)); then install_packages embedded; fi
    name_clone
    install_ffmpeg
    if ((with_speech)); then install_speech; fi
    if ((with_dev)); then try_programs flite espeak-ng chromium; fi
    download_weights
fi
echo "$env_dir"

#!/usr/bin/env bash
# Installs what this project needs: a Python environment, packages, ffmpeg, and the published weights where they can be downloaded.
#   ./setup_env.sh                  what inference needs (requirements.txt)
#   ./setup_env.sh --with-app       also what the app in a browser needs (requirements-app.txt)
#   ./setup_env.sh --with-training  also what training, data processing and evaluation need (requirements-training.txt)
#   ./setup_env.sh --with-speech    that and what the renderer in embedded/ needs: requirements-embedded.txt, flite, espeak-ng
#   ./setup_env.sh --with-dev       all of these and what the tests need: requirements-dev.txt; tries to install flite, espeak-ng and
#                                   chromium at most once a day: tests that need a missing program are skipped
#   ./setup_env.sh --check          says what is there and what fits this machine; installs and downloads nothing
#   source setup_env.sh             the same as the first, and activates the environment in your shell
# It uses the active conda or virtual environment, or else .venv beside this file. Finished parts are not repeated: a second call
# takes a moment and needs no network. LATENTSYNC_DOWNLOAD=0 downloads no weights, LATENTSYNC_SETUP=0 installs nothing.
# LATENTSYNC_TORCH_INDEX=ADDRESS takes torch from a further package index, such as PyTorch's own of builds for processors (3 GB less).
# Messages go to stderr, the output of pip and apt-get to .latentsync-setup.log in the environment; the one line on stdout is the
# environment's folder.

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
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

say() { echo "setup_env: $*" >&2; }
fail() {
    say "$*"
    exit 1
}
trap 'fail "interrupted; the same command goes on from here"' INT TERM

suits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

apt_install() { # as root, or where sudo asks for no password
    local as_root=(env DEBIAN_FRONTEND=noninteractive)
    command -v apt-get >/dev/null || return 1
    if [[ "$(id -u)" != 0 ]]; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n "${as_root[@]}")
    fi
    say "installing $* with apt-get"
    {
        "${as_root[@]}" apt-get update -qq || true
        "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@"
    } >>"${log:-/dev/null}" 2>&1
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
    [[ -w "$here" ]] || fail "nothing can be written into $here; copy the project to a folder of your own, or activate an environment"
    if ! python="$(find_python 'import venv, ensurepip')"; then
        python="$(find_python)" || apt_install python3 || true
        python="$(find_python)" || fail "Python 3.10, 3.11 or 3.12 is needed and $(python3 -V 2>/dev/null || echo none) was found; install one" \
            "(apt-get, brew, conda, or the installer of python.org), or activate an environment that has it"
        apt_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" || true
        "$python" -c 'import venv, ensurepip' 2>/dev/null ||
            fail "$python cannot make environments; install its venv package (sudo apt-get install python3-venv) and run this again"
    fi
    need_space 100 "$here"
    "$python" -m venv --clear "$venv" >&2 || fail "$python could not make $venv; see the lines above"
}

is_installed() { [[ -f "$1" && "$(<"$1")" == "$2" ]]; } # STAMP CONTENT

need_space() { # MB FOLDER: refuses to begin what does not fit on the disk
    local free
    free="$(df -Pm -- "$2" 2>/dev/null | awk 'NR == 2 { print $4 }')"
    if [[ "$free" =~ ^[0-9]+$ ]] && ((free < $1)); then
        fail "$(gigabytes "$1") of disk space are needed for $2 and $(gigabytes "$free") are free; make room, or activate an environment on" \
            "another disk"
    fi
}

gigabytes() { echo "$(($1 / 1000)).$(($1 % 1000 / 100)) GB"; } # MB

has_nvidia() { [[ -e /proc/driver/nvidia/version || -e /dev/nvidia0 || -e /dev/dxg ]] || command -v nvidia-smi >/dev/null; } # /dev/dxg: WSL

check_machine() { # refuses what no package is built for, and tells what is worth knowing of this machine; sets download and unpacked, MB
    case "$(uname -s) $("$env_dir/bin/python" -c 'import platform; print(platform.machine())')" in
        Linux\ *) ;;
        Darwin\ arm64) ;;
        Darwin\ *)
            if [[ "$(sysctl -n hw.optional.arm64 2>/dev/null)" == 1 ]]; then
                fail "the Python of $env_dir is for Intel processors and this Mac has Apple's; install a Python for arm64 and run this again"
            fi
            fail "PyTorch is no longer built for Macs with Intel processors; use a Mac with Apple's, Linux, or Windows with WSL"
            ;;
        *) fail "$(uname -s) is not supported; use Linux, macOS, or Windows with WSL" ;;
    esac
    if [[ "$here" == /mnt/[a-z]/* && -e /proc/version ]] && grep -qi microsoft /proc/version; then
        say "$here is on a drive of Windows, which is slow from WSL; a folder under your Linux home is faster"
    fi
    download=3200 unpacked=6300
    if [[ "$(uname -s)" == Darwin || "${LATENTSYNC_TORCH_INDEX:-}" == */cpu* ]]; then download=600 unpacked=2200; fi
}

pip_install() { # ARGUMENT...: pip, all it says into the log, how far it is on stderr
    "$env_dir/bin/python" -m pip install --progress-bar off "$@" 2>&1 | tell_progress || fail "$(why_pip_failed)"
}

tell_progress() { # reads what pip says: a line that changes on a terminal, else a line for each quarter of `download` and for unpacking
    local line got=0 quarters=0 terminal=0
    if [[ -t 2 ]]; then terminal=1; fi
    while IFS= read -r line; do
        echo "$line" >>"$log"
        if [[ "$line" =~ (Downloading|Using\ cached)\ ([A-Za-z0-9_]+)-.*\(([0-9]+)[.0-9]*\ MB\) ]]; then
            got=$((got + BASH_REMATCH[3]))
            line="downloading ${BASH_REMATCH[2]} (${BASH_REMATCH[3]} MB), $(gigabytes "$got") of about $(gigabytes "$download")"
            if ((terminal)); then
                printf '\rsetup_env: %s\033[K' "$line" >&2
            elif ((got * 4 / download > quarters)); then
                quarters=$((got * 4 / download))
                say "$line"
            fi
        elif [[ "$line" == "Installing collected packages"* && "$got" -gt 100 ]]; then
            if ((terminal)); then printf '\r\033[K' >&2; fi
            say "unpacking $(wc -w <<<"${line#*: }") packages, $(gigabytes "$unpacked") ..."
        fi
    done
}

why_pip_failed() { # a sentence of what pip's last lines say
    local last
    last="$(tail -n 40 "$log")"
    case "$last" in
        *"No space left"*) echo "the disk is full: make room and run this again; it goes on where it stopped" ;;
        *"externally-managed"*) echo "$env_dir belongs to the system; activate an environment of your own and run this again" ;;
        *ProxyError* | *"Tunnel connection failed"* | *"407 "*)
            echo "the proxy does not let pip through: check HTTPS_PROXY (and its user and password), then run this again"
            ;;
        *CERTIFICATE_VERIFY_FAILED* | *SSLError* | *"SSL: "*)
            echo "the certificate of the package index is not trusted here, as behind a company's proxy: name its file in PIP_CERT, run this again"
            ;;
        *NewConnectionError* | *"Name or service not known"* | *"Temporary failure in name resolution"* | *"Network is unreachable"* | \
            *"timed out"* | *NameResolutionError* | *IncompleteRead* | *"Connection aborted"* | *"connection broken"*)
            echo "the package index cannot be reached: check the network (behind a proxy: HTTPS_PROXY), then run this again"
            ;;
        *"Permission denied"*) echo "nothing can be written into $env_dir; activate an environment of your own and run this again" ;;
        *"No matching distribution"*)
            echo "the package index has no $(sed -n 's/.*No matching distribution found for \([^ ]*\).*/\1/p' <<<"$last" | tail -n 1) for" \
                "$("$env_dir/bin/python" -V) on $(uname -sm); see $log"
            ;;
        *) echo "the packages could not be installed: $(grep -E '^ *(ERROR|error)' <<<"$last" | tail -n 1 | cut -c1-200); see $log, run this again" ;;
    esac
}

install_packages() { # PART: base, app, training, dev or embedded; skipped where its stamp in the environment fits its requirements
    local python="$env_dir/bin/python" stamp="$env_dir/.latentsync-setup" wanted download=100 unpacked=400 start=$SECONDS files
    files=("$here/requirements.txt" "$here/requirements-nodeps.txt")
    if [[ "$1" != base ]]; then stamp+="-$1" files=("$here/requirements-$1.txt"); fi
    wanted="$(cat "${files[@]}" | cksum) $("$python" -V)"
    if is_installed "$stamp" "$wanted"; then return; fi
    [[ -w "$env_dir" ]] || fail "nothing can be written into the environment $env_dir; activate one of your own and run this again"
    if command -v flock >/dev/null; then # of two calls at once the second waits, and then finds the work done
        exec 9>"$env_dir/.latentsync-lock"
        flock -n 9 || { say "another call is installing into $env_dir: waiting for it" && flock 9; }
        if is_installed "$stamp" "$wanted"; then return; fi
    fi
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >>"$log" 2>&1 ||
        fail "$env_dir has no pip; install pip there and run this again"
    if [[ "$("$python" -m pip --version)" =~ ^pip\ (1?[0-9]|20)\. ]]; then # does not know today's builds
        pip_install --upgrade pip
    fi
    if [[ "$1" == base ]]; then
        install_base "$python"
    else
        say "installing ${files[0]##*/} into $env_dir"
        pip_install -r "${files[0]}"
    fi
    echo "$wanted" >"$stamp"
    say "${files[0]##*/} is installed ($((SECONDS - start)) s)"
}

install_base() { # PYTHON
    local there index=()
    check_machine
    there="$(du -sm "$env_dir" | cut -f 1)" # an interrupted set-up is continued
    need_space $((unpacked > there ? unpacked - there : 100)) "$env_dir"
    if [[ -n "${LATENTSYNC_TORCH_INDEX:-}" ]]; then index=(--extra-index-url "$LATENTSYNC_TORCH_INDEX"); fi
    say "installing packages for inference into $env_dir ($("$1" -V)): about $(gigabytes "$download") to download," \
        "$(gigabytes "$unpacked") on disk; an interrupted set-up can be continued"
    if [[ "$(uname -s)" == Linux && ${#index[@]} == 0 ]] && ! has_nvidia; then
        say "no NVIDIA GPU was found; with the address of PyTorch's builds for processors in LATENTSYNC_TORCH_INDEX it is about a fifth of that"
    fi
    pip_install ${index[@]+"${index[@]}"} -r "$here/requirements.txt"
    pip_install --no-deps -r "$here/requirements-nodeps.txt"
    "$1" -c 'import cv2, torch' >>"$log" 2>&1 ||
        fail "the installed packages cannot be imported (a second OpenCV in $env_dir? uninstall opencv-python, run this again); see $log"
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
        conda install --yes --quiet --prefix "$env_dir" -c conda-forge ffmpeg >>"$log" 2>&1 && return
    fi
    apt_install ffmpeg || fail "ffmpeg is missing and could not be installed; install it (sudo apt-get install ffmpeg, or brew) and run this again"
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
    (cd "$here" && "$env_dir/bin/python" -m scripts.download_weights) | while IFS= read -r line; do
        case "$line" in
            "Missing files:") # which are many lines
                say "weights that are missing are done without; docs/weights.md says where they come from"
                cat >/dev/null
                ;;
            *) say "$line" ;;
        esac
    done || say "continuing without the missing weights"
    mkdir -p "$here/.setup" && touch "$tried"
}

parts=() with_speech=0 with_dev=0 check=0
for argument in "$@"; do
    case "$argument" in
        --with-app) parts+=(app) ;;
        --with-training) parts+=(training) ;;
        --with-speech) parts+=(training embedded) with_speech=1 ;;
        --with-dev | --with-browser) parts+=(app training dev embedded) with_dev=1 ;; # the second name is that of an earlier release
        --check) check=1 ;;
        -h | --help)
            sed -n '2,/^$/p' "$0" | sed -n 's/^# //p'
            exit
            ;;
        *) fail "the argument $argument is unknown; there are --with-app, --with-training, --with-speech, --with-dev and --check" ;;
    esac
done

if ((check)); then
    env_dir="${VIRTUAL_ENV:-${CONDA_PREFIX:-$venv}}"
    if [[ ! -f "$env_dir/.latentsync-setup" ]]; then
        echo "packages: not installed in $env_dir; ./inference.sh and ./setup_env.sh install them ($(gigabytes 3200) to download)"
        if ! command -v ffmpeg >/dev/null; then echo "ffmpeg: missing; the same installs it where it may"; fi
        exit 1
    fi
    PATH="$env_dir/bin:$PATH" PYTHONSAFEPATH=1 PYTHONPATH="$here" exec "$env_dir/bin/python" -m scripts.check_setup
fi

if [[ "${LATENTSYNC_SETUP:-1}" == 0 ]]; then
    env_dir="${VIRTUAL_ENV:-${CONDA_PREFIX:-$venv}}"
else
    choose_environment
    log="$env_dir/.latentsync-setup.log"
    for part in base ${parts[@]+"${parts[@]}"}; do install_packages "$part"; done
    name_clone
    install_ffmpeg
    if ((with_speech)); then install_speech; fi
    if ((with_dev)); then try_programs flite espeak-ng chromium; fi
    download_weights
fi
echo "$env_dir"

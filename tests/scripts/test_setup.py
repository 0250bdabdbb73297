"""setup.sh and common.sh as real processes, in a copy of their files, with stand-ins for uv and Python on PATH."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.checkout import ONCE
from tests.started import SECONDS, is_running, until

pytestmark = [pytest.mark.unit, ONCE]
REPOSITORY = Path(__file__).resolve().parents[2]


TOOLS = (
    "awk", "bash", "cat", "chmod", "cmp", "cut", "dirname", "env", "flock", "grep", "head", "id", "kill", "ln", "mkdir",
    "mktemp", "mv", "rm", "sed", "sh", "sha256sum", "sleep", "tail", "tee", "touch", "uname", "wc",
)  # fmt: skip


# Stand-ins: a Python that answers setup.sh's questions, and a uv that makes an environment of one such Python.
PYTHON = '#!/bin/sh\necho "{version} {version}.7"\n'
UV = """#!/bin/sh
echo $$ >"$UV_CALLS.process"
echo "$1 $2" >>"$UV_CALLS"
[ "$1" = --version ] && exit 0
[ "$1" = "$UV_FAILS" ] && { echo "error: Failed to fetch: dns error"; exit 1; }
sleep "${UV_SLEEPS:-0}"
if [ "$1" = venv ]; then
    for folder; do :; done
    mkdir -p "$folder/bin"
    printf '#!/bin/sh\\nexit 0\\n' >"$folder/bin/python"
    chmod +x "$folder/bin/python"
    echo "version_info = 3.11.7" >"$folder/pyvenv.cfg"
fi
"""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


class Checkout:
    """A copy of the project's set-up in a folder with a space in its name, and a separate PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        for name in ("requirements", "scripts"):
            shutil.copytree(REPOSITORY / name, self.root / name)
        for name in ("pyproject.toml", "setup.py"):
            shutil.copy(REPOSITORY / name, self.root)
        self.tools = folder / "tools"
        self.tools.mkdir()
        for tool in filter(shutil.which, TOOLS):
            (self.tools / tool).symlink_to(str(shutil.which(tool)))
        self.calls = folder / "calls"
        self.environment = {"PATH": str(self.tools), "HOME": str(folder), "UV_CALLS": str(self.calls)}
        self.venv = self.root / ".venv"
        self.stamp = self.venv / ".set-up-finished"

    def add_uv_and_python(self) -> None:
        script(self.tools / "uv", UV)
        script(self.tools / "python3.11", PYTHON.format(version="3.11"))

    def run(self, *command: str, cwd: str = "/", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=cwd, env={**self.environment, **environment}, capture_output=True, text=True, timeout=60
        )

    def setup(self, *arguments: str, shell: str = "bash", **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(shell, str(self.root / "scripts" / "setup.sh"), *arguments, **environment)

    def demo(self, call: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Call a function of demo.sh."""
        return self.run("bash", "-c", f". '{self.root}/scripts/demo.sh'; {call}", **environment)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "status", "fragment"),
    [
        (["moden"], 2, "unknown stack 'moden': choose modern, gpu, complete, complete-gpu or browser"),
        (["modern", "complete"], 2, ""),
        (["complete"], 1, "pyenv install 3.9"),
    ],
)
def test_what_cannot_be_set_up_is_one_line(
    checkout: Checkout, arguments: list[str], status: int, fragment: str
) -> None:
    done = checkout.setup(*arguments)
    assert done.returncode == status and fragment in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_browser_is_installed_once(checkout: Checkout) -> None:
    checkout.add_uv_and_python()
    chromium = checkout.tools / "chromium"
    install = f"""cd "{checkout.tools}"
for one in chromium firefox-esr; do case "$*" in *$one*) touch $one; chmod +x $one ;; esac; done"""
    script(checkout.tools / "apt-get", f'#!/bin/sh\necho "$@" >>"{checkout.calls}"\n{install}\n')
    script(checkout.tools / "sudo", '#!/bin/sh\n[ "$1" = -n ] && shift\nexec "$@"\n')
    for _ in range(2):
        done = checkout.setup("browser")
        ready = f"ready: {chromium}, {checkout.tools / 'firefox-esr'}"
        assert done.returncode == 0 and ready in done.stdout, done.stdout + done.stderr
        calls = checkout.calls.read_text(encoding="utf-8").splitlines()
        assert calls.count("pip install") == 4  # three of the modern stack
        assert [call for call in calls if "--no-install-recommends" in call] == [
            "install -y --no-install-recommends chromium fonts-noto-cjk",
            "install -y --no-install-recommends firefox-esr",
        ]
    script(checkout.tools / "apt-get", "#!/bin/sh\nexit 100\n")
    (checkout.tools / "firefox-esr").unlink()
    assert "no Firefox: its tests are skipped" in checkout.setup("browser").stdout
    (checkout.tools / "apt-get").unlink()
    chromium.unlink()
    done = checkout.setup("browser")
    assert done.returncode == 1 and "no Chromium found: install it" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_second_run_has_nothing_to_do_until_a_lock_changes(checkout: Checkout, shell: str) -> None:
    checkout.add_uv_and_python()
    done = checkout.setup(shell=shell)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ready after" in done.stdout
    calls = checkout.calls.read_text(encoding="utf-8").splitlines()
    assert calls == ["--version ", "venv --no-project", "pip install", "pip install", "pip install"]

    assert "nothing to do" in checkout.setup(shell=shell).stdout
    assert len(checkout.calls.read_text(encoding="utf-8").splitlines()) == 5

    with (checkout.root / "requirements" / "modern.txt").open("a", encoding="utf-8") as lock:
        lock.write("# changed\n")
    done = checkout.setup(shell=shell)
    assert f"bringing {checkout.venv} up to date" in done.stdout
    assert "nothing to do" in checkout.setup(shell=shell).stdout


def test_the_complete_stack_gets_openssl_aside_and_says_what_it_is(checkout: Checkout) -> None:
    script(checkout.tools / "uv", UV.replace('echo "$1 $2"', 'echo "$@"'))
    script(checkout.tools / "python3.9", PYTHON.format(version="3.9"))
    done = checkout.setup("complete")
    assert done.returncode == 0, done.stdout + done.stderr
    calls = checkout.calls.read_text(encoding="utf-8").splitlines()
    aside = [call for call in calls if "complete-native.txt" in call]
    is_x86 = os.uname().machine == "x86_64"  # Paddle Serving's client is built for no other processor
    assert len(aside) == is_x86 and ("no security fixes since 2019" in done.stdout) == is_x86
    for call in aside:
        assert f"--target {checkout.root}/.venv-complete/openssl10" in call
        assert "--python-platform x86_64-manylinux2014 --require-hashes" in call
    with (checkout.root / "requirements" / "complete-native.txt").open("a", encoding="utf-8") as lock:
        lock.write("# changed\n")
    assert "up to date" in checkout.setup("complete").stdout


# A uv that also writes the packages of every file that it installs.
LISTING_UV = (
    UV.replace('echo "$1 $2"', 'echo "$@"')
    + """
for file; do :; done
[ ! -f "$file" ] || grep == "$file" >>"$UV_CALLS"
"""
)


@pytest.mark.parametrize(
    ("stack", "version", "found", "left_out", "put_in"),
    [
        ("modern", "3.11", (), (), ("paddlepaddle", "onnxruntime")),
        ("gpu", "3.11", (), ("paddlepaddle",), ("onnxruntime", "paddlenlp")),
        ("complete", "3.9", (), ("paddlepaddle-gpu",), ("paddlepaddle", "onnxruntime")),
        ("complete-gpu", "3.9", (), ("paddlepaddle",), ("paddlepaddle-gpu", "onnxruntime", "paddle-serving-server")),
        # Those that the user has put in the place of the CPU builds stay there.
        ("gpu", "3.11", ("onnxruntime_gpu-1.23.2", "paddlepaddle_gpu-3.3.1"), ("paddlepaddle", "onnxruntime"), ()),
        ("complete", "3.9", ("paddlepaddle_gpu-2.6.2",), ("paddlepaddle",), ("onnxruntime",)),
    ],
)
def test_no_cpu_build_comes_over_a_build_for_gpus(
    checkout: Checkout,
    stack: str,
    version: str,
    found: tuple[str, ...],
    left_out: tuple[str, ...],
    put_in: tuple[str, ...],
) -> None:
    script(checkout.tools / "uv", LISTING_UV)
    script(checkout.tools / f"python{version}", PYTHON.format(version=version))
    done = checkout.setup(stack)
    if found:
        for name in found:
            folder = ".venv" if stack == "modern" else f".venv-{stack}"
            (checkout.root / folder / f"lib/python{version}/site-packages/{name}.dist-info").mkdir(parents=True)
        checkout.calls.unlink()
        with (checkout.root / "pyproject.toml").open("a", encoding="utf-8") as file:
            file.write("# changed\n")
        done = checkout.setup(stack)
        assert "up to date" in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    calls = checkout.calls.read_text(encoding="utf-8").splitlines()
    names = {call.split("==")[0] for call in calls if "==" in call}
    assert {*put_in, "numpy"} <= names and not names & {*left_out}


def test_another_version_of_cuda_makes_a_new_environment(checkout: Checkout) -> None:
    """One version of Paddle has a build for each: pip would find the other one and leave it."""
    script(checkout.tools / "uv", UV.replace('echo "$1 $2"', 'echo "$@"'))
    script(checkout.tools / "python3.11", PYTHON.format(version="3.11"))
    for cuda in ("cu126", "cu129"):
        done = checkout.setup("gpu", **({} if cuda == "cu126" else {"PADDLE_RANKER_CUDA": cuda}))
        assert done.returncode == 0 and "make the environment" in done.stdout, done.stdout + done.stderr
        (*_, install) = (call for call in checkout.calls.read_text().splitlines() if "modern-gpu.in" in call)
        assert f"/stable/{cuda}/" in install


def test_the_first_python_that_works_is_taken(checkout: Checkout) -> None:
    """Pass over a shim that fails and another version; a version manager's comes after PATH."""
    checkout.add_uv_and_python()
    (checkout.tools / "python3.11").unlink()
    script(checkout.tools / "python3.12", PYTHON.format(version="3.12"))
    managed = script(checkout.root.parent / ".pyenv/versions/3.11.4/bin/python", PYTHON.format(version="3.11"))
    shims, impostors, good = (checkout.root.parent / name for name in ("shims", "impostors", "good one"))
    script(shims / "python3.11", "#!/bin/sh\necho 'python3.11: command not found' >&2\nexit 127\n")
    script(impostors / "python3.11", PYTHON.format(version="3.8"))
    path = f"{shims}:{impostors}:{checkout.tools}"
    assert f"from Python: {managed}" in checkout.setup(PATH=path).stdout
    shutil.rmtree(checkout.venv)
    script(good / "python3.11", PYTHON.format(version="3.11"))
    assert (
        f"from Python: {good}/python3.11" in checkout.setup(PATH=f"{shims}:{impostors}:{good}:{checkout.tools}").stdout
    )


def test_a_failure_is_one_line_and_the_next_run_rebuilds(checkout: Checkout) -> None:
    checkout.add_uv_and_python()
    done = checkout.setup(UV_FAILS="pip")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "the package index cannot be reached or lacks a package; check the network" in line
    assert line.endswith(f"whole log: {checkout.root}/.venv.log")
    assert "dns error" in (checkout.root / ".venv.log").read_text(encoding="utf-8")
    assert not checkout.stamp.exists()

    rubbish = checkout.venv / "half-written"
    rubbish.touch()
    assert checkout.setup().returncode == 0
    assert not rubbish.exists()
    assert checkout.stamp.exists()


def test_an_environment_without_its_python_is_rebuilt_and_someone_elses_left_alone(checkout: Checkout) -> None:
    checkout.add_uv_and_python()
    checkout.venv.mkdir()
    (checkout.venv / "mine").touch()
    done = checkout.setup()
    assert done.returncode == 1 and "is not from this script: move it away" in done.stderr
    assert (checkout.venv / "mine").exists()
    shutil.rmtree(checkout.venv)
    checkout.setup()
    (checkout.venv / "bin" / "python").unlink()
    assert "make the environment" in checkout.setup().stdout
    assert (checkout.venv / "bin" / "python").exists()


def test_two_at_once_install_once(checkout: Checkout) -> None:
    checkout.add_uv_and_python()
    command = ["bash", str(checkout.root / "scripts" / "setup.sh")]
    environment = {**checkout.environment, "UV_SLEEPS": "0.3"}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert checkout.calls.read_text(encoding="utf-8").count("venv ") == 1


def test_an_interrupted_run_is_made_good(checkout: Checkout) -> None:
    checkout.add_uv_and_python()
    command, slow = ["bash", str(checkout.root / "scripts" / "setup.sh")], {**checkout.environment, "UV_SLEEPS": "30"}
    process = subprocess.Popen(command, env=slow, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: checkout.calls.exists() and "venv" in checkout.calls.read_text(encoding="utf-8"))
    process.send_signal(signal.SIGTERM)
    assert "interrupted; run it again to finish" in process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 130 and not checkout.stamp.exists()
    started = int((checkout.root.parent / "calls.process").read_text(encoding="utf-8"))
    until(lambda: not is_running(started))
    assert checkout.setup().returncode == 0


def run_python(checkout: Checkout, arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `run_python` of common.sh with a Python that prints its arguments and the launcher's ports."""
    own = '#!/bin/sh\n[ "$1" = -c ] && exit 0\n'
    own += '[ "$1" = -W ] && { IFS=,; set -- $CUDA_VISIBLE_DEVICES; echo $#; exit; }\n'  # Paddle finds all GPUs
    own += 'echo "$@"\necho "$PORT_RANGE" "$CUDA_VISIBLE_DEVICES" >&2\nexit 7\n'
    python = script(checkout.root.parent / "own python", own)
    code = f". '{checkout.root}/scripts/common.sh'; ensure_environment || exit; run_python train.py {arguments}"
    return checkout.run("bash", "-c", code, **{"PADDLE_RANKER_PYTHON": str(python), **environment})


LAUNCH = "-u -m paddle.distributed.launch --nproc_per_node"
ONE_GPU = {"CUDA_VISIBLE_DEVICES": "0", "PADDLE_RANKER_NPROC": "3"}


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ("--epochs 1", {}, "-u train.py --epochs 1"),
        ("--epochs 1", {"PADDLE_RANKER_NPROC": "2"}, f"{LAUNCH} 2 train.py --epochs 1"),
        # The launcher refuses --train, which could begin two of its own options.
        ("--train a --test b", {"PADDLE_RANKER_NPROC": "2"}, f"{LAUNCH} 2 train.py --train_file a --test b"),
        ("--train=a --test b", {"PADDLE_RANKER_NPROC": "2"}, f"{LAUNCH} 2 train.py --train_file=a --test b"),
        ("--train a --test b", {}, "-u train.py --train a --test b"),
        ("", {"CUDA_VISIBLE_DEVICES": "0,1,3"}, f"{LAUNCH} 3 train.py"),
        ("", {"CUDA_VISIBLE_DEVICES": "0"}, "-u train.py"),
        ("", {"CUDA_VISIBLE_DEVICES": "-1"}, "-u train.py"),
        ("--device cpu", {"CUDA_VISIBLE_DEVICES": "0,1"}, "-u train.py --device cpu"),
        ("--device=cpu", {"CUDA_VISIBLE_DEVICES": "0,1"}, "-u train.py --device=cpu"),
        ("", {"CUDA_VISIBLE_DEVICES": "0,1", "PADDLE_RANKER_NPROC": "1"}, "-u train.py"),
        ("", {"CUDA_VISIBLE_DEVICES": "0,1", "PADDLE_RANKER_NPROC": "3"}, "there are 2 GPUs"),
        ("--device cpu", ONE_GPU, f"{LAUNCH} 3 train.py --device cpu"),
        ("--device=cpu", ONE_GPU, f"{LAUNCH} 3 train.py --device=cpu"),
        ("", {**ONE_GPU, "CUDA_VISIBLE_DEVICES": ""}, f"{LAUNCH} 3 train.py"),
        ("--device gpu", {**ONE_GPU, "CUDA_VISIBLE_DEVICES": "-1"}, f"{LAUNCH} 3 train.py --device gpu"),
        ("--device xpu", ONE_GPU, f"{LAUNCH} 3 train.py --device xpu"),
        ("", {"PADDLE_RANKER_NPROC": "two"}, "PADDLE_RANKER_NPROC=two"),
        ("", {"PADDLE_RANKER_PYTHON": os.devnull}, "does not run"),
    ],
)
def test_launch_line(checkout: Checkout, arguments: str, environment: dict[str, str], expected: str) -> None:
    done = run_python(checkout, arguments, **environment)
    if not expected.startswith("-u"):
        assert (done.returncode, done.stdout) == (2, "") and expected in done.stderr
        return
    assert (done.stdout.strip(), done.returncode) == (expected, 7), done.stderr
    visible, processes = environment.get("CUDA_VISIBLE_DEVICES", ""), environment.get("PADDLE_RANKER_NPROC")
    if expected.startswith(LAUNCH) and processes and "xpu" not in arguments:  # the launcher wants an entry for each
        visible = ",".join(["-1"] * int(processes))
    assert done.stderr.split() == ["20000:32000"] * expected.startswith(LAUNCH) + [visible] * bool(visible)


@pytest.mark.parametrize(
    ("prints", "gpus", "fragment"),
    [
        ("3", "3", ""),
        ("2", "2", "GPUs here: 3, but Paddle finds 2"),
        ("0", "0", "Paddle finds none: using the CPU"),  # the driver is too old
        ("", "0", "Paddle finds none: using the CPU"),  # the import fails
        ("cpu", "0", "Paddle's CPU build: using the CPU"),
    ],
)
def test_gpus_are_those_that_paddle_finds(checkout: Checkout, prints: str, gpus: str, fragment: str) -> None:
    python = script(checkout.root.parent / "own python", f"#!/bin/sh\necho a warning\necho {prints}\n")
    code = f". '{checkout.root}/scripts/common.sh'; PYTHON='{python}'; usable_gpus"
    done = checkout.run("bash", "-c", code, CUDA_VISIBLE_DEVICES="0,1,2")
    assert done.stdout.strip() == gpus and fragment in done.stderr and bool(fragment) == bool(done.stderr)


LINT = ["ruff check", "ruff format", "mypy"]


@pytest.mark.parametrize(
    ("stack", "arguments", "status", "checks"),
    [
        ("", "", 0, [*LINT, "modern: unit"]),
        ("gpu", "", 0, [*LINT, "gpu: unit"]),
        ("", "--all -x", 0, [*LINT, "documentation site", "modern: all", "complete: all"]),
        ("gpu", "--all", 0, [*LINT, "gpu: all"]),
        ("complete-gpu", "--all", 0, ["complete-gpu: all"]),
        ("complete", "--lint", 1, []),
        ("nvidia", "", 1, []),
    ],
)  # fmt: skip
def test_the_tests_run_on_the_stack_that_is_named(
    checkout: Checkout, stack: str, arguments: str, status: int, checks: list[str]
) -> None:
    (checkout.tools / "getconf").symlink_to(shutil.which("true") or "")
    script(checkout.root / "scripts" / "docs.sh", "#!/bin/sh\n")
    own = {} if stack == "nvidia" else {"PADDLE_RANKER_PYTHON": shutil.which("true") or ""}
    line = ["bash", str(checkout.root / "scripts/test.sh"), *arguments.split()]
    done = checkout.run(*line, PADDLE_RANKER_STACK=stack, **own)
    found = re.findall("^test: (.*?)(?: tests|, parity.*)?: passed in", done.stdout, re.M)
    assert (done.returncode, found) == (status, checks), done.stdout + done.stderr


def test_quick_tests_are_those_of_the_rooms_that_differ(checkout: Checkout) -> None:
    changed = ("paddle_ranker/data/header.py", "paddle_ranker/errors.py", "scripts/a b.sh", "README.md", "gone/x.py")
    (checkout.tools / "sort").symlink_to(shutil.which("sort") or "")
    script(checkout.tools / "git", f"#!/bin/sh\n[ $1 != diff ] || printf '%s\\n' {shlex.join(changed)}\n")
    for name in ("data", "errors", "scripts", "other"):
        (checkout.root / "tests" / name).mkdir(parents=True)
    (checkout.root / "tests" / "test_errors.py").touch()
    answers = 'case "$2" in pytest) echo "$@"; exit 5 ;; mypy) exit 1 ;; esac'
    python = script(checkout.root.parent / "own python", f"#!/bin/sh\n{answers}\n")
    line = ["bash", str(checkout.root / "scripts/test.sh"), "--quick"]
    done = checkout.run(*line, PADDLE_RANKER_PYTHON=str(python))
    assert "not real_data tests/data tests/scripts tests/test_errors.py\n" in done.stdout
    assert "test: modern: quick tests: passed" in done.stdout and "test: mypy: FAILED" in done.stdout
    script(checkout.tools / "git", "#!/bin/sh\n")
    assert "test: no tests: " in checkout.run(*line, PADDLE_RANKER_PYTHON=str(python)).stdout


@pytest.mark.parametrize("status", [0, 3])
def test_the_wheel_is_tried_beside_the_tests(checkout: Checkout, status: int) -> None:
    for name in ("docs", "setup"):
        script(checkout.root / "scripts" / f"{name}.sh", "#!/bin/sh\n")
    tries = f'#!/bin/sh\n[ "$1" != scripts/try_wheel.py ] || {{ echo a wheel; exit {status}; }}\n'
    for stack in (".venv", ".venv-complete"):
        script(checkout.root / stack / "bin" / "python", tries)
    done = checkout.run("bash", str(checkout.root / "scripts/test.sh"), "--all")
    assert done.returncode == bool(status) and "a wheel\ntest: wheel with the newest packages: " in done.stdout
    assert ("FAILED after" in done.stdout) is bool(status)
    own = checkout.run(
        "bash", str(checkout.root / "scripts/test.sh"), "--all", PADDLE_RANKER_PYTHON=shutil.which("true") or ""
    )
    assert own.returncode == 0 and "newest packages: not tried, as PADDLE_RANKER_PYTHON is set" in own.stdout


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        # The user's options override the demo's, under any name.
        ("train_demo pairwise --train_file a b c '' --train my --output x", "train_pairwise.py --train my --output x"),
        ("train_demo pairwise --train_file a b c '' --train_file=mine", "train_pairwise.py --train_file=mine"),
        ("score_demo pairwise evaluate.py --test_file a --init_from_ckpt --test b --model m", "--test b --model m"),
        ("export_demo pairwise output --model m --output o", "export_model.py --model m --output o"),
        ("value_of '--output --save_dir' mine --epochs 1 --save_dir=yours", "yours"),
        ("value_of '--output --save_dir' mine --epochs 1", "mine"),
    ],
)  # fmt: skip
def test_the_scripts_know_every_name_of_an_option(checkout: Checkout, call: str, expected: str) -> None:
    python = script(checkout.root.parent / "own python", '#!/bin/sh\n[ "$1" = -c ] && exit 0\necho "$@"\n')
    done = checkout.demo(call, PADDLE_RANKER_PYTHON=str(python))
    assert done.stdout.strip().endswith(expected) and done.returncode == 0, done.stderr


def test_a_demo_s_model_that_is_not_of_the_last_training_is_used_with_a_word(checkout: Checkout) -> None:
    # An export from before the last training, of this stack whatever is asked.
    python = script(checkout.root.parent / "own python", "#!/bin/sh\nexit 1\n")
    exported, trained = checkout.root / "output", checkout.root / "checkpoint" / "pairwise" / "best"
    for seconds, folder in enumerate((exported, trained), 1_000_000_000):
        script(folder / "ranker.json", "{}")
        os.utime(folder / "ranker.json", (seconds, seconds))
    call = f"PYTHON='{python}'; ensure_export pairwise '' run"
    assert f"{exported} is older than the demo's ranker, {trained}" in checkout.demo(call).stderr
    (exported / "ranker.json").touch()
    assert checkout.demo(call).stderr == ""
    # The best checkpoint of an interrupted training.
    trained = checkout.root / "checkpoint" / "cross_encoder"
    (trained / "best").mkdir(parents=True)
    state = script(trained / "state_20" / "state.json", json.dumps({"progress": {"finished": False}}, indent=1))
    call = "describe cross_encoder; ensure_demo_ranker"
    assert f"the training in {trained} did not finish: bash scripts/train_ce.sh --resume" in checkout.demo(call).stderr
    script(state, json.dumps({"progress": {"finished": True}}, indent=1))
    assert checkout.demo(call).stderr == ""


def test_a_shell_that_searches_for_folders_and_a_python_beside_it_do_not_matter(checkout: Checkout) -> None:
    """If CDPATH is exported, `cd` prints the folder; start_server.sh and test.sh leave the user's folder."""
    script(checkout.root.parent / "own python", '#!/bin/sh\n[ "$1" = -c ] || echo "$@"\n')
    code = '. scripts/common.sh; cd /; ensure_environment && run_python "$ROOT/train.py"'
    done = checkout.run("bash", "-c", code, cwd=str(checkout.root), CDPATH=".", PADDLE_RANKER_PYTHON="../own python")
    assert (done.stdout, done.stderr) == (f"-u {checkout.root}/train.py\n", "")


def test_locks_name_exact_versions_and_hashes_and_no_address() -> None:
    names = {
        "browser.txt",
        "complete-gpu.txt",
        "complete-native.txt",
        "complete-serving.txt",
        "complete.txt",
        "docs.txt",
        "modern.txt",
    }
    locks = [*(REPOSITORY / "requirements").glob("*.txt")]
    assert {lock.name for lock in locks} == names
    for lock in locks:
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text and "--index" not in text
        entries = [entry for entry in text.replace("\\\n", " ").splitlines() if entry and entry[0] not in "# "]
        assert entries and all("==" in entry.split()[0] and "--hash=sha256:" in entry for entry in entries)

"""The command line as a whole: its names, its help, completion, and what it loads to answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperOption
from typer.main import get_command

from tests.pure.test_imports import HEAVY
from workers.cli import app, main

ROOT = Path(__file__).resolve().parents[2]
SLOW = {*HEAVY, "numpy", "rich", "pydantic"}  # to load these takes longer than a help may take

# Scripts of users hold these names. ?: may be left out, *: may be none, +: one or more, !: needed
COMMANDS = {
    "init": "config? --camera --record --microphone --site --timezone --webhook --state --yes",
    "run": "config --scene --state --speed",
    "worker": "STAGE config --instance --recorded --faust --state --scene --speed --sites",
    "replay": (
        "config INPUT* --camera --microphone --start --site --source --since --until --from"
        " --config --state --out! --speed --deliver --json"
    ),
    "explain": (
        "config INPUT* --camera --microphone --start --site --source --since --until --config"
        " --state --at --incident --page --json"
    ),
    "record": "config --out! --site --for --since --state --json",
    "observations": (
        "config INPUT* --since --until --site --source --kind --all --utc --state --camera"
        " --microphone --start --json"
    ),
    "diff": (
        "BEFORE AFTER? --ignore --score-tolerance --time-tolerance --config --from --rules --json"
    ),
    "sweep": (
        "config INPUT* --set! --since --until --verdicts --label --picture --site --source"
        " --state --camera --microphone --start --json"
    ),
    "check": "config --strict --words --json",
    "doctor": "config? --state --json",
    "report": "site text --author! --config --url --state",
    "mode": "site mode? --for --by --config --url --state --json",
    "snooze": "site rule? --for --by! --end --config --url --state --json",
    "schema": "NAME --yaml",
    "webhooks test": "config name? --enable --state --json",
    "webhooks enable": "config name --state --json",
    "weights list": "names* --config --json",
    "weights pull": "names* --config --json",
    "weights verify": "names* --config --json",
    "weights recommend": "config --connect --seconds --json",
    "topics create": "config --dry-run --grow --shrink",
    "topics list": "config --json",
    "dead list": "config --site --subscriber --since --state --json",
    "dead retry": "config ID* --all --site --subscriber --since --state --json",
    "compose": "media --scenes! --seed! --out! --manifest --duration --anomalies --splits --quiet",
    "features": "config SCENE+ --out! --split",
    "export": "config --since! --until --state --out!",
    "review": "file ID* --all --right --wrong --unsure --label --json",
    "train": "FILE+ --out! --base --network --name --seed --epochs --per-hour --device --json",
    "evaluate": "FILE* --head --config --clips --manifest --report --least --json",
    "demo": "--scene --config --page --open",
    "version": "--json",
}
PANELS = {
    "Daily use": "init run check doctor report mode snooze schema demo version weights",
    "Recordings": "replay explain record observations diff sweep",
    "Subscribers": "webhooks dead",
    "Learning": "compose features export review train evaluate",
    "Kafka": "worker topics",
}


def declared(command: Any, path: tuple[str, ...] = ()) -> dict[str, str]:
    """What our commands take, written as in COMMANDS."""
    if hasattr(command, "commands"):
        found: dict[str, str] = {}
        for name, each in command.commands.items():
            found |= declared(each, (*path, name))
        return found
    words = []
    for param in command.params:
        if isinstance(param, TyperOption):
            words += [param.opts[0] + "!" * param.required, *param.opts[1:], *param.secondary_opts]
        else:
            number = ("?" if param.nargs == 1 else "*", "" if param.nargs == 1 else "+")
            words.append(param.display_name_raw + number[param.required])
    return {" ".join(path): " ".join(words)}


def test_commands_options_and_positions_keep_their_names() -> None:
    def shape(line: str) -> tuple[list[str], set[str]]:
        words = line.split()
        return [w for w in words if w[:1] != "-"], {w for w in words if w[:1] == "-"}

    found = declared(get_command(app))
    assert {name: shape(line) for name, line in found.items()} == {
        name: shape(line) for name, line in COMMANDS.items()
    }


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_the_help_of_a_command_names_all_that_it_takes(
    capsys: pytest.CaptureFixture[str], command: str, asked: str
) -> None:
    assert main([*command.split(), asked]) == 0
    said, nothing = capsys.readouterr()
    assert nothing == ""
    assert said.startswith(f"Usage: fusewatch {command} ")
    for word in COMMANDS[command].split():
        assert f"  {word.rstrip('?*+!')} " in said, word


def test_the_help_lists_every_command_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for option in ("--version", "--install-completion", "--show-completion", "--help"):
        assert option in said
    _, *sections = said.split("\n\n")[2:]
    listed = {}
    for section in sections:
        title, *lines = section.splitlines()
        listed[title.rstrip(":")] = " ".join(x.split()[0] for x in lines if x[2] != " ")
    assert listed == PANELS


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fusewatch {metadata.version('fusewatch')}\n"


# Wrong use


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("chek office.yaml", "no such command 'chek'. Did you mean 'check', 'schema'?"),
        ("webhooks tset", "no such command 'tset'. Did you mean 'test'?"),
        ("check --jsn office.yaml", "no such option: --jsn (Possible options: --json)"),
        ("report office text --auth me", "no such option: --auth (Possible options: --author)"),
        ("worker visoin office.yaml", "did you mean 'vision'?"),
        ("features office.yaml s --out o --split tran", "did you mean 'train'?"),
        ("replay office.yaml s", "missing option '--out'"),
        ("replay office.yaml s --out --json", "'--out': '--json' is an option, and a value is"),
        ("run office.yaml --scene", "option '--scene' requires an argument"),
        ("compose clips --scenes 1.5 --seed 1 --out o", "'--scenes': '1.5' is no whole number"),
        ("train a.jsonl --out o --per-hour few", "'--per-hour': 'few' is no number"),
        ("compose m --scenes 1 --seed 1 --out o --splits 1-2", "with slashes: 60/15/25"),
        ("review a.jsonl 5e --right --wrong", "only one of --right, --wrong and --unsure"),
        ("check a b", "got unexpected extra argument(s) (b)"),
        ("check --json=yes a", "option '--json' does not take a value"),
    ],
)
def test_wrong_use_is_one_line_that_says_what_is_right(
    capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    assert main(line.split()) == 2
    nothing, said = capsys.readouterr()
    assert nothing == ""
    assert said.count("\n") == 1
    if line.startswith(("run", "worker")):  # JSON, as all that they say
        said = f"fusewatch: {json.loads(said)['message']}"
    assert said.startswith("fusewatch: ")
    assert says in said
    assert "(usage: fusewatch " in said


def test_the_usage_names_the_options_that_must_be_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["report", "office"]) == 2
    usage = "usage: fusewatch report --author NAME [OPTIONS] site text;"
    assert usage in capsys.readouterr().err


@pytest.mark.parametrize("name", ["--odd.yaml", "caf\udce9.yaml"])
def test_a_file_may_have_any_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text((ROOT / "deploy/examples/office.yaml").read_text())
    assert main(["check", "--json", "--", name]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


# As processes


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs lines of bash that may call `fusewatch`, in a home of their own."""
    program = tmp_path / "bin/fusewatch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m workers.cli "$@"\n')
    program.chmod(0o755)
    env = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
    }

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "--norc", "-c", script], cwd=tmp_path, env=env, text=True,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    return run


Shell = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("fusewatch doc", "doctor"),
        ("fusewatch webhooks t", "test"),
        ("fusewatch replay a.yaml --o", "--out"),
        ("fusewatch worker v", "vision"),
        ("fusewatch features a.yaml --split t", "train test"),
        ("fusewatch train --network a", "attention"),
    ],
)
def test_bash_completes_a_word(shell: Shell, words: str, completed: str) -> None:
    done = shell(f"""
        source <(_FUSEWATCH_COMPLETE=source_bash fusewatch)
        complete -p fusewatch || exit 1
        COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _fusewatch_completion fusewatch
        echo "${{COMPREPLY[@]}}"
    """)
    assert done.stderr == ""
    registered, said = done.stdout.splitlines()
    assert registered == "complete -o default -F _fusewatch_completion fusewatch"
    assert said == completed


def test_a_completion_script_is_shown_and_installed(shell: Shell, tmp_path: Path) -> None:
    shown = shell("fusewatch --show-completion; echo $?").stdout
    assert "complete -o default -F _fusewatch_completion fusewatch" in shown
    assert shown.endswith("\n0\n")
    assert shell("fusewatch --install-completion; echo $?").stdout.endswith("\n0\n")
    assert "_fusewatch_completion" in (tmp_path / ".bash_completions/fusewatch.sh").read_text()


def test_zsh_gets_a_script_and_words_with_their_help(shell: Shell) -> None:
    assert (
        "compdef _fusewatch_completion fusewatch"
        in shell("_FUSEWATCH_COMPLETE=source_zsh fusewatch").stdout
    )
    assert (
        '"doctor":"Look at devices'
        in shell(
            "_TYPER_COMPLETE_ARGS='fusewatch doc' _FUSEWATCH_COMPLETE=complete_zsh fusewatch"
        ).stdout
    )


def loaded(*words: str, **env: str) -> set[str]:
    """The packages that a process of these words has loaded at its end."""
    code = (
        "import sys\nfrom workers.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*(name for name, it in sys.modules.items() if it), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT, env={**os.environ, **env}, text=True, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("words", ["--help", "--version", "replay --help", "dead retry -h"])
def test_an_answer_about_ourselves_loads_nothing_slow(words: str) -> None:
    assert not loaded(*words.split()) & (SLOW | {"yaml", "msgspec"})


def test_completion_loads_nothing_slow() -> None:
    bash = {"COMP_WORDS": "fusewatch replay a.yaml --o", "COMP_CWORD": "3"}
    zsh = {"_TYPER_COMPLETE_ARGS": "fusewatch we"}
    found = loaded(_FUSEWATCH_COMPLETE="complete_bash", **bash)
    found |= loaded(_FUSEWATCH_COMPLETE="complete_zsh", **zsh)
    assert not found & (SLOW | {"yaml", "msgspec"})


def test_a_command_takes_its_words_without_pydantic() -> None:
    found = loaded("check", "deploy/examples/office.yaml", "--json")
    assert "yaml" in found
    assert not found & SLOW


def test_who_reads_only_a_part_of_the_output_sees_no_error(shell: Shell) -> None:
    for words in ("--help", "weights list", "version"):
        done = shell(f"fusewatch {words} | head -n 0; echo ${{PIPESTATUS[0]}}")
        assert (done.stdout, done.stderr) == ("0\n", "")


def test_output_that_cannot_be_written_is_one_line(shell: Shell) -> None:
    done = shell("fusewatch version > /dev/full")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
    assert shell("fusewatch version >&-").returncode == 0


INSIDE = """
import signal, sys
from workers import cli
from workers.config import loader
def examine(path):
    key = "".join(reversed("wpterc3s"))
    {happens}
loader.examine = examine
sys.exit(cli.main())
"""


def inside(happens: str) -> subprocess.CompletedProcess[str]:
    """A process in which something happens while a command works."""
    return subprocess.run(
        [sys.executable, "-c", INSIDE.format(happens=happens), "check", "office.yaml"],
        cwd=ROOT, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def test_ctrl_c_ends_a_command_without_a_trace() -> None:
    # A shell makes what it starts in the background ignore SIGINT
    heeds = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    done = inside(f"{heeds}; signal.raise_signal(signal.SIGINT)")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_traceback_of_a_defect_shows_no_values() -> None:
    done = inside("raise RuntimeError('a defect')")
    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: a defect\n")
    assert "s3cretpw" not in done.stderr

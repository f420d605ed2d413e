"""The completions, asked for as a person does: a shell on a terminal, words and the tab key."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import debian
from deployment import ROOT

FOLDER = ROOT / "completions"
SECONDS = 20

# What is typed before the tab key, and what the line must then say.
CASES = (
    ("mlops mig", "migrate"),
    ("mlops backup ver", "backup verify"),
    ("mlops cleanup und", "cleanup undo"),
    ("mlops migrate sqlite-to-pg --cert", "migrate sqlite-to-pg --certificate"),
    ("mlops health --output ta", "health --output table"),
    ("mlops backup verify --output j", "backup verify --output json"),
    ("mlops --outp", "--output"),
)
# clap's script for fish gives no value of a flag that stands before the command.
BEFORE_THE_COMMAND = ("mlops --output n", "--output nagios")
# What two presses of it list.
LISTED = (
    ("mlops health --output ", ("table", "json", "nagios", "prometheus", "markdown")),
    ("mlops models ", ("list", "show", "history")),
)


class Terminal:
    """A shell on a terminal of its own; `mlops` in it tells what it was called with."""

    def __init__(self, words: list[str], environment: dict[str, str]):
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            os.execve(words[0], words, {"TERM": "dumb", "PATH": os.environ["PATH"], "COLUMNS": "200", **environment})
        self.read = ""

    def type(self, text: str) -> None:
        os.write(self.handle, text.encode())

    def wait(self, pattern: str) -> str:
        """What is read until the pattern is seen; it is taken away."""
        until = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.read, re.S)):
            left = until - time.monotonic()
            assert left > 0, f"{pattern!r} was not seen in {self.read!r}"
            if select.select([self.handle], [], [], left)[0]:
                try:
                    self.read += os.read(self.handle, 65_536).decode(errors="replace")
                except OSError as gone:
                    raise AssertionError(f"the shell ended: {self.read!r}") from gone
        text, self.read = self.read[: found.end()], self.read[found.end() :]
        return text

    def close(self) -> None:
        os.close(self.handle)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


def at_a_terminal(name: str, words: list[str], environment: dict[str, str], begin: str) -> None:
    terminal = Terminal(words, environment)
    try:
        # The echo of the line does not hold the word itself.
        terminal.type(f'{begin}\nmlops() {{ echo "asked:" "$*."; }}; PS1=; echo is-"ready"\n')
        terminal.wait("is-ready")
        for typed, wanted in (*CASES, BEFORE_THE_COMMAND):
            terminal.type(f"{typed}\t\n")
            said = terminal.wait(r"asked: [^\n]*\.\r?\n")
            got = re.search(r"asked: ([^\n]*?) ?\.\r?\n", said)[1]
            assert got == wanted, f"{name}: {typed!r} became {got!r}, not {wanted!r}"
        for typed, wanted in LISTED:
            terminal.type(f"{typed}\t\t")
            terminal.wait("".join(rf"(?=.*\b{word}\b)" for word in wanted))
            terminal.type("\x15echo list-\"over\"\n")
            terminal.wait("list-over")
    finally:
        terminal.close()


def in_bash(work: Path) -> None:
    shell = ["/bin/bash", "--norc", "--noprofile", "-i"]
    # The list of a second tab is not paged, and comes without asking.
    settings = ("page-completions off", "completion-query-items 0", "bell-style none", "enable-bracketed-paste off")
    plain = "; ".join(f"bind 'set {setting}'" for setting in settings)
    at_a_terminal("bash", shell, {"HOME": str(work)}, f"{plain}; . {FOLDER}/mlops.bash")
    found = Path("/usr/share/bash-completion/bash_completion")
    if not found.exists():
        try:
            found = debian.root() / "usr/share/bash-completion/bash_completion"
        except (debian.Failure, OSError) as failure:
            print(f"skipped: bash-completion is not here and cannot be fetched: {failure}", file=sys.stderr)
            return
    # Found by its name when it is first asked for, as in /usr/share/bash-completion/completions.
    (work / "completions").mkdir()
    (work / "completions/mlops").symlink_to(FOLDER / "mlops.bash")
    environment = {"HOME": str(work), "BASH_COMPLETION_USER_DIR": str(work)}
    at_a_terminal("bash with bash-completion", shell, environment, f"{plain}; . {found}")


def in_zsh(work: Path) -> None:
    found = debian.program("zsh", "bin/zsh")
    if found is None:
        return
    program, environment = found
    if environment:
        # Unpacked: its functions and modules are not where it was built to look for them.
        folder = program.parent.parent
        modules = next((folder / "usr/lib").glob("*-linux-gnu/zsh/*"))
        places = f"module_path=({modules})\nfpath=({folder}/usr/share/zsh/functions/**/*(/))\n"
        (work / ".zshenv").write_text(places)
    begin = f"fpath=({FOLDER} $fpath); autoload -U compinit; compinit -u -D; unsetopt beep"
    environment = {"HOME": str(work), "ZDOTDIR": str(work), **environment}
    at_a_terminal("zsh", [str(program), "-d", "-i"], environment, begin)


def in_fish(work: Path) -> None:
    found = debian.program("fish", "usr/bin/fish")
    if found is None:
        return
    program, environment = found
    # Unpacked, its functions are not where it was built to look for them.
    functions = program.parent.parent / "share/fish/functions"
    begin = f"set -p fish_function_path {functions}; source {FOLDER}/mlops.fish"
    environment = {"HOME": str(work), "PATH": os.environ["PATH"], **environment}
    for typed, wanted in (*((typed, (wanted.split()[-1],)) for typed, wanted in CASES), *LISTED):
        # It lists what could stand in the place of the last word, each with its help after a tab.
        words = [program, "--no-config", "-c", f"{begin}; complete --do-complete '{typed}'"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0 and not done.stderr, done
        got = {line.split("\t")[0] for line in done.stdout.splitlines()}
        assert set(wanted) <= got, f"fish: {typed!r} gives {sorted(got)}"
        assert "demo" not in got, f"fish: {typed!r} gives {sorted(got)}"


def completions(arguments) -> None:
    """Each shell, on a terminal, completes commands, flags and their values."""
    for shell in (in_bash, in_zsh, in_fish):
        work = arguments.work / shell.__name__
        work.mkdir()
        shell(work)

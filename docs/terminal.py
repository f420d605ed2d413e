#!/usr/bin/env python3
"""The picture of the README: what mlops says on a terminal, as an SVG that needs nothing but itself.

    python3 docs/terminal.py MLOPS docs/terminal.svg [ARGUMENT...]

runs MLOPS ARGUMENT... (`demo`, where none is given) on a pseudo-terminal of 100 columns, and draws what was printed, its
colours and the command. Standard library only. The one in the repository is `health` on a stack whose champion has lost
its files:

    python3 docs/terminal.py target/release/mlops docs/terminal.svg health --tracking-uri http://localhost:5000 \
        --backend-store-uri sqlite:////srv/mlflow/mlflow.db --artifact-root /srv/mlflow/artifacts
"""

import fcntl
import os
import pty
import re
import shlex
import struct
import sys
import termios
from pathlib import Path
from xml.sax.saxutils import escape

COLUMNS, ROWS = 100, 60
WIDTH, HEIGHT, MARGIN = 8.4, 18, 20
COLOURS = {
    "31": "#f47067", "32": "#6bc46d", "33": "#daaa3f", "34": "#6cb6ff", "35": "#dcbdfb", "36": "#76e3ea", "37": "#cdd9e5",
    "90": "#768390", "91": "#ff938a", "92": "#8ddb8c", "93": "#eac55f", "94": "#96d0ff",
}


def run(command: list[str]) -> str:
    """What the command prints on a terminal."""
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.environ.pop("NO_COLOR", None)
        os.environ["TERM"] = "xterm-256color"
        os.execv(command[0], command)
    said = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.waitpid(process, 0)
    return said.decode().replace("\r\n", "\n")


def spans(line: str):
    """The pieces of a line with the column where they begin and how they look."""
    style: set[str] = set()
    column = 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b["):
            codes = part[2:-1].split(";")
            style = set() if codes in ([""], ["0"]) else style | set(codes)
            continue
        for piece in re.finditer(r"\S+(?: \S+)*", part):
            yield column + piece.start(), piece.group(), style
        column += len(part)


def look(style: set[str]) -> str:
    colour = next((COLOURS[code] for code in sorted(style) if code in COLOURS), None)
    given = f' fill="{colour}"' if colour else ""
    given += ' font-weight="bold"' if "1" in style else ""
    return given + (' opacity="0.65"' if "2" in style else "")


def draw(lines: list[str]) -> str:
    wide, high = COLUMNS * WIDTH + 2 * MARGIN, len(lines) * HEIGHT + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high}" width="{wide:.0f}" height="{high}">',
        f'<rect width="{wide:.0f}" height="{high}" rx="8" fill="#22272e"/>',
        '<g fill="#cdd9e5" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" xml:space="preserve">',
    ]
    for row, line in enumerate(lines):
        y = MARGIN + row * HEIGHT + 14
        for column, text, style in spans(line):
            # Columns stay columns, whatever font there is.
            place = f'x="{MARGIN + column * WIDTH:.1f}" y="{y}" textLength="{len(text) * WIDTH:.1f}"'
            out.append(f"<text {place}{look(style)}>{escape(text)}</text>")
    return "\n".join([*out, "</g>", "</svg>", ""])


def typed(arguments: list[str]) -> list[str]:
    """The command as one types it, a flag and its value never apart."""
    lines = ["$ mlops"]
    for word in re.findall(r"--\S+(?: (?!--)\S+)?|\S+", shlex.join(arguments)):
        if len(lines[-1]) + len(word) > COLUMNS - 3:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += " " + word
    return [f"\x1b[1m{line}\x1b[0m" for line in lines]


def main() -> None:
    binary, picture, *arguments = sys.argv[1:]
    arguments = arguments or ["demo"]
    said = run([binary, *arguments, "--progress", "none"])
    Path(picture).write_text(draw([*typed(arguments), *said.rstrip("\n").split("\n")]))


if __name__ == "__main__":
    main()

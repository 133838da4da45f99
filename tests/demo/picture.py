"""Draws docs/run.svg: a dry run and a run of the example roster, as a terminal shows them.

    python -m tests.demo.picture

The text is the real output of a throwaway machine, colours included.
"""

import io
import re
import sys

from rich.console import Console
from rich.text import Text

from tests.demo.__main__ import ROSTER, prepare
from tests.machine.machine import CHECKOUT, Machine
from tests.machine.rootfs import rootfs

PICTURE = CHECKOUT / "docs/run.svg"
WIDTH = 132
# No font is loaded from elsewhere: the picture shows with whatever monospace font its reader has.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, monospace; font-size: {char_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
<rect fill="#14161a" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g></g></svg>
"""


def screen(machine: Machine, *argv: str) -> str:
    """Return what a command shows on a terminal, the prompt and the command before it."""
    shown = machine.run("script", "--quiet", "--command", " ".join(argv), "/dev/null", env={"TERM": "xterm-256color"})
    return f"\x1b[1m# {' '.join(argv)}\x1b[0m\n{shown.out.replace(chr(13), '')}\n"


def main() -> int:
    """Draw."""
    (deb,) = (CHECKOUT / "dist").glob("rosterd_*.deb")
    with Machine(rootfs("bookworm")) as machine:
        prepare(machine)
        machine.install(deb)
        machine.run("systemctl", "stop", "rosterd.path")
        machine.push(ROSTER, "/etc/rosterd/roster.yaml")
        text = screen(machine, "rosterd", "--dry-run")
        machine.run("rosterd")
        text += screen(machine, "rosterd")
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(re.sub(r"\n+$", "\n", text)), no_wrap=True, overflow="ellipsis", crop=True)
    console.save_svg(str(PICTURE), title="rosterd", code_format=FORMAT, unique_id="run")
    sys.stdout.write(f"{PICTURE.relative_to(CHECKOUT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m levada demo` shows Levada at work; everything else is a word of `manage.py levada`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = """\
usage: python -m levada demo [--rows N] [--port N] [--no-browser] [--check]

Levada carries a Django project's committed changes into other stores.

  python -m levada demo            load a demo, build its replica, verify it, serve it
  python -m levada demo --help     the demo's options

In a project of your own:

  python manage.py levada --help   run, status, verify, rebuild, doctor and more
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo, or say what there is; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["demo"]:
        from levada.demo import main as demo

        return int(demo(words[1:]) or 0)
    if words[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if words[:1] == ["--version"]:
        from levada import __version__

        print(f"levada {__version__}")
        return 0
    if words:
        command = " ".join(words)
        print(f"{words[0]!r} needs a project. Run: python manage.py levada {command}\n")
    print(USAGE, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

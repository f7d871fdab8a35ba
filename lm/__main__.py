"""The entry point: Ctrl-C is answered before anything else is loaded."""

from __future__ import annotations

from toybench.interrupt import INTERRUPT


def main() -> None:
    """Run the command line and end the process."""
    INTERRUPT.install()
    from lm.cli import main
    from toybench.shell import leave

    leave(main())


if __name__ == "__main__":
    main()

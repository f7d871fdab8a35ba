"""The entry point of the command: Ctrl-C is answered before anything else is loaded, and until the process is gone."""

from __future__ import annotations

from toybench.interrupt import INTERRUPT


def main() -> None:
    """Run the command line and end the process."""
    INTERRUPT.install()
    from toybench.cli import main
    from toybench.shell import leave

    leave(main())


if __name__ == "__main__":
    main()

"""`python -m eventpush` and the command `eventpush`."""

from eventpush.cli import cli


def main() -> None:
    """Runs the command line and ends the process with its exit status."""
    cli(prog_name="eventpush")


if __name__ == "__main__":
    main()

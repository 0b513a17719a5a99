"""`python -m eventpush` and the command `eventpush`."""

from eventpush.cli import cli


def main() -> None:
    """Run the command line and exit with its status."""
    cli(prog_name="eventpush")


if __name__ == "__main__":
    main()

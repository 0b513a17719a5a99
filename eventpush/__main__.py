"""`python -m eventpush` and the command `eventpush`."""

from eventpush.cli import cli


def main() -> None:
    """Run the command line and end the process with its exit status."""
    cli(prog_name="eventpush")


if __name__ == "__main__":
    main()

"""The one command, `bebop VERB`."""


def main() -> int:
    """Run the command line."""
    return 0

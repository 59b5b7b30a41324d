"""What ends a command: one line for the user, and an exit code."""


class CommandFailed(Exception):
    """The message is the line; empty = everything has been said already."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code

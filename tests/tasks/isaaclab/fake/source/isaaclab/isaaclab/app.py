"""Stand-in for isaaclab.app."""


class AppLauncher:
    """Starts nothing, and counts how often it was asked to."""

    started = 0

    def __init__(self, launcher_args=None, **kwargs):
        AppLauncher.started += 1
        self.kwargs = kwargs

    @property
    def app(self):
        return self

"""The one kind of progress bar, in terminal and notebook."""

from tqdm.auto import tqdm


class Bar(tqdm):
    """A bar of tqdm that leaves no thread behind, shown or not.

    tqdm's own starts a monitor, for good, that updates bars which guess wrongly how often they
    are worth an update. Ours are updated each time.
    """

    monitor_interval = 0

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, miniters=1, **kwargs)

"""The only kind of progress bar, for terminals and notebooks."""

import sys

from tqdm.auto import tqdm


class Bar(tqdm):
    """A bar of tqdm that leaves no thread behind, shown or not.

    tqdm's own bars start a monitor thread, which never ends. It updates bars that guess wrongly
    after how many steps to update. Ours need no monitor, because they check at every step.
    """

    monitor_interval = 0

    def __init__(self, *args: object, **kwargs: object) -> None:
        if sys.stderr is None:  # as in programs without a console
            kwargs["disable"] = True
        super().__init__(*args, miniters=1, **kwargs)

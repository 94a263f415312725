"""How many processor threads the small work on faces uses: one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch works in the calling thread inside, and as before afterwards.

    The pieces are so small that threads gain little, while decoder and encoder keep every core busy: a thread that waits for
    a colleague who is not running makes a piece of 5 ms last 200 ms.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

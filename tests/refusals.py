"""What has to be refused."""

from collections.abc import Callable

import pytest


def refused(error: type[Exception], words: str, call: Callable[..., object], *arguments: object, **options: object) -> None:
    with pytest.raises(error, match=words):
        call(*arguments, **options)

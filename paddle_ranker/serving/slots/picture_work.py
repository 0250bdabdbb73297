"""Decode the pictures of requests in separate threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, TypeVar

from paddle_ranker.retrieval.work import turns
from paddle_ranker.serving.core.faults import UNPROCESSABLE, Fault
from paddle_ranker.serving.core.threads import StoppableWork

R = TypeVar("R")
_THREADS = 2


class PictureWork:
    """Threads that decode pictures. Work ends early if its caller leaves."""

    def __init__(self) -> None:
        self._work = StoppableWork(_THREADS, name="pictures", what="the pictures were decoded")

    async def read(
        self, pictures: Sequence[bytes], fields: Sequence[str], deadline: float, read: Callable[[bytes], R]
    ) -> list[R]:
        """Decode pictures. Return `read(picture)` for each of them.

        pictures: bytes of the pictures' files
        fields: names of the pictures in errors
        deadline: time on `time.monotonic()`'s clock
        read: called with a file's bytes; its `ImageError` becomes a `Fault`

        Raises `Fault` for the first file that is damaged, too large or no picture. Raises also what `StoppableWork.run`
        raises.
        """

        def read_all() -> list[R]:
            from paddle_ranker.data.files.pictures import ImageError  # which loads Pillow

            results = []
            for picture, field in turns.checked(zip(pictures, fields)):
                try:
                    results.append(read(picture))
                except ImageError as error:
                    problem = error.message.removeprefix("the image: ")
                    raise Fault(UNPROCESSABLE, problem, field=field) from error
            return results

        return await self._work.run(sum(map(len, pictures)), deadline, read_all)

"""Images that cannot be read: named, counted, and tolerated up to a stated share."""

from __future__ import annotations

import logging

import attrs

from nnmpq.data.errors import DataError

logger = logging.getLogger(__name__)
NAMED = 5


@attrs.define
class CorruptImages:
    """The images of a data set that could not be read so far; keep one over all epochs of a run.

    Args:
        total: images of the data set.
        share: share of them that may be corrupt, 0 to 1; a data set needs one sound image at least.
        found: what is wrong, by number of the image.

    Example:
        >>> corrupt = CorruptImages(1000, share=0.002)
        >>> corrupt.add(7, "a/7.jpg: truncated")
        >>> corrupt.next_sound(6), corrupt.next_sound(7)
        (6, 8)
    """

    total: int
    share: float = attrs.field(default=0.01, validator=[attrs.validators.ge(0), attrs.validators.le(1)])
    found: dict[int, str] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self.found)

    @property
    def allowed(self) -> int:
        """How many may be corrupt."""
        return min(int(self.share * self.total), self.total - 1)

    def add(self, index: int, message: str) -> None:
        """Count an image, once, and name it in the log.

        Args:
            index: its number.
            message: which file, and what is wrong with it.

        Raises:
            DataError: more are corrupt than may be.
        """
        if index in self.found:
            return
        self.found[index] = message
        logger.warning("skipped, %d of at most %d: %s", len(self.found), self.allowed, message)
        if len(self.found) > self.allowed:
            raise DataError(
                f"{len(self.found)} of {self.total} images cannot be read, more than the share of {self.share:g} that "
                f"may be skipped: {self._named()}; mend or remove them"
            )

    def next_sound(self, index: int) -> int:
        """Return this image, or the first after it that is not known to be corrupt; after the last comes the first."""
        while index in self.found:
            index = (index + 1) % self.total
        return index

    def _named(self) -> str:
        messages = [self.found[index] for index in sorted(self.found)]
        more = f"; and {len(messages) - NAMED} more" if len(messages) > NAMED else ""
        return "; ".join(messages[:NAMED]) + more

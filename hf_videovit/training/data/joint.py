"""Batches of images and of videos in turn, from two streams."""

import math
from collections.abc import Iterator

from .streaming import Batch, ClipStream


# A stream's place is one number; that of the images stands above this many videos.
IMAGE_PLACE = 2**32
PASSES = 1000  # through the images, at most, in one epoch of the videos


class JointStream:
    """
    Batches of videos and of images in turn, every one of a single kind. An epoch is one of the videos; for each the
    images begin in a new order, and once more when they run out.

    The next batch is one of images where fewer of their batches came than `ratio` times those of videos: with 1 they
    alternate, with 0.5 images follow every second batch of videos. All of it can be told from the place in the two
    streams, so a run goes on from any batch as if it had not stopped.

    Args:
        videos ([`ClipStream`]):
            Batches of videos.
        images ([`ClipStream`]):
            Batches of images, with `drop_last`.
        ratio (`float`):
            Batches of images for each of videos.
    """

    def __init__(self, videos: ClipStream, images: ClipStream, ratio: float):
        share = images.source.share_size(images.rank, images.world)
        if share is None or share < images.batch_size:
            raise ValueError(
                f"`image_data` needs at least a batch of {images.batch_size} images for each of {images.world} "
                f"processes, this one has {share}"
            )
        self.videos, self.images, self.ratio = videos, images, ratio
        self.source, self.rank, self.world = videos.source, videos.rank, videos.world
        self.pass_size = share
        self.position = 0

    def num_batches(self, rank: int | None = None) -> int | None:
        """Batches of both kinds in an epoch, while every file can be read; `None` if unknown."""
        count = self.videos.num_batches(rank)
        if count is None:
            return None
        size = self.source.share_size(self.rank if rank is None else rank, self.world) or 0
        videos = count if self.videos.drop_last else size / self.videos.batch_size
        return count + math.ceil(self.ratio * videos - 1e-9)

    def num_read(self, position: int) -> int:
        """Files of both kinds that stand before a place."""
        return sum(divmod(position, IMAGE_PLACE))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """
        The batches of an epoch.

        Args:
            epoch (`int`):
                Its number.
            start (`int`, *optional*, defaults to 0):
                What `position` was when the last batch came.
        """
        images_seen, videos_seen = divmod(start, IMAGE_PLACE)
        videos = self.videos.epoch(epoch, videos_seen)
        images = self._image_batches(epoch, images_seen)
        self.position = start
        while True:
            images_seen, videos_seen = divmod(self.position, IMAGE_PLACE)
            due = self.ratio * videos_seen / self.videos.batch_size
            behind = self._image_batches_before(images_seen) < due - 1e-9
            batch = next(images) if behind else next(videos, None)
            if batch is None:
                return
            videos_seen = videos_seen if behind else self.videos.position
            images_seen = self._images_seen if behind else images_seen
            self.position = images_seen * IMAGE_PLACE + videos_seen
            yield batch

    def _image_batches_before(self, place: int) -> int:
        """Batches of images that a place among them makes; what does not fill one at a pass's end is passed over."""
        number, inside = divmod(place, self.pass_size)
        per_pass = self.pass_size // self.images.batch_size
        return number * per_pass + min(inside // self.images.batch_size, per_pass)

    def _image_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Batches of images without end, in passes; `_images_seen` is the place among them."""
        number, inside = divmod(start, self.pass_size)
        while number < PASSES:
            before = self._images_seen = number * self.pass_size + inside
            for batch in self.images.epoch(epoch * PASSES + number, inside):
                self._images_seen = number * self.pass_size + self.images.position
                yield batch
            if self._images_seen == before and inside == 0:
                raise RuntimeError("None of the training images can be read; see the run's logs")
            number, inside = number + 1, 0
        raise RuntimeError(f"`image_data` would be gone through more than {PASSES} times in an epoch: use more images")

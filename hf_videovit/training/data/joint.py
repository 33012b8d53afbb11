"""Alternating batches of images and videos from two streams."""

import math
from collections.abc import Iterator

from .streaming import Batch, ClipStream


# The position of a stream is one number: position among the images * IMAGE_PLACE + position among the videos.
IMAGE_PLACE = 2**32
PASSES = 1000  # largest number of passes through the images in one epoch of the videos


def count_image_batches(num_videos: int, batch_size: int, drop_last: bool, ratio: float) -> int:
    """
    Batches of images among an epoch's batches of videos.

    Args:
        num_videos (`int`):
            Videos of all processes.
        batch_size (`int`):
            Videos in a batch of each process, summed over them.
        drop_last (`bool`):
            Whether an incomplete last batch of videos is left out.
        ratio (`float`):
            Batches of images for each of videos.

    Returns:
        `int`
    """
    videos = num_videos // batch_size if drop_last else num_videos / batch_size
    return math.ceil(ratio * videos - 1e-9)


class JointStream:
    """
    Alternating batches of videos and images, each of a single kind. An epoch is a pass through the videos. In every
    epoch, and whenever all images have been used, the images start again in a new order.

    The next batch contains images if there were fewer batches of images than `ratio` times those of videos. With 1
    they alternate; with 0.5 a batch of images follows every second batch of videos. The choice depends only on the
    positions in the two streams, so a run resumes exactly at any batch, and all processes choose the same.

    Args:
        videos ([`ClipStream`]):
            Batches of videos.
        images ([`ClipStream`]):
            Batches of images, with `drop_last`.
        ratio (`float`):
            Batches of images per batch of videos.

    Raises:
        ValueError: there are fewer images than a batch.
    """

    def __init__(self, videos: ClipStream, images: ClipStream, ratio: float):
        if images.num_positions is None or images.num_positions < images.stride:
            raise ValueError(
                f"`image_data` needs at least a batch of {images.batch_size} images for each of {images.world} "
                f"processes, got {images.source.num_samples}"
            )
        self.videos, self.images, self.ratio = videos, images, ratio
        self.source, self.rank, self.world = videos.source, videos.rank, videos.world
        self.sources = [videos.source, images.source]
        self.pass_size = images.num_positions
        self.position = 0

    def num_batches(self, rank: int | None = None) -> int | None:
        """
        Number of batches of both kinds in an epoch, if every file can be read.

        Args:
            rank (`int`, *optional*):
                Number of the process; this one by default.

        Returns:
            `int` or `None`: `None` if unknown.
        """
        count = self.videos.num_batches(rank)
        if count is None:
            return None
        size = self.videos.num_positions or 0
        return count + count_image_batches(size, self.videos.stride, self.videos.drop_last, self.ratio)

    def num_read(self, position: int) -> int:
        """
        Number of files of both kinds before a position.

        Args:
            position (`int`):
                A position of the stream.
        """
        images, videos = divmod(position, IMAGE_PLACE)
        return self.images.num_read(images) + self.videos.num_read(videos)

    def example(self) -> Batch | None:
        """See [`~BatchStream.example`]."""
        return self.videos.example()

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """
        The batches of an epoch.

        Args:
            epoch (`int`):
                Number of the epoch.
            start (`int`, *optional*, defaults to 0):
                Position to resume at: `position` after the last batch.

        Returns:
            `Iterator[Batch]`: the batches.
        """
        images_seen, videos_seen = divmod(start, IMAGE_PLACE)
        videos = self.videos.epoch(epoch, videos_seen)
        images = self._image_batches(epoch, images_seen)
        self.position = start
        while True:
            images_seen, videos_seen = divmod(self.position, IMAGE_PLACE)
            due = self.ratio * videos_seen / self.videos.stride
            behind = self._image_batches_before(images_seen) < due - 1e-9
            batch = next(images) if behind else next(videos, None)
            if batch is None:
                return
            videos_seen = videos_seen if behind else self.videos.position
            images_seen = self._images_seen if behind else images_seen
            self.position = images_seen * IMAGE_PLACE + videos_seen
            yield batch

    def _image_batches_before(self, place: int) -> int:
        """Batches before a position among the images. An incomplete batch at the end of a pass is skipped."""
        number, inside = divmod(place, self.pass_size)
        per_pass = self.pass_size // self.images.stride
        return number * per_pass + min(inside // self.images.stride, per_pass)

    def _image_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Endless batches of images, in passes. `_images_seen` is the position among them."""
        number, inside = divmod(start, self.pass_size)
        while number < PASSES:
            self._images_seen = number * self.pass_size + inside
            some = inside > 0
            for batch in self.images.epoch(epoch * PASSES + number, inside):
                self._images_seen = number * self.pass_size + self.images.position
                some = some or len(batch) > 0
                yield batch
            if not some and self.world == 1:
                raise RuntimeError("None of the training images can be read; see the logs of the run")
            number, inside = number + 1, 0
        raise RuntimeError(f"`image_data` is used more than {PASSES} times in an epoch: use more images")

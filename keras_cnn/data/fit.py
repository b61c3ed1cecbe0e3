"""How a picture of any shape becomes a square."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from keras_cnn.errors import UserError, nearest

if TYPE_CHECKING:
    from PIL import Image

# crop: the centre square, what lies outside of it is lost. pad: the whole picture in its own
# proportions, with a grey border. squash: the whole picture, its proportions lost.
Fit: TypeAlias = Literal["crop", "pad", "squash"]
FITS: tuple[Fit, ...] = get_args(Fit)
BORDER = (127, 127, 127)


def check(fit: str) -> None:
    """Refuses what is no fit.

    Raises:
        UserError: It is not one of `FITS`.
    """
    if fit not in FITS:
        raise UserError(f"no fit {fit!r}: {nearest(fit, FITS)}")


def scaled_size(width: int, height: int, image_size: int, fit: Fit) -> tuple[int, int]:
    """Width and height, in pixels, that a picture is scaled to.

    Args:
        width: Of the picture, in pixels, and so is the next.
        height: Likewise.
        image_size: Width and height of the square.
        fit: `crop`, `pad` or `squash`.

    Returns:
        Both are `image_size` or, where a border fills up what is left, one is less.
    """
    if fit != "pad":
        return image_size, image_size
    longer = max(width, height)
    return tuple(max(1, round(image_size * side / longer)) for side in (width, height))


def square(image: Image.Image, image_size: int, fit: Fit) -> Image.Image:
    """An RGB picture as a square, scaled (bicubic, antialiased) to a size.

    Args:
        image: In RGB.
        image_size: Width and height of the square, in pixels.
        fit: `crop`, `pad` or `squash`. A square picture of the size keeps its pixels in each.
    """
    from PIL import Image

    if fit == "crop" and image.width != image.height:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    size = scaled_size(*image.size, image_size, fit)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    if size == (image_size, image_size):
        return image
    whole = Image.new("RGB", (image_size, image_size), BORDER)
    whole.paste(image, ((image_size - size[0]) // 2, (image_size - size[1]) // 2))
    return whole

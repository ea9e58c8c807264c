"""Image operations on whole batches of 8-bit images, with one strength per image, on CPU or GPU.

The operations are those of AutoAugment (Cubuk et al., CVPR 2019,
https://arxiv.org/abs/1805.09501), in the arithmetic of the Python imaging library, and Cutout
(DeVries and Taylor, 2017, https://arxiv.org/abs/1708.04552). Images are uint8 (B, Ch, H, W). Every
function returns new images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue


# ---- tones


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Return the images multiplied by their factors (B,)."""
    return _blend(images, torch.zeros(()), factors)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Return the images with contrast about the mean grey value changed by their factors (B,)."""
    return _blend(images, _grey(images).float().mean(dim=(1, 2, 3), keepdim=True), factors)


def color(images: Tensor, factors: Tensor) -> Tensor:
    """Return the images with colour changed by factors (B,): 0 is grey, 1 leaves the image."""
    return images if images.shape[1] == 1 else _blend(images, _grey(images), factors)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Return the images with sharpness changed by factors (B,): 0 is smoothed, 1 leaves the image.

    The outermost pixels stay as they are.
    """
    if min(images.shape[2:]) < 3:
        return images
    channels = images.shape[1]
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    kernel = (kernel / 13).expand(channels, 1, 3, 3)
    smooth = images.float()
    smooth[:, :, 1:-1, 1:-1] = functional.conv2d(smooth, kernel, groups=channels).round()
    return _blend(images, smooth, factors)


def autocontrast(images: Tensor) -> Tensor:
    """Return the images with every channel stretched to 0 .. 255; a flat channel is kept."""
    low = images.amin(dim=(2, 3), keepdim=True).float()
    width = images.amax(dim=(2, 3), keepdim=True).float() - low
    stretched = (images - low) * (255 / width.clamp(min=1))
    return torch.where(width > 0, stretched, images.float()).clamp(0, 255).to(torch.uint8)


def equalize(images: Tensor) -> Tensor:
    """Return the images with the histogram of every channel equalised.

    A channel with fewer than 255 pixels below its brightest value stays as it is.
    """
    batch, channels, height, width = images.shape
    flat = images.reshape(batch * channels, -1).long()  # (B * Ch, H * W)
    counts = torch.zeros(len(flat), 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    brightest = counts.gather(1, flat.amax(dim=1, keepdim=True))
    step = (height * width - brightest) // 255  # (B * Ch, 1)
    below = counts.cumsum(dim=1) - counts  # pixels darker than each value
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    table[:, 0] = 0
    even = torch.where(step > 0, table.gather(1, flat), flat)
    return even.to(torch.uint8).view(images.shape)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Return the images with only the highest ``bits`` (B,) bits of every value kept."""
    masks = 256 - torch.pow(2, 8 - bits)
    return images & masks.to(torch.uint8).view(-1, 1, 1, 1)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Return the images with all values from the threshold (B,) upwards inverted."""
    return torch.where(images >= thresholds.view(-1, 1, 1, 1), 255 - images, images)


def invert(images: Tensor) -> Tensor:
    """Return the negatives of the images."""
    return 255 - images


# ---- places


def warp(images: Tensor, matrices: Tensor, *, fill: int, bicubic: bool = False) -> Tensor:
    """Return the images under affine maps, such as rotations and shifts.

    Args:
        images: uint8 (B, Ch, H, W).
        matrices: (B, 2, 3). Each matrix maps the coordinates (x, y, 1) of a pixel of the result to
            those of its source, in pixels from the image's middle, x to the right, y downwards.
        fill: Value of pixels whose source lies outside the image.
        bicubic: True: interpolate the 4 x 4 pixels around the source; False: take the nearest.
    """
    batch, channels, height, width = images.shape
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x = (torch.arange(width, device=images.device) - middle_x).expand(height, width)
    y = (torch.arange(height, device=images.device) - middle_y)[:, None].expand(height, width)
    grid = torch.stack([x, y, torch.ones_like(x)]).view(3, -1)  # (3, H * W)
    if bicubic:
        source = matrices.to(grid.device, torch.float64) @ grid.double()
        middle = torch.tensor([middle_x, middle_y], dtype=torch.float64, device=grid.device)
        return _bicubic(images, source + middle[:, None], fill)
    source = matrices.to(grid) @ grid  # (B, 2, H * W)
    columns = (source[:, 0] + middle_x).round().long()
    rows = (source[:, 1] + middle_y).round().long()
    is_inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    flat = images.reshape(batch, channels, -1)
    taken = flat.gather(2, index[:, None].expand(-1, channels, -1))
    return torch.where(is_inside[:, None], taken, fill).view(images.shape)


def _bicubic(images: Tensor, places: Tensor, fill: int) -> Tensor:
    """Return the values of images at places (B, 2, H * W), interpolated along x, then along y.

    The arithmetic is in double precision, truncated to integers, as in the imaging library. Pixels
    beyond an edge have the values of the edge.
    """
    batch, channels, height, width = images.shape
    x, y = places.unbind(1)
    is_inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)  # (B, H * W)
    first = places.floor()
    along_x, along_y = (places - first)[:, :, None].unbind(1)  # (B, 1, H * W)
    first_x, first_y = first.long().unbind(1)
    flat = images.reshape(batch, channels, -1).double()
    lines = []
    for down in range(-1, 3):
        row = (first_y + down).clamp(0, height - 1) * width
        taps = []
        for across in range(-1, 3):
            index = row + (first_x + across).clamp(0, width - 1)
            taps.append(flat.gather(2, index[:, None].expand(-1, channels, -1)))
        lines.append(_cubic(taps, along_x))
    taken = _cubic(lines, along_y).clamp(0, 255).to(torch.uint8)
    return torch.where(is_inside[:, None], taken, fill).view(images.shape)


def _cubic(values: list[Tensor], share: Tensor) -> Tensor:
    """Return the cubic interpolation between the second and the third of four values.

    The cubic's slope at a value is the difference of the value's two neighbours: Keys' convolution
    with a = -1, IEEE Transactions on Acoustics, Speech and Signal Processing 29 (6), 1981.
    """
    a, b, c, d = values
    return b + share * (c - a + share * (2 * (a - b) + c - d + share * (b - a - c + d)))


def rotation(degrees: Tensor) -> Tensor:
    """Return the matrices (B, 2, 3) for :func:`warp` of anticlockwise turns by ``degrees`` (B,)."""
    angles = torch.deg2rad(degrees)
    matrices = torch.zeros(len(degrees), 2, 3)
    matrices[:, 0, 0] = matrices[:, 1, 1] = angles.cos()
    matrices[:, 1, 0] = angles.sin()
    matrices[:, 0, 1] = -angles.sin()
    return matrices


def translation(across: Tensor, down: Tensor) -> Tensor:
    """Return the matrices (B, 2, 3) for :func:`warp` of shifts by whole pixels right and down."""
    matrices = torch.eye(2, 3).repeat(len(across), 1, 1)
    matrices[:, 0, 2], matrices[:, 1, 2] = -across.trunc(), -down.trunc()
    return matrices


def shear_y(slopes: Tensor, width: int) -> Tensor:
    """Return the matrices (B, 2, 3) for :func:`warp` of vertical shears with fixed left edge.

    A column x pixels from the left edge moves up by ``slope * x``, with slopes (B,).
    """
    matrices = torch.eye(2, 3).repeat(len(slopes), 1, 1)
    matrices[:, 1, 0], matrices[:, 1, 2] = slopes, slopes * width / 2
    return matrices


def cutout(images: Tensor, centres: Tensor) -> Tensor:
    """Return the images with a square of half the side set to 0, clipped at the edges.

    ``centres`` (2, B) are given as shares of height and width.
    """
    height, width = images.shape[2:]
    rows = _outside(centres[0], height).to(images.device)[:, None, :, None]
    columns = _outside(centres[1], width).to(images.device)[:, None, None, :]
    return images * (rows | columns)


def _outside(centres: Tensor, size: int) -> Tensor:
    """Return bool (B, size): True outside a window of size // 2 around each centre."""
    places = torch.arange(size)
    first = (centres * size).floor()[:, None] - size // 4
    return (places < first) | (places >= first + size // 2)


def _grey(images: Tensor) -> Tensor:
    """Return grey values (B, 1, H, W): luma of three channels, else the mean of the channels."""
    if images.shape[1] == 1:
        return images
    weights = torch.full((images.shape[1],), 1 / images.shape[1])
    if images.shape[1] == 3:
        weights = torch.tensor(_LUMA)
    values = images * weights.to(images.device).view(-1, 1, 1)
    return values.sum(dim=1, keepdim=True).to(torch.uint8)


def _blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    share = factors.to(images.device).view(-1, 1, 1, 1)
    mixed = share * images + (1 - share) * other.to(images.device)
    return mixed.clamp(0, 255).to(torch.uint8)

"""Colour spaces that pictures were converted from: exact both ways, and found where they are."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import diffcodec
from diffcodec import container
from diffcodec.errors import FormatError
from diffcodec.exact import files
from diffcodec.transforms import interpolation, spaces, triangle
from diffcodec.transforms.interpolation import INTERPOLATION
from diffcodec.transforms.spaces import SPACES

JPEG, WEBP, PHOTO_CD, JPEG_DOUBLED, WEBP_DOUBLED = range(5)
CUTS = {JPEG_DOUBLED: (5, 6, 7), WEBP_DOUBLED: (8, 9, 10)}
"""The same, cut out at an odd column, an odd row, and both."""
CONVERTED = pytest.mark.parametrize("number", range(3), ids=lambda n: SPACES[n].name)
NUMBERED = pytest.mark.parametrize("number", range(len(SPACES)))


def noise(seed: int, *shape: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.uint8)


def colours(number: int, planes: np.ndarray) -> np.ndarray:
    """RGB uint8 [3, H, W] of Y, Cr and Cb."""
    rgb = spaces.to_rgb(SPACES[number], torch.from_numpy(planes))
    return rgb.numpy().astype(np.uint8)


def photograph(number: int, height: int = 60, width: int = 80) -> np.ndarray:
    """RGB uint8 [3, H, W] of smooth planes with a little noise, some of it clipped."""
    rows, columns = np.mgrid[:height, :width]
    luma = 20 + 3 * rows + np.random.default_rng(1).integers(0, 6, (height, width))
    red, blue = 120 + columns // 3, 150 - rows // 4 + luma % 3
    transform = SPACES[number].chroma
    if transform is not INTERPOLATION:
        half = torch.from_numpy(np.stack((red, blue))[:, ::2, ::2].astype(np.int32))
        details = torch.zeros((2, 3, *half.shape[1:]), dtype=torch.int32)
        red, blue = transform.inverse(half, details, height, width).numpy()
    return colours(number, np.stack((luma, red, blue)).clip(0, 255).astype(np.uint8))


def image(rgb: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)))


@CONVERTED
@given(seed=st.integers(0, 999), height=st.integers(1, 9), width=st.integers(1, 9))
@settings(deadline=None, max_examples=25)
def test_what_a_space_makes_comes_back_from_it(number, seed, height, width):
    rgb = colours(number, noise(seed, 3, height, width))
    planes = spaces.from_rgb(SPACES[number], rgb)
    assert planes is not None
    assert np.array_equal(colours(number, planes), rgb)


@CONVERTED
def test_colours_that_are_not_clipped_come_from_what_they_were_made_of(number):
    planes = noise(2, 3, 1, 4000, low=110, high=150)
    rgb = colours(number, planes)
    found = spaces.from_rgb(SPACES[number], rgb)
    clear = ((rgb > 0) & (rgb < 255)).all(0)
    same = (found == planes).all(0)[clear]
    assert same.mean() > 0.99  # of JPEG's a few make the same colour as another


@NUMBERED
def test_a_space_is_found_until_one_colour_is_none_of_its(number):
    rgb = photograph(number)
    assert ((rgb == 0) | (rgb == 255)).any()
    found, planes = spaces.find(rgb)
    assert found == number
    assert np.array_equal(colours(number, planes), rgb)
    for value in range(256):
        rgb[:, 30, 40] = 90, value, 110
        if spaces.from_rgb(SPACES[number], rgb[:, 30:31, 40:41]) is None:
            break
    assert spaces.find(rgb) is None


def test_few_colours_and_greys_are_of_no_space():
    assert spaces.find(np.repeat(noise(3, 1, 60, 80), 3, 0)) is None
    few = colours(JPEG, noise(4, 3, 1, 50))
    assert spaces.find(np.resize(few, (3, 60, 50))) is None


def test_noise_is_of_no_space():
    assert spaces.find(noise(5, 3, 60, 80)) is None


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (JPEG_DOUBLED, {"format": "JPEG", "quality": 90}),
        (JPEG, {"format": "JPEG", "quality": 90, "subsampling": "4:2:2"}),
        (JPEG, {"format": "JPEG", "quality": 97, "subsampling": 0}),
        (WEBP_DOUBLED, {"format": "WEBP", "quality": 90}),
    ],
)
def test_decoders_make_what_their_space_does(number, options):
    rows, columns = np.mgrid[:200, :300]
    picture = np.stack((rows, columns * 200 // 300, 255 - rows)) + noise(6, 3, 200, 300, high=20)
    buffer = io.BytesIO()
    image(picture.clip(0, 255).astype(np.uint8)).save(buffer, **options)
    decoded = np.array(Image.open(buffer).convert("RGB")).transpose(2, 0, 1)
    found, _ = spaces.find(np.ascontiguousarray(decoded))
    assert found == number


def test_photo_cd_has_the_lightest_grey_at_188():
    luma = np.arange(189, dtype=np.uint8)
    planes = np.stack((luma, np.full(189, 137, np.uint8), np.full(189, 156, np.uint8)))[:, None]
    grey = colours(PHOTO_CD, planes)[:, 0]
    assert (grey == (luma.astype(int) * 13584 // 10000).clip(max=255)).all()
    assert grey[0, -1] == 255


@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 12))
@settings(deadline=None)
def test_interpolation_from_corners_inverts_exactly(seed, height, width):
    picture = torch.from_numpy(noise(seed, 2, height, width).astype(np.int32))
    low, details = interpolation.forward(picture, halved=True)
    assert torch.equal(interpolation.inverse(low, details, height, width, halved=True), picture)


TRIANGLES = pytest.mark.parametrize(
    "how", [part for how in (triangle.JPEG, triangle.WEBP) for part in (how, *triangle.cut(how))]
)


@TRIANGLES
@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 12))
@settings(deadline=None, max_examples=25)
def test_the_triangle_inverts_exactly(how, seed, height, width):
    picture = torch.from_numpy(noise(seed, 2, height, width).astype(np.int32)) - 128
    low, details = triangle.forward(picture, how=how)
    assert torch.equal(triangle.inverse(low, details, height, width, how=how), picture)


@TRIANGLES
@pytest.mark.parametrize(("height", "width"), [(60, 90), (61, 45), (2, 7), (1, 1)])
def test_what_was_doubled_is_found_and_leaves_no_details(how, height, width):
    half = torch.from_numpy(noise(9, 1, -(-height // 2), -(-width // 2), low=90, high=130))
    none = torch.zeros((1, 3, *half.shape[1:]), dtype=torch.int32)
    picture = triangle.inverse(half.to(torch.int32), none, height, width, how=how)
    low, details = triangle.forward(picture, how=how)
    # The outer samples are known less if the picture begins with the second of a pair.
    ends = zip((how.down, how.across), low.shape[1:], strict=True)
    known = [slice(less, count - less) for less, count in ends]
    details, low, half = details[..., *known], low[..., *known], half[..., *known]
    assert int((details != 0).sum()) <= 0.01 * picture.numel()
    assert int((low != half).sum()) <= 0.05 * low.numel()


@pytest.mark.parametrize("number", CUTS)
@pytest.mark.parametrize("corner", [(2, 4), (2, 5), (3, 4), (3, 5)])
def test_where_a_picture_was_cut_out_is_found(number, corner):
    down, across = corner
    part = np.ascontiguousarray(photograph(number, 90, 110)[:, down:81, across:100])
    found, planes = spaces.find(part)
    assert found == (number, *CUTS[number])[2 * (down % 2) + across % 2]
    details = SPACES[found].chroma.forward(torch.from_numpy(planes[1:].astype(np.int32)))[1]
    inside = details[..., :-1, :-1]
    assert int((inside != 0).sum()) <= 0.1 * inside.numel()  # some colours are clipped


def test_a_doubled_edge_has_three_quarters_and_a_quarter():
    low = torch.tensor([[[0, 160]]], dtype=torch.int32)
    none = torch.zeros((1, 3, 1, 2), dtype=torch.int32)
    doubled = triangle.inverse(low, none, 2, 4, how=triangle.WEBP)
    assert doubled[0].tolist() == [[0, 40, 120, 160]] * 2


@TRIANGLES
def test_what_is_cut_out_has_the_samples_of_the_whole(how):
    """But for the last row and column, of which the low band knows one sample only."""
    low = torch.from_numpy(noise(3, 2, 9, 12).astype(np.int32))
    none = torch.zeros((2, 3, 9, 12), dtype=torch.int32)
    whole = triangle.inverse(low, none, 18, 24, how=triangle.Filter(how.odd))
    part = triangle.inverse(low, none, 18 - how.down, 24 - how.across, how=how)
    assert torch.equal(part, whole[:, how.down :, how.across :])


@pytest.mark.parametrize("turn", [(False, False), (False, True), (True, False), (True, True)])
def test_where_chroma_was_interpolated_from_is_found(turn):
    low = torch.from_numpy(noise(7, 2, 20, 30).astype(np.int32))
    details = torch.zeros((2, 3, 20, 30), dtype=torch.int32)
    chroma = interpolation.inverse(low, details, 40, 60, halved=True).numpy().astype(np.uint8)
    axes = [axis for axis, turned in zip((1, 2), turn, strict=True) if turned]
    assert spaces.halved_from(np.flip(chroma, axes)) == turn


@NUMBERED
@pytest.mark.parametrize("options", [{}, {"tile": 64}], ids=["whole", "tiles"])
def test_files_say_it_in_fewer_bytes_and_come_back(number, options):
    rgb = photograph(number)
    data = diffcodec.encode(image(rgb), process="photo", **options)
    assert np.array_equal(diffcodec.decode_array(data).transpose(2, 0, 1), rgb)
    assert diffcodec.info(data, rungs=False).space == SPACES[number].name
    plain = diffcodec.encode(image(rgb), process="photo", rgb=True, **options)
    assert diffcodec.info(plain, rungs=False).space == "RGB"
    assert len(data) < 0.95 * len(plain)
    models = [bytes.fromhex(diffcodec.info(one, rungs=False).model) for one in (data, plain)]
    assert list(map(files.find, models)) == [files.CONVERTED, files.PHOTO]


def test_any_model_codes_what_was_converted(tiny_path):
    rgb = photograph(JPEG)
    data = diffcodec.encode(image(rgb), process="photo", model=tiny_path)
    assert diffcodec.info(data, rungs=False).space == "JPEG's YCbCr"
    own = diffcodec.decode_array(data, model=tiny_path)
    assert np.array_equal(own.transpose(2, 0, 1), rgb)


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_a_turned_picture_takes_about_as_many_bytes(axes):
    rgb = photograph(PHOTO_CD)
    there = len(diffcodec.encode(image(rgb), process="photo"))
    turned = diffcodec.encode(image(np.flip(rgb, axes)), process="photo")
    assert np.array_equal(diffcodec.decode_array(turned).transpose(2, 0, 1), np.flip(rgb, axes))
    assert len(turned) < 1.06 * there


def test_alpha_is_coded_beside_it():
    rgb = photograph(JPEG)
    rgba = np.concatenate((rgb, noise(8, 1, *rgb.shape[1:], low=200))).transpose(1, 2, 0)
    data = diffcodec.encode(np.ascontiguousarray(rgba), process="photo")
    assert diffcodec.info(data, rungs=False).space == "JPEG's YCbCr"
    assert np.array_equal(diffcodec.decode_array(data), rgba)


def test_prefixes_show_the_picture_and_limits_keep_rgb():
    rgb = photograph(JPEG)
    data = diffcodec.encode(image(rgb), process="photo")
    errors = []
    for share in (8, 4, 2):
        shown = diffcodec.decode_array(data[: len(data) // share]).transpose(2, 0, 1)
        errors.append(np.square(shown.astype(float) - rgb).mean())
    assert errors[0] > errors[1] > errors[2]
    last = list(diffcodec.decode_progressive(data))[-1]
    assert np.array_equal(np.array(last.image).transpose(2, 0, 1), rgb)
    limited = diffcodec.encode(image(rgb), process="photo", max_bytes=len(data) // 2)
    assert diffcodec.info(limited, rungs=False).space == "RGB"


def test_nothing_known_is_the_same_grey_with_tiles_and_without():
    rgb = photograph(PHOTO_CD)
    shown = []
    for tile in (0, 64):
        data = diffcodec.encode(image(rgb), process="photo", tile=tile)
        _, start = container.read_header(data)
        shown.append(diffcodec.decode_array(data[:start]))
    assert np.unique(shown[0]).tolist() == [(89024 * 128) >> 16]
    assert np.array_equal(*shown)


def test_a_space_of_other_pictures_is_refused():
    data = bytearray(diffcodec.encode(image(photograph(JPEG)), process="photo"))
    place = 3 + 1 + 4 + 4 + 2  # magic, version and flags, checksum, model, width and height
    assert data[place] == 3
    data[place] = 99
    with pytest.raises(FormatError, match="colour transform 99"):
        diffcodec.decode(bytes(data))
    data[place], data[3] = 3, data[3] & ~3  # grey
    with pytest.raises(FormatError, match="colour transform 3 of L"):
        diffcodec.decode(bytes(data))
    data[place], data[3] = 1, data[3] | 8  # 16 bits
    with pytest.raises(FormatError, match="colour transform 1 of L"):
        diffcodec.decode(bytes(data))

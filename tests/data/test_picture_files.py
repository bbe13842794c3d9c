from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from gan_core.data.pictures import (
    BadPicture,
    PictureFormat,
    expect_large_pictures,
    is_colour,
    read_pictures,
)


def read(path, **options) -> np.ndarray:
    return PictureFormat(**{"channels": 3, **options}).read(str(path))


@pytest.mark.parametrize("kind", ["png", "bmp", "webp", "gif", "tif", "tiff"])
def test_pixels_come_out_as_they_were_saved_with_channels_first(tmp_path, kind):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 5] = (255, 0, 0)
    pixels[3, 0] = (0, 0, 255)
    path = tmp_path / f"picture.{kind}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if kind == "webp" else {}))
    assert np.array_equal(read(path), pixels.transpose(2, 0, 1))


def test_a_jpeg_is_read_up_to_its_loss(tmp_path):
    ramp = np.linspace(0, 255, 32).astype(np.uint8)[None].repeat(32, 0)
    Image.fromarray(ramp).save(tmp_path / "ramp.jpg", quality=95)
    found = read(tmp_path / "ramp.jpg", channels=1)
    assert found.shape == (1, 32, 32)
    assert np.abs(found[0].astype(int) - ramp).max() < 8


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_becomes_white_and_half_of_it_half_white(tmp_path, channels):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = (0, 255, 51)  # black: hidden, opaque, a fifth
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    found = read(tmp_path / "clear.png", channels=channels)
    assert found[0, 0].tolist() == [255, 0, 204]


def test_a_transparent_palette_entry_and_a_transparent_gray_become_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert read(tmp_path / "palette.png")[:, 0].T.tolist() == [[255] * 3, [200, 100, 50]]
    gray = Image.fromarray(np.array([[7, 9]], np.uint8))
    gray.save(tmp_path / "gray.png", transparency=7)
    assert read(tmp_path / "gray.png", channels=1).tolist() == [[[255, 9]]]


def test_the_cameras_orientation_is_honoured(tmp_path):
    pixels = np.zeros((2, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    found = read(tmp_path / "turned.png", channels=1)[0]
    assert np.array_equal(found, np.rot90(pixels, -1))


def test_16_bit_pictures_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read(tmp_path / "deep.png", channels=1).tolist() == [[[0, 1, 128, 255]]]
    assert not is_colour(str(tmp_path / "deep.png"))


@pytest.mark.parametrize(("mode", "value"), [("I", 200), ("F", 0.5)])
def test_pictures_of_32_bits_are_refused(tmp_path, mode, value):
    Image.new(mode, (4, 4), value).save(tmp_path / "wide.tiff")
    with pytest.raises(BadPicture, match="not whole numbers of 8 or 16 bits"):
        read(tmp_path / "wide.tiff", channels=1)
    Image.fromarray(np.full((2, 2), 257 * 200, np.uint16)).save(tmp_path / "deep.tiff")
    assert (read(tmp_path / "deep.tiff", channels=1) == 200).all()


def test_a_transparent_value_of_16_bits_becomes_white(tmp_path):
    values = np.array([[1000, 1001, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "gray.png", transparency=1000)
    assert read(tmp_path / "gray.png", channels=1).tolist() == [[[255, 4, 255]]]
    colours = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0, 0, 0x1234)
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0),
        b"tRNS": colours[:6],
        b"IDAT": zlib.compress(b"\0" + colours),
        b"IEND": b"",
    }
    written = b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in parts.items()
    )
    (tmp_path / "colour.png").write_bytes(b"\x89PNG\r\n\x1a\n" + written)
    assert read(tmp_path / "colour.png")[:, 0].T.tolist() == [[255] * 3, [0, 0, 0x12]]


def test_too_large_a_picture_is_told_as_that_and_one_half_as_large_is_read(tmp_path, monkeypatch):
    Image.new("L", (8, 8), 3).save(tmp_path / "panorama.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 33)  # a warning from there on
    with warnings.catch_warnings(record=True) as told:
        warnings.resetwarnings()
        expect_large_pictures()
        assert (read(tmp_path / "panorama.png", channels=1) == 3).all()
        assert told == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 31)  # twice as much is refused
    with pytest.raises(BadPicture) as caught:
        read(tmp_path / "panorama.png")
    said = str(caught.value)
    assert "panorama.png is too large, over 0 megapixels, the most that is read: " in said
    assert said.endswith(": shrink, cut or remove it, or pass --on-bad-file skip")


def test_the_central_square_is_kept(tmp_path):
    pixels = np.zeros((8, 20), np.uint8)
    pixels[:, 6:14] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (read(tmp_path / "wide.png", channels=1, image_size=8) == 255).all()
    Image.fromarray(pixels.T).save(tmp_path / "high.png")
    assert (read(tmp_path / "high.png", channels=1, image_size=4) == 255).all()


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_two_squares_are_side_by_side_as_the_camera_held_them(tmp_path, orientation, kind):
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 8:] = 255
    upright, exif = Image.fromarray(pixels), Image.Exif()
    ways = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_90 TRANSVERSE ROTATE_270"
    to_stored = [None, *(Image.Transpose[way] for way in ways.split())][orientation - 1]
    stored = upright if to_stored is None else upright.transpose(to_stored)
    exif[0x0112] = orientation
    stored.save(tmp_path / f"pair.{kind}", exif=exif)
    for half, shade in (("left", 0), ("right", 255)):
        found = read(tmp_path / f"pair.{kind}", channels=1, half=half)
        assert found.shape == (1, 8, 8)
        assert (found == shade).all()
    high = tmp_path / f"high.{kind}"  # as it is stored; upright it is one above the other
    exif[0x0112] = 6
    upright.save(high, exif=exif)
    with pytest.raises(BadPicture, match="8 x 16 pixels, which are not two squares"):
        read(high, channels=1, half="left")


def test_halves_of_a_jpeg_that_is_decoded_smaller_hold_nothing_of_each_other(tmp_path):
    pixels = np.zeros((301, 602), np.uint8)
    pixels[:, 301:] = 255
    Image.fromarray(pixels).save(tmp_path / "pair.jpg", quality=100)
    left, right = (
        read(tmp_path / "pair.jpg", channels=1, half=half, image_size=60).astype(int)
        for half in ("left", "right")
    )
    assert left.max() < 8
    assert right.min() > 247


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_shrinking_is_antialiased(tmp_path, kind):
    stripes = np.tile(np.array([[0, 255]], np.uint8), (256, 128))
    Image.fromarray(stripes).save(tmp_path / f"stripes.{kind}", quality=95)
    found = read(tmp_path / f"stripes.{kind}", channels=1, image_size=16).astype(float)
    assert np.abs(found[..., 1:-1] - 127.5).max() < 4


def test_a_large_jpeg_keeps_its_detail(tmp_path):
    x = np.arange(512) * (2 * np.pi / 16)
    waves = np.rint(127.5 + 100 * np.sin(x)[:, None] * np.sin(x)[None]).astype(np.uint8)
    found = []
    for kind in ("png", "jpg"):
        Image.fromarray(waves).save(tmp_path / f"waves.{kind}", quality=95)
        found.append(read(tmp_path / f"waves.{kind}", channels=1, image_size=128).astype(int))
    assert found[0].std() > 40
    assert np.abs(found[0] - found[1]).mean() < 3


@pytest.mark.parametrize(
    ("mode", "colour"), [("1", False), ("L", False), ("LA", False), ("RGB", True), ("P", True)]
)
def test_the_file_says_whether_it_holds_colours(tmp_path, mode, colour):
    Image.new(mode, (2, 2)).save(tmp_path / "picture.png")
    assert is_colour(str(tmp_path / "picture.png")) is colour


def test_a_missing_file_is_bad(tmp_path):
    told = r"gone\.png is no readable picture \(No such file or directory\): repair or remove it"
    with pytest.raises(BadPicture, match=told):
        read(tmp_path / "gone.png")


@pytest.mark.parametrize("side", [4, 96])
def test_many_pictures_keep_their_order_and_the_first_bad_one_is_told(tmp_path, side):
    noise = np.random.RandomState(1).randint(0, 256, (150, side, side, 3)).astype(np.uint8)
    paths = [str(tmp_path / f"{i}.bmp") for i in range(len(noise))]
    for path, pixels in zip(paths, noise, strict=True):
        Image.fromarray(pixels).save(path)
    images, kept = read_pictures(paths, PictureFormat(3), (3, side, side), skip_bad=False)
    assert np.array_equal(images.numpy(), noise.transpose(0, 3, 1, 2))
    assert kept == list(range(150))
    for bad in (140, 70):
        (tmp_path / f"{bad}.bmp").write_text("no")
    with pytest.raises(BadPicture, match=r"70\.bmp"):
        read_pictures(paths, PictureFormat(3), (3, side, side), skip_bad=False)
    images, kept = read_pictures(paths, PictureFormat(3), (3, side, side), skip_bad=True)
    assert kept == [i for i in range(150) if i not in (70, 140)]
    assert np.array_equal(images.numpy(), noise[kept].transpose(0, 3, 1, 2))

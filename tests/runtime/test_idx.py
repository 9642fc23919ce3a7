"""The idx form: read whole or refused, and one checksum for every form of the same array."""

import gzip
import hashlib

import numpy as np
import pytest

from hpcdl.runtime.idx import DamagedFile, idx_header, idx_sha256, read_idx

IMAGES = (np.arange(5 * 4 * 3) * 7 % 256).astype(np.uint8).reshape(5, 4, 3)
CONTENT = b"\0\0\x08\x03" + b"\0\0\0\x05\0\0\0\x04\0\0\0\x03" + IMAGES.tobytes()


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_a_raw_and_a_gzipped_file_give_the_array(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(CONTENT) if name.endswith(".gz") else CONTENT)
    read = read_idx(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, IMAGES)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_each_type_of_the_form_survives_in_the_byte_order_of_this_machine(tmp_path, dtype):
    array = np.array([[1, 2, 3], [4, 5, 100]], dtype)
    path = tmp_path / "array"
    path.write_bytes(idx_header(array) + array.astype(array.dtype.newbyteorder(">")).tobytes())
    read = read_idx(path)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)


def test_the_checksum_is_that_of_the_file_and_does_not_depend_on_the_order_in_memory():
    assert idx_sha256(IMAGES) == hashlib.sha256(CONTENT).hexdigest()
    assert idx_sha256(np.asfortranarray(IMAGES)) == idx_sha256(IMAGES)


def test_the_checksum_covers_the_shape():
    assert idx_sha256(IMAGES.reshape(5, 3, 4)) != idx_sha256(IMAGES)


def test_an_array_that_idx_cannot_hold_has_no_checksum():
    with pytest.raises(ValueError, match="uint64"):
        idx_sha256(np.zeros(3, np.uint64))


@pytest.mark.parametrize("num_bytes", [0, 3, 10, 15, 16, len(CONTENT) - 1])
def test_a_raw_file_cut_short_is_refused(tmp_path, num_bytes):
    path = tmp_path / "images"
    path.write_bytes(CONTENT[:num_bytes])
    with pytest.raises(DamagedFile, match="images: expected .* found "):
        read_idx(path)


def test_the_message_has_the_bytes_expected_and_found(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DamagedFile, match="expected 76 bytes .* found 75"):
        read_idx(path)


def test_a_file_with_more_than_its_header_says_is_refused(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(CONTENT + b"\0")
    with pytest.raises(DamagedFile, match="expected 76 bytes .* found 77"):
        read_idx(path)


@pytest.mark.parametrize("left_out", [1, 8, 20, 40])
def test_a_gzip_file_cut_short_is_refused(tmp_path, left_out):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(CONTENT)[:-left_out])
    with pytest.raises(DamagedFile, match=r"images\.gz: expected a whole gzip file, found \d+ bytes"):
        read_idx(path)


def test_a_flipped_bit_in_a_gzip_file_is_refused(tmp_path):
    content = bytearray(gzip.compress(CONTENT))
    content[-6] ^= 1  # In the checksum of the contents.
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match="CRC"):
        read_idx(path)


def test_a_web_page_in_the_place_of_the_data_is_refused(tmp_path):
    for name in ("page", "page.gz"):
        path = tmp_path / name
        path.write_bytes(b"<html>Sign in to this network</html>")
        with pytest.raises(DamagedFile, match=f"{name}: expected"):
            read_idx(path)


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "images.gz")

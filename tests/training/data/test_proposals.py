"""Files of detected people, and pickles that are read without being run."""

import json
import os
import pickle  # noqa: TID251  (to write what must be read or refused)
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_videovit.training.data.proposals import (
    read_alphaction_people,
    read_fair_people,
    read_internvideo_people,
    read_movies,
    read_plain_pickle,
)


class Runs:
    """Pickles to a call of `os.mkdir`."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


TYPES = ["float64", "float32", "float16", ">f8", "int64", "uint8", "bool"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("pickles") / "a.pkl"


@settings(max_examples=80, deadline=None)
@given(
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
    kinds=st.lists(st.sampled_from(TYPES), max_size=4),
    rows=st.integers(0, 6),
    order=st.sampled_from("CF"),
)
def test_every_protocol_gives_the_arrays_that_were_written(file, protocol, kinds, rows, order):
    rng = np.random.default_rng(rows)
    written = {
        f"v,{place:04d}": np.asarray(rng.uniform(0, 2, (rows, 5)).astype(kind), order=order)
        for place, kind in enumerate(kinds)
    }
    file.write_bytes(pickle.dumps(written, protocol=protocol))
    read = read_plain_pickle(file)
    assert list(read) == list(written)
    for key, array in written.items():
        assert read[key].dtype == array.dtype
        np.testing.assert_array_equal(read[key], array)


def test_plain_values_and_scalars_are_read(file):
    written = [
        1,
        -5,
        2**70,
        0.5,
        "text",
        b"bytes",
        None,
        True,
        (1, 2, 3, 4),
        {"a": [1]},
        np.float32(0.25),
        np.int64(3),
    ]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        file.write_bytes(pickle.dumps(written, protocol=protocol))
        assert read_plain_pickle(file) == written


def test_python_2_wrote_bytes_as_text(file):
    """Protocol 2 as Python 2 wrote it: `str` for names and for the content of arrays."""
    content = struct.pack("<5d", 0.1, 0.2, 0.3, 0.4, 0.9)
    file.write_bytes(
        b"\x80\x02}U\x06v,0902cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x05\x86cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89U" + bytes([len(content)]) + content + b"tbs."
    )
    np.testing.assert_array_equal(read_plain_pickle(file)["v,0902"], [[0.1, 0.2, 0.3, 0.4, 0.9]])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run(file, tmp_path, protocol):
    target = tmp_path / "made"
    for wrap in (lambda one: one, lambda one: {"v,0902": one}, lambda one: {one: np.zeros(2)}):
        file.write_bytes(pickle.dumps(wrap(Runs(target)), protocol=protocol))
        with pytest.raises(ValueError, match=r"it names (posix|nt)\.mkdir.*Nothing in it was run"):
            read_plain_pickle(file)
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"(S'1'\ni__builtin__\neval\n.",  # INST
        b"(c__builtin__\neval\nS'1'\no.",  # OBJ
        b"\x80\x02c__builtin__\nbytes\n)\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pid\n.",  # PERSID
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
        b"cnumpy\nndarray\n(K\x01tR.",  # a name that is known, but not called by arrays
        b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.",
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        b"]h\x00.",  # nothing was stored
        b"K\x01K\x02a.",  # append to a number
        b"\x80\x04K\x01",
        b"t.",
        b"R.",
        b"b.",
        b"",
        b"PK\x03\x04",
    ],
)
def test_what_arrays_do_not_need_is_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not read"):
        read_plain_pickle(file)


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()], dtype=object),
        np.zeros(2, dtype=[("a", "f4")]),
        np.array(["2020"], dtype="M8[s]"),
        np.array(["text"]),
        np.zeros(2, dtype=complex),
        range(3),
        set(),
    ],
    ids=lambda value: type(value).__name__ + str(getattr(value, "dtype", "")),
)
def test_arrays_of_other_things_than_numbers_are_refused(file, value):
    file.write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match="is not read"):
        read_plain_pickle(file)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 400), junk=st.binary(max_size=40))
def test_damaged_files_are_refused_or_read_but_nothing_else(file, cut, junk):
    whole = pickle.dumps({"v,0902": np.arange(10.0).reshape(2, 5)}, protocol=2)
    file.write_bytes(whole[:cut] + junk + whole[cut + len(junk) :])
    with suppress(ValueError):  # anything else is a fault
        read_plain_pickle(file)


def test_people_of_fair(file):
    boxes = np.array([[0.1, 0.1, 0.5, 0.5, 0.95], [0.2, 0.2, 0.6, 0.6, 0.5]])
    content = {"v,0902": boxes, "v,0903": np.zeros((0, 5)), "w,1798": boxes[:1], "gone,0902": boxes}
    file.write_bytes(pickle.dumps(content))
    found = read_fair_people(file, {"v": (100, 200), "w": (10, 10)}, offset=900)
    assert [(row.video, row.time, row.scores.tolist()) for row in found.rows] == [("v", 2, [0.95]), ("w", 898, [0.95])]
    np.testing.assert_allclose(found.rows[0].boxes, [[10, 20, 50, 100]])
    assert found.missing == {"gone": 1} and found.skipped == {"scores below 0.9": 2}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({("v", 902): np.zeros((1, 5))}, "keys must be like 'video,0902'"),
        ({"v_0902": np.zeros((1, 5))}, "keys must be like 'video,0902'"),
        ({"v,0902": np.zeros((1, 4))}, r"4 corners and a score, got the shape \(1, 4\)"),
        ([np.zeros((1, 5))], "must hold a dictionary, got list"),
    ],
)
def test_dictionaries_that_users_made_are_named(file, content, reason):
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=reason):
        read_fair_people(file, {"v": (10, 10)})


def test_people_of_internvideo(tmp_path):
    path = tmp_path / "a.json"
    people = [
        {"image_id": "a_b_000010_000020_12.5", "bbox": [0.1, 0.1, 0.5, 1.2], "score": 0.9},
        {"image_id": "a_b_000010_000020_12.5", "bbox": [0.1, 0.1, 0.5, 0.5], "score": 0.1},
    ]
    path.write_text(json.dumps(people))
    (row,) = read_internvideo_people(path, {"a_b_000010_000020": (100, 100)}).rows
    assert row.time == 12.5
    np.testing.assert_allclose(row.boxes, [[10, 10, 50, 100]])


def test_movies_have_the_numbers_of_their_lines(tmp_path):
    path = tmp_path / "movies.txt"
    path.write_text("-5KQ66BBWC4.mkv\n0f39OWEqJ24.mp4\n\n")
    assert read_movies(path) == ["-5KQ66BBWC4", "0f39OWEqJ24"]
    people = tmp_path / "people.json"
    people.write_text(json.dumps([{"image_id": 20902, "bbox": [0, 0, 5, 5], "score": 0.9}]))
    with pytest.raises(ValueError, match="movie 2, `movies` has 2 names"):
        read_alphaction_people(people, read_movies(path), {})


def test_boxes_of_one_pixel_have_no_area_in_the_official_code(tmp_path):
    path = tmp_path / "people.json"
    boxes = [[5, 5, 1, 9], [5, 5, 1.5, 9], [-20, 5, 10, 9], [95, 5, 20, 9]]
    path.write_text(json.dumps([{"image_id": 902, "bbox": box, "score": 0.9} for box in boxes]))
    found = read_alphaction_people(path, ["v"], {"v": (100, 50)})
    np.testing.assert_allclose(found.rows[0].boxes, [[5, 5, 6.5, 14], [95, 5, 100, 14]])
    assert found.skipped == {"boxes without area": 2}

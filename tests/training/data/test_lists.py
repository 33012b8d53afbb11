"""Lists as people have them: encodings, empty values, faults of single rows, and parts of films."""

import io
import json
import tarfile
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_videovit import VideoMAEV2VideoProcessor
from hf_videovit.modeling.video_decoding import VideoDecodingError, decode_video
from hf_videovit.training.arguments import DataArguments
from hf_videovit.training.data.opening import list_splits, load_evaluation_source, load_sources, open_source
from hf_videovit.training.preparing.writing import prepare
from tests.clips import write_clip


RATE = 10


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """40 frames at 10 a second. The grey level of frame `i` is `40 + 4 * i`."""
    levels = (40 + 4 * np.arange(40, dtype=np.uint8))[:, None, None, None]
    return write_clip(tmp_path_factory.mktemp("film") / "film.mp4", np.tile(levels, (1, 32, 32, 3)), fps=RATE)


def frame_numbers(video):
    return np.rint((decode_video(video).frames[:, 16, 16].mean(-1) - 40) / 4).astype(int).tolist()


def listed(path, text):
    path.write_text(text, encoding="utf-8")
    return open_source(path)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1", "utf-16-le", "utf-16-be", "mac-roman"]
)
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_lists_are_read_right_or_their_encoding_is_refused(tmp_path, encoding, suffix):
    path = tmp_path / f"clips{suffix}"
    text = "video,label\na.mp4,run\nb.mp4,café\n"
    if suffix == ".json":
        text = json.dumps([{"video": "a.mp4", "label": "run"}, {"video": "b", "label": "café"}], ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    if encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert open_source(path).label_names == ["café", "run"]
    else:
        with pytest.raises(
            ValueError, match=rf"`data` .*clips{suffix}' has a text encoding other than UTF-8.* save it"
        ):
            open_source(path)


def test_files_are_found_in_either_form_of_unicode(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    (tmp_path / f"{decomposed}.mp4").touch()
    source = listed(tmp_path / "clips.csv", f"video,label\n{composed}.mp4,run\n")
    assert source[0].video == str(tmp_path / f"{decomposed}.mp4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,label\na.mp4,run\nb.mp4,run, fast\n", "row 2 after the line of names, has more values than the 2"),
        ('video,label\na.mp4,"run\nb.mp4,jump\n', "not valid CSV: unexpected end of data"),
        ("video,label,label\na.mp4,run,jump\n", "names the column 'label' more than once"),
        ("video,label,start,end\na.mp4,run,1,2\na.mp4,run,3,2\n", "row 2: `end` of a part must be after `start` 3"),
        ("video,label,start,end\na.mp4,run,soon,2\n", "row 1: start and end must be numbers or h:mm:ss, got 'soon'"),
        ("video,label,start\na.mp4,run,-1\n", "row 1: `start` of a part must be at least 0"),
    ],
)
def test_faults_of_rows_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"`data` .*clips.csv'.*{message}"):
        listed(tmp_path / "clips.csv", text)


def test_faults_of_json_are_named(tmp_path):
    (tmp_path / "clips.json").write_text('[{"video": "a.mp4",\n "label": }]')
    with pytest.raises(ValueError, match=r"clips.json' is not valid JSON: .* in line 2"):
        open_source(tmp_path / "clips.json")
    (tmp_path / "clips.jsonl").write_text('{"video": "a.mp4"}\n\n{"video": "a.mp4"\n')
    with pytest.raises(ValueError, match=r"clips.jsonl', row 3, is not valid JSON"):
        open_source(tmp_path / "clips.jsonl")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("0", "2"), "Label 2 is out of range for 2 `label_names` .*clips.csv', row 2"),
        (("0", "-1"), "Label -1 is out of range for 2 `label_names` .*clips.csv', row 2"),
        (("run", "hop"), "Label hop is not among the `label_names` 'run', 'jump': .*clips.csv', row 2"),
    ],
)
def test_labels_out_of_range_are_named_with_file_and_row(tmp_path, labels, message):
    (tmp_path / "clips.csv").write_text("video,label\n" + "".join(f"{label}.mp4,{label}\n" for label in labels))
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "clips.csv", label_names=["run", "jump"])


def test_whole_numbers_that_pandas_wrote_are_whole_numbers(tmp_path):
    source = listed(tmp_path / "clips.csv", "video,label\na.mp4,1.0\nb.mp4,0.0\n")
    assert source.label_names == ["0", "1"]


def test_rows_without_a_label_or_video_are_left_out_and_named(tmp_path):
    for name in "ae":
        (tmp_path / f"{name}.mp4").touch()
    source = listed(tmp_path / "clips.csv", "Video,Label\na.mp4,run\nb.mp4,\n,run\nc.mp4,  \nd.mp4\ne.mp4,jump\n")
    assert [sample.id for sample in source] == ["a.mp4", "e.mp4"]
    assert source.remarks == (
        "1 rows have no video in column 'Video' and are left out: rows 3",
        "3 rows have no label in column 'Label' and are left out: rows 2, 4, 5",
    )


def test_a_list_in_which_no_row_has_a_label_is_unlabelled(tmp_path):
    rows = "".join(f"{number}.mp4,\n" for number in range(5))
    (tmp_path / "clips.csv").write_text("video,label\n" + rows)
    train, held_out = load_sources(DataArguments(data=str(tmp_path / "clips.csv")), seed=0)
    assert (train.num_samples, held_out.num_samples, train.label_names) == (4, 1, [])


def test_splits_of_a_list_in_capital_letters(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("video,label,split\na.mp4,run,Train\nb.mp4,jump,TRAIN \nc.mp4,run,Val\n")
    assert list_splits(path) == ["train", "val"]
    train, evaluation = load_sources(DataArguments(data=str(path)), seed=0)
    assert (train.num_samples, evaluation.num_samples) == (2, 1)


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("start,end", "1.0,2.0"),
        ("start_time,end_time", "1,2"),
        ("time_start,time_end", "1,2"),
        ("t_start,t_end", "1,2"),
        ("startTime,stopTime", "1,2"),
        ("Start (s),End (s)", "1,2"),
        ("start_seconds,end_seconds", "1,2"),
        ("start_ms,end_ms", "1000,2000"),
        ("begin,stop", "0:01,0:00:02.0"),
        ("from,to", "1,2"),
        ("start,duration", "1,1"),
        ("clip_start,clip_end", "1,2"),
        ("start_timestamp,stop_timestamp", "00:00:01.00,00:00:02.00"),
        ("start_frame,end_frame", "10,20"),
        ("frame_start,frame_end", "10,20"),
        ("StartFrame,EndFrame", "10,20"),
        ("starttime,endtime", "1,2"),
        ("tstart,tend", "1 s,2 s"),
        ("Start (HH:MM:SS),End (HH:MM:SS)", "00:00:01,00:00:02"),
        ("cut_start,cut_finish", "1,2"),
        ("in,out", "1,2"),
        ("onset,offset", "1,2"),
        ("t0,t1", "1,2"),
        ("start_us,end_us", "1e6,2e6"),
        ("startframe,endframe", "10,20"),
        ("start_frame_idx,end_frame_idx", "10,20"),
        ("first_frame,last_frame", "10,19"),
        ("start_frame,num_frames", "10,10"),
        ("start_frame,nframes", "10,10"),
        ("segment", "1.0-2.0"),
        ("segment", "0:01 to 0:02"),
        ("frame_range", '"[10, 20]"'),
    ],
)
def test_parts_are_cut_as_the_list_says(film, header, values):
    source = listed(film.parent / "parts.csv", f"video,label,{header}\nfilm.mp4,run,{values}\nfilm.mp4,jump\n")
    assert frame_numbers(source[0].video) == list(range(10, 20))
    assert frame_numbers(source[1].video) == list(range(40))
    assert len({sample.id for sample in source}) == 2
    assert any("1 rows are parts of files" in remark for remark in source.remarks)


def test_parts_in_json_may_be_pairs(film):
    rows = [{"video": "film.mp4", "label": "run", "segment": [0.5, 1.5]}, {"video": "film.mp4", "label": "jump"}]
    source = listed(film.parent / "parts.json", json.dumps(rows))
    assert [frame_numbers(sample.video) for sample in source] == [list(range(5, 15)), list(range(40))]


@pytest.mark.parametrize(
    ("header", "values", "message"),
    [
        ("start,end_frame", "1,20", "the columns start and end_frame have different units"),
        ("start_frame,end", "10,2", "the columns end and start_frame have different units"),
        ("start_frame,duration", "10,1", "the columns start_frame and duration have different units"),
        ("start,num_frames", "1,10", "the columns start and num_frames have different units"),
        ("start_frame,end_frame", "1.5,2", "row 1: start_frame and end_frame must be whole numbers of frames"),
        ("start_frame,end_frame", "0:01,0:02", "row 1: start_frame and end_frame must be whole numbers of frames"),
        ("start,end", "00:00:01:12,00:00:02:00", "row 1: start and end must be numbers or h:mm:ss"),
        ("start,end", "0,-1", "row 1: `end` of a part must be after `start`"),
    ],
)
def test_parts_that_are_not_clear_are_refused(film, header, values, message):
    with pytest.raises(ValueError, match=rf"unclear.csv'.*{message}"):
        listed(film.parent / "unclear.csv", f"video,label,{header}\nfilm.mp4,run,{values}\n")


def test_several_parts_in_a_row_are_refused(film):
    rows = [{"video": "film.mp4", "label": "run", "segments": [[0, 1], [1, 2]]}]
    with pytest.raises(ValueError, match="row 1: segments must have two bounds, got .* give each part a row"):
        listed(film.parent / "several.json", json.dumps(rows))


def test_parts_in_json_may_be_structures(film):
    rows = [{"video": "film.mp4", "label": "run", "segment": {"start": 0.5, "end": 1.5}}]
    assert frame_numbers(listed(film.parent / "fields.json", json.dumps(rows))[0].video) == list(range(5, 15))


@pytest.mark.parametrize(
    ("header", "values"), [("from,to", "Rome,Paris"), ("first,last", "Ada,Lovelace"), ("in,x", "1,2")]
)
def test_words_with_other_meanings_need_a_partner_and_numbers(film, header, values):
    source = listed(film.parent / "names.csv", f"video,label,{header}\nfilm.mp4,run,{values}\n")
    assert source[0].video == str(film)


def test_bounds_that_are_not_understood_are_mentioned(film):
    source = listed(film.parent / "pts.csv", "video,label,start_pts,end_pts\nfilm.mp4,run,0,512\n")
    assert source[0].video == str(film)
    assert source.remarks[0].startswith("The columns 'start_pts', 'end_pts' are not read: call them `start`")


@pytest.mark.parametrize("before", ["sep=;\n", "\n", "\r\nsep=;\r\n"])
@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_lines_that_spreadsheets_put_first(tmp_path, before, delimiter):
    text = before.replace(";", delimiter) + "video,label\na.mp4,run\n".replace(",", delimiter)
    assert listed(tmp_path / "clips.csv", text).label_names == ["run"]


def test_json_lines_end_at_line_feeds_only(tmp_path):
    rows = [{"video": "a.mp4", "label": "a\u2028b"}, {"video": "b.mp4", "label": "c\x85d"}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert listed(tmp_path / "clips.jsonl", text).label_names == ["a\u2028b", "c\x85d"]


def test_labels_that_are_structures_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Label {'x': 1} must be a name or a number: .*clips.json', row 1"):
        listed(tmp_path / "clips.json", json.dumps([{"video": "a.mp4", "label": {"x": 1}}]))


def test_files_that_do_not_exist_are_named(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.mp4").touch()
    source = listed(tmp_path / "clips.csv", "video,label\nsub\\a.mp4,run\nb.mp4,jump\n")
    assert source[0].video == str(tmp_path / "sub" / "a.mp4")
    assert source.remarks[0].startswith(f"1 of 2 files do not exist: '{tmp_path / 'b.mp4'}'; paths are relative to")
    (tmp_path / "sub" / "a.mp4").unlink()
    with pytest.raises(ValueError, match="`eval_data` .*clips.csv': none of the 2 files exists"):
        load_evaluation_source(DataArguments(data=str(tmp_path / "clips.csv")))


@pytest.mark.parametrize("column", ["subset", "Set", "SPLIT"])
def test_splits_in_a_column_of_another_name(tmp_path, column):
    path = tmp_path / "clips.csv"
    path.write_text(f"video,label,{column}\na.mp4,run,Train\nb.mp4,jump,train\nc.mp4,run,test\n")
    assert list_splits(path) == ["test", "train"]
    train, evaluation = load_sources(DataArguments(data=str(path)), seed=0)
    assert (train.num_samples, evaluation.num_samples) == (2, 1)


def test_a_column_called_set_with_other_values_is_no_split(tmp_path):
    (tmp_path / "clips.csv").write_text("video,label,set\na.mp4,run,train\nb.mp4,jump,blue\n")
    assert list_splits(tmp_path / "clips.csv") == []


@pytest.mark.parametrize("header", ["from", "duration", "length", "timestamp", "num_frames", "end_user", "starter"])
def test_other_columns_are_no_parts(film, header):
    source = listed(film.parent / "whole.csv", f"video,label,{header}\nfilm.mp4,run,3\n")
    assert source[0].video == str(film)


def test_processors_sample_within_the_part(film):
    processor = VideoMAEV2VideoProcessor(
        num_frames=4, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    part = {"path": str(film), "start": 1.0, "end": 2.0}
    for mode in ("train", "validation", "test"):
        found = processor(part, sampling_mode=mode, return_metadata=True, return_tensors="pt")["video_metadata"][0]
        assert set(found.frames_indices) <= set(range(10, 20))
    for isolate in (False, True):
        assert decode_video(part, [0, 9], isolate=isolate).metadata.frames_indices == [10, 19]
    assert frame_numbers({"path": str(film), "start": 3.5, "end": 4.3}) == list(range(35, 40))


@pytest.mark.parametrize("part", [{"start": 5.0, "end": 9.0}, {"start": 1.0, "end": 9.0}, {"start_frame": 40}])
def test_parts_outside_of_the_film_cannot_be_read(film, part):
    with pytest.raises(VideoDecodingError, match=r"is not in the video of 40 frames \(4.00 s\)"):
        decode_video({"path": str(film)} | part)


def test_parts_are_held_out_and_selected_like_files(film):
    rows = "".join(f"film.mp4,{'run' if start % 2 else 'jump'},{start / 4},{start / 4 + 0.5}\n" for start in range(10))
    (film.parent / "many.csv").write_text("video,label,start,end\n" + rows)
    train, held_out = load_sources(DataArguments(data=str(film.parent / "many.csv")), seed=0)
    assert (train.num_samples, held_out.num_samples) == (8, 2)
    assert all(set(sample.video) == {"path", "start", "end"} for sample in [*train, *held_out])
    assert not any("as well" in remark for remark in held_out.remarks)


def test_preparation_cuts_parts(film, tmp_path):
    (film.parent / "cut.csv").write_text(
        "video,label,start,end\nfilm.mp4,run,1,2\nfilm.mp4,jump,2,\nfilm.mp4,hop,0,3.5\n"
    )
    done = prepare(film.parent / "cut.csv", tmp_path / "out", format="folder")
    assert not done.failures
    source = open_source(tmp_path / "out", "train")
    frames = {source.label_names[sample.label]: frame_numbers(sample.video) for sample in source}
    wanted = {"run": range(10, 20), "jump": range(20, 40), "hop": range(35)}
    for name, numbers in wanted.items():  # grey levels are rounded once more
        np.testing.assert_allclose(frames[name], list(numbers), atol=1)


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("folder", ["", "clips/"])
def test_dots_in_the_keys_of_a_tar_are_refused(film, tmp_path, folder):
    members = {f"{folder}clip{number}.mp4": film.read_bytes() for number in range(4)}
    members |= {f"{folder}part.{number}.mp4": film.read_bytes() for number in range(2)}
    path = write_tar(tmp_path / "clips.tar", members)
    with pytest.raises(
        ValueError, match=rf"clips.tar' has the video '{folder}part.0.mp4': the key .* ends at the first dot"
    ):
        open_source(path)


def test_system_files_in_a_tar_are_refused(film, tmp_path):
    members = {"train/a.mp4": film.read_bytes(), "train/._a.mp4": b"x", "train/a.txt": b"run"}
    with pytest.raises(ValueError, match=r"has the file 'train/\._a.mp4', which a system added"):
        open_source(write_tar(tmp_path / "clips.tar", members))


@pytest.mark.parametrize("number", [1, 7])
def test_class_numbers_of_a_tar_that_are_no_numbers_are_named(film, tmp_path, number):
    members = {}
    for index in range(8):
        members |= {f"{index}.mp4": film.read_bytes(), f"{index}.cls": b"run" if index == number else b"0"}
    with pytest.raises(ValueError, match=r"clips.tar.*('run'|number)"):
        open_source(write_tar(tmp_path / "clips.tar", members))


def test_class_numbers_of_a_tar_out_of_range_are_named(film, tmp_path):
    members = {"a.mp4": film.read_bytes(), "a.cls": b"0", "b.mp4": film.read_bytes(), "b.cls": b"5"}
    path = write_tar(tmp_path / "clips.tar", members)
    with pytest.raises(ValueError, match=r"Label 5 is out of range for 2 `label_names` .*clips.tar"):
        open_source(path, label_names=["run", "jump"])


def labelled_tar(path, film, texts, suffix="txt"):
    members = {}
    for number, text in enumerate(texts):
        members |= {f"{number}.mp4": film.read_bytes()} | ({} if text is None else {f"{number}.{suffix}": text})
    return write_tar(path, members)


def test_padded_class_numbers_of_a_tar(film, tmp_path):
    source = open_source(labelled_tar(tmp_path / "clips.tar", film, [b"007", b"010\n", b" 7"], "cls"))
    assert [source.label_names[sample.label] for sample in source] == ["7", "10", "7"]


def test_suffixes_in_a_tar_in_capital_letters(film, tmp_path):
    members = {"a.MP4": film.read_bytes(), "a.TXT": b"run", "b.MP4": film.read_bytes(), "b.TXT": b"jump"}
    source = open_source(write_tar(tmp_path / "clips.tar", members))
    assert [source.label_names[sample.label] for sample in source] == ["run", "jump"]


@pytest.mark.parametrize(
    ("texts", "suffix", "message"),
    [
        ([b"run", "café".encode("cp1252")], "txt", "1.txt has a text encoding other than UTF-8"),
        (["café".encode("utf-16"), b"run"], "txt", "0.txt must be UTF-8 without a byte order mark"),
        ([b"run", "jump".encode("utf-8-sig")], "txt", "1.txt must be UTF-8 without a byte order mark"),
        ([b'{"label": "run"}', b'{"label": '], "json", "1.json is not valid JSON"),
        ([b'{"label": 1.5}', b'{"label": "run"}'], "json", "have values of different types"),
        ([b"1", b"run"], "cls", "1.cls must be a whole number, got 'run': names go into .txt files"),
        ([b"run", None, b"jump"], "txt", "'0' has mp4, txt; '1' has mp4; '2' has mp4, txt"),
    ],
)
def test_files_of_a_tar_that_cannot_be_read_are_named(film, tmp_path, texts, suffix, message):
    with pytest.raises(ValueError, match=rf"clips.tar'.*{message}"):
        open_source(labelled_tar(tmp_path / "clips.tar", film, texts, suffix))


def test_files_of_a_sample_that_are_apart_are_named(film, tmp_path):
    members = {"a.mp4": film.read_bytes(), "b.mp4": film.read_bytes(), "a.txt": b"run", "b.txt": b"jump"}
    with pytest.raises(ValueError, match="the file 'a.txt' apart from the others of its sample: .*--sort=name"):
        open_source(write_tar(tmp_path / "clips.tar", members))


def test_samples_of_a_tar_without_labels_are_named_where_labels_are_needed(film, tmp_path):
    path = labelled_tar(tmp_path / "clips.tar", film, [b"run", b"jump"] * 3 + [None])
    assert open_source(path).num_samples == 7
    with pytest.raises(ValueError, match="clips.tar' has 1 samples without a label: '6'"):
        load_evaluation_source(DataArguments(data=str(path)))


def test_paths_and_bounds_in_a_parquet_file(film, tmp_path):
    columns = {"path": ["sub/film.mp4"], "label": ["run"], "start": [0.5], "end": [1.0]}
    pq.write_table(pa.table(columns), tmp_path / "clips.parquet")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "film.mp4").write_bytes(film.read_bytes())
    source = open_source(tmp_path / "clips.parquet")
    assert next(iter(source)).video == str(tmp_path / "sub" / "film.mp4")
    assert source.remarks == ("The columns start, end are not read: tars and parquet files hold whole clips",)

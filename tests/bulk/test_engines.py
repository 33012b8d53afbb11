"""Work on many videos: each has one row of results, wherever it runs and whatever is killed."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hf_videovit.bulk import engines
from hf_videovit.bulk.engines import Engine, run_work
from hf_videovit.bulk.parts import LEDGER_FILE, read_rows
from hf_videovit.bulk.work import from_table, id_digests, is_done, to_table
from tests.bulk import workers
from tests.bulk.workers import number_of, source_of, total_work


DESCRIPTION = {"work": "total"}


def run(folder, count=200, work=None, **options):
    return run_work(work or total_work(), source_of(count), folder, description=DESCRIPTION, **options)


def rows_by_id(folder):
    rows = list(read_rows(folder))
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def check_complete(folder, count=200):
    """Every readable video has one row, with its own place and result, and every other one a line in the ledger."""
    rows = rows_by_id(folder)
    assert {number_of(name) for name in rows} == {number for number in range(count) if number % 10 != 7}
    assert all(row["total"] == 6 * number_of(name) and row["place"] == number_of(name) for name, row in rows.items())
    lines = [json.loads(line) for line in (Path(folder) / LEDGER_FILE).read_text().splitlines()]
    assert sorted(number_of(line["id"]) for line in lines) == list(range(7, count, 10))
    assert {(line["error"], line["error_kind"]) for line in lines} == {("no frames", "empty")}


@pytest.mark.parametrize("num_workers", [None, 2])
def test_each_video_has_one_row(tmp_path, num_workers):
    result = run(tmp_path, engine=Engine(num_workers=num_workers))
    check_complete(tmp_path)
    assert (result.num_rows, result.num_kept, len(result.failed)) == (180, 0, 20)
    assert not list(tmp_path.glob(".*.draft"))
    assert all(pq.read_metadata(path).num_rows <= 32 for path in tmp_path.glob("*.parquet"))


def test_a_stopped_run_continues(tmp_path):
    read = []

    def counted(sample):
        read.append(sample.id)
        if len(read) == 120:
            raise KeyError("stopped")
        return workers.decode(sample)

    with pytest.raises(KeyError):
        run(tmp_path, work=total_work(counted))
    written = set(rows_by_id(tmp_path))
    assert 0 < len(written) < 120
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    read.clear()
    read.extend(["-"] * 500)
    result = run(tmp_path, work=total_work(counted))
    assert result.num_kept == len(written)
    assert not written & set(read)
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())
    check_complete(tmp_path)


@pytest.mark.parametrize("error", [KeyError("stopped"), KeyboardInterrupt()])
def test_an_error_does_not_lose_the_rows_before_it(tmp_path, error):
    class Stopping(workers.Total):
        def __call__(self, rows):
            if number_of(rows[-1]["id"]) >= 20:
                raise error
            return super().__call__(rows)

    with pytest.raises(type(error)):
        run(tmp_path, 60, total_work(make_model=Stopping))
    assert {number_of(name) for name in rows_by_id(tmp_path)} == set(range(20)) - {7, 17}
    assert run(tmp_path, 60).num_kept == 18
    check_complete(tmp_path, 60)


def test_a_slow_run_writes_files_before_they_are_full(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "SECONDS_PER_FILE", -1.0)
    run(tmp_path, 30)
    assert sorted(pq.read_metadata(path).num_rows for path in tmp_path.glob("*.parquet")) == [1] * 27
    check_complete(tmp_path, 30)


@pytest.mark.slow
def test_a_killed_decoder_of_this_machine_is_named(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    work = total_work(workers.FatalDecoder(marks, (30,)))
    with pytest.raises(RuntimeError, match="A decoding process was killed.* the same command continues"):
        run(tmp_path / "out", 60, work, engine=Engine(num_workers=1))
    assert (marks / "killed-30").exists()
    assert run(tmp_path / "out", 60, work, engine=Engine(num_workers=1)).num_rows == 54
    check_complete(tmp_path / "out", 60)


@pytest.mark.slow
def test_other_errors_of_decoders_keep_their_words(tmp_path):
    with pytest.raises(RuntimeError, match="a fault of the program"):
        run(tmp_path, 20, total_work(workers.faulty), engine=Engine(num_workers=1))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", r"`address` '127\.0\.0\.1:1': no Ray cluster answers there \(.*refused"),
        ("ray://127.0.0.1:1", "no Ray cluster answers there"),
        ("no.such.host.invalid:6379", "no Ray cluster answers there"),
        ("127.0.0.1:99999", "no Ray cluster answers there"),
        ("head", "must be auto, HOST:PORT or ray://HOST:PORT, got 'head'"),
        ("", "must be auto, HOST:PORT or ray://HOST:PORT, got ''"),
    ],
)
def test_a_wrong_address_is_told_at_once(tmp_path, address, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, 2, engine=Engine("ray", address))


def test_more_videos_are_added_and_bad_ones_tried_again(tmp_path):
    run(tmp_path, 50)
    result = run(tmp_path, 90)
    assert (result.num_kept, result.num_rows, len(result.failed)) == (45, 81, 9)
    check_complete(tmp_path, 90)


def test_a_task_that_was_done_twice_counts_once(tmp_path):
    """A cluster may do a task again whose rows another task has already written with others."""
    run(tmp_path)
    first, second = sorted(tmp_path.glob("*.parquet"))[:2]
    rows = pq.read_table(first).to_pylist()[:5] + pq.read_table(second).to_pylist()[:5]
    pq.write_table(pq.read_table(first).from_pylist(rows, workers.SCHEMA), tmp_path / "part-twice.parquet")
    assert run(tmp_path).num_rows == 180
    check_complete(tmp_path)


def test_results_made_in_another_way_are_refused(tmp_path):
    run(tmp_path / "a", 10)
    with pytest.raises(ValueError, match="made in another way: work 'total', now 'mean'"):
        run_work(total_work(), source_of(10), tmp_path / "a", description={"work": "mean"})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"must not exist, got .*notes\.txt"):
        run(tmp_path)


def test_datasets_reads_the_folder(tmp_path):
    from datasets import load_dataset

    run(tmp_path / "results")
    read = load_dataset("parquet", data_files=str(tmp_path / "results" / "*.parquet"), cache_dir=tmp_path / "cache")
    assert len(read["train"]) == 180
    assert read["train"].column_names == ["id", "place", "total"]


def test_rows_travel_as_tables():
    work = total_work()
    rows = [
        {"id": "a", "place": 0, "clip": workers.decode(source_of(1)[0])["clip"]},
        {"id": "b", "place": 1, "error": "no frames", "error_kind": "empty"},
    ]
    first, second = from_table(to_table(rows, work.decoded_schema))
    np.testing.assert_array_equal(first["clip"], rows[0]["clip"])
    assert second["clip"] is None and second["error"] == "no frames"
    assert from_table(to_table([], work.decoded_schema)) == []


def test_done_ids():
    done = id_digests([f"{number}" for number in range(0, 1000, 3)])
    assert [number for number in range(1000) if is_done(f"{number}", done)] == list(range(0, 1000, 3))
    assert not is_done("a", id_digests([]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "dask"}, "`engine` must be local or ray, got 'dask'"),
        ({"address": "auto"}, "`address` is for the engine ray, got 'auto'"),
        ({"num_models": 2}, "`num_models` is for the engine ray"),
        ({"num_workers": 0}, "`num_workers` must be at least 1, got 0"),
    ],
)
def test_wrong_engines(options, message):
    with pytest.raises(ValueError, match=message):
        Engine(**options)


@pytest.mark.slow
def test_killed_processes_of_a_cluster(cluster, tmp_path):
    """A decoder and a model are killed while they work: each video still has one row. Then the run continues."""
    marks = tmp_path / "marks"
    marks.mkdir()
    decoder = workers.FatalDecoder(marks, (30,))
    work = total_work(decoder, partial(workers.Total, marks, (51,)))
    result = run(tmp_path / "out", 60, work, engine=Engine("ray"))
    assert {path.name for path in marks.iterdir()} == {"killed-30", "killed-51"}
    assert (result.num_rows, len(result.failed)) == (54, 6)
    check_complete(tmp_path / "out", 60)
    assert run(tmp_path / "out", 200, work).num_kept == 54  # on another engine
    check_complete(tmp_path / "out", 200)

"""Official checkpoints are found by what a user knows: family, data set, task, size, licence."""

import pytest

import hf_videovit
from hf_videovit.published import PublishedCheckpoint, PublishedFile, PublishedLicence, list_published, published_entry
from hf_videovit.published.selection import data_of, file_word, main_result, weights_licence


def test_choices_narrow_the_list_together():
    everything = list_published()
    kinetics = list_published(data="k400")
    assert kinetics == list_published(data="Kinetics-400") == list_published(data="kinetics400")
    small = list_published("uniformer", data="k400", size="small", licence="mit", task="video-classification")
    assert small and set(small) < set(kinetics) < set(everything)
    for name in small:
        entry = published_entry(name)
        assert (entry.model_type, entry.size, weights_licence(entry)) == ("uniformer", "small", "mit")
        assert "Kinetics-400" in data_of(entry)
    assert list_published("tubevit", size="xxs") == []


def test_the_start_of_a_data_set_is_enough():
    found = {data for name in list_published(data="ava") for data in data_of(published_entry(name))}
    assert found == {"AVA 2.2", "AVA-Kinetics"}


def test_labels_tell_the_data_set_of_a_checkpoint_without_scores():
    entry = published_entry("uniformer-v2-base-k710-8f")
    assert not entry.results and data_of(entry) == ["Kinetics-710"]
    assert entry.name in list_published(data="k710")


def test_both_names_of_a_task_are_understood():
    assert list_published(task="temporal-localization") == list_published(task="temporal-action-localization") != []


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"data": "kinetiks-400"}, "`data` must be one of .*got 'kinetiks-400'. Did you mean Kinetics-400"),
        ({"task": "video-clasification"}, "Did you mean video-classification"),
        ({"size": "bse"}, "`size` must be one of .*Did you mean base"),
        ({"licence": "gpl"}, "`licence` must be one of .*apache-2.0.*mit"),
        ({"model_type": "videomae"}, "Did you mean videomae_v2"),
    ],
)
def test_what_no_checkpoint_has_is_an_error(choice, words):
    with pytest.raises(ValueError, match=words):
        list_published(**choice)


def test_the_score_of_a_table_is_not_a_top5_accuracy():
    for name in list_published():
        best = main_result(published_entry(name))
        assert best is None or best.metric != "top5", name
    assert main_result(published_entry("videomae-v2-base-k710-distilled"), "k400").value == 86.6


@pytest.mark.parametrize(
    ("file", "word", "address"),
    [
        ({"repository": "a/b", "path": "c/d e.pth"}, "hub", "https://huggingface.co/a/b/resolve/main/c/d%20e.pth"),
        ({"url": "https://x.org/f.pth"}, "link", "https://x.org/f.pth"),
        ({"url": "https://www.dropbox.com/s/1/f.pyth"}, "link", "https://www.dropbox.com/s/1/f.pyth?dl=1"),
        ({"url": "https://github.com/a/b"}, "web", None),
        ({"url": "https://drive.google.com/f", "availability": "cloud drive"}, "web", None),
        ({"path": "f.pth", "availability": "dead link"}, "gone", None),
        ({"availability": "not listed"}, "unlisted", None),
        ({"availability": "never released"}, "none", None),
    ],
)
def test_how_a_file_can_be_had(file, word, address, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    entry = PublishedCheckpoint("n", "uniformer", "small", "s", "pretraining", PublishedFile(**file))
    assert (file_word(entry), entry.file.address) == (word, address)


def test_only_licences_of_weights_count():
    licences = (PublishedLicence("a", "MIT", "code"), PublishedLicence("b", "Apache-2.0"))
    entry = PublishedCheckpoint(
        "n", "uniformer", "small", "s", "pretraining", PublishedFile(availability="not listed"), licences=licences
    )
    assert weights_licence(entry) == "apache-2.0"


def test_an_entry_has_all_that_the_readme_says():
    entry = hf_videovit.published_entry(hf_videovit.list_published("videomae_v2", data="k710")[0])
    assert entry.file.address and entry.licences and entry.labels and entry.protocol.num_clips and entry.results
    assert entry.parameters > 0 and entry.gmacs > 0

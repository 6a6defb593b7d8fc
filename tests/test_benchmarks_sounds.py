from test_benchmarks import last_line


def test_sounds_compares_batches_with_one_sample_after_the_other_and_long_files_with_short_ones():
    found = last_line("sounds.py")
    for files in found["files"].values():
        assert set(files) == {"wav", "flac", "mp3"}
        assert all(value > 0 for rates in files.values() for value in rates.values())
    assert len(found["memory"]) == 6
    assert all(one["long"]["mib"] < 1.2 * one["short"]["mib"] for one in found["memory"].values())
    for name in ("byol-a-v1", "byol-a-v2"):
        assert {"log-mel alone, byol", "ops of two views alone, byol", "one by one, all of it", "byol, all of it"} <= found[name].keys()
        assert all(value > 0 for value in found[name].values())


def test_spoken_asks_every_subject_the_same_questions():
    found = last_line("spoken.py")
    asked = {(r["question"], r["protocol"], r["labels"]) for r in found["rows"]}
    assert len(asked) == 3 * 2 * 3  # digit and speaker of other takes, digit of other speakers; two protocols; three shares
    for who in ("BYOL-A", "untrained", "log-mel", "mfcc"):
        assert {(r["question"], r["protocol"], r["labels"]) for r in found["rows"] if r["subject"] == who} == asked

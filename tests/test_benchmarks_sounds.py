from test_benchmarks import last_line


def test_sounds_compares_batches_with_one_sample_after_the_other():
    found = last_line("sounds.py")
    for name in ("byol-a-v1", "byol-a-v2"):
        assert {"log-mel alone, byol", "ops of two views alone, byol", "one by one, all of it", "byol, all of it"} <= found[name].keys()
        assert all(value > 0 for value in found[name].values())

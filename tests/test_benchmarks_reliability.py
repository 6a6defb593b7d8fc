"""The programs of docs/reliability.md in their short forms."""

from test_benchmarks import last_line


def test_a_run_killed_while_it_writes_a_checkpoint_ends_like_the_uninterrupted_one():
    found = last_line("kill.py", "1")
    assert (found["kills"], found["runs"], found["equal"]) == (1, 1, 1)


def test_no_file_handle_and_no_thread_is_left_behind():
    found = last_line("soak.py")
    assert found["steps"] == 200
    assert found["evaluations"] == 2
    for name in ("handles", "threads"):
        assert found[name]["most"] <= found[name]["first"] + 2, name
        assert abs(found[name]["slope"]) < 1, name


def test_bf16_stays_within_its_bounds_of_fp32():
    found = last_line("precision.py")
    assert found["above"] == []
    assert found["worst"]["loss"] > 0, "bf16 was not used"

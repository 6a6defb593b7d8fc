"""Every reader of benchmarks/fuzz.py with mutations that hypothesis draws, and the inputs that the fuzzer once found."""

import base64
import importlib.util
import io
import os
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byol.data import index, open_source

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "fuzz.py"
EDITS = st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6)


def _program():
    spec = importlib.util.spec_from_file_location("fuzz", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


fuzz = _program()


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """The index reader sets where indexes are kept, and from how many files on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "MANY", index.MANY)


def edited(data, edits):
    data = bytearray(data)
    for way, place, what in edits:
        at = int(place * len(data))
        if way == 0:
            data[at : at + len(what)] = what
        elif way == 1:
            data[at:at] = what
        elif way == 2:
            del data[at : at + what[0]]
        elif way == 3:
            data[at:at] = data[at : at + 4 * what[0]]
        elif at:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("name", fuzz.READERS)
def test_mutated_files_are_read_or_refused_in_one_sentence(tmp_path, name):
    reader = fuzz.READERS[name]
    seeds = reader.seeds()
    target = fuzz.Target(reader.make(tmp_path), tmp_path)
    for seed in seeds:
        target(seed)
    examples = 5 if name in ("encoder", "encoder.json", "checkpoint", "run") else 25

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(seeds) - 1), EDITS)
    def mutate(which, edits):
        target(edited(seeds[which], edits))

    mutate()
    assert target.found == {}
    assert target.inputs > len(seeds)
    assert target.refused < target.inputs  # the seeds themselves are read


def test_the_program_finds_what_is_wrong(tmp_path):
    """A reader that raises, and one that says several lines: both are findings, each once."""

    def bad(data):
        if data == b"a":
            raise KeyError("a")
        raise ValueError("two\nlines")

    target = fuzz.Target(bad, tmp_path)
    for data in (b"a", b"b", b"a", b"b"):
        target(data)
    assert sorted(what.split(":")[0] for what in target.found.values()) == ["KeyError", "ValueError"]
    assert len(list(tmp_path.glob("finding-*.txt"))) == 2


# -- found by the program, once each


def test_an_npz_whose_second_member_lies_before_the_file_is_one_sentence(tmp_path):
    out = io.BytesIO()
    np.savez(out, x=np.zeros((3, 4, 5), np.uint8), y=np.arange(3))
    data = bytearray(out.getvalue())
    at = data.rindex(b"PK\x01\x02")
    data[at + 42 : at + 46] = b"\xff\xff\xff\x7f"  # where the member begins
    end = data.rindex(b"PK\x05\x06")
    data[end + 16 : end + 20] = (int.from_bytes(data[end + 16 : end + 20], "little") + 2**31 - 1).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.npz is damaged or no NumPy file"):
        open_source(tmp_path / "x.npz")


def test_a_name_of_hundreds_of_letters_does_not_fill_the_screen(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"path": ["\0" * 900]}), tmp_path / "l.parquet")
    with pytest.raises(ValueError, match="none of them can be read") as told:
        open_source(tmp_path / "l.parquet")
    assert len(str(told.value)) < 600


def test_an_error_of_the_system_inside_an_archive_is_of_its_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", fuzz.picture("PNG"))
        archive.writestr("b.png", fuzz.picture("PNG"))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 42 : at + 46] = b"\xff\xff\xff\x7f"
    (tmp_path / "a.zip").write_bytes(data)
    source = open_source(tmp_path / "a.zip")
    assert source.names == ["a.png"]
    assert "damaged in the archive" in source.skipped[0].reason
    assert os.path.getsize(tmp_path / "a.zip") == len(data)


# Parquet files of 690 bytes, as the program found them: a column that is shorter than the other; places that the dictionary does not have.
SHORTER = (
    "c-n1}!A{#i5Qb;h&I(Xe1=O{?!m4}#i$e$mL4**OF%3`}D2aqnB`zjJPEjBx3Gfm<_CYvts`>zZiatkAomodoX&K2o<9}wpoz?CswyN6IHND-"
    "?O2Y!cVpsrx^-6Y|irLL7dloi0(4gOHzf6@S`czPZm4Z$91=}z`PnB~^l2#?8vjl_=bl4!r=r@}VW!lMz-Bq7)3)=e&Cs!PjeTPacYBpq);|ND;*X(YAuZHb"
    "z=O)oE=;E^U-7Fb(m!T0*nH37X<g(KnE1oieDMt|KqS*pfGI_n0p7NfA_bj4|Xy&y;m@-"
    "eSCD2kLx9hz#%0!?D8o|W`m+xkIUxoKgM88G!L;QP=|7k_0NtZ|bPR-Gb_fvui{35nmpU!vkGy1>88e0w7nwZ;1#7B%%+(%4tFSS}6BOY_Ghxow?Q;&I=M|M"
    "5ACg?T=_5HdPEu@YUJ7aP9`TVGN$-l?8zKL;@`3Hz?d_RUwnwn>JzQY%zj`ur^yH^J(PFtpV@WU(_+}(FZtL-"
    "dXO$LMhWBAY+48Qbm!;M;Hy;3!0x=FrFK~Le7Uh5y-pM_Z"
)
BEYOND = (
    "c-obc-AV#M6vxlZu7iezO0(?H5?<8eh4e*<gg0kR?ZZk1k)RthSqb|9g<hh|9;B<Tq6g?HdXBC-Gb?HzHyzkHXZ~}}Z_Z(-"
    "fvqiR%YrP{rI3&TSkA@(U~~QcHe`vNZSA#S0ts?Sx_Qb>(I>nD<YMN)jhTXUnlcwwIjw?mYZVCX$!wkKY(g&<EjsCS$J$-"
    "pX<SA+b2y%}NOmnsF{ngVqb!SAT-vI%3$7UT2K}3^v_U4<xNBo~JXnLeM`=cg4ZD~9;Y4wS@>JdjPbSqah?H{ed&-"
    "yG5zaGnUYLL3$Nw5a<*9Ly9B4_AD>*AlC?5nt=W)?(hWE&vC+2@L|Bd~e<2Nm-Y24N=zEZItciuTD&rM>hb=KL7W^_N;hPDD~Yhq-"
    "_hz}TqSVau692zYM5KnYaMm#ja%wrTrky%f#30kC}Qmq)#Kq@%3wiZX{oulEU-"
    "kzBJCI(H-uOaque*&8pHQT1YgKw=)?mGwuSG91q|L-XDC-u){^b{KOTE77I*Mo5"
)


@pytest.mark.parametrize(("stored", "words"), [(SHORTER, "3 paths and 0 labels"), (BEYOND, "indices invalid")])
def test_a_parquet_list_whose_columns_do_not_fit_is_one_sentence(tmp_path, stored, words):
    (tmp_path / "l.parquet").write_bytes(zlib.decompress(base64.b85decode(stored)))
    with pytest.raises(ValueError, match="damaged Parquet") as told:
        open_source(tmp_path / "l.parquet")
    assert words in str(told.value)

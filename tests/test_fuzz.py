"""A short run of the fuzzer, always the same; `python tests/fuzz_decoder.py` is the long one."""

import fuzz_decoder
import pytest

FILES = sorted(fuzz_decoder.CORPUS.glob("*.dfc"))


@pytest.mark.parametrize("number", range(len(FILES)), ids=[path.stem for path in FILES])
def test_the_corpus(number):
    fuzz_decoder.check(fuzz_decoder.corpus()[number])


@pytest.mark.parametrize("number", [1, 2])
def test_hostile_files(number):
    fuzz_decoder.run(6, number)


def test_a_broken_rule_is_found_and_its_file_kept(monkeypatch, tmp_path):
    files = fuzz_decoder.corpus()
    monkeypatch.setattr(fuzz_decoder, "corpus", lambda: files)
    monkeypatch.setattr(fuzz_decoder, "CORPUS", tmp_path)
    monkeypatch.setattr(fuzz_decoder.diffcodec.container, "check_size", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fuzz_decoder.run(6, 1)
    assert [path.suffix for path in tmp_path.iterdir()] == [".dfc"]

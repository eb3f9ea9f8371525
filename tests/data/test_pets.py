from __future__ import annotations

from pathlib import Path

import pytest

from nnmpq.data import DataError
from nnmpq.data.pets import BREEDS, load_oxford_iiit_pet
from tests.data.made_up import listed, oxford_iiit_pet, real_folder


def test_the_breeds_are_the_publishers() -> None:
    # 25 of dogs, whose names begin with small letters in the publisher's files, and 12 of cats.
    assert len(set(BREEDS)) == 37
    assert sum(breed[0].isupper() for breed in BREEDS) == 12
    assert list(BREEDS) == sorted(BREEDS, key=str.lower)


@pytest.mark.parametrize(
    "line,message",
    [
        ("Birman_3 38 1 3", "'Birman_3 38 1 3': a name and a class from 1 to 37"),
        ("Birman_3", "a name and a class from 1 to 37"),
        ("Birman_3 8 1 3", "'Birman_3' cannot be of class 8, which is 'Bombay'"),
        ("../Birman_3 7 1 3", "'../Birman_3' cannot be of class 7"),
    ],
)
def test_wrong_lines_are_named(line: str, message: str, tmp_path: Path) -> None:
    oxford_iiit_pet(tmp_path)
    source = tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt"
    source.write_text(f"{line}\n")
    with pytest.raises(DataError, match=rf"test\.txt: .*{message}"):
        load_oxford_iiit_pet(str(tmp_path))


def test_a_subset_narrows_both_lists(tmp_path: Path) -> None:
    oxford_iiit_pet(tmp_path)
    (tmp_path / "oxford-iiit-pet" / "subset.txt").write_text("Birman_7.jpg\nBirman_3.jpg\n")
    train, test, *_ = load_oxford_iiit_pet(str(tmp_path))
    assert listed(train) == {"images/Birman_7.jpg": "Birman"} and listed(test) == {"images/Birman_3.jpg": "Birman"}


def test_real_pets() -> None:
    root = real_folder("oxford-iiit-pet")
    train, test, classes, _, _ = load_oxford_iiit_pet(str(root))
    assert classes == 37
    present = sorted({train.class_names[label] for label in train.labels})
    if len(present) == 37:
        assert (len(train), len(test)) == (3680, 3669)
    else:  # a part of the set, its lists narrowed to that
        assert present == sorted({test.class_names[label] for label in test.labels})
        lines = (root / "oxford-iiit-pet" / "annotations" / "trainval.txt").read_text().splitlines()
        assert len(train) == sum(not line.startswith("#") for line in lines)

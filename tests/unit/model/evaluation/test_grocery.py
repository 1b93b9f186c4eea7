"""Folds part the classes, so that none that is judged was trained on."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.grocery import FOLDS, split, validation_classes
from model.formats.labels import LabelledImages


def test_folds_part_the_classes() -> None:
    classes = np.repeat(np.arange(54), 3)
    folds = [validation_classes(classes, fold) for fold in range(FOLDS)]
    assert sorted(np.concatenate(folds).tolist()) == list(range(54))
    assert [len(fold) for fold in folds] == [14, 14, 13, 13]


@pytest.mark.parametrize("fold", [-1, FOLDS])
def test_there_are_no_other_folds(fold: int) -> None:
    with pytest.raises(ValueError, match="fold must be between 0 and 3"):
        validation_classes(np.arange(8), fold)


def test_no_class_is_on_both_sides() -> None:
    ids = [f"{c}-{n}" for c in range(8) for n in range(3)]
    images = LabelledImages(ids, np.repeat(np.arange(8), 3), np.arange(24) % 3 == 0)
    for fold in range(FOLDS):
        training, validation = split(images, fold)
        assert not set(training.classes.tolist()) & set(validation.classes.tolist())
        assert sorted(training.ids + validation.ids) == sorted(ids)
        assert set(validation.classes.tolist()) == set(
            validation_classes(images.classes, fold).tolist()
        )
        assert validation.is_query.sum() == 2

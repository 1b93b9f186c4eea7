from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.evaluation.grocery import FOLDS, DatasetError, read_labels, split, validation_classes


def test_folds_part_the_classes() -> None:
    classes = np.repeat(np.arange(54), 3)
    folds = [validation_classes(classes, fold) for fold in range(FOLDS)]
    assert sorted(np.concatenate(folds).tolist()) == list(range(54))
    assert [len(fold) for fold in folds] == [14, 14, 13, 13]


def write_labels(folder: Path) -> None:
    lines = ["path,class_id,coarse_class_id,class_name,source_split"]
    lines += [f"{s}/{c}.jpg,{c},0,name,{s}" for c in range(8) for s in ("train", "val", "test")]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def test_no_class_is_on_both_sides_and_queries_are_the_test_split(tmp_path: Path) -> None:
    write_labels(tmp_path)
    labels = read_labels(tmp_path)
    training, validation = split(labels, 0)
    assert not set(training.classes.tolist()) & set(validation.classes.tolist())
    assert len(training.ids) + len(validation.ids) == 24
    queries = [i for i, q in zip(labels.ids, labels.is_query, strict=True) if q]
    assert all(i.startswith("test/") for i in queries)
    assert len(queries) == 8


def test_what_is_wrong_with_the_labels_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"labels\.csv: no such file"):
        read_labels(tmp_path)
    (tmp_path / "labels.csv").write_text("name,label\nx,1\n")
    with pytest.raises(DatasetError, match="not the labels"):
        read_labels(tmp_path)

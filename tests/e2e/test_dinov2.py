"""From images to published descriptor files and lists of neighbours, by the command line."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import skimage.data
from PIL import Image

from model.formats.globals import open_globals
from model.formats.nn_file import read_neighbours
from tests.dinov2 import WIDTH, save_detector, save_network
from tests.e2e.command import error_of, program_error, program_output

pytestmark = pytest.mark.slow

NAMES = [f"jpg/part-{n}.png" for n in range(6)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of a photograph, `jpg/part-0.png` to `5`, and a damaged `jpg/part-2.png`."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "jpg").mkdir()
    photograph = Image.fromarray(skimage.data.astronaut())
    for n, name in enumerate(NAMES):
        photograph.crop((40 * n, 0, 40 * n + 120, 20)).save(folder / name)
    (folder / NAMES[2]).write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The options that name the extractor and its weights."""
    folder = tmp_path_factory.mktemp("dinov2")
    weights, detector = save_network(folder / "w"), save_detector(folder / "d.pt")
    return ["--extractor", "dinov2-vitb14-reg", "--weights", weights, "--detector", detector]


def test_a_list_to_aligned_rows_and_on_to_neighbours(
    images: Path, dinov2: list[object], tmp_path: Path
) -> None:
    gallery = tmp_path / "test_gallery.txt"
    gallery.write_text("".join(f"{name},{n},120,20\n" for n, name in enumerate(NAMES[:4])))
    output, global_file = tmp_path / "dinov2_local.hdf5", tmp_path / "dinov2_global.pt"
    common = ["extract", "--relative-to", images, "-o", output, "--descriptors", 700, *dinov2]
    text = program_output(*common, "--list", gallery, "--global-file", global_file, "--batch", 2)
    assert "part-2.png: not a readable image" in text
    assert "3 images written" in text
    assert "1 could not be read, their rows are padding" in text
    # The list grows: what is there stays.
    gallery.write_text("".join(f"{name},{n},120,20\n" for n, name in enumerate(NAMES)))
    again = program_output(*common, "--list", gallery, "--global-file", global_file)
    assert "2 images written" in again

    with h5py.File(output) as file:
        features, ids = file["features"][:], list(file["ids"].asstr()[:])
    assert (ids, features.shape) == (NAMES, (6, 700, 5 + WIDTH))
    # 770 x 128 pixels are 55 x 9 patches.
    mask = features[..., 3]
    assert [int((rows == 0).sum()) for rows in mask] == [495, 495, 0, 495, 495, 495]
    assert (np.diff(mask, axis=1) >= 0).all()
    assert (np.diff(features[0, :495, 4]) <= 0).all()
    globals_ = np.array(open_globals(global_file, 6))
    assert globals_.shape == (6, WIDTH)
    np.testing.assert_allclose(np.linalg.norm(globals_, axis=1), [1, 1, 0, 1, 1, 1], atol=1e-5)

    gallery.write_text("".join(f"{name},{n},120,20\n" for n, name in enumerate(NAMES[::-1])))
    assert "are not the first lines of" in program_error(*common, "--list", gallery)
    lists = tmp_path / "nn_dinov2.pkl"
    search = ["neighbours", "--gallery", global_file, "--without-self", "-o", lists]
    text = program_output(*search, "--dim", WIDTH, "-k", 3, "--block", 2)
    assert "6 lists of 3 among 6 images" in text
    # The one that could not be read is like no other.
    cosines = globals_ @ globals_.T
    np.fill_diagonal(cosines, -np.inf)
    neighbours = read_neighbours(lists, 6, 6)
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(neighbours.images, expected)
    assert "--dim" in program_error(*search)


def test_queries_are_cropped_by_the_ground_truth(
    images: Path, dinov2: list[object], tmp_path: Path
) -> None:
    queries, truth = tmp_path / "test_query.txt", tmp_path / "gnd_x.pkl"
    queries.write_text(f"{NAMES[0]}\n{NAMES[1]}\n")
    empty: list[int] = []
    gnd = [
        {"bbx": box, "easy": [0], "hard": empty, "junk": empty}
        for box in ([60.0, 0.0, 120.0, 20.0], [0.0, 0.0, 120.0, 20.0])
    ]
    names = ["part-0", "part-1"]
    truth.write_bytes(pickle.dumps({"gnd": gnd, "imlist": ["a"], "qimlist": names}))
    output = tmp_path / "dinov2_query_local.hdf5"
    arguments = ["extract", "--list", queries, "--relative-to", images, "-o", output, *dinov2]
    program_output(*arguments, "--crop", truth, "--descriptors", 600)
    with h5py.File(output) as file:
        features = file["features"][:]
    valid = [rows[rows[:, 3] == 0] for rows in features]
    # Half of the image's width: 385 pixels are 27.5 patches, to the even 28.
    assert [len(rows) for rows in valid] == [28 * 9, 55 * 9]
    assert valid[0][:, 0].min() == pytest.approx(0.5 + 0.5 / 56, abs=1e-6)
    truth.write_bytes(pickle.dumps({"gnd": gnd, "imlist": ["a"], "qimlist": names[::-1]}))
    assert "query 'part-1', but the list has 'jpg/part-0.png'" in program_error(
        *arguments, "--crop", truth
    )


def test_wrong_options_leave_one_line(
    images: Path, dinov2: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*arguments: object) -> str:
        return error_of(capsys, "extract", *arguments)

    output = ["-o", tmp_path / "x.h5"]
    damaged = tmp_path / "d.pt"
    damaged.write_bytes(pickle.dumps({"state": 1}))
    with_damaged = [*dinov2[:-1], damaged]
    assert f"{damaged}: not" in wrong(images, *output, *with_damaged)
    weights = dinov2[2:4]
    assert "efficientnet-lite0 takes no weights" in wrong(images, *output, *weights)
    assert "--batch cannot be used with eff" in wrong(images, *output, "--batch", 3)
    assert "either IMAGES or --list" in wrong(*output)
    assert not (tmp_path / "x.h5").exists()

"""Training is deterministic, can be broken off at any step, and learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import MambaConfig
from model.reranker import MambaReranker, score_windows
from model.training.trainer import (
    Trainer,
    TrainingStateError,
    TrainOptions,
    first_place_loss,
    learning_rate,
    smooth_ap_loss,
    token_loss,
)
from model.training.training_lists import ListShape, TrainingList
from model.windows import Window
from tests.factories import LOCAL_DIM, image, tiny_config, unit

CPU = torch.device("cpu")
CONFIG = tiny_config()
OPTIONS = TrainOptions(
    steps=8, batch=2, warmup=2, shortest=6, longest=8, fewest_descriptors=6, max_descriptors=6
)
SHAPE = ListShape(images=8, descriptors=6)


class SameObject:
    """An image is relevant when it shares descriptors with the query."""

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList:
        query = image(rng, CONFIG)
        relevant = rng.random(shape.images) < 0.5
        relevant[:2] = True, False
        gallery = []
        for shared in relevant:
            other = image(rng, CONFIG)
            if shared:
                noise = 0.1 * unit(rng, other.count, LOCAL_DIM)
                other = replace(other, locals=query.locals[rng.permutation(query.count)] + noise)
            gallery.append(other)
        return TrainingList(Window(query, gallery), relevant)


def trainer(
    options: TrainOptions = OPTIONS, config: MambaConfig = CONFIG, data: str = ""
) -> Trainer[MambaReranker]:
    return Trainer(lambda: MambaReranker(config), options, CPU, data)


def weights(of: Trainer[MambaReranker]) -> dict[str, torch.Tensor]:
    return of.average.state_dict()


def same(one: Trainer[MambaReranker], other: Trainer[MambaReranker]) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(weights(one).values(), weights(other).values(), strict=True)
    )


def test_a_seed_decides_everything() -> None:
    first, second, other = trainer(), trainer(), trainer(replace(OPTIONS, seed=1))
    losses = [[step.loss for step in one.run(SameObject())] for one in (first, second, other)]
    assert losses[0] == losses[1] != losses[2]
    assert same(first, second)


def test_a_run_that_was_broken_off_comes_out_as_if_it_had_not(tmp_path: Path) -> None:
    uninterrupted, first = trainer(), trainer()
    list(uninterrupted.run(SameObject()))
    for step in first.run(SameObject()):
        if step.number == 3:
            break
    first.save(tmp_path / "state.pt")
    second = trainer(replace(OPTIONS))
    second.resume(tmp_path / "state.pt")
    assert [step.number for step in second.run(SameObject())] == [4, 5, 6, 7, 8]
    assert same(uninterrupted, second)


def test_what_is_learnt_does_not_depend_on_how_lists_are_dealt_out_to_passes() -> None:
    at_once = trainer(replace(OPTIONS, batch=4))
    in_two = trainer(replace(OPTIONS, batch=2, accumulate=2))
    losses = [[step.loss for step in one.run(SameObject())] for one in (at_once, in_two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    # Not the weights: a bias that all keys share changes nothing, and Adam moves it by rounding.
    fresh = [SameObject().draw(np.random.default_rng(9), SHAPE).window]
    scores = [score_windows(of.average.eval(), fresh, CPU)[0] for of in (at_once, in_two)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


@pytest.mark.slow
def test_products_in_bfloat16_learn_too() -> None:
    half = trainer(replace(OPTIONS, steps=40, dtype="bfloat16", learning_rate=3e-3))
    losses = [step.loss for step in half.run(SameObject())]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert all(tensor.dtype == torch.float32 for tensor in weights(half).values())


@pytest.mark.parametrize("problem", ["options", "sizes", "data", "text", "missing", "version"])
def test_a_state_of_another_run_is_refused(tmp_path: Path, problem: str) -> None:
    path = tmp_path / "state.pt"
    trainer().save(path)
    options, config, data = OPTIONS, CONFIG, ""
    if problem == "options":
        options = replace(OPTIONS, steps=9)
    elif problem == "sizes":
        config = tiny_config(depth=1)
    elif problem == "data":
        data = "others"
    elif problem == "text":
        path.write_text("not a state")
    elif problem == "version":
        state = torch.load(path, weights_only=False)
        del state["model"]["head.bias"]
        torch.save(state, path)
    else:
        path.unlink()
    with pytest.raises(TrainingStateError, match=r"state\.pt"):
        trainer(options, config, data).resume(path)


@pytest.mark.parametrize("mixer", ["mamba", "windowed-attention", "none"])
def test_every_mixer_takes_a_step(mixer: str) -> None:
    one = trainer(replace(OPTIONS, steps=2, warmup=0), tiny_config(mixer=mixer))
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    assert all(np.isfinite(step.loss) for step in one.run(SameObject()))
    after = one.model.state_dict()
    still = {name for name, value in after.items() if torch.equal(value, before[name])}
    # What norms feed a mixer that is none is not read.
    unread = {f"blocks.{n}.norms.0.weight" for n in range(2)} if mixer == "none" else set()
    assert {name for name in still if name.endswith("weight")} == unread
    assert all(value.isfinite().all() for value in after.values())


class Unanswerable(SameObject):
    """No image of a list is relevant, as it happens in LOCORE's published lists."""

    def draw(self, rng: np.random.Generator, shape: ListShape) -> TrainingList:
        one = super().draw(rng, shape)
        return replace(one, relevant=np.zeros_like(one.relevant))


def test_lists_without_a_relevant_image_do_no_harm() -> None:
    one = trainer(replace(OPTIONS, steps=2))
    assert all(np.isfinite(step.loss) for step in one.run(Unanswerable()))
    assert all(value.isfinite().all() for value in weights(one).values())


def test_it_learns_to_find_the_same_object() -> None:
    trained = trainer(replace(OPTIONS, steps=60, batch=4, warmup=10, learning_rate=3e-3))
    list(trained.run(SameObject()))
    won = []
    for seed in range(1000, 1020):
        training_list = SameObject().draw(np.random.default_rng(seed), SHAPE)
        (logits,) = score_windows(trained.model.eval(), [training_list.window], CPU)
        won.append(logits[training_list.relevant].min() > logits[~training_list.relevant].max())
    assert np.mean(won) > 0.8


def test_the_rate_warms_up_and_falls_to_a_hundredth() -> None:
    options = TrainOptions(steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(step, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert learning_rate(100, options) == pytest.approx(0.01)


def test_padding_does_not_count_in_the_losses() -> None:
    logits, relevant = torch.randn(1, 3, 4), torch.tensor([[1.0, 0.0, 0.0]])
    mask = torch.tensor([[[True] * 4, [True] * 3 + [False], [False] * 4]])
    changed = torch.where(mask, logits, torch.tensor(99.0))
    assert token_loss(logits, mask, relevant) == token_loss(changed, mask, relevant)
    present = torch.tensor([[True, True, False]])
    scores = torch.tensor([[1.0, 2.0, 3.0]])
    for loss in (smooth_ap_loss, first_place_loss):
        shorter = loss(scores[:, :2], relevant[:, :2], present[:, :2])
        torch.testing.assert_close(loss(scores, relevant, present), shorter)


def test_smooth_ap_is_the_average_precision_where_scores_are_far_apart() -> None:
    scores = torch.tensor([[40.0, 30.0, 20.0, 10.0]])
    relevant = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    expected = 1 - (1 / 2 + 2 / 4) / 2
    loss_value = smooth_ap_loss(scores, relevant, torch.ones(1, 4, dtype=torch.bool))
    assert float(loss_value) == pytest.approx(expected, abs=1e-4)


def test_the_first_place_is_lost_by_the_softmax_of_the_scores() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0]])
    relevant = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    weight = np.exp([1.0, 2.0, 0.5])
    expected = (-np.log((weight[0] + weight[2]) / weight.sum()) + np.log(3)) / 2
    loss_value = first_place_loss(scores, relevant, everywhere)
    assert float(loss_value) == pytest.approx(expected, abs=1e-6)
    certain = first_place_loss(torch.tensor([[50.0, 0.0]]), relevant[:1, :2], everywhere[:1, :2])
    assert float(certain) == pytest.approx(0, abs=1e-6)


def test_a_list_without_a_relevant_image_has_no_first_place_to_lose() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    relevant = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    loss = first_place_loss(scores, relevant, everywhere)
    alone = first_place_loss(scores[:1], relevant[:1], everywhere[:1])
    torch.testing.assert_close(loss, alone / 2)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[0].abs().min() > 0
    assert scores.grad[1].tolist() == [0, 0, 0]

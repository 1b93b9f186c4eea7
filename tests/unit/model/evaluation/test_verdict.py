"""What is said follows the intervals, not the means alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.evaluation.intervals import Interval
from model.evaluation.verdict import points, rounded, verdict
from tests.verdict_cases import Values, around, circumstances, judgement

FIRST = around(0.5, seed=1)
OF = circumstances(Path("photos"))


def test_a_gain_whose_interval_is_above_zero_is_worth_it() -> None:
    answer = verdict(judgement(FIRST, FIRST + around(0.08)), OF)
    assert (answer.answer, answer.headline) == ("yes", "Worth it")
    assert answer.reasons.startswith("tiny changes mAP@R by +8.0 (+5.")
    assert "with 95% intervals over 60 queries." in answer.reasons
    assert answer.reasons.endswith(
        "Re-ranking takes about 2.3 s for 1,000 pictures, describing them about 32 s."
    )
    assert str(answer) == (
        f"Worth it: {answer.reasons} Next: adaptation, which takes minutes and was not tried here: "
        "locore train --images photos --from -o mine.safetensors"
    )


def test_a_loss_is_not() -> None:
    answer = verdict(judgement(FIRST, FIRST - around(0.08)), OF)
    assert (answer.answer, answer.headline) == ("no", "Not worth it as it is")
    assert "by \N{MINUS SIGN}8.0 (\N{MINUS SIGN}10." in answer.reasons


def test_an_interval_on_both_sides_of_zero_decides_nothing() -> None:
    answer = verdict(judgement(FIRST, FIRST + around(0.01, 0.2)), OF)
    assert (answer.answer, answer.headline) == ("open", "These queries do not tell")


def test_a_narrow_interval_around_zero_is_an_answer() -> None:
    answer = verdict(judgement(FIRST, FIRST + around(0.0, 0.005)), OF)
    assert answer.answer == "no"
    assert answer.headline.startswith("Not worth it, there is next to no difference")
    assert "mAP@R by 0.0 (" in answer.reasons


def test_few_queries_decide_nothing() -> None:
    answer = verdict(judgement(FIRST[:20], FIRST[:20] + 0.3), OF)
    assert answer.answer == "open"
    assert answer.headline.startswith("Too few queries to tell, 20 of at least 30")


def test_a_first_place_that_is_lost_is_not_passed_over() -> None:
    answer = verdict(judgement(FIRST, FIRST + 0.1, served_recall=FIRST - around(0.1)), OF)
    assert answer.answer == "open"
    assert answer.headline.startswith(
        "Worth it where all right pictures count, not where the first"
    )


def test_what_learns_nothing_is_named_unless_it_is_worse() -> None:
    served = FIRST + around(0.08)

    def reasons(over_served: Values) -> str:
        return verdict(judgement(FIRST, served, chamfer=served + over_served), OF).reasons

    assert "Chamfer, which learns nothing, does better: by +5.0 (" in reasons(around(0.05, seed=5))
    assert "does as well, as far as these queries tell: by +0.5 (" in reasons(around(0.005, seed=5))
    assert "learns nothing" not in reasons(around(-0.05, seed=5))
    # What does not help itself is no advice, however poor the checkpoint is.
    assert "learns nothing" not in verdict(judgement(FIRST, FIRST - 0.1), OF).reasons


def test_the_next_step_is_what_was_measured_to_gain_most() -> None:
    served = FIRST + around(0.05)
    tuned, in_metric = served + around(0.02, 0.02, seed=6), served + around(0.09, seed=7)
    by_both = verdict(judgement(FIRST, served, tuned=tuned, in_metric=in_metric), OF)
    assert by_both.next.startswith("a metric of these labels, +9.0 (")
    assert by_both.command == "locore fit-metric --descriptors mine.h5 -o mine.metric.safetensors"
    by_tuning = verdict(judgement(FIRST, served, tuned=tuned), OF)
    assert by_tuning.next.startswith("alpha 0.25 and temperature 0.5 in the request, +2.0 (")
    assert by_tuning.next.endswith("points of mAP@R over the checkpoint as it is")
    assert str(by_tuning).endswith("as it is.")
    # An interval with both signs is no reason.
    unsure = verdict(judgement(FIRST, served, tuned=served + around(0.02, 0.3, seed=6)), OF)
    assert "adaptation" in unsure.next


def test_the_command_names_labels_and_views() -> None:
    of = judgement(FIRST, FIRST, in_metric=FIRST + 0.1)
    labels = Path("photos/labels.csv")
    for where, source in (
        (circumstances(Path("photos"), views=True), "--views mine.h5"),
        (circumstances(Path("photos"), labels=labels), f"--descriptors mine.h5 --labels {labels}"),
    ):
        answer = verdict(of, where)
        assert answer.command == f"locore fit-metric {source} -o mine.metric.safetensors"


def test_shortlists_without_the_right_pictures_want_another_extractor() -> None:
    answer = verdict(judgement(FIRST, FIRST, listed=1), OF)
    assert answer.next.startswith("another extractor, since")
    assert answer.command == "locore eval mine photos --extractor efficientnet-lite2"
    assert "have 50% of the right pictures" in answer.next


def test_a_first_stage_without_faults_leaves_nothing_to_try() -> None:
    perfect = np.ones(60)
    answer = verdict(judgement(perfect, perfect, in_metric=perfect, listed=2), OF)
    assert answer.answer == "no"
    assert answer.next.startswith("nothing, ")
    assert answer.command is None


def test_numbers_in_words() -> None:
    assert points(Interval(0.0123, -0.0004, 0.1)) == ("+1.2", "0.0 to +10.0")
    assert [rounded(seconds) for seconds in (0.0123, 3.456, 31.7, 1234.0)] == [
        "0.012",
        "3.5",
        "32",
        "1,200",
    ]

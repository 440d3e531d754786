"""How fusion heads are judged, by hand-computed figures; and the report, which loads nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="extra `train` is not installed: metrics are NOT tested here")

from models.fusion.labels import LABELS
from models.training import metrics as m
from models.training import report
from models.training.metrics import reliability, temperature
from models.training.thresholds import LOWEST, predicted_threshold, threshold_for
from pipeline.types import SECOND, ns

GUN, SIREN = LABELS.index("gunshot"), LABELS.index("siren")


def scored(scenes: dict[str, Sequence[float]], truths: m.Truths, guess: int = GUN) -> m.Scored:
    """Windows of 4 s that end each second from the 4th on; every one guesses the same label."""
    rows = [
        (name, ns(i), ns(i + 4), score)
        for name, scores in scenes.items()
        for i, score in enumerate(scores)
    ]
    over = [
        next((t for t in truths.get(s, ()) if t.start_ns < end and t.end_ns > start), None)
        for s, start, end, _ in rows
    ]
    classes = np.full((len(rows), len(LABELS)), 0.05)
    classes[:, guess] = 0.7
    return m.Scored(
        scene=[r[0] for r in rows],
        start_ns=np.array([r[1] for r in rows], np.int64),
        end_ns=np.array([r[2] for r in rows], np.int64),
        score=np.array([r[3] for r in rows]),
        classes=classes,
        anomaly=np.array([int(t is not None) for t in over]),
        label=np.array([LABELS.index(t.label) if t else -1 for t in over]),
        kind=["some"] * len(rows),
    )


def plain(score: Sequence[float], anomaly: Sequence[int]) -> m.Scored:
    """Windows one after the other, of which only score and truth matter."""
    n = len(score)
    at = np.arange(n, dtype=np.int64) * SECOND
    truth = np.array(anomaly)
    classes = np.eye(len(LABELS))[[GUN] * n]
    label = np.where(truth == 1, GUN, -1)
    return m.Scored(["s"] * n, at, at + SECOND, np.array(score), classes, truth, label, ["k"] * n)


def shot(at: float, until: float, label: str = "gunshot") -> m.Truth:
    return m.Truth(ns(at), ns(until), label)


def test_average_precision_and_auc_leave_out_what_counts_not() -> None:
    some = plain([0.9, 0.8, 0.7, 0.1, 0.99], [1, 0, 1, 0, -1])
    assert m.frame_ap(some) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert m.frame_auc(some) == pytest.approx(3 / 4)


def test_one_class_alone_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="2 windows that count, 2 of them positive"):
        m.frame_ap(plain([0.9, 0.8, 0.3], [1, 1, -1]))


@pytest.mark.parametrize("score", [float("nan"), 1.2, -0.1])
def test_a_score_that_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="no number in"):
        plain([score], [1])


def test_windows_that_do_not_fit_are_refused() -> None:
    one = plain([0.1, 0.2, 0.3], [0, 0, 1])
    with pytest.raises(ValueError, match=r"3 windows .* score \(2,\)"):
        m.Scored(**{**vars(one), "score": one.score[:2]})
    with pytest.raises(ValueError, match="end at once"):
        m.Scored(**{**vars(one), "end_ns": one.end_ns[[0, 0, 1]]})


def test_f1_is_the_mean_over_labels_that_occur() -> None:
    truths = {"a": [shot(0, 2)], "b": [shot(0, 1, "siren")]}
    # a: two windows over the shot and two after it; b: one over the siren, which is called a shot
    each, macro = m.class_f1(scored({"a": [0.9, 0.2, 0.9, 0], "b": [0.9]}, truths), 0.5)
    assert each == {"gunshot": pytest.approx(2 * 1 / (2 + 1 + 2)), "siren": 0}
    assert macro == pytest.approx(0.2)
    assert np.isnan(m.class_f1(plain([0.1], [0]), 0.5)[1])


def test_confusion_has_nothing_last() -> None:
    table = m.confusion(plain([0.9, 0.1, 0.9, 0.1, 0.9], [1, 1, 0, 0, -1]), 0.5)
    assert table.sum() == 4
    assert (table[GUN, GUN], table[GUN, -1], table[-1, GUN], table[-1, -1]) == (1, 1, 1, 1)


def test_an_event_is_drawn_in_newest_hops() -> None:
    some = scored({"a": [0, 0.6, 0.9, 0, 0, 0.6, 0, 0, 0, 0.6]}, {}, guess=SIREN)
    first, second = m.events(some, 0.6)  # a pause of two hops is within, one of three is not
    assert (first.start_ns, first.end_ns) == (ns(4), ns(9))
    assert (first.scene, first.label, first.score) == ("a", "siren", 0.9)
    assert first.windows == (1, 2, 5)
    assert (second.start_ns, second.end_ns) == (ns(12), ns(13))


def test_events_do_not_join_over_scenes_nor_depend_on_the_order_of_windows() -> None:
    some = scored({"a": [0, 0.9], "b": [0.9, 0]}, {})
    assert [e.scene for e in m.events(some, 0.5)] == ["a", "b"]
    turned = m.Scored(
        **{
            name: np.asarray(value)[::-1] if name not in ("scene", "kind") else value[::-1]
            for name, value in vars(some).items()
        }
    )
    spans = [(e.scene, e.start_ns, e.end_ns) for e in m.events(some, 0.5)]
    assert [(e.scene, e.start_ns, e.end_ns) for e in m.events(turned, 0.5)] == spans


def test_no_window_above_is_no_event() -> None:
    some = scored({"a": [0.1, 0.2]}, {})
    assert m.events(some, 0.5) == []
    assert m.false_alarms_per_hour(some, {}, 0.5) == 0


def test_false_alarms_are_events_away_from_every_truth_by_hours_of_hops() -> None:
    truths = {"a": [shot(0.5, 1)], "b": []}
    quiet = [0.0] * 16
    some = scored({"a": [0.9, 0, 0, 0, 0.9, *quiet, 0.9], "b": [*quiet, 0, 0, 0.9, 0.9]}, truths)
    # in a: one over the shot, one of [4, 8) beyond its collar, one late; in b: one of two windows
    assert [e.scene for e in m.false_events(some, truths, 0.5)] == ["a", "a", "b"]
    assert m.false_alarms_per_hour(some, truths, 0.5) == pytest.approx(3 / (42 / 3600))


def test_a_detection_that_is_late_or_just_after_a_truth_is_no_false_alarm() -> None:
    late = scored({"a": [0, 0, 0, 0.9]}, {})  # of [3, 7)
    assert m.false_alarms_per_hour(late, {"a": [shot(3.2, 3.4)]}, 0.5) == 0
    assert m.false_alarms_per_hour(late, {"a": [shot(1.5, 2.5)]}, 0.5) == 0  # by the collar
    assert m.false_alarms_per_hour(late, {"a": [shot(1, 2)]}, 0.5) == pytest.approx(900)


def test_time_to_detect_is_from_the_start_of_the_truth_to_the_first_window_that_tells() -> None:
    truths = {"a": [shot(3.5, 4)], "b": [shot(2, 9), shot(20, 21)], "elsewhere": [shot(0, 1)]}
    some = scored({"a": [0.9, 0.9, 0.2], "b": [0.9, 0.2, 0.2, 0.6, 0.6]}, truths)
    # told at 4 s and at 4 s: the first one 0.5 s after its start, the second 2 s; the third never
    assert [d.seconds for d in m.detections(some, truths, 0.5)][:2] == [0.5, 2]
    assert m.event_recall(some, truths, 0.5) == pytest.approx(2 / 3)
    assert m.time_to_detect(some, truths, 0.5) == pytest.approx((1.25, 0.5 + 0.95 * 1.5))
    assert np.isnan(m.time_to_detect(some, truths, 0.95)).all()
    assert np.isnan(m.event_recall(some, {}, 0.5))


def test_what_is_missed_is_told_with_its_highest_score() -> None:
    missed = m.detections(scored({"a": [0.1, 0.3, 0.2]}, {}), {"a": [shot(1, 2)]}, 0.5)
    assert [(d.score, np.isnan(d.seconds)) for d in missed] == [(0.3, True)]


def test_the_threshold_is_the_lowest_that_keeps_the_rate() -> None:
    truths = {"a": [shot(0, 1)]}
    scores = [0.99, *[0.0] * 9, 0.3, *[0.0] * 9, 0.7, *[0.0] * 3579]  # an hour of hops
    some = scored({"a": scores}, truths)
    assert threshold_for(some, truths, per_hour=2) == 0.05
    assert threshold_for(some, truths, per_hour=1) == 0.301
    assert threshold_for(some, truths, per_hour=0.5) == 0.701


def test_the_threshold_is_not_fooled_by_windows_that_grow_together() -> None:
    truths = {"a": [shot(0, 1)]}
    some = scored({"a": [0.9, *[0.2] * 20, 0.6, *[0.2] * 20]}, truths)
    assert m.false_alarms_per_hour(some, truths, 0.1) == 0  # one event over all of it
    assert threshold_for(some, truths, per_hour=0) == 0.601


def test_the_threshold_ends_where_it_must() -> None:
    assert threshold_for(plain([1.0, 1.0], [0, 0]), {}, per_hour=0) == 0.9999
    with pytest.raises(ValueError, match="no windows"):
        threshold_for(plain([], []), {}, per_hour=1)


def test_a_threshold_is_foretold_from_the_tail_of_what_is_quiet() -> None:
    chance = np.random.default_rng(3)
    peaks = 1 / (1 + np.exp(-(chance.exponential(1.0, 400) - 2)))  # log odds fall off by e
    scores = {f"quiet {n}": [0.01, float(peak), *[0.01] * 7] for n, peak in enumerate(peaks)}
    some = scored(scores, {})  # 400 scenes of 9 s: an hour
    for per_hour in (10, 1, 0.1):
        level = np.log(400 / per_hour) - 2  # as many peaks lie above
        wanted = 1 / (1 + np.exp(-level))
        assert predicted_threshold(some, {}, per_hour) == pytest.approx(wanted, abs=0.02)
    assert predicted_threshold(some, {}, 0.1) > threshold_for(some, {}, 1)
    assert predicted_threshold(some, {}, 0) == 0.9999


def test_what_is_near_a_truth_foretells_nothing_nor_do_few_scenes() -> None:
    calm = {f"quiet {n}": [0.1, 0.2, 0.1 + n / 1000] for n in range(40)}
    loud = {f"loud {n}": [0.99, 0.99] for n in range(40)}
    truths = {name: [shot(0, 2)] for name in loud}
    alone = predicted_threshold(scored(calm, {}), {}, 1)
    assert predicted_threshold(scored({**calm, **loud}, truths), truths, 1) == alone
    few = dict(list(loud.items())[:19])
    assert predicted_threshold(scored(few, {}), {}, 1) == LOWEST


def test_reliability_has_the_bins_that_are_not_empty() -> None:
    found = reliability(plain([0.12, 0.18, 0.9, 1.0, 1.0, 0.5], [0, 1, 1, 1, 0, -1]))
    assert found.count.tolist() == [2, 3]
    assert found.score == pytest.approx([0.15, 2.9 / 3])
    assert found.share == pytest.approx([0.5, 2 / 3])
    assert found.ece == pytest.approx((2 * 0.35 + 3 * (0.9 / 3)) / 5)


@pytest.mark.parametrize("t", [0.5, 1, 2.5])
def test_the_temperature_that_made_the_logits_too_sure_is_found(t: float) -> None:
    chance = np.random.default_rng(7)
    odds = chance.normal(0, 2, 20_000)
    y = (chance.random(20_000) < 1 / (1 + np.exp(-odds))).astype(int)
    assert temperature(odds * t, y) == pytest.approx(t, rel=0.05)
    logits = chance.normal(0, 2, (20_000, 3))
    classes = (logits + chance.gumbel(size=logits.shape)).argmax(axis=1)
    assert temperature(logits * t, classes) == pytest.approx(t, rel=0.05)


def test_measure_is_every_figure() -> None:
    truths = {"a": [shot(0, 1)]}
    found = m.measure(scored({"a": [0.9, 0.2, 0.1, 0.6]}, truths), truths, 0.5)
    assert (found.ap, found.auc, found.f1, found.event_recall) == (1, 1, pytest.approx(2 / 3), 1)
    assert (found.windows, found.positives, found.detect_median_s) == (4, 1, 4)
    assert found.false_alarms_per_hour == 0  # the second window joins the first over two hops


EVIL = '<script>alert(1)</script> $x^2$ & "y"'
NAN = float("nan")


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def judged() -> tuple[m.Scored, dict[str, list[m.Truth]]]:
    """A scene that is found, one that is missed under an evil name and label, a false alarm."""
    truths = {"good": [shot(5, 7)], EVIL: [m.Truth(ns(3), ns(4), "siren")], "false": []}
    high = [0.1] * 2 + [0.9] * 5 + [0.1] * 20
    some = scored(
        {"good": high, EVIL: [0.1, 0.3, 0.2] * 5, "false": [0.1] * 9 + [0.8, 0.1]}, truths
    )
    return some, {**truths, EVIL: [m.Truth(ns(3), ns(4), EVIL)]}


def written(path: Path) -> Path:
    some, truths = judged()
    found = m.measure(some, truths, 0.5)
    places = [("attention", "VAT", "clean"), ("concat", "VAT", "clean"), (EVIL, "V", EVIL)]
    report.write(
        path,
        title=f"A head {EVIL}",
        card={"licence": "CC0", "data": {EVIL: 12, "splits": ["train", EVIL]}},
        rows=[m.TableRow(*place, found) for place in places],
        curves={"attention VAT": some, EVIL: some},
        main=some,
        truths=truths,
        threshold=0.5,
        notes=[f"A note {EVIL}"],
    )
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(written(tmp_path_factory.mktemp("report") / "report.html"))


@pytest.mark.parametrize(
    "section",
    [
        "Modalities and conditions",
        "Precision, recall and calibration",
        "Labels",
        "Kinds of scenes",
        "Scenes",
        "All figures",
        "Model card",
        "Notes",
    ],
)
def test_the_report_has_every_section(page: Page, section: str) -> None:
    assert f"\n{section}\n" in page.text


def test_the_report_shows_its_figures(page: Page) -> None:
    figures = [tag for tag, _ in page.tags if tag == "svg"]
    assert len(figures) == 2 + 3  # curves and calibration; three scenes
    for words in ("by chance", "share positive", "threshold 0.500", "Missed: ", "Good: gunshot"):
        assert words in page.text


def test_the_report_is_the_same_bytes_twice(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a.html"), written(tmp_path / "b.html")
    assert first.read_bytes() == second.read_bytes()


def test_the_report_loads_nothing_and_runs_nothing(page: Page) -> None:
    assert not {t for t, _ in page.tags} & {"script", "link", "img", "iframe", "object", "image"}
    attributes = [pair for _, some in page.tags for pair in some.items()]
    assert not [name for name, _ in attributes if name.startswith("on")]
    links = [value for name, value in attributes if name in ("src", "href", "xlink:href")]
    assert all(str(value).startswith("#") for value in links)
    assert not [
        v for n, v in attributes if "http" in str(v) and not n.startswith(("xmlns", "http"))
    ]
    style = [str(value) for _, value in attributes if "url(" in str(value)]
    assert all(re.fullmatch(r"[^(]*url\(#\w+\)[^(]*", value) for value in style)


def test_ids_are_of_one_figure_and_links_lead_somewhere(page: Page) -> None:
    ids = [some["id"] for _, some in page.tags if "id" in some]
    assert len(ids) == len(set(ids))
    links = {str(some["xlink:href"])[1:] for _, some in page.tags if "xlink:href" in some}
    assert links <= set(ids)


def test_names_are_text_wherever_they_stand(page: Page) -> None:
    # title twice, two tables' heads thrice each, the full table, a legend, a scene's caption and
    # truth, the reason, the card's key and value, the note; whatever they hold is shown as it is
    assert page.text.count(EVIL) >= 14


def test_the_scenes_shown_are_the_worst_and_some_good_ones() -> None:
    some, truths = judged()
    assert [
        (s.scene, s.why.partition(":")[0]) for s in report.select_scenes(some, truths, 0.5)
    ] == [
        (EVIL, "Missed"),
        ("false", "False alarm"),
        ("good", "Good"),
    ]
    many = {f"s{i}": [shot(5, 6)] for i in range(20)}
    bad = scored({name: [0.1 + i / 100] * 9 for i, name in enumerate(many)}, many)
    assert [s.scene for s in report.select_scenes(bad, many, 0.5)] == ["s0", "s1", "s2"]
    good = scored({name: [0.9] * 9 for name in many}, many)
    assert len(report.select_scenes(good, many, 0.5)) == 8


def test_two_rows_of_one_place_are_refused(tmp_path: Path) -> None:
    some, truths = judged()
    row = m.TableRow("attention", "V", "clean", m.Metrics(*[NAN] * 8, windows=0, positives=0))
    path = tmp_path / "report.html"
    with pytest.raises(ValueError, match="same name"):
        report.write(
            path,
            title="",
            card={},
            rows=[row, row],
            curves={},
            main=some,
            truths=truths,
            threshold=0.5,
            notes=[],
        )
    assert not path.exists()

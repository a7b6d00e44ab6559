"""Bars that show what jobs tell, and rows of jobs that no worker has finished."""

from concurrent.futures import Future

from texad.batch import executor
from texad.batch.executor import Bars
from texad.batch.notebooks import Job

JOB = Job("d", "steel", "random", "r", 0, {}, None, "steel")


def test_a_job_that_is_begun_again_sets_its_bar_back(capsys):
    bars = Bars([JOB] * 2, live=False, progress=True)
    first, second = bars.teller(0), bars.teller(1)
    for tell, cells in ((first, 4), (second, 1), (first, 6), (first, 2)):
        tell("a", cells)
    assert [bar.n for bar in bars.bars] == [2, 1]
    bars.close()


def test_many_jobs_share_one_bar(capsys):
    bars = Bars([JOB] * (executor.MOST_BARS + 1), live=False, progress=True)
    bars.teller(7)("a", 5)
    bars.teller(40)("a", 3)
    (bar,) = bars.bars
    assert bar.n == 8 and "41 categories" in bar.desc
    bars.close()
    assert len(Bars([JOB] * 3, live=False, progress=False).bars) == 3


def test_the_last_words_of_earlier_jobs_move_no_bar(capsys):
    """The studies start after the categories, and what these told may still be on its way."""
    earlier = Bars([JOB], live=False, progress=True)
    tell = earlier.teller(0)
    earlier.close()
    later = Bars([JOB], live=False, progress=True)
    shown = capsys.readouterr().err
    tell("a", 5)
    assert later.bars[0].n == 0 and capsys.readouterr().err == "" and shown
    later.close()


def test_a_job_that_the_cluster_gave_up_is_a_row_that_says_so():
    future = Future()
    future.cancel()
    row = executor._row(JOB, future)
    assert row["category"] == "steel" and row["error"].startswith(
        "given up, since the scheduler is gone"
    )

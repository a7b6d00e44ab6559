"""Bars that show what jobs tell, and rows of jobs that no worker has finished."""

from concurrent.futures import Future

from texad.batch import executor
from texad.batch.notebooks import Job

JOB = Job("d", "steel", "random", "r", 0, {}, None, "steel")


class Told(executor.Pool):
    """A pool whose jobs are done at once, after they have told something."""

    def __init__(self, *told: list[int]):
        rest = iter(told)

        def submit(job, tell):
            for cells in next(rest):
                tell("a", cells)
            future = Future()
            future.set_result({"category": job.category})
            return future

        super().__init__(submit, abandon=lambda: None)


def shown(monkeypatch, *told: list[int]) -> list[tuple[str, int]]:
    """Label and number of each bar at its end, when as many jobs have told these numbers."""
    bars = []

    class Bar(executor.tqdm):
        def close(self):
            if not self.disable:
                bars.append((self.desc, self.n))
            super().close()

    monkeypatch.setattr(executor, "tqdm", Bar)
    rows = executor.run_all([JOB] * len(told), Told(*told), progress=True)
    assert rows == [{"category": "steel"}] * len(told)
    return [(desc.rstrip(": "), n) for desc, n in bars]


def test_each_job_has_a_bar_and_one_that_is_begun_again_sets_it_back(monkeypatch, capsys):
    assert shown(monkeypatch, [4, 6, 2], [1]) == [("steel", 2), ("steel", 1)]


def test_many_jobs_share_one_bar(monkeypatch, capsys):
    told = [[i] for i in range(executor.MOST_BARS + 1)]
    assert shown(monkeypatch, *told) == [("41 categories", sum(range(41)))]


def test_the_last_words_of_a_job_that_is_done_move_no_bar(capsys):
    """The studies start after the categories, and what these told may still be on its way."""
    tellers = []
    pool = Told([1])
    submit = pool.submit
    object.__setattr__(pool, "submit", lambda job, tell: tellers.append(tell) or submit(job, tell))
    executor.run_all([JOB], pool, progress=True)
    assert "steel" in capsys.readouterr().err
    tellers[0]("a", 5)
    assert capsys.readouterr().err == ""


def test_a_job_that_the_cluster_gave_up_is_a_row_that_says_so():
    future = Future()
    future.cancel()
    row = executor._row(JOB, future)
    assert row["category"] == "steel" and row["error"].startswith(
        "given up, since the scheduler is gone"
    )

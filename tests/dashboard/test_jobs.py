import threading

import pytest

from dashboard import jobs


def test_a_job_is_done_when_its_function_is_and_not_before() -> None:
    may_end = threading.Event()
    job = jobs.start(lambda: may_end.wait(60) and "found")
    assert not jobs.is_done(job, 0.01)
    may_end.set()
    assert jobs.is_done(job, 60)
    assert job.result() == "found"


def test_what_a_job_raises_is_raised_where_its_result_is_taken() -> None:
    job = jobs.start(lambda: 1 / 0)
    assert jobs.is_done(job, 60)
    with pytest.raises(ZeroDivisionError):
        job.result()


def test_a_job_does_not_keep_the_server_from_ending() -> None:
    may_end = threading.Event()
    seen: list[bool] = []
    job = jobs.start(lambda: seen.append(threading.current_thread().daemon) or may_end.wait(60))
    may_end.set()
    assert jobs.is_done(job, 60)
    assert seen == [True]

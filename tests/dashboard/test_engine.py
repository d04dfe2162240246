"""The page on a service: the same views, the same numbers, and what is said when the service does not answer."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard import cli, data, state, words
from dashboard.engine import Embedded, Remote, engine_of
from simulator.errors import ServiceError
from tests.dashboard.pages import open_view, written
from tests.dashboard.test_app import open_page, press_run, upload
from tests.dashboard.tiny_scenario import TINY
from tests.simulator.service.serving import Outside, outside

SCENARIO = data.load(data.Source("tiny.toml", TINY))
NOWHERE = "http://127.0.0.1:9"


def nothing(_: float) -> None:
    """Take a share that is done."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("service"), "--workers", "1") as found:
        found.wait_until_ready()
        yield found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, service: Outside) -> None:
    """Start the page as `bebop ui --api URL --token-env PAGE_TOKEN` does."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--api", service.url, "--token-env", "PAGE_TOKEN"])
    monkeypatch.setenv("PAGE_TOKEN", service.token)


def test_a_service_answers_what_this_machine_answers(service: Outside) -> None:
    there, here = Remote(service.url, service.token), Embedded()
    assert there.run(SCENARIO, nothing).to_json() == here.run(SCENARIO, nothing).to_json()
    assert there.first_look(SCENARIO, nothing) == here.first_look(SCENARIO, nothing)


def test_a_service_searches_the_plans_that_this_machine_searches(service: Outside) -> None:
    pytest.importorskip("optuna")
    there, here = Remote(service.url, service.token), Embedded()
    assert there.plans(SCENARIO, "to", 4, 8, nothing) == here.plans(SCENARIO, "to", 4, 8, nothing)


def test_a_page_that_goes_away_ends_its_job(service: Outside) -> None:
    class GoneAwayError(BaseException):
        """As Streamlit ends a script."""

    def go_away(_: float) -> None:
        raise GoneAwayError

    scenario = data.load(data.Source("tiny.toml", TINY), ["run.num_steps=400", "run.replications=60"])
    with pytest.raises(GoneAwayError):
        Remote(service.url, service.token).run(scenario, go_away)
    status, listed = service.ask("/v1/runs?limit=1")
    assert status == 200
    assert listed["jobs"][0]["status"] == "cancelled"


@pytest.mark.usefixtures("told")
def test_the_page_shows_the_services_numbers_and_says_where_they_come_from(service: Outside) -> None:
    page = press_run(open_view("predict", tiny=True))
    assert not page.exception
    assert not page.error
    report = Embedded().run(SCENARIO, nothing)
    assert words.answer(report, report.best_arm) in written(page)
    assert words.escape_markdown(service.url) in written(page)
    page.switch_page("views/what_if.py").run()
    assert not page.exception
    assert "It has no short runs" in written(page)


@pytest.mark.parametrize(
    ("address", "token", "complaint"),
    [(NOWHERE, "x", "no service answers there"), (None, "wrong", "PAGE_TOKEN")],
    ids=["nobody there", "wrong token"],
)
def test_a_service_that_fails_is_one_line_and_is_not_asked_again_by_itself(
    service: Outside, monkeypatch: pytest.MonkeyPatch, address: str | None, token: str, complaint: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", "--api", address or service.url, "--token-env", "PAGE_TOKEN"])
    monkeypatch.setenv("PAGE_TOKEN", token)
    unasked = TINY.replace("num_steps = 6", "num_steps = 7")  # an answer that is kept would need no service
    page = press_run(upload(open_page(), unasked))
    assert not page.exception
    assert complaint in page.error[0].value.replace("\\", "")
    page.run()
    assert [complaint in error.value.replace("\\", "") for error in page.error] == [True]
    assert not page.button(key=state.RUN).disabled


def test_a_busy_service_says_how_long_to_wait(tmp_path: Path) -> None:
    with outside(tmp_path / "busy", "--workers", "1", "--queue", "1") as busy:
        for seed in range(2):
            long = data.load(data.Source("tiny.toml", TINY), [f"run.seed={seed}", "run.num_steps=900"])
            busy.client.submit("run", long.model_dump(mode="json", exclude_unset=True))
        with pytest.raises(ServiceError, match=r"which is the limit.*it asks to wait 10 s"):
            Remote(busy.url, busy.token).run(SCENARIO, nothing)


def test_this_machine_works_unless_a_service_is_named() -> None:
    assert isinstance(engine_of(["-q", "tests/dashboard", "--port", "1"], {}), Embedded)
    found = engine_of(["--api", NOWHERE, "--token-env", "T"], {"T": "secret"})
    assert isinstance(found, Remote)
    assert found.address == NOWHERE


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--api", NOWHERE], "--token-env BEBOP_TOKEN: no such environment variable"),
        (["--api", "ftp://x", "--token-env", "SET"], "not the address of a service"),
        (["--token-env", "SET"], "--token-env is about --api URL"),
    ],
)
def test_a_wrong_service_is_one_line_before_the_page_is_served(
    arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BEBOP_TOKEN", raising=False)
    monkeypatch.setenv("SET", "secret")
    from bebop import main

    assert main(["ui", "--no-browser", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
    assert "secret" not in line


def test_the_token_is_never_on_a_command_line() -> None:
    words_of = cli.streamlit_arguments(1, open_browser=False, for_page=["--api", NOWHERE, "--token-env", "T"])
    assert words_of[words_of.index("--") :] == ["--", "--api", NOWHERE, "--token-env", "T"]

"""``paropt final``: the two parts of a final test, on this machine's slots, resumed at any point.

Everything that was decided is in the database: the plan with its seeds in each part's study, the
look at the test set in a table of its own, the report in the second part's study. So running it
again goes on where it stopped, and after the end prints the same report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paropt.data import open_dataset
from paropt.errors import StudyError
from paropt.launch.data.data_source import Given
from paropt.launch.launcher import announce, work
from paropt.launch.opening.checkpoint_place import folder_here
from paropt.launch.opening.open_study import OpenedStudy, join
from paropt.launch.opening.study_terms import versions
from paropt.machine.devices import DeviceShare
from paropt.names import quoted
from paropt.results.final import final_choice, final_plan, looks_at_test
from paropt.results.final.final_choice import Judged
from paropt.results.final.looks_at_test import Look
from paropt.results.final.looks_here import looks_here
from paropt.results.final.report import AT, Finding, gather
from paropt.results.final.seeds_together import Judging, Together, together
from paropt.results.words import counted
from paropt.search.study.plan import FinalPlan, part_name
from paropt.search.study.study import Study
from paropt.training.evaluation.protocol import EvaluationProtocol, Ties
from paropt.worker.checkpoints import kept_model

if TYPE_CHECKING:
    from paropt.search.study.definition import StudyDefinition
    from paropt.training.evaluation.bootstrap import Sample

Note = Callable[[str], None]


@dataclass(frozen=True)
class FinalRequest:
    """What ``final`` was asked for; None where nothing was said."""

    study: str
    top: int | None = None
    seeds: int | None = None
    control: Path | None = None
    again: bool = False
    storage: str | None = None
    data: Given | None = None
    ties: Ties | None = None
    filter_seen: bool | None = None
    without_valid: bool = False


def run(
    request: FinalRequest, places: Sequence[DeviceShare], checkpoints: Path | str | None, note: Note
) -> dict[str, Any]:
    """The report of the study's final test, after training what is still to be trained.

    Raises:
        StudyError: there is nothing to test, the test set was looked at before, or it was
            interrupted; another call goes on.
        ParoptError, StorageUnreachable: as ``launch``.
    """
    with join(request.study, request.storage, request.data, note) as opened:
        search = opened.study
        if search.definition.plan:
            raise StudyError(
                f"study {request.study!r} is part of a final test; name the study that it tests, "
                f"{search.definition.plan['of']!r}"
            )
        open_dataset(opened.data).view("full")  # refused before any work where there is no test
        plan = _plan(request, search)
        final_plan.check_data(plan, open_dataset(opened.data).view("search"))
        protocol = _protocol(request, search, plan)
        with search.transaction() as connection:
            here = looks_here(search.definition.fingerprint)
            looks_at_test.count_looks(connection, search.definition.fingerprint, here)
            looks_at_test.check_looks(connection, search.definition.fingerprint, plan)
        if report := _reported(search, plan.number):
            note(f"final test {plan.number} of study {request.study!r} was done before; its report")
            return report
        note(f"judged by {search.definition.metric}, {protocol.words()}")
        train = _FinalTraining(opened, places, checkpoints, protocol, note)
        return _test(train, plan)


def _test(train: _FinalTraining, plan: FinalPlan) -> dict[str, Any]:
    search, note = train.opened.study, train.note
    what = f"{counted(len(plan.entries), 'configuration')} with {counted(len(plan.seeds), 'seed')}"
    note(f"final test {plan.number}: {what} on valid")
    judged = train.part(plan, "valid", floor=search.summary()["floor"])
    chosen, control = final_choice.choose(judged, search.definition.objective)
    second = final_plan.test_plan(plan, chosen, control)
    with search.transaction() as connection:
        taken = looks_at_test.take_look(connection, search.definition.fingerprint, second)
    before = len(taken) - 1
    known = f"judged {counted(before, 'time')} before" if before else "not judged on yet"
    note(f"{chosen.entry.name} is chosen at epoch {chosen.epoch}; the test set was {known}")
    samples = _baselines(train, second)
    floor = {name: sample.values for name, sample in samples.items()}
    tested = train.part(second, "test", floor=floor)
    if failed := [failure for one in tested for failure in one.failures]:
        raise StudyError(
            f"{len(failed)} trainings for the test failed, the first with: {failed[0]}; "
            f"{quoted('final', plan.of)} tries them again"
        )
    data = train.opened.data
    together = {
        one.entry.name: seeds for one in tested if (seeds := train.together(second, one, note))
    }
    found = Finding(
        search,
        plan,
        judged,
        chosen,
        control,
        tested,
        taken,
        samples,
        data,
        train.protocol,
        second.view,
        together,
    )
    report = gather(found)
    study = Study.load(search.url, part_name(plan.of, plan.number, "test"))
    try:
        study.set_report(report)
    finally:
        study.close()
    return report


# -- which final test ---------------------------------------------------------------------------


def _plan(request: FinalRequest, search: Study) -> FinalPlan:
    """The latest final test's plan, or that of a new one."""
    number = latest(search)
    if number and (_reported(search, number) is None or not request.again):
        plan = FinalPlan.from_json(_load(search, number, "valid").plan)
        has = _load(search, number, "valid").protocol
        other = _asked_otherwise(request, plan, has)
        if other and not request.again:
            raise StudyError(
                f"final test {plan.number} of study {plan.of!r} has {other}; leave it out, or add "
                "--again for another final test after this one"
            )
        if not other:
            return replace(plan, again=plan.again or request.again)
    return _new_plan(request, search, number + 1)


def _new_plan(request: FinalRequest, search: Study, number: int) -> FinalPlan:
    control = None
    if request.control:
        from paropt.search.space.paramfiles import read_paramfile

        control = (f"paramfile {request.control.name}", read_paramfile(request.control))
    return final_plan.make_plan(
        search,
        number,
        top=request.top or final_plan.CANDIDATES,
        seeds=request.seeds or final_plan.SEEDS,
        control=control,
        again=request.again,
        without_valid=request.without_valid,
    )


def latest(search: Study) -> int:
    """The number of the study's last final test; 0: there was none."""
    names = set(Study.names(search.url))
    number = 0
    while part_name(search.name, number + 1, "valid") in names:
        number += 1
    return number


def latest_report(search: Study) -> dict[str, Any] | None:
    """The report of the study's last final test that was done."""
    for number in range(latest(search), 0, -1):
        if report := _reported(search, number):
            return report
    return None


def _reported(search: Study, number: int) -> dict[str, Any] | None:
    name = part_name(search.name, number, "test")
    if name not in Study.names(search.url):
        return None
    study = Study.load(search.url, name)
    try:
        return study.report()
    finally:
        study.close()


def _load(search: Study, number: int, part: str) -> StudyDefinition:
    study = Study.load(search.url, part_name(search.name, number, part))
    study.close()
    return study.definition


def _asked_otherwise(request: FinalRequest, plan: FinalPlan, judged: EvaluationProtocol) -> str:
    """In which something else is asked for than what is under way; "" where nothing is."""
    candidates = sum(bool(entry.found) for entry in plan.entries)
    said: list[tuple[str, Any, Any]] = []
    if request.top is not None and request.top != candidates:
        said.append(("--top", candidates, request.top))
    if request.seeds is not None and request.seeds != len(plan.seeds):
        said.append(("--seeds", len(plan.seeds), request.seeds))
    if request.control is not None:
        source = f"paramfile {request.control.name}"
        found = ", ".join(entry.source for entry in plan.entries if entry.source)
        if found != source:
            said.append(("control", found, source))
    if request.without_valid and not plan.without_valid:
        said.append(("training", "on train_full", "on train alone"))
    asked = judged.asked(request.filter_seen, request.ties)
    if asked != judged:
        said.append(("the rules", judged.words(), asked.words()))
    return next((f"{name} {has}, not {wanted}" for name, has, wanted in said), "")


def _protocol(request: FinalRequest, search: Study, plan: FinalPlan) -> EvaluationProtocol:
    """How this final test judges: as it began, as asked, or as the search did."""
    name = part_name(plan.of, plan.number, "valid")
    if name not in Study.names(search.url):
        return search.definition.protocol.asked(request.filter_seen, request.ties)
    return _load(search, plan.number, "valid").protocol


# -- training -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FinalTraining:
    """Where the parts are trained."""

    opened: OpenedStudy
    places: Sequence[DeviceShare]
    checkpoints: Path | str | None
    protocol: EvaluationProtocol
    note: Note

    def part(self, plan: FinalPlan, part: str, floor: Mapping[str, Any]) -> list[Judged]:
        """Train what a plan lists, unless that is done.

        Raises:
            StudyError: it was interrupted, or its trainings fail alike.
        """
        storage, search = self.opened.storage, self.opened.study
        name = part_name(plan.of, plan.number, part)
        if name in Study.names(search.url):
            # what was planned holds, though the search may have found better since
            definition = _load(search, plan.number, part)
        else:
            definition = _definition(search.definition, name, plan, self.protocol)
        study = Study.create(search.url, definition, budget=len(plan.jobs()))
        try:
            if floor:
                study.set_floor(floor)
            interrupted = False
            if not self._settled(study):
                study.retry_failed()
                self.note(f"training {name}; {quoted('worker', '--study', name)} helps")
                part_of = OpenedStudy(storage, study, self.opened.data, True)
                announce(part_of)
                ending = work(part_of, self.places, checkpoints=self.checkpoints, report=False)
                interrupted = bool(ending["interrupted"])
            self._check_done(study, plan, interrupted)
            return final_choice.judge(study)
        finally:
            study.close()

    def together(self, plan: FinalPlan, one: Judged, note: Note) -> Together | None:
        """The seeds of an entry of the second part as one model; None of a single seed."""
        if len(one.trained) < 2:
            return None
        note(f"judging the {len(one.trained)} seeds of {one.entry.name} as one model")
        study = Study.load(self.opened.study.url, part_name(plan.of, plan.number, "test"))
        try:
            part = OpenedStudy(self.opened.storage, study, self.opened.data, True)
            folder = folder_here(part, self.checkpoints)
        finally:
            study.close()
        models = {seed: kept_model(folder, *trained) for seed, trained in one.trained.items()}
        return together(models, self._judging(plan))

    def _judging(self, plan: FinalPlan) -> Judging:
        definition = self.opened.study.definition
        label = self.places[0].device.label
        return Judging(
            open_dataset(self.opened.data).view(plan.view),
            sorted({*AT, *definition.at}),
            definition.also,
            definition.objective,
            self.protocol,
            "cpu" if label == "cpu" else label.replace("gpu", "cuda:"),
        )

    def _settled(self, study: Study) -> bool:
        """Whether all was trained; what failed on valid is a result, too."""
        found = study.counts()
        done = found["complete"] + (found["failed"] if study.definition.view == "search" else 0)
        return done == len(study.jobs)

    def _check_done(self, study: Study, plan: FinalPlan, interrupted: bool) -> None:
        found = study.counts()
        done = found["complete"] + found["failed"]
        if interrupted or done < len(study.jobs):
            raise StudyError(
                f"the final test of study {plan.of!r} was interrupted: {study.name!r} has "
                f"{done} of {len(study.jobs)} trainings; the same command goes on"
            )


def _definition(
    search: StudyDefinition, name: str, plan: FinalPlan, protocol: EvaluationProtocol
) -> StudyDefinition:
    return replace(
        search,
        name=name,
        at=sorted({*AT, *search.at}),
        view=plan.view,
        sampler={"name": "random"},
        pruner={"name": "none"},
        versions=versions(),
        evaluation=protocol.to_json(),
        plan=plan.to_json(),
        also=search.recorded,
        constraints=[],  # they chose the candidates; what these cost is reported
    )


def _baselines(train: _FinalTraining, plan: FinalPlan) -> dict[str, Sample]:
    from paropt.data import open_dataset
    from paropt.training.evaluation.baselines.beside import baseline_samples
    from paropt.training.metrics import names_at

    train.note("computing what needs no training on test")
    definition = train.opened.study.definition
    objective = definition.objective
    names = names_at(sorted({*AT, *definition.at}), [*definition.also, *objective.names])
    models = list(dict.fromkeys(entry.model for entry in plan.entries))
    view = open_dataset(train.opened.data).view(plan.view)
    params: dict[str, Any] = {}
    for entry in reversed(plan.entries):  # the first one's, where they differ
        params |= entry.params
    return baseline_samples(models, view, names, train.protocol, objective, params)


__all__ = ["FinalRequest", "Look", "latest", "latest_report", "run"]

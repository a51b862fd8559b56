"""Who reads whom within a stage: names that are there, and an order in which all can be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from modelstream.models.errors import ConfigError, did_you_mean

__all__ = ["dependencies", "evaluation_order", "gates", "member_problems", "name_problems"]


def gates(steps: Mapping[str, Sequence[str]]) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return for each model that sees only what cascades hand to it, which cascades those are, and as which step.

    A model that is the first step of a cascade sees all rows, whatever else it is.

    Parameters
    ----------
    steps : mapping of str to sequence of str
        The steps of each cascade.

    Examples
    --------
    >>> gates({"verdict": ["quick", "thorough"], "other": ["thorough", "last"]})
    {'last': (('other', 1),)}
    """
    firsts = {each[0] for each in steps.values()}
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for cascade, each in steps.items():
        for k, step in enumerate(each):
            if step not in firsts:
                found[step] = (*found.get(step, ()), (cascade, k))
    return found


def dependencies(
    inputs: Mapping[str, Sequence[str]], members: Mapping[str, Sequence[str]], steps: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return for each answer of a stage the others that have to be there before.

    Parameters
    ----------
    inputs : mapping of str to sequence of str
        For each model, the answers that it reads.
    members : mapping of str to sequence of str
        The members of each ensemble.
    steps : mapping of str to sequence of str
        The steps of each cascade.

    Examples
    --------
    >>> dependencies({"quick": [], "thorough": []}, {}, {"verdict": ["quick", "thorough"]})
    {'quick': [], 'thorough': ['quick'], 'verdict': ['quick', 'thorough']}
    """
    handing = gates(steps)
    reads = {
        name: [*read, *(step for cascade, k in handing.get(name, ()) for step in steps[cascade][:k])]
        for name, read in inputs.items()
    }
    return reads | {name: list(each) for name, each in (*members.items(), *steps.items())}


def evaluation_order(reads: Mapping[str, Sequence[str]]) -> list[str]:
    """Return names so that each comes after those that it reads.

    Parameters
    ----------
    reads : mapping of str to sequence of str
        For each name, the others that it reads.

    Raises
    ------
    ConfigError
        They read each other in a circle.

    Examples
    --------
    >>> evaluation_order({"blend": ["quick", "late"], "late": ["quick"], "quick": []})
    ['quick', 'late', 'blend']
    >>> evaluation_order({"a": ["b"], "b": ["a"]})
    Traceback (most recent call last):
    modelstream.models.errors.ConfigError: 'a' reads 'b' reads 'a': none of them can be asked first
    """
    try:
        return list(TopologicalSorter(reads).static_order())
    except CycleError as error:
        circle = " reads ".join(map(repr, reversed(error.args[1])))
        raise ConfigError("", f"{circle}: none of them can be asked first") from None


#: A place in ``infer``: keys and indices.
Place = tuple[str | int, ...]


def member_problems(
    models: Sequence[str], ensembles: Mapping[str, tuple[str, Sequence[str]]], cascades: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong with the members of ensembles and the steps of cascades, each with its place.

    Parameters
    ----------
    models : sequence of str
        What the models' answers stand under.
    ensembles : mapping of str to (str, sequence of str)
        The mode of each ensemble, and its members.
    cascades : mapping of str to sequence of str
        The steps of each cascade.

    Examples
    --------
    >>> list(member_problems(["quick", "late"], {}, {"verdict": ["quick", "lat"]}))
    [(('cascades', 'verdict', 'steps', 1), "there is no model 'lat' in this stage; did you mean 'late'?")]
    """
    known = [*models, *ensembles, *cascades]
    for name, (mode, members) in ensembles.items():
        for i, member in enumerate(members):
            place = ("ensembles", name, mode, member if mode == "weighted" else i)
            if member not in known:
                yield place, f"there is no {member!r} in this stage{did_you_mean(member, known) or _list(known)}"
            elif member in members[:i]:
                yield place, f"{member!r} stands there twice; give it a weight instead"
    for name, steps in cascades.items():
        if len(steps) < 2:
            yield ("cascades", name, "steps"), "a cascade needs two steps at least"
        for i, step in enumerate(steps):
            problem = _step_problem(step, steps[:i], models, "an ensemble" if step in ensembles else "a cascade", known)
            if problem:
                yield ("cascades", name, "steps", i), problem


def _step_problem(
    step: str, before: Sequence[str], models: Sequence[str], kind: str, known: Sequence[str]
) -> str | None:
    if step in before:
        return f"{step!r} stands there twice"
    if step in models:
        return None
    if step in known:
        return f"{step!r} is {kind}; a step must be a model"
    return f"there is no model {step!r} in this stage{did_you_mean(step, models) or _list(models)}"


def name_problems(
    models: Sequence[str], ensembles: Iterable[str], cascades: Iterable[str]
) -> Iterator[tuple[Place, str]]:
    """Yield which names of a stage are taken already, each with its place.

    Parameters
    ----------
    models, ensembles, cascades : iterable of str
        What the answers stand under.
    """
    first: dict[str, str] = {}
    places: list[tuple[str, Place]] = [(name, ("models", i)) for i, name in enumerate(models)]
    places += [(name, ("ensembles", name)) for name in ensembles]
    places += [(name, ("cascades", name)) for name in cascades]
    for name, place in places:
        if name in first:
            yield place, f"the name {name!r} is not distinct: {first[name]} has it, and predictions stand under it"
        first.setdefault(name, f"models[{place[1]}]" if place[0] == "models" else f"{place[0]}.{name}")


def _list(known: Sequence[str]) -> str:
    return f"; it has {', '.join(known)}"

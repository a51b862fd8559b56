"""``modelstream replay --offline``: without a broker, under a virtual clock."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

from modelstream.streams.cli.common import broker_settings, ended_by_ctrl_c, read_pipeline
from modelstream.streams.cli.progress import show_progress
from modelstream.streams.cli.replay_options import ReplayOptions
from modelstream.streams.cli.replay_setting import ReplaySetting
from modelstream.streams.replay.arrivals import Pace
from modelstream.streams.replay.costs import measure_costs, read_costs
from modelstream.streams.replay.environment import describe_environment
from modelstream.streams.replay.matching import Matcher
from modelstream.streams.replay.offline import run_offline
from modelstream.streams.replay.offline_result import offline_result
from modelstream.streams.replay.prepared import TimedRecord, prepare
from modelstream.streams.replay.result import ReplayResult
from modelstream.streams.replay.result_keys import Labels
from modelstream.streams.spec import PipelineSpec
from modelstream.streams.worker_limits import ROUND_TRIP_S, limits_of

__all__ = ["outside_costs", "replay_offline"]


@ended_by_ctrl_c("nothing is written")
def replay_offline(setting: ReplaySetting, more: ReplayOptions, pace: Pace, warm_up: float) -> ReplayResult:
    """Replay the events of a setting through its pipeline in this process, and return the figures.

    Raises
    ------
    ModelStreamError
        The events cannot be read, or the costs.
    """
    pipeline = read_pipeline(setting.pipeline, setting.overrides)
    spec = pipeline.spec
    built = pipeline.build()
    source = setting.open_file(spec) or setting.open_topic(broker_settings(setting.broker, spec.broker))
    with show_progress("read", setting.progress) as advance, tempfile.TemporaryDirectory() as folder:
        records: list[TimedRecord] = list(islice(source.some_records(), setting.limit))
        events = prepare(
            iter(records), spec.source, 1, Path(folder), needs_times=pace.needs_times,
            on_progress=lambda n: advance(n, source.share_read()),
        )  # fmt: skip
    n_repeated_ids = 0 if events.id_hashes is None else Matcher(events.id_hashes).n_repeated
    keys, values = [record[0] for record in records], [record[1] for record in records]
    if more.costs is not None:
        costs = read_costs(more.costs, [stage.step_id for stage in built.stages])
    else:
        costs = measure_costs(built, values, keys).model_copy(update=outside_costs(spec))
    schedule = pace.schedule(len(records), events.times_ms)
    run = run_offline(built, values, keys, schedule.due_us, costs)
    labels = Labels(str(setting.pipeline), setting.name, pace, warm_up, schedule)
    result = offline_result(run, schedule.due_us, labels, describe_environment("none, offline"), n_repeated_ids)
    # Once the replay is over, as all other files are.
    if more.save_costs is not None:
        more.save_costs.write_bytes(costs.to_json())
    return result


def outside_costs(spec: PipelineSpec) -> dict[str, float]:
    """Return what nobody can measure without Kafka: the lingers of both producers, and a round trip each."""
    return {
        "path_in_s": 0.001 + ROUND_TRIP_S / 2,
        "linger_s": limits_of(spec).linger_ms / 1000,
        "path_out_s": ROUND_TRIP_S,
    }

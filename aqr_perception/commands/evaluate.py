"""``aqr_perception evaluate``."""

import argparse
from pathlib import Path

from aqr_perception.commands.output import write_json
from aqr_perception.commands.train import add_data


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    evaluate = commands.add_parser(
        "evaluate",
        help="nuScenes detection metrics, with all sensors and with failing ones",
        description="Score a model with nuScenes' own metrics: clean, and under every sensor failure, AQR off and on. "
        "Writes robustness.json, .md and .png.",
    )
    evaluate.add_argument("--model", default="aqr_tiny", help="preset name or .yaml path (default: %(default)s)")
    evaluate.add_argument(
        "--checkpoint", help="weights, or 'random' (default: those shipped for the preset; without any, random ones)"
    )
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    evaluate.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    evaluate.add_argument("--scenarios", nargs="+", metavar="NAME", help="only these, and clean (default: all)")
    evaluate.add_argument("--aqr", nargs="+", default=("off", "auto"), metavar="MODE", help="(default: off auto)")
    evaluate.add_argument("--scenario-seed", type=int, default=0, help="of what fails (default: %(default)s)")
    evaluate.add_argument("--no-history", action="store_true", help="models that remember see single frames")
    evaluate.add_argument(
        "--workers", type=int, default=1, help="processes that share the frames, a thread each (default: %(default)s)"
    )
    evaluate.add_argument("--output", type=Path, default=Path("evaluation"), help="folder (default: %(default)s)")
    evaluate.add_argument("--json", type=Path, help="also write the figures to this file")
    add_data(evaluate.add_argument_group("data"))
    evaluate.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from aqr_perception.data.sequences import HISTORY_FRAMES
    from aqr_perception.data.sources.catalogue import open_data
    from aqr_perception.detector import Detector
    from aqr_perception.evaluation import report, robustness
    from aqr_perception.evaluation.scenarios import SCENARIOS

    unknown = sorted(set(options.scenarios or ()) - set(SCENARIOS))
    if unknown:
        raise ValueError(f"scenarios {', '.join(map(repr, unknown))} do not exist; choose from {', '.join(SCENARIOS)}")
    wanted = {robustness.CLEAN, *(options.scenarios or SCENARIOS)}
    scenarios = {name: scenario for name, scenario in SCENARIOS.items() if name in wanted}
    detector = Detector(options.model, options.checkpoint, options.device, options.precision)
    data = open_data(
        options.data, "val", detector.model.preset, options.data_root, options.frames, options.data_version
    )
    table = robustness.run(
        detector,
        data.frames,
        scenarios,
        options.aqr,
        seed=options.scenario_seed,
        history=0 if options.no_history else HISTORY_FRAMES,
        workers=options.workers,
    )
    print(report.text(table))
    for path in report.write(table, options.output):
        print(path)
    write_json(options.json, table.as_dict())
    return 0

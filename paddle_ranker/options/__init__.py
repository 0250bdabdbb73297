"""Make a command's parser, help and checks from one frozen dataclass.

    @dataclass(frozen=True)
    class EvaluateOptions(Options):
        test_file: str = option(help="file to evaluate on")
        batch_size: int = option(32, help="pairs a batch", minimum=1)

    main = main_of(evaluate, EvaluateOptions, "Evaluate a ranker.")

An option without a default is required. `Options.__post_init__` checks types, ranges and choices and expands file
patterns, so that a call from Python raises the same errors as the command line.

One idea has one name in all commands: `--train`, `--test`, `--input`, `--model`, `--output`. A field that keeps the
published tutorial's name declares the common name as its `name`; the field's own name stays as an alias.
"""

from paddle_ranker.notes import json_text as json_text
from paddle_ranker.notes import note as note
from paddle_ranker.notes import note_at_end as note_at_end
from paddle_ranker.notes import note_counts as note_counts
from paddle_ranker.notes import note_once as note_once
from paddle_ranker.notes import uncounted as uncounted
from paddle_ranker.options.command_run import main_of as main_of
from paddle_ranker.options.command_run import note_without_effect as note_without_effect
from paddle_ranker.options.command_run import run_command as run_command
from paddle_ranker.options.declare import DEVICE_HELP as DEVICE_HELP
from paddle_ranker.options.declare import TAB as TAB
from paddle_ranker.options.declare import ClusterOptions as ClusterOptions
from paddle_ranker.options.declare import DeviceOptions as DeviceOptions
from paddle_ranker.options.declare import DocumentOptions as DocumentOptions
from paddle_ranker.options.declare import LabelOptions as LabelOptions
from paddle_ranker.options.declare import Options as Options
from paddle_ranker.options.declare import RayOptions as RayOptions
from paddle_ranker.options.declare import RowOptions as RowOptions
from paddle_ranker.options.declare import ThreadOptions as ThreadOptions
from paddle_ranker.options.declare import given_of as given_of
from paddle_ranker.options.declare import option as option
from paddle_ranker.options.declare import redeclare as redeclare
from paddle_ranker.options.declare import refuse_given as refuse_given
from paddle_ranker.options.declare import require_ray_device as require_ray_device
from paddle_ranker.options.parser import options_from as options_from
from paddle_ranker.options.parser import parse_options as parse_options

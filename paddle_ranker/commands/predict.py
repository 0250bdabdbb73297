"""Score the pairs of a file (query, title) with a model; the kind of model is read from its folder.

paddle-ranker predict --model checkpoint/best --input pairs.tsv
paddle-ranker predict --model checkpoint/best --input pairs.tsv --top_k 10 --format json
paddle-ranker predict --model checkpoint/best --help
"""

from __future__ import annotations

from paddle_ranker import runtime
from paddle_ranker.commands.command_registry import main_for_kinds
from paddle_ranker.options import main_of
from paddle_ranker.options.declare import ON_CLUSTER
from paddle_ranker.scoring.scoring_options import BY_STORE, TITLES, PrintingOptions


def predict(options: PrintingOptions, names: tuple[str, str] = ("query", "title")) -> None:
    """Print `{'query': ..., 'title': ..., 'pred_prob': ...}` for every pair of the input file, in order.

    With `options.min_probability`, pairs with a lower probability are left out. With `options.topk`, print only the
    best titles of each query, with queries in the order of their first occurrence. With `options.ray`, actors of a
    cluster write the lines into a folder.

    names: the keys of the query and the title in each printed line
    """
    if options.ray is not None:
        pairs, parts = ON_CLUSTER["predict"](options, names)
        print(f"{options.output_file}: {pairs:,} pairs in {parts:,} parts")
        return
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.scoring.by_query import rank_by_query
    from paddle_ranker.scoring.files import above, predict_pairs, printed_pair

    if options.topk is None:
        pairs = predict_pairs(options)
        if options.store is not None:
            pairs = above(options.min_probability, BY_STORE[TITLES](options, options.store))
        scored = ((pair.query, pair.title, probability, pair.recall_score) for pair, probability in pairs)
    else:
        ranked = rank_by_query(options, options.topk)
        scored = ((query, t.title, t.probability, t.recall_score) for query, titles in ranked for t in titles)
    for pair in scored:
        print(printed_pair(*pair, names, options.format))


main = main_for_kinds("predict", main_of(predict, PrintingOptions, __doc__, ends_with_reader=True))

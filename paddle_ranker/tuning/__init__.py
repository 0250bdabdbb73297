"""`paddle-ranker tune`: hyperparameters of a training, searched with Optuna and judged on queries that chose nothing.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `commands.py`:

    COMMANDS    tune

Optuna samples, prunes and stores the trials. A trial is a training, called with its own options: whatever registers
with a `train(options, on_evaluation)` and evaluates on pairs of queries and titles can be tuned.
"""

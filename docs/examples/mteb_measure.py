"""mteb's tasks with a tower and a ranker: python docs/examples/mteb_measure.py TOWER RANKER RETRIEVAL RERANKING"""

import sys

import mteb

from paddle_ranker.integrations.mteb import PaddleRankerCrossEncoder, PaddleRankerEncoder

tower, ranker, retrieval, reranking = sys.argv[1:]  # such as T2Retrieval and T2Reranking of C-MTEB
for model, task in ((PaddleRankerEncoder(tower), retrieval), (PaddleRankerCrossEncoder(ranker), reranking)):
    result = mteb.evaluate(model, [mteb.get_task(task)])
    print(result.model_name, result.task_results[0].task_name, result.task_results[0].get_score())

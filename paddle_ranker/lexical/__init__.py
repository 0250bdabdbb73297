"""Match words, not meaning: the analyser and the corrections of every search by words, and baselines of rankers.

`Analyser` makes the words of texts and queries for indexes (`paddle_ranker.retrieval`), `spelling` corrects them. The
baselines, which score pairs as rankers do, are BM25, lexical features, and a linear model on these features.

baseline = BM25("bigram")
baseline.fit(train_queries, train_titles, train_labels)
scores = baseline.score(queries, titles)
"""
